"""Whole runs from particles of two data sets of different pixel size and box, alone and together, as merge-advice makes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import workflow_runs as runs
import yaml

from nephila.ctf import Optics, ctf_2d
from nephila.fsc import masked_fsc, resolution_at
from nephila.geometry import euler_matrix
from nephila.io.mrc import read_volume, write_stack, write_volume
from nephila.io.tables import read_blocks, read_table, write_blocks
from nephila.projection import PRECISE_PADDING, FourierProjector
from nephila.references import filter_reference
from nephila.simulate.density import density
from nephila.simulate.phantom import build_phantom

PIXEL, BOX, DIAMETER = 2.0, 56, 80.0
OPTICS = Optics(300.0, 2.7, 0.1)
SETS = {"fine": (2.0, 56), "coarse": (2.3, 50)}
ROWS, PER_MICROGRAPH = 240, 40


def write_set(folder: Path, name: str, seed: int) -> None:
    """Noisy projections of the phantom, dark protein, with RELION's table of them (no poses)."""
    pixel, n = SETS[name]
    rng = np.random.default_rng(seed)
    rot, psi = rng.uniform(0, 360, (2, ROWS))
    matrices = euler_matrix(rot, np.degrees(np.arccos(rng.uniform(-1, 1, ROWS))), psi)
    shifts = rng.uniform(-4, 4, (ROWS, 2)) / pixel
    defocus = np.repeat(rng.uniform(9000, 18000, ROWS // PER_MICROGRAPH), PER_MICROGRAPH).round(1)
    projector = FourierProjector.from_volume(density(build_phantom(DIAMETER, 2), n, pixel, 60.0), PRECISE_PADDING)
    clean = projector.project(matrices, shifts, ctf_2d(n, pixel, defocus, defocus, np.zeros(ROWS), OPTICS))
    noisy = clean * np.sqrt(0.15 / clean.var()) + rng.standard_normal(clean.shape)
    write_stack(folder / f"{name}.mrcs", -noisy, pixel)
    optics = {
        "rlnOpticsGroup": 1, "rlnOpticsGroupName": name, "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1, "rlnImagePixelSize": pixel, "rlnMicrographOriginalPixelSize": pixel, "rlnImageSize": n,
    }  # fmt: skip
    particles = {
        "rlnImageName": [f"{i + 1:06d}@{name}.mrcs" for i in range(ROWS)],
        "rlnMicrographName": [f"{name}_{i // PER_MICROGRAPH}.mrc" for i in range(ROWS)],
        "rlnOpticsGroup": 1, "rlnDefocusU": defocus, "rlnDefocusV": defocus, "rlnDefocusAngle": 0.0,
    }  # fmt: skip
    blocks = {
        "optics": pd.DataFrame({key: [value] for key, value in optics.items()}),
        "particles": pd.DataFrame(particles),
    }
    write_blocks(folder / f"{name}.star", blocks)


def write_project(folder: Path) -> np.ndarray:
    """A project of both sets; returns the true map on the grid of the reference."""
    folder.mkdir()
    for seed, name in enumerate(SETS, 1):
        write_set(folder, name, seed)
    true = density(build_phantom(DIAMETER, 2), BOX, PIXEL, 60.0)
    write_volume(folder / "reference.mrc", filter_reference(true, PIXEL, 25.0), PIXEL)
    settings = {
        "input": {"particles": [f"{name}.star" for name in SETS], "optics_groups": "several", "pixel_size": PIXEL},
        "particle": {"diameter": DIAMETER, "box": BOX},
        "reference": {"resolution": 25.0},
        "refinement": {"iterations": 3},
        "jobs": {"micrographs_per_batch": 6},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return true


def true_resolution(project: Path, true: np.ndarray) -> float:
    """Resolution (A) at which the map's FSC with the truth falls below 0.5."""
    results = project / "results" / "refinement"
    volume, pixel_size = read_volume(results / "map.mrc")
    assert volume.shape == true.shape and pixel_size == pytest.approx(PIXEL, abs=1e-6)
    curve = masked_fsc(volume, true, read_volume(results / "mask.mrc")[0]).masked
    return resolution_at(curve, 0.5, BOX, PIXEL, interpolate=True) or 99.0


@pytest.mark.slow
def test_merge_advice_refines_sets_of_2_0_and_2_3_a_alone_and_together(code: Path, tmp_path: Path) -> None:
    """Runs of the whole workflow from one config: the map of both has the reference's grid, and is finer than the better one's."""
    project = tmp_path / "both"
    true = write_project(project)
    # -P: the package of the checkout, not that of the folder in which the tests are run
    command = [sys.executable, "-P", "-m", "nephila", "merge-advice", str(project), "-c", "2"]
    runs.finished(runs.call(command, code))
    advice = read_table(project / "merge" / "advice.star", block="merge_advice")
    assert advice["nphDatasets"].tolist()[:2] == ["fine", "coarse"] and len(advice) == 3
    assert advice["nphAdvice"].tolist() == ["alone", "alone", "gains"]
    assert advice["nphResolution"].iloc[2] < 0.99 * advice["nphResolution"].iloc[:2].min()
    found = {name: true_resolution(project / "merge" / name, true) for name in advice["nphDatasets"]}
    joined = found.pop(advice["nphDatasets"].iloc[2])
    assert joined < min(found.values()) - 0.2, (joined, found)
    last = project / "merge" / advice["nphDatasets"].iloc[2]
    facts = json.loads((last / "results" / "summary.json").read_text())
    assert facts["pixel_size"] == PIXEL and facts["box"] == BOX
    optics = read_blocks(last / "results" / "refinement" / "particles.star")["optics"]
    assert optics["rlnImagePixelSize"].tolist() == [2.0, 2.3] and optics["rlnImageSize"].tolist() == [56, 50]
    ledger = read_blocks(last / "results" / "refinement" / "ledger.star")["ledger"].set_index("nphWhat")[
        "nphNominalPixelSize"
    ]
    assert ledger["optics group coarse"] == 2.3 and ledger["map on the grid of the reference"] == PIXEL
    # what has run is not run again
    again = runs.finished(runs.call(command, code))
    assert again.output.count("Nothing to be done") == 3 and not again.jobs
