"""Particles of two pixel sizes and boxes, joined: the same table through relion_reconstruct."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from nephila.cli import main
from nephila.ctf import Optics, ctf_2d
from nephila.finishing import finish
from nephila.fsc import fourier_shell_correlation
from nephila.geometry import euler_matrix
from nephila.io.mrc import read_image, write_stack
from nephila.io.tables import read_blocks, write_blocks
from nephila.masks import spherical_mask
from nephila.particle_sums import backproject_table
from nephila.projection import PRECISE_PADDING, FourierProjector
from nephila.sampling import with_sampling
from nephila.simulate.density import density
from nephila.simulate.phantom import build_phantom

pytestmark = pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="RELION is not installed")

OPTICS = Optics(300.0, 2.7, 0.1)
SETS = {"first": (56, 2.0), "second": (50, 2.3)}
ROWS = 300


def write_set(name: str, box: int, pixel: float, seed: int) -> None:
    """Projections with CTF, without noise, and their true poses, in the current folder."""
    rng = np.random.default_rng(seed)
    angles = np.stack(
        [rng.uniform(-180, 180, ROWS), np.degrees(np.arccos(rng.uniform(-1, 1, ROWS))), rng.uniform(-180, 180, ROWS)]
    )
    angles, shifts = angles.round(3), (rng.uniform(-3, 3, (ROWS, 2)) * pixel).round(3)
    defocus = rng.uniform(9000, 18000, ROWS).round(1)
    projector = FourierProjector.from_volume(density(build_phantom(80.0, 2), box, pixel, 80.0), PRECISE_PADDING)
    planes = ctf_2d(box, pixel, defocus, defocus - 300, np.full(ROWS, 20.0), OPTICS)
    seen = projector.project(euler_matrix(*angles), shifts / pixel, planes)
    write_stack(f"{name}.mrcs", seen / seen.std(), pixel)
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@{name}.mrcs" for i in range(ROWS)],
            "rlnMicrographName": f"{name}.mrc", "rlnOpticsGroup": 1,
            "rlnAngleRot": angles[0], "rlnAngleTilt": angles[1], "rlnAnglePsi": angles[2],
            "rlnOriginXAngst": shifts[:, 0], "rlnOriginYAngst": shifts[:, 1],
            "rlnDefocusU": defocus, "rlnDefocusV": defocus - 300, "rlnDefocusAngle": 20.0,
        }
    )  # fmt: skip
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": [name], "rlnOpticsGroup": 1, "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1, "rlnImagePixelSize": pixel, "rlnMicrographOriginalPixelSize": pixel,
            "rlnImageSize": box, "rlnImageDimensionality": 2,
        }
    )  # fmt: skip
    write_blocks(f"{name}.star", {"optics": optics, "particles": particles})


def test_the_map_of_two_samplings_is_relions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, (name, (box, pixel)) in enumerate(SETS.items()):
        write_set(name, box, pixel, seed)
    assert CliRunner().invoke(main, ["join", "first.star", "second.star", "-o", "both.star"]).exit_code == 0
    command = ["relion_reconstruct", "--i", "both.star", "--ctf", "--o", "relion.mrc"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    theirs, pixel_size = read_image("relion.mrc")
    box, pixel = SETS["first"]
    assert theirs.shape == (box,) * 3 and pixel_size == pytest.approx(pixel, abs=1e-3)
    blocks = read_blocks("both.star")
    table = with_sampling(blocks["particles"], blocks["optics"], box, pixel)
    ours = finish(backproject_table(table, pixel, box, OPTICS, "particle"), "C1", 1e-3)
    mask = spherical_mask(box, 22, 4)
    true = density(build_phantom(80.0, 2), box, pixel, 80.0)
    last = round(box * pixel / 6.0)
    assert fourier_shell_correlation(ours * mask, theirs * mask)[1:last].min() > 0.98
    mine, his = (fourier_shell_correlation(volume * mask, true * mask)[1:last] for volume in (ours, theirs))
    assert mine.min() > 0.98 and mine.mean() > his.mean() - 0.002
