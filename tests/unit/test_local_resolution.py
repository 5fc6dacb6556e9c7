"""Local resolution: halves of a volume that end at different resolutions, noise alone, and the filter that follows."""

from __future__ import annotations

import numpy as np
import pytest

from nephila.errors import InputError
from nephila.fourier import lowpass
from nephila.local_resolution import LocalResolutionSettings, band_centres, measure_local_resolution

PIXEL = 2.0


def two_halves(n, seed=1):
    """A volume that is known to 7 A in its left half and to 14 A in its right one, twice with independent noise."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((n, n, n)).astype(np.float32)
    fine, coarse = (lowpass(white, PIXEL, resolution, 1.0) for resolution in (7.0, 14.0))
    x = np.arange(n) - n // 2
    left = (x < 0)[None, None, :]
    signal = np.where(left, fine, coarse)
    noise = [1.5 * rng.standard_normal((n, n, n)).astype(np.float32) for _ in range(2)]
    return signal, signal + noise[0], signal + noise[1]


@pytest.mark.parametrize("n", [72, 73])
def test_each_side_has_its_own_resolution(n):
    signal, half1, half2 = two_halves(n)
    measured = measure_local_resolution(half1, half2, PIXEL, volume=(half1 + half2) / 2)
    # the middle of each side: a window's tail, and the other side's strong signal in it, reach some way over the boundary
    left = measured.resolution[:, :, n // 4 - 2 : n // 4 + 3]
    right = measured.resolution[:, :, 3 * n // 4 - 2 : 3 * n // 4 + 3]
    assert np.median(left) == pytest.approx(7.0, rel=0.1)
    assert np.median(right) == pytest.approx(14.0, rel=0.15)
    assert np.std(left) < 1.0
    assert measured.filtered is not None
    whole = (half1 + half2) / 2
    for side in (np.s_[:, :, : n // 2 - 6], np.s_[:, :, n // 2 + 6 :]):
        assert np.std((measured.filtered - signal)[side]) < 0.75 * np.std((whole - signal)[side])


def test_noise_has_no_resolution():
    rng = np.random.default_rng(5)
    half1, half2 = rng.standard_normal((2, 64, 64, 64)).astype(np.float32)
    measured = measure_local_resolution(half1, half2, PIXEL)
    assert np.median(measured.resolution) > 30
    assert np.mean(measured.resolution < 12) < 0.02


def test_equal_halves_reach_nyquist_and_keep_the_map():
    signal, _, _ = two_halves(64)
    measured = measure_local_resolution(signal + 1e-3, signal, PIXEL, volume=signal, settings=LocalResolutionSettings())
    assert np.quantile(measured.resolution, 0.9) < 2.2 * PIXEL
    assert measured.filtered is not None
    assert np.corrcoef(measured.filtered.ravel(), signal.ravel())[0, 1] > 0.999


def test_a_mask_does_not_make_resolution():
    rng = np.random.default_rng(6)
    half1, half2 = rng.standard_normal((2, 64, 64, 64)).astype(np.float32)
    place = np.arange(64) - 32
    sphere = (place[:, None, None] ** 2 + place[:, None] ** 2 + place**2 < 12**2).astype(np.float32)
    measured = measure_local_resolution(half1, half2, PIXEL, mask=sphere)
    assert np.median(measured.resolution[sphere > 0]) > 20


def test_bad_input():
    volume = np.zeros((32, 32, 32), dtype=np.float32)
    with pytest.raises(InputError, match="cubic"):
        measure_local_resolution(volume[:30], volume, PIXEL)
    with pytest.raises(InputError, match="half map 2 has"):
        measure_local_resolution(volume, np.zeros((30, 30, 30)), PIXEL)
    with pytest.raises(InputError, match="mask is empty"):
        measure_local_resolution(volume, volume, PIXEL, mask=volume)
    with pytest.raises(InputError, match="no bands"):
        band_centres(12, 2.0, 6.0)
