"""Tiled power spectra: what an average must be, and micrographs that are out of order."""

from __future__ import annotations

import naive_ctf_scan as naive
import numpy as np
import pytest

from nephila.errors import InputError
from nephila.kernels.ctf_scan import add_tile_power
from nephila.spectra import SpectrumSettings, choose_tile, taper_autocorrelation, tile_spectra

SMALL = SpectrumSettings(tile_px=128, tile_length=128)


def white(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(512, 512), (511, 600), (97, 130)])
def test_white_noise_has_a_flat_spectrum_of_its_variance(shape):
    spectrum = tile_spectra(white(shape) + 100, 1.5, SMALL)
    assert spectrum.roo[10:].mean() == pytest.approx(1.0, abs=0.1)
    assert spectrum.tile_px <= min(shape) and spectrum.tile_px % 2 == 0
    assert spectrum.frequency[-1] < 0.5 / 1.5
    assert spectrum.problem is None


def test_a_wave_stands_at_its_frequency_and_angle():
    y, x = np.mgrid[:512, :512]
    wave = np.cos(2 * np.pi * (20 * x + 12 * y) / 128)
    spectrum = tile_spectra(wave, 2.0, SMALL)
    sector, radius = np.unravel_index(spectrum.sector_mean.argmax(), spectrum.samples.shape)
    theta = np.arctan2(12, 20)
    assert radius == round(np.hypot(20, 12))
    assert sector == round(theta / np.pi * 24)
    assert spectrum.cos2[sector, radius] == pytest.approx(np.cos(2 * theta), abs=0.15)
    full = spectrum.full_power()
    assert full[64 + 12, 64 + 20] == full.max() == pytest.approx(full[64 - 12, 64 - 20])


def test_bins_average_the_power_that_they_hold():
    spectrum = tile_spectra(white((300, 260)), 1.0, SMALL)
    filled = (spectrum.samples > 0) & (np.arange(64) >= 20)
    np.testing.assert_allclose(spectrum.k2[filled] / (spectrum.frequency**2 + 0 * spectrum.k2)[filled], 1, atol=0.06)
    np.testing.assert_allclose(spectrum.cos2[filled] ** 2 + spectrum.sin2[filled] ** 2, 1, atol=0.02)
    total = (spectrum.sector_mean * spectrum.samples).sum() / spectrum.samples.sum()
    assert total == pytest.approx(1.0, abs=0.05)


def test_effective_samples_count_tiles_as_their_area():
    spectrum = tile_spectra(white((2048, 1024)), 1.0, SMALL)
    by_area = 2048 * 1024 / 128**2
    share = spectrum.effective_samples.sum() / spectrum.samples.sum()
    assert 0.8 * by_area < share < by_area


def test_taper_autocorrelation_is_that_of_the_taper():
    n = 1000
    taper = np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2
    for lag in (0, 130, 500, 900):
        expected = (taper[: n - lag] * taper[lag:]).sum() / (taper**2).sum()
        assert taper_autocorrelation(lag / n) == pytest.approx(expected, abs=1e-4)
    assert taper_autocorrelation(1.7) == 0


def test_the_kernel_equals_its_naive_form():
    rng = np.random.default_rng(1)
    transform = (rng.standard_normal(200) + 1j * rng.standard_normal(200)).astype(np.complex64)
    bins = rng.integers(-1, 10, 200).astype(np.int32)
    results = []
    for function in (add_tile_power, naive.add_tile_power):
        power, sums = np.ones(200), np.zeros(10)
        function(transform, bins, power, sums)
        results.append((power, sums))
    for fast, slow in zip(*results, strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-6)


def test_dead_columns_hot_pixels_and_stripes_hardly_change_the_spectrum():
    image = white((1024, 1024)) + 20
    clean = tile_spectra(image, 1.0).roo[20:]
    bad = image.copy()
    bad[:, 300] = 0
    bad[:, 700:703] = 20
    bad[500] = 4000
    hot = np.random.default_rng(2).integers(0, 1024, (2, 500))
    bad[hot[0], hot[1]] = 65535
    bad *= 1 + 0.1 * np.repeat([0, 1], 512)[:, None]
    bad += 0.3 * white((1, 1024), 3)
    spectrum = tile_spectra(bad, 1.0)
    assert 0.002 < spectrum.replaced < 0.02
    np.testing.assert_allclose(spectrum.roo[20:] / clean, 1.1, atol=0.1)


@pytest.mark.parametrize("image", [np.zeros((256, 256)), np.full((256, 256), 7.0), np.full((300, 256), 1e9)])
def test_a_constant_micrograph_is_a_problem_not_a_crash(image):
    spectrum = tile_spectra(image, 1.0, SMALL)
    assert spectrum.problem is not None and "constant" in spectrum.problem


def test_foreign_area_is_measured():
    image = white((1024, 1024))
    assert tile_spectra(image, 2.0).foreign < 0.01
    image[:, :300] -= 3
    assert tile_spectra(image, 2.0).foreign == pytest.approx(300 / 1024, abs=0.05)


@pytest.mark.parametrize(
    ("image", "pixel_size", "message"),
    [
        (np.zeros((3, 256, 256)), 1.0, "3 axes"),
        (np.zeros((40, 256)), 1.0, "256 x 40 px"),
        (np.zeros((256, 256)), 0.0, "pixel size"),
        (np.full((256, 256), np.nan), 1.0, "NaN"),
    ],
)
def test_what_is_no_micrograph_is_refused(image, pixel_size, message):
    with pytest.raises(InputError, match=message):
        tile_spectra(image, pixel_size)


def test_tiles_grow_with_small_pixels_where_the_micrograph_is_large_enough():
    settings = SpectrumSettings(tile_px=512, tile_length=700)
    assert choose_tile((4096, 4096), 2.0, settings) == 512
    assert choose_tile((4096, 4096), 0.7, settings) == 1000
    assert choose_tile((1200, 1240), 0.7, settings) == 512
    assert choose_tile((300, 400), 1.0, settings) == 300
