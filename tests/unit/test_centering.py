"""Centre of gravity and shifts."""

from __future__ import annotations

import numpy as np
import pytest
from naive_backprojection import GaussianPhantom

from nephila.centering import centre_of_gravity, centre_volume, shift_volume
from nephila.errors import InputError


def one_gaussian(n: int, position: tuple[float, float, float]) -> np.ndarray:
    return GaussianPhantom(np.array([position]), np.array([2.0]), np.array([1.0])).volume(n)


@pytest.mark.parametrize("n", [24, 25])
@pytest.mark.parametrize("background", [0.0, 5.0, -3.0])
def test_centre_is_found_whatever_the_background(n: int, background: float) -> None:
    position = (2.25, -3.5, 1.125)
    assert centre_of_gravity(one_gaussian(n, position) + background) == pytest.approx(position, abs=1e-3)


def test_works_across_the_border() -> None:
    assert centre_of_gravity(np.roll(one_gaussian(24, (0, 0, 0)), 11, axis=2))[0] == pytest.approx(11, abs=1e-3)


@pytest.mark.parametrize(
    ("symmetry", "free"), [("C1", (1, 1, 1)), ("C4", (0, 0, 1)), ("D2", (0, 0, 0)), ("O", (0, 0, 0))]
)
def test_point_group_restricts(symmetry: str, free: tuple[int, int, int]) -> None:
    volume = one_gaussian(24, (2.0, -1.0, 3.0))
    assert centre_of_gravity(volume, symmetry) == pytest.approx(np.array([2.0, -1.0, 3.0]) * free, abs=1e-3)
    moved, shift = centre_volume(volume, symmetry)
    assert shift == pytest.approx(-np.array([2.0, -1.0, 3.0]) * free, abs=1e-3)
    assert centre_of_gravity(moved) == pytest.approx(np.array([2.0, -1.0, 3.0]) * (1 - np.array(free)), abs=2e-3)


@pytest.mark.parametrize("n", [24, 25])
def test_shift_is_exact(n: int) -> None:
    volume = one_gaussian(n, (0, 0, 0))
    assert shift_volume(volume, (1.5, -2.25, 0.5)) == pytest.approx(one_gaussian(n, (1.5, -2.25, 0.5)), abs=2e-4)
    whole = np.random.default_rng(0).standard_normal((n, n, n)).astype(np.float32)
    assert shift_volume(whole, (3, 0, -1)) == pytest.approx(np.roll(whole, (-1, 0, 3), axis=(0, 1, 2)), abs=1e-5)


def test_flat_volumes_and_refusals() -> None:
    assert not centre_of_gravity(np.ones((8, 8, 8))).any()
    assert not centre_of_gravity(np.zeros((8, 8, 8))).any()
    with pytest.raises(InputError):
        centre_of_gravity(np.zeros((8, 8, 7)))
