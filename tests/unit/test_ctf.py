"""The contrast transfer function: signs, known numbers, astigmatism, symmetry with the layout of half transforms."""

from __future__ import annotations

import numpy as np
import pytest

from nephila.ctf import Optics, ctf_1d, ctf_2d, electron_wavelength, phase_error_limit
from nephila.errors import InputError

OPTICS = Optics(300, 2.7, 0.1)


@pytest.mark.parametrize(("voltage_kv", "expected"), [(100, 0.037014), (200, 0.025079), (300, 0.019687)])
def test_wavelength(voltage_kv, expected):
    assert electron_wavelength(voltage_kv) == pytest.approx(expected, abs=1e-6)
    assert Optics(voltage_kv, 2.0, 0.1).wavelength == electron_wavelength(voltage_kv)


@pytest.mark.parametrize("amplitude_contrast", [0.0, 0.07, 0.1, 0.5])
def test_value_at_the_origin_is_the_amplitude_contrast(amplitude_contrast):
    optics = Optics(300, 2.7, amplitude_contrast)
    assert ctf_1d(0.0, 20000.0, optics) == pytest.approx(amplitude_contrast)
    assert ctf_2d(16, 1.5, 20000, 19000, 30, optics)[0, 0] == pytest.approx(amplitude_contrast, abs=1e-7)


def test_underfocus_makes_protein_bright_at_low_frequency():
    k = np.linspace(0, 0.01, 20)
    assert (ctf_1d(k, 15000.0, OPTICS) > 0).all()
    assert ctf_1d(0.02, -15000.0, OPTICS) < 0 < ctf_1d(0.02, 15000.0, OPTICS)


def test_against_the_formula_written_out():
    wavelength, k, defocus = electron_wavelength(200), np.array([0.02, 0.1, 0.25]), 18000.0
    gamma = (
        -np.pi * wavelength * defocus * k**2
        + np.pi / 2 * 2.0e7 * wavelength**3 * k**4
        - np.deg2rad(40)
        - np.arctan(0.1 / np.sqrt(1 - 0.1**2))
    )
    np.testing.assert_allclose(ctf_1d(k, defocus, Optics(200, 2.0, 0.1, 40)), -np.sin(gamma), atol=1e-12)


def test_first_zero_without_aberrations():
    optics = Optics(300, 0.0, 0.0)
    zero = 1 / np.sqrt(optics.wavelength * 10000.0)
    assert ctf_1d(zero, 10000.0, optics) == pytest.approx(0, abs=1e-9)
    assert ctf_1d(0.99 * zero, 10000.0, optics) > 0 > ctf_1d(1.01 * zero, 10000.0, optics)


@pytest.mark.parametrize("n", [32, 33])
def test_round_ctf_is_the_profile_at_each_radius(n):
    image = ctf_2d(n, 2.0, 12000, 12000, 77, OPTICS, b_factor=50)
    ky, kx = np.fft.fftfreq(n, 2.0)[:, None], np.fft.rfftfreq(n, 2.0)
    assert image.shape == (n, n // 2 + 1) and image.dtype == np.float32
    np.testing.assert_allclose(image, ctf_1d(np.hypot(kx, ky), 12000, OPTICS, b_factor=50), atol=1e-5)


@pytest.mark.parametrize(("angle", "row", "column"), [(0, 0, 6), (90, 6, 0), (45, 5, 5), (135, -5, 5)])
def test_defocus_u_lies_along_the_angle(angle, row, column):
    image = ctf_2d(64, 2.0, 21000, 19000, angle, OPTICS)
    across = ctf_2d(64, 2.0, 21000, 19000, angle + 90, OPTICS)
    k = np.hypot(row, column) / (64 * 2.0)
    assert image[row, column] == pytest.approx(ctf_1d(k, 21000, OPTICS), abs=1e-5)
    assert across[row, column] == pytest.approx(ctf_1d(k, 19000, OPTICS), abs=1e-5)


def test_exchanging_u_and_v_turns_by_90_degrees():
    np.testing.assert_allclose(
        ctf_2d((20, 30), 1.7, 21000, 19000, 25, OPTICS), ctf_2d((20, 30), 1.7, 19000, 21000, 115, OPTICS), atol=1e-5
    )


def test_many_defoci_broadcast_to_single_calls():
    u = np.array([10000.0, 15000.0, 20000.0])
    stack = ctf_2d(24, 2.0, u, u - 500, 10, OPTICS)
    assert stack.shape == (3, 24, 13)
    for image, defocus in zip(stack, u, strict=True):
        np.testing.assert_array_equal(image, ctf_2d(24, 2.0, defocus, defocus - 500, 10, OPTICS))


def test_b_factor_is_an_envelope():
    k = np.array([0.0, 0.1, 0.3])
    np.testing.assert_allclose(
        ctf_1d(k, 9000, OPTICS, b_factor=80), ctf_1d(k, 9000, OPTICS) * np.exp(-80 * k**2 / 4), rtol=1e-12
    )


@pytest.mark.parametrize(("voltage_kv", "resolution"), [(300, 4.4), (200, 5.0)])
def test_phase_error_of_500_angstroms(voltage_kv, resolution):
    optics = Optics(voltage_kv, 2.7, 0.1)
    limit = phase_error_limit(500, optics)
    assert limit == pytest.approx(resolution, abs=0.05)
    assert np.pi * optics.wavelength * 500 / limit**2 == pytest.approx(np.pi / 2)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((300000, 2.7, 0.1), "300000 kV"),
        ((float("nan"), 2.7, 0.1), "nan kV"),
        ((300, 2.7e7, 0.1), "27000000.0 mm"),
        ((300, 2.7, 10), "contrast 10"),
        ((300, 2.7, -0.1), "contrast -0.1"),
    ],
)
def test_implausible_optics(values, named):
    with pytest.raises(InputError, match=named):
        Optics(*values)
