"""A volume turned and moved by a known amount is brought back."""

from __future__ import annotations

import numpy as np
import pytest

from nephila.errors import InputError
from nephila.geometry import rotation_angle, rotation_vector_to_matrix
from nephila.rigid_fit import crop_transform, fit_volume, transform_volume


def blobs(n: int) -> np.ndarray:
    """An object without symmetry."""
    z, y, x = np.indices((n, n, n)) - n // 2
    total = np.zeros((n, n, n))
    for cx, cy, cz, weight in ((5, 0, 0, 1.0), (0, 7, 2, 1.4), (-4, -3, 6, 0.8), (1, 2, -7, 1.2)):
        total += weight * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * 2.0**2))
    return total.astype(np.float32)


@pytest.mark.parametrize("n", [32, 33])
def test_known_rotation_and_shift_come_back(n: int) -> None:
    target = blobs(n)
    rotation, shift = rotation_vector_to_matrix(np.deg2rad([2.0, -3.0, 1.0])), np.array([0.8, -0.5, 1.1])
    # moving, once turned and shifted, is the target
    moving = transform_volume(target, rotation.T, -rotation.T @ shift)
    found, moved, correlation = fit_volume(moving, target)
    assert rotation_angle(found @ rotation.T) < 0.3
    assert np.abs(moved - shift).max() < 0.1
    # linear interpolation of a volume that was interpolated before costs two per cent
    assert correlation > 0.97


def test_transform_moves_density_as_stated() -> None:
    volume = np.zeros((17, 17, 17), dtype=np.float32)
    volume[8, 8, 12] = 1  # x = +4
    quarter = rotation_vector_to_matrix([0, 0, np.pi / 2])  # x to y
    moved = transform_volume(volume, quarter, np.array([0.0, 0.0, 2.0]), order=1)
    assert np.unravel_index(moved.argmax(), moved.shape) == (10, 12, 8)


def test_cropping_keeps_the_centre() -> None:
    volume = blobs(48)
    small = crop_transform(volume, 24)
    assert small.shape == (24, 24, 24)
    assert np.abs(small[12, 12, 12] - volume[24, 24, 24]) < 0.15
    centre = [float((small * (np.indices(small.shape)[axis] - 12)).sum() / small.sum()) for axis in range(3)]
    expected = [float((volume * (np.indices(volume.shape)[axis] - 24)).sum() / volume.sum()) / 2 for axis in range(3)]
    assert centre == pytest.approx(expected, abs=0.1)


def test_unequal_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be fitted"):
        fit_volume(np.zeros((8, 8, 8), np.float32), np.zeros((9, 9, 9), np.float32))
