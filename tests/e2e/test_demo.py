"""The demo's chain from simulated micrographs to the refined map, measured against the truth."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nephila.fsc import fourier_shell_correlation, resolution_at
from nephila.io.mrc import read_volume
from nephila.io.tables import read_blocks


def tutorial_commands(document: Path) -> list[str]:
    """The commands that a reader of the tutorial types, in order."""
    blocks = re.findall(r"^```console\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def printed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command of the tutorial printed, run in an empty folder; the folder under the name "cwd"."""
    folder = tmp_path_factory.mktemp("tutorial")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    outputs = {"cwd": str(folder)}
    for command in tutorial_commands(repository / "docs" / "tutorial.md"):
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        outputs[command] = done.stdout + done.stderr
    return outputs


@pytest.fixture(scope="module")
def demo(printed: dict[str, str]) -> Path:
    """The tutorial's project, run to the end."""
    return Path(printed["cwd"]) / "molecule"


def test_the_tutorial_does_what_it_says(printed: dict[str, str], demo: Path) -> None:
    after_first_edit = printed["nephila run molecule -n picks"]
    assert "sel_micrograph" in after_first_edit and "ctffind" not in after_first_edit
    finished = printed["nephila run molecule"]
    assert "resolution" in finished and "map_filtered.mrc" in finished
    in_use = read_blocks(demo / "results" / "ctf" / "sel_micrograph.star")["sel_micrograph"]
    assert in_use.loc[in_use["nphKeep"] == 0, "rlnMicrographName"].tolist() == ["micrographs/mic_0007.mrc"]


@pytest.fixture(scope="module")
def summary(demo: Path) -> dict:
    """The demo's summary.json."""
    return json.loads((demo / "results" / "summary.json").read_text(encoding="utf-8"))


def test_resolution_is_near_what_the_true_poses_give(summary: dict) -> None:
    assert summary["truth"]["ratio_to_true_poses"] <= 1.15


def test_half_maps_do_not_claim_more_than_the_truth_confirms(summary: dict) -> None:
    # FSC 0.143 between halves and 0.5 with the truth state the same resolution (Rosenthal & Henderson 2003)
    claimed, true = summary["resolution"]["fsc_0143"], summary["truth"]["resolution_05"]
    assert claimed > 0.88 * true


def test_micrographs_and_particles_are_kept(summary: dict) -> None:
    assert summary["micrographs"]["kept"] >= 22
    assert summary["truth"]["defocus"]["median_angst"] < 60
    assert summary["truth"]["poses"]["share_true_particles"] > 0.9


def test_starting_jobs_costs_less_than_computing(summary: dict) -> None:
    total = summary["cost"]["total"]
    assert total["startup_cpu_seconds"] < 0.5 * total["cpu_seconds"]


def test_memory_stays_below_six_gigabytes(summary: dict) -> None:
    assert summary["cost"]["total"]["peak_memory_mb"] < 6000


def test_stable_outputs(demo: Path) -> None:
    results = demo / "results"
    for name in (
        "summary.json", "report.html", "ctf/micrographs.star", "particles/coordinates.star", "refinement/particles.star",
        "refinement/map.mrc", "refinement/map_filtered.mrc", "refinement/half1.mrc", "refinement/half2.mrc", "refinement/fsc.star",
        "refinement/fsc_truth.star", "refinement/iterations.star",
    ):  # fmt: skip
        assert (results / name).is_file(), name
    _, pixel_size = read_volume(results / "refinement" / "map.mrc")
    _, truth_pixel_size = read_volume(demo / "truth" / "map.mrc")
    assert pixel_size == pytest.approx(truth_pixel_size, rel=1e-5)
    blocks = read_blocks(results / "refinement" / "particles.star")
    assert list(blocks) == ["optics", "particles"]
    assert set(blocks["particles"]["rlnRandomSubset"]) == {1, 2}


def test_the_report_is_one_small_page_that_states_the_resolution(demo: Path, summary: dict) -> None:
    page = (demo / "results" / "report.html").read_text(encoding="utf-8")
    assert len(page) < 15e6 and page.count("<img") > 40
    assert f"{summary['resolution']['fsc_0143']:.2f}\u00a0Å" in page
    record = json.loads((demo / "logs" / "report.json").read_text(encoding="utf-8"))
    assert record["cpu_seconds"] < 5


def test_half_maps_agree_with_the_stated_resolution(demo: Path, summary: dict) -> None:
    half1, pixel_size = read_volume(demo / "results" / "refinement" / "half1.mrc")
    half2, _ = read_volume(demo / "results" / "refinement" / "half2.mrc")
    fsc = fourier_shell_correlation(half1, half2)
    stated = summary["resolution"]["unmasked_0143"]
    assert resolution_at(fsc, 0.143, len(half1), pixel_size) == pytest.approx(stated, abs=0.01)
    assert np.isfinite(fsc).all()


@pytest.mark.relion
def test_relion_reconstructs_the_same_map_from_the_particle_table(demo: Path, summary: dict, tmp_path: Path) -> None:
    import shutil

    if shutil.which("relion_reconstruct") is None:
        pytest.skip("RELION is not installed")
    from nephila.masks import spherical_mask

    out = tmp_path / "relion.mrc"
    subprocess.run(
        ["relion_reconstruct", "--i", "results/refinement/particles.star", "--ctf", "--o", str(out)],
        cwd=demo, check=True, capture_output=True,
    )  # fmt: skip
    ours, pixel_size = read_volume(demo / "results" / "refinement" / "map.mrc")
    theirs, their_pixel_size = read_volume(out)
    assert their_pixel_size == pytest.approx(pixel_size, rel=1e-5)
    n = len(ours)
    mask = spherical_mask(n, 0.35 * n, 0.05 * n)
    fsc = fourier_shell_correlation(ours * mask, theirs * mask)
    last = int(n * pixel_size / summary["resolution"]["fsc_0143"])
    assert fsc[1 : last + 1].min() > 0.95
