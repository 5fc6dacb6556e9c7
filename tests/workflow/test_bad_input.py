"""Input that cannot be used: one clear line that names the file or key, no traceback, nothing half-written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import workflow_runs as runs

from nephila.io.mrc import read_volume, write_stack, write_volume
from nephila.io.tables import read_table, write_blocks, write_table

LIST = "results/project/micrographs.star"
REFERENCE = "results/project/reference_volume.mrc"
PICKS = "results/particles/coordinates.star"
Change = Callable[[Path], object]


def refused(run: runs.Run, project: Path, *parts: str) -> None:
    """The run failed with exactly one line of ours, which holds these parts, and left nothing half-written."""
    lines = [line for line in run.output.splitlines() if line.startswith("nephila: ")]
    assert run.status != 0, run.output
    assert len(lines) == 1, run.output
    for part in parts:
        assert part in lines[0]
    assert "Traceback" not in run.output
    assert not (project / "results").exists() or runs.partial_files(project) == []


def change_header(name: str, **changes: float) -> Change:
    def change(project: Path) -> None:
        with mrcfile.open(project / "micrographs" / name, "r+") as file:
            file.voxel_size = changes["pixel_size"]

    return change


def crop(name: str) -> Change:
    def change(project: Path) -> None:
        path = project / "micrographs" / name
        with mrcfile.open(path) as file:
            image, size = file.data[:500].copy(), file.voxel_size.x
        with mrcfile.new(path, image, overwrite=True) as file:
            file.voxel_size = size

    return change


def truncate(name: str) -> Change:
    def change(project: Path) -> None:
        path = project / "micrographs" / name
        path.write_bytes(path.read_bytes()[:300000])

    return change


def without_micrographs(project: Path) -> None:
    shutil.rmtree(project / "micrographs")
    (project / "micrographs").mkdir()


def settings(**changes: dict[str, object]) -> Change:
    return lambda project: runs.configure(project, changes)


def small_reference(project: Path) -> None:
    volume, size = read_volume(project / "reference.mrc")
    write_volume(project / "reference.mrc", volume[20:40, 20:40, 20:40].copy(), size)


def flat_reference(project: Path) -> None:
    write_volume(project / "reference.mrc", np.ones((60, 60, 60), np.float32), 4.0)


def relabelled_reference(project: Path) -> None:
    """What RELION's PostProcess writes with another pixel size: the same voxels, a new header, no mark."""
    volume, _ = read_volume(project / "reference.mrc")
    write_volume(project / "reference.mrc", volume, 3.92)


def edited_pixel_size(project: Path) -> None:
    """Particles whose stack says 1.00 A, and a table and a configuration that were edited to 0.98."""
    write_stack(project / "given.mrcs", np.random.default_rng(1).normal(size=(4, 60, 60)), 1.0)
    optics = {
        "rlnOpticsGroup": 1, "rlnOpticsGroupName": "one", "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1, "rlnImagePixelSize": 0.98, "rlnImageSize": 60,
    }  # fmt: skip
    particles = {
        "rlnImageName": [f"{i}@given.mrcs" for i in (1, 2, 3, 4)], "rlnMicrographName": "a.mrc", "rlnOpticsGroup": 1,
        "rlnDefocusU": 12000.0, "rlnDefocusV": 12000.0, "rlnDefocusAngle": 0.0,
    }  # fmt: skip
    blocks = {
        "optics": pd.DataFrame({name: [value] for name, value in optics.items()}),
        "particles": pd.DataFrame(particles),
    }
    write_blocks(project / "given.star", blocks)
    changes = {"input": {"particles": "given.star", "pixel_size": 0.98}, "particle": {"box": 60, "diameter": 40.0}}
    runs.configure(project, changes)


def coordinates(**columns: object) -> Change:
    def change(project: Path) -> None:
        (project / "picks.star").unlink(missing_ok=True)
        write_table(project / "picks.star", pd.DataFrame(columns), block="particles")
        runs.configure(project, {"input": {"coordinates": "picks.star"}})

    return change


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (settings(refinement={"iteratons": 3}), ["refinement.iteratons", "did you mean iterations"]),
        (settings(particle={"box": 31}), ["particle.box", "31 is odd"]),
        (without_micrographs, ["input.micrographs", "'micrographs/*.mrc'", "empty"]),
        (lambda project: (project / "reference.mrc").unlink(), ["reference.volume", "no such file", "reference.mrc"]),
        (settings(input={"particles": "lost.star"}), ["input.particles", "lost.star"]),
        (settings(refinement={"mask": {"file": "lost.mrc"}}), ["refinement.mask.file", "lost.mrc"]),
    ],
)
def test_what_is_wrong_before_anything_runs(code: Path, fresh_project: Path, change: Change, parts: list[str]) -> None:
    change(fresh_project)
    run = runs.snakemake(code, fresh_project)
    refused(run, fresh_project, *parts)
    assert not (fresh_project / "results").exists()


