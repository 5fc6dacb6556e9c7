"""Particles with beam tilt, Zernike terms and magnification: the same table through relion_reconstruct."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nephila.ctf import Optics
from nephila.finishing import finish
from nephila.fsc import fourier_shell_correlation
from nephila.io.mrc import read_image
from nephila.io.tables import read_blocks
from nephila.masks import spherical_mask
from nephila.optics_groups import OpticsGroup, ParticleSet, write_particle_set
from nephila.optics_refinement.magnification import transform_defocus
from nephila.particle_sums import backproject_table
from nephila.sampling import with_sampling, without_aberrations
from nephila.simulate.aberrated import GroupTruth, simulate_aberrated

pytestmark = pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="RELION is not installed")

BOX, PIXEL = 48, 1.5
EFFECTS: dict[str, dict[str, Any]] = {
    "beam_tilt": {"beam_tilt": (1.5, -1.0)},
    "trefoil": {"odd": (0.0, 0.0, 120.0, 0.0, 0.0, -80.0)},
    "even": {"even": (0.2, 20.0, 0.0, -15.0, 0.0, 0.0, 15.0, 0.0, 20.0)},
    "magnification": {"magnification": (1.04, 0.015, -0.03, 0.96)},
}
EFFECTS["all"] = {key: value for effect in EFFECTS.values() for key, value in effect.items()}


@pytest.mark.parametrize("effect", list(EFFECTS))
def test_the_map_of_particles_with_aberrations_is_relions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effect: str
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = OpticsGroup(1, "one", 300.0, 2.7, 0.1, PIXEL, BOX, PIXEL, other={"rlnImageDimensionality": 2})
    truth = GroupTruth(plain, PIXEL, **EFFECTS[effect])
    made = simulate_aberrated([truth], 400, 20.0, box=BOX, b_factor=40.0, seed=5)
    made.write(tmp_path, PIXEL, PIXEL)
    matrix = np.array(truth.magnification).reshape(2, 2)
    table = transform_defocus(made.particles.particles, np.arange(400), matrix)
    group = replace(
        plain,
        even_zernike=truth.even,
        odd_zernike=truth.odd,
        magnification=truth.magnification,
        beam_tilt=truth.beam_tilt,
    )
    write_particle_set("aberrated.star", ParticleSet((group,), table))
    command = ["relion_reconstruct", "--i", "aberrated.star", "--ctf", "--o", "relion.mrc"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    theirs, _ = read_image("relion.mrc")
    blocks = read_blocks("aberrated.star")
    rows = with_sampling(blocks["particles"], blocks["optics"], BOX, PIXEL)
    optics = Optics(300.0, 2.7, 0.1)
    mask = spherical_mask(BOX, 17, 4)

    def agreement(volume: np.ndarray, other: np.ndarray) -> np.ndarray:
        return fourier_shell_correlation(volume * mask, other * mask)[1:20]

    ours = finish(backproject_table(rows, PIXEL, BOX, optics, "particle"), "C1", 1e-3)
    true = made.target.volume(BOX, PIXEL)
    assert agreement(ours, theirs).min() > 0.98
    assert agreement(ours, true).min() > agreement(theirs, true).min() - 0.005
    ignored = finish(backproject_table(without_aberrations(rows), PIXEL, BOX, optics, "particle"), "C1", 1e-3)
    assert agreement(ignored, theirs)[-5:].mean() < 0.9
