"""Micrographs that a detector spoilt, of which nothing is picked, or for which the settings are absurd: the others go on."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import workflow_runs as runs

from nephila.io.tables import read_table

NGOOD = "results/particles/ngood.star"


def spoil(project: Path, number: int, change) -> str:
    """Change the pixels of a micrograph, raised to a mean of 10 deviations as counts have; its name in the project."""
    name = f"micrographs/mic_{number:04d}.mrc"
    with mrcfile.open(project / name, "r+") as file:
        image = file.data.astype(np.float64)
        file.set_data(change(image - image.mean() + 10 * image.std()).astype(np.float32))
    return name


def stripes(image):
    return image * np.random.default_rng(1).normal(1, 0.03, image.shape[1])


def dead_columns(image):
    image[:, [100, 101, 333]] = 0
    return image


def hot_pixels(image):
    y, x = np.random.default_rng(2).integers(0, 640, (2, 200))
    image[y, x] = 1e6
    return image


def test_spoilt_micrographs_are_picked_and_the_dead_one_is_a_row_with_its_reason(
    code: Path, fresh_project: Path
) -> None:
    mended = [spoil(fresh_project, n, f) for n, f in ((1, stripes), (2, dead_columns), (3, hot_pixels))]
    dead = spoil(fresh_project, 4, lambda image: np.full_like(image, 7))
    cut = spoil(fresh_project, 5, lambda image: np.roll(image, -31, axis=1))  # one particle is now 12 px from the edge
    runs.finished(runs.snakemake(code, fresh_project, NGOOD))
    counts = read_table(fresh_project / "results/particles/picks_by_micrograph.star").set_index("rlnMicrographName")
    good = read_table(fresh_project / NGOOD, kind="particles")["rlnMicrographName"].value_counts()
    for name in mended:
        assert 10 <= counts.loc[name, "nphPicked"] <= 22, counts
        assert good[name] >= 8
    assert counts.loc[dead, "nphPicked"] == 0 and "every pixel is 7" in counts.loc[dead, "nphReason"]
    fits = read_table(fresh_project / "results/ctf/micrographs.star", kind="defocus").set_index("rlnMicrographName")
    assert "every pixel is 7" in fits.loc[dead, "nphReason"] and (fits.loc[mended, "rlnDefocusU"] > 5000).all()
    candidates = read_table(fresh_project / "results/particles/candidates.star", kind="coordinates")
    assert (candidates.loc[candidates["nphAtEdge"] > 0, "nphKeep"] == 0).all()
    at_edge = candidates[candidates["nphReason"] == "too close to the edge of the micrograph"]
    off = np.hypot(at_edge["rlnCoordinateX"] - 12, at_edge["rlnCoordinateY"] - 434)
    assert (off[at_edge["rlnMicrographName"] == cut] < 10).any()  # a quarter of the diameter
    every_pick_has_its_reason(fresh_project)


def every_pick_has_its_reason(project: Path) -> None:
    keys = ["rlnMicrographName", "nphParticleNumber"]
    folder = project / "results" / "particles"
    picked, good = (read_table(folder / f"{name}.star", block="particles")[keys] for name in ("coordinates", "ngood"))
    left_out = read_table(folder / "left_out.star", block="left_out")
    assert "none" not in set(left_out["nphReason"])
    both = sorted(map(tuple, [*good.to_numpy(), *left_out[keys].to_numpy()]))
    assert both == sorted(map(tuple, picked.to_numpy()))


def test_nothing_picked_at_all_ends_in_one_line(code: Path, fresh_project: Path) -> None:
    runs.configure(fresh_project, {"picking": {"threshold": 1e6}})
    run = runs.snakemake(code, fresh_project, NGOOD)
    lines = [line for line in run.output.splitlines() if line.startswith("nephila: ")]
    assert run.status != 0 and len(lines) == 1, run.output
    assert "no particles are left" in lines[0] and "picking.threshold" in lines[0]
    counts = read_table(fresh_project / "results/particles/picks_by_micrograph.star")
    assert counts["nphReason"].str.contains("score below the threshold").all()


def test_an_absurd_diameter_is_named_before_anything_runs(code: Path, fresh_project: Path) -> None:
    runs.configure(fresh_project, {"particle": {"diameter": 1e5}})
    run = runs.snakemake(code, fresh_project, NGOOD)
    lines = [line for line in run.output.splitlines() if line.startswith("nephila: ")]
    assert run.status != 0 and len(lines) == 1, run.output
    assert "particle" in lines[0]
    assert not (fresh_project / NGOOD).exists()