@pytest.mark.parametrize(
    ("target", "change", "parts"),
    [
        (LIST, truncate("mic_0003.mrc"), ["micrographs/mic_0003.mrc", "300000 bytes"]),
        (LIST, crop("mic_0002.mrc"), ["micrographs/mic_0002.mrc", "640 x 500 px", "640 x 640"]),
        (LIST, change_header("mic_0005.mrc", pixel_size=4.4), ["micrographs/mic_0005.mrc", "4.4 A", "most have 4 A"]),
        (LIST, settings(input={"pixel_size": 3.5}), ["4 A", "input.pixel_size is 3.5 A"]),
        (LIST, settings(particle={"box": 700}), ["particle.box", "700", "640"]),
        (REFERENCE, small_reference, ["reference.mrc", "80 A", "particle.diameter (160 A)"]),
        (REFERENCE, settings(reference={"pixel_size": 60.0}), ["reference.mrc", "3600 A wide", "reference.pixel_size"]),
        (REFERENCE, flat_reference, ["reference.mrc", "every voxel is 1"]),
        (
            REFERENCE,
            relabelled_reference,
            ["reference.mrc: 60 px of 3.92 A", "60 px of 4 A", "3.8416 A", "reference.sampling: resample"],
        ),
        (PICKS, edited_pixel_size, ["given.star", "_rlnImagePixelSize is 0.98", "given.mrcs has 1", "never edit"]),
        (
            PICKS,
            coordinates(rlnMicrographName=["mic_0001.mrc"], rlnCoordinateX=[5.0]),
            ["picks.star", "_rlnCoordinateY"],
        ),
        (
            PICKS,
            coordinates(rlnMicrographName=["mic_0009.mrc"], rlnCoordinateX=[5.0], rlnCoordinateY=[5.0]),
            ["picks.star", "row 1", "mic_0009.mrc"],
        ),
    ],
)
def test_what_is_found_when_it_is_read(
    code: Path, fresh_project: Path, target: str, change: Change, parts: list[str]
) -> None:
    change(fresh_project)
    refused(runs.snakemake(code, fresh_project, target), fresh_project, *parts)
    assert not (fresh_project / target).exists()


def rename(column: str, old: object, new: object) -> dict[str, object]:
    return {column: lambda table: table[column].where(table[column] != old, new)}


def edit(name: str, source: str, **changes: object) -> Change:
    return lambda project: runs.edit_table(project, name, f"results/{source}", **changes)


def drop_line(name: str, source: str, text: str) -> Change:
    def change(project: Path) -> None:
        runs.edit_table(project, name, f"results/{source}")
        path = project / "edits" / f"{name}.star"
        path.write_text(
            "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith(text))
        )

    return change


def drop_column(project: Path) -> None:
    table = read_table(project / "results" / "ctf" / "def_sort.star").drop(columns="nphDefocusGroup")
    write_table(project / "edits" / "def_sort.star", table, block="def_sort")


def drop_every_particle(project: Path) -> None:
    runs.edit_table(project, "good", "results/particles/good.proposed.star", nphKeep=0)


def small_mask(project: Path) -> None:
    write_volume(project / "mask.mrc", np.ones((40, 40, 40), np.float32), 4.0)
    runs.configure(project, {"refinement": {"mask": {"file": "mask.mrc"}}})


SORT, THRESH = "ctf/def_sort.star", "averages/thresh.star"
UNKNOWN = rename("rlnMicrographName", "micrographs/mic_0004.mrc", "micrographs/mic_0040.mrc")


