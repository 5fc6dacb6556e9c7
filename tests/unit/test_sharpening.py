"""Amplitudes brought to a known form."""

from __future__ import annotations

import numpy as np
import pytest

from nephila.errors import InputError
from nephila.fourier import filter_shells
from nephila.sharpening import (
    apply_b_factor,
    enhance_amplitudes,
    estimate_b_factor,
    level_amplitudes,
    rotational_power,
)

N, PIXEL = 40, 2.0
K = np.arange(N // 2 + 1) / (N * PIXEL)


def white(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((N, N, N)).astype(np.float32)


def test_power_of_white_noise() -> None:
    assert rotational_power(white())[5:] == pytest.approx(N**3, rel=0.1)


@pytest.mark.parametrize("b_factor", [80.0, 250.0, -40.0])
def test_b_factor_is_found_and_taken_out(b_factor: float) -> None:
    faded = apply_b_factor(white(), b_factor, PIXEL)
    found, correlation = estimate_b_factor(faded, PIXEL, limit=4.2, start=20.0)
    assert found == pytest.approx(b_factor, abs=6.0)
    assert correlation * np.sign(b_factor) < -0.95
    assert np.abs(apply_b_factor(faded, -b_factor, PIXEL) - white()).max() < 1e-3


def test_b_factor_limit_and_weighting() -> None:
    sharpened = apply_b_factor(white(), -200.0, PIXEL, limit=8.0)
    power = rotational_power(sharpened)
    assert power[10] > 2 * N**3 and power[16] < 1e-3 * N**3
    fsc = np.clip(1.2 - np.arange(N // 2 + 1) / 15, 0, 1)
    assert estimate_b_factor(white(), PIXEL, 5.0, 20.0, fsc)[0] > estimate_b_factor(white(), PIXEL, 5.0, 20.0)[0] + 10
    with pytest.raises(InputError, match="shells"):
        estimate_b_factor(white(), PIXEL, limit=9.0, start=10.0)


def test_enhanced_power_follows_the_curve_up_to_the_limit() -> None:
    volume = filter_shells(white(), np.exp(-np.arange(N) / 6.0))
    frequency = np.linspace(0, 0.3, 60)
    intensity = 1.0 / (1.0 + (frequency / 0.05) ** 2)
    power = rotational_power(enhance_amplitudes(volume, frequency, intensity, PIXEL, limit=6.0))
    shells = slice(2, 13)
    ratio = power[shells] / np.interp(K[shells], frequency, intensity)
    assert ratio / ratio.mean() == pytest.approx(np.ones(11), abs=0.12)
    assert power[18] < 1e-3 * power[12]
    # where the curves are brought together nothing changes
    middle = round(N * PIXEL / 18)
    assert power[middle] == pytest.approx(rotational_power(volume)[middle], rel=0.3)


@pytest.mark.parametrize(
    ("frequency", "intensity", "limit"),
    [([0.0, 0.1], [1.0, 0.0], 6), ([0.1, 0.0], [1.0, 1.0], 6), ([0.0, 0.1], [1.0], 6), ([0.0, 0.1], [1.0, 1.0], 3.0)],
)
def test_bad_curves(frequency: list[float], intensity: list[float], limit: float) -> None:
    with pytest.raises(InputError):
        enhance_amplitudes(white(), frequency, intensity, PIXEL, limit)


def test_levelled_amplitudes_stay_within_what_noise_allows() -> None:
    shells = np.arange(N // 2 + 1)
    signal, noise = apply_b_factor(white(), 150.0, PIXEL), 0.12 * white(1)
    volume = signal + noise
    known, error = rotational_power(signal), rotational_power(noise)
    fsc = known / (known + 2 * error)  # of halves, each with twice the noise of the whole
    level = level_amplitudes(volume, rotational_power(volume), fsc, PIXEL, limit=4.5)
    power, before = rotational_power(level), rotational_power(volume)
    signal_share = 2 * fsc / (1 + fsc)
    inner = (shells >= 10) & (shells <= 16)
    # the spectrum is level but for the noise's share; where noise has taken over, it is not raised
    assert power[inner] / signal_share[inner] == pytest.approx(np.full(inner.sum(), before[8]), rel=0.25)
    assert power[16] / before[16] > 1.5 * power[10] / before[10] and signal_share[16] < 0.8
    # up to 10 A only the FSC filters; beyond the limit nothing is left
    assert power[2:8] == pytest.approx((before * signal_share)[2:8], rel=0.05)
    assert power[20] < 0.3 * power[17] and np.isfinite(level).all()


@pytest.mark.parametrize(
    ("power", "limit", "message"),
    [(np.ones(5), 5.0, "shells"), (np.ones(21), 10.0, "levelling starts"), (np.ones(21), 3.0, "Nyquist")],
)
def test_what_cannot_be_levelled_is_refused(power: np.ndarray, limit: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        level_amplitudes(white(), power, np.ones(21), PIXEL, limit)
