"""Resizing keeps centre, position, scale and pixel size, at any ratio and parity."""

from __future__ import annotations

import numpy as np
import pytest

from nephila.errors import InputError
from nephila.resize import border_average, pad_or_window, resize_volume


def gaussian(
    n: int, pixel_size: float, place: tuple[float, float, float], sigma: float, base: float = 0.0
) -> np.ndarray:
    """A Gaussian at (x, y, z) A from the box centre n // 2."""
    axis = (np.arange(n) - n // 2) * pixel_size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    squared = (x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2
    return (base + np.exp(-squared / (2 * sigma**2))).astype(np.float32)


@pytest.mark.parametrize("place", [(0.0, 0.0, 0.0), (14.0, -9.5, 21.3)])
@pytest.mark.parametrize(
    ("old_n", "old_pixel", "new_n", "new_pixel"),
    [
        (48, 3.0, 48, 3.0),
        (48, 3.0, 49, 3.0),
        (49, 3.0, 48, 3.0),
        (48, 3.0, 40, 4.0),
        (48, 3.0, 41, 4.0),
        (49, 3.0, 41, 4.0),
        (49, 3.0, 40, 4.0),
        (48, 3.0, 80, 2.137),
        (49, 3.0, 81, 2.137),
        (48, 3.0, 37, 3.3331),
        (32, 4.78, 64, 2.8017),
    ],
)
def test_gaussian_stays_where_it_is(
    place: tuple[float, float, float], old_n: int, old_pixel: float, new_n: int, new_pixel: float
) -> None:
    sigma = 9.0
    old = gaussian(old_n, old_pixel, place, sigma, base=0.25)
    new, actual = resize_volume(old, old_pixel, new_pixel, new_n)
    expected = gaussian(new_n, new_pixel, place, sigma, base=0.25)
    assert new.shape == (new_n,) * 3 and new.dtype == np.float32
    assert actual == new_pixel
    np.testing.assert_allclose(new, expected, atol=2e-3)


@pytest.mark.parametrize("n", [24, 25])
def test_there_and_back(n: int) -> None:
    volume = gaussian(n, 3.0, (5.0, -4.0, 8.0), 7.0)
    up, _ = resize_volume(volume, 3.0, 1.7, 48)
    back, _ = resize_volume(up, 1.7, 3.0, n)
    np.testing.assert_allclose(back, volume, atol=2e-3)


def test_detail_beyond_the_new_nyquist_is_removed() -> None:
    n = 48
    z = np.arange(n) - n // 2
    window = np.hanning(n)[:, None, None] * np.hanning(n)[None, :, None] * np.hanning(n)[None, None, :]
    fine = (np.cos(2 * np.pi * 0.4 * z)[:, None, None] * window).astype(np.float32)
    coarse = (np.cos(2 * np.pi * 0.1 * z)[:, None, None] * window).astype(np.float32)
    assert np.abs(resize_volume(fine, 1.0, 2.0, 24)[0]).max() < 0.02
    assert resize_volume(coarse, 1.0, 2.0, 24)[0].max() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("n", "box"), [(20, 31), (21, 30), (31, 20), (30, 21), (20, 20)])
def test_padding_and_windowing(n: int, box: int) -> None:
    volume = np.full((n, n, n), 3.0, dtype=np.float32)
    volume[n // 2, n // 2, n // 2] = 7
    out = pad_or_window(volume, box)
    assert np.unravel_index(out.argmax(), out.shape) == (box // 2,) * 3
    assert out.min() == pytest.approx(3.0) and (out == 7).sum() == 1


def test_border_average() -> None:
    volume = np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32)
    faces = np.ones(volume.shape, bool)
    faces[1:-1, 1:-1, 1:-1] = False
    assert border_average(volume) == pytest.approx(float(volume[faces].mean()), abs=1e-5)


@pytest.mark.parametrize(
    ("volume", "old", "new", "box", "message"),
    [
        (np.zeros((8, 8, 9)), 1.0, 1.0, 8, "cubic"),
        (np.zeros((8, 8)), 1.0, 1.0, 8, "cubic"),
        (np.zeros((8, 8, 8)), 0.0, 1.0, 8, "old pixel size"),
        (np.zeros((8, 8, 8)), 1.0, -2.0, 8, "new pixel size"),
        (np.zeros((8, 8, 8)), 1.0, 2.0, 0, "box"),
        (np.full((8, 8, 8), np.nan), 1.0, 2.0, 8, "NaN"),
    ],
)
def test_bad_input(volume: np.ndarray, old: float, new: float, box: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resize_volume(volume, old, new, box)