@pytest.mark.parametrize(
    ("target", "change", "parts"),
    [
        ("all", edit("def_sort", SORT, **UNKNOWN), ["edits/def_sort.star", "mic_0040.mrc"]),
        ("all", drop_line("def_sort", SORT, "micrographs/mic_0005"), ["edits/def_sort.star", "mic_0005.mrc", "missing"]),
        ("all", edit("def_sort", SORT, nphDefocusGroup=0), ["edits/def_sort.star", "defocus group 0"]),
        ("all", drop_column, ["edits/def_sort.star", "_nphDefocusGroup"]),
        ("all", edit("sel_micrograph", "ctf/sel_micrograph.star", **UNKNOWN), ["edits/sel_micrograph.star", "mic_0040.mrc"]),
        ("all", edit("sel_micrograph", "ctf/sel_micrograph.star", nphKeep=0), ["edits/sel_micrograph.star", "no micrograph"]),
        (f"results/{THRESH}", edit("thresh", THRESH, **rename("nphDefocusGroup", 2, 9)), ["edits/thresh.star", "group 9"]),
        ("all", edit("defocus", "ctf/defocus.star", **UNKNOWN), ["edits/defocus.star", "mic_0040.mrc"]),
        (f"results/{THRESH}", edit("thresh", THRESH, nphThreshold=2.0), ["edits/thresh.star", "no particle in any group"]),
        ("all", edit("best_per_view", THRESH, nphAtMost=lambda t: 7 - 5 * t["nphDefocusGroup"]), ["best_per_view.star", "row 2"]),
        ("results/particles/ngood.star", drop_every_particle, ["no particles are left", "edits/good.star"]),
        ("results/refinement/iter_00/model.star", small_mask, ["mask.mrc", "40 px", "60 px"]),
    ],
)  # fmt: skip
def test_edits_and_settings_of_a_finished_project(
    code: Path, project: Path, target: str, change: Change, parts: list[str]
) -> None:
    change(project)
    before = {path: path.stat().st_mtime_ns for path in (project / "edits").glob("*")}
    refused(runs.snakemake(code, project, target), project, *parts)
    assert {path: path.stat().st_mtime_ns for path in (project / "edits").glob("*")} == before


def test_micrographs_without_usable_pixels_are_rows_with_a_reason(code: Path, fresh_project: Path) -> None:
    """NaN pixels in the first, nothing but one value in the fifth: the run goes on with the other four."""
    for name, value in (("mic_0001.mrc", np.nan), ("mic_0005.mrc", 7.0)):
        path = fresh_project / "micrographs" / name
        with mrcfile.open(path) as file:
            image, size = file.data.astype(np.float32), file.voxel_size.x
        image[100:120] = value
        if value == 7.0:
            image[:] = value
        with mrcfile.new(path, image, overwrite=True) as file:
            file.voxel_size = size
    run = runs.finished(runs.snakemake(code, fresh_project, "particles", "defocus_groups"))
    table = read_table(fresh_project / "results" / "ctf" / "micrographs.star", kind="defocus").set_index(
        "rlnMicrographName"
    )
    assert table["nphKeep"].tolist() == [0, 1, 1, 1, 0, 1]
    assert "NaN" in table.loc["micrographs/mic_0001.mrc", "nphReason"]
    assert "nphReason" in table and table.loc["micrographs/mic_0005.mrc", "nphReason"] != "none"
    log = (fresh_project / "logs" / "merge_ctf.log").read_text()
    assert len([line for line in log.splitlines() if "mic_0001.mrc" in line and "WARNING" in line]) == 1
    good = read_table(fresh_project / "results" / "particles" / "ngood.star", kind="particles")
    assert sorted({name[-8:-4] for name in good["rlnMicrographName"]}) == ["0002", "0003", "0004", "0006"]
    groups = read_table(fresh_project / "results" / "ctf" / "def_sort.star", kind="def_sort")
    assert len(groups) == 4
    assert "Traceback" not in run.output


def test_a_group_without_particles_is_listed_with_none(code: Path, project: Path) -> None:
    table = read_table(project / "results" / "particles" / "good.star", kind="good")
    mine = table[table["rlnMicrographName"] == "micrographs/mic_0002.mrc"]
    write_table(project / "edits" / "good.star", mine.assign(nphKeep=0), kind="good")
    runs.finished(runs.snakemake(code, project, "reconstruction"))
    for path in ("alignment/sel_group.star", "averages/sel_group_cclim.star"):
        counts = read_table(project / "results" / path, kind="sel_group")["nphParticles"].tolist()
        assert counts[2] == 0 and min(counts[:2]) > 0
    assert "WARNING defocus group 3 has no particles" in (project / "logs" / "sel_by_group.log").read_text()
    volume, _ = read_volume(project / "results" / "reconstruction" / "vol01.mrc")
    assert np.isfinite(volume).all() and volume.std() > 0
