"""Projections of the reference with and without the CTF of a defocus group."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from naive_backprojection import GaussianPhantom

from nephila.ctf import Optics, ctf_2d
from nephila.errors import InputError
from nephila.geometry import euler_matrix
from nephila.group_projections import with_group_ctf
from nephila.projection import FourierProjector
from nephila.references import reference_views

OPTICS = Optics(300.0, 2.7, 0.1)


@pytest.mark.parametrize("n", [32, 33])
def test_views_of_a_group_are_projections_times_its_ctf(n: int) -> None:
    volume = GaussianPhantom.random(n, 40).volume(n).astype(np.float32)
    directions, plain = reference_views(volume, 30.0)
    group = pd.DataFrame({"nphGroupDefocusU": [14000.0] * 3, "nphGroupDefocusV": 13000.0, "nphGroupDefocusAngle": 25.0})
    found = with_group_ctf(plain, group, 4.0, OPTICS)
    ctf = ctf_2d(n, 4.0, *(np.array([value]) for value in (14000.0, 13000.0, 25.0)), OPTICS)
    matrices = euler_matrix(directions["rlnAngleRot"], directions["rlnAngleTilt"], directions["rlnAnglePsi"])
    expected = FourierProjector.from_volume(volume).project(matrices, ctf=np.repeat(ctf, len(matrices), axis=0))
    assert found.shape == plain.shape and found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(found - plain).max() > 0.1 * np.abs(plain).max()


def test_a_group_without_particles_has_no_ctf() -> None:
    empty = pd.DataFrame({name: pd.Series(dtype=float) for name in ("nphGroupDefocusU", "nphGroupDefocusV")})
    with pytest.raises(InputError, match="no particles"):
        with_group_ctf(np.zeros((2, 8, 8)), empty, 4.0, OPTICS)
