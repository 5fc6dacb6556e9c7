"""FSC against a naive form, what resolution it states, and the correction for masks."""

from __future__ import annotations

import numpy as np
import pytest
from naive_backprojection import GaussianPhantom, shell_correlation

from nephila.errors import InputError
from nephila.fsc import (
    fourier_shell_correlation,
    fsc_table,
    masked_fsc,
    reference_correlation,
    resolution_at,
    spectral_snr,
)
from nephila.masks import spherical_mask


def halves(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth = GaussianPhantom.random(n).volume(n)
    rng = np.random.default_rng(seed)
    a, b = (truth + noise * truth.std() * rng.standard_normal(truth.shape).astype(np.float32) for _ in range(2))
    return a, b, truth


@pytest.mark.parametrize("n", [16, 17, 32])
def test_equals_the_naive_form(n: int) -> None:
    a, b, _ = halves(n, 2.0)
    assert fourier_shell_correlation(a, b) == pytest.approx(shell_correlation(a, b), abs=1e-5)


def test_known_values() -> None:
    a, _, _ = halves(16, 1.0)
    assert fourier_shell_correlation(a, 3 * a) == pytest.approx(np.ones(9), abs=1e-6)
    assert fourier_shell_correlation(a, -a)[1:] == pytest.approx(-np.ones(8), abs=1e-6)
    assert not fourier_shell_correlation(a, np.zeros_like(a)).any()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros((4, 4, 4)), np.zeros((5, 5, 5))),
        (np.zeros((4, 4, 5)), np.zeros((4, 4, 5))),
        (np.full((4, 4, 4), np.nan), np.zeros((4, 4, 4))),
    ],
)
def test_refuses(a: np.ndarray, b: np.ndarray) -> None:
    with pytest.raises(InputError):
        fourier_shell_correlation(a, b)


@pytest.mark.parametrize(
    ("curve", "threshold", "expected"),
    [
        ([1, 0.9, 0.8, 0.4, 0.9, 0.1], 0.5, 20 * 2.0 / 2),  # the last before the first below, whatever comes later
        ([1, 0.9, 0.8, 0.7, 0.6, 0.55], 0.5, 20 * 2.0 / 10),
        ([1, 0.3, 0.8, 0.7, 0.6, 0.55], 0.5, None),
        ([1, 1, 1, 1, 0.143, 0.1], 0.143, 20 * 2.0 / 4),
    ],
)
def test_resolution(curve: list[float], threshold: float, expected: float | None) -> None:
    whole = np.concatenate([curve, np.full(11 - len(curve), curve[-1])])
    assert resolution_at(whole, threshold, 20, 2.0) == expected


def test_resolution_interpolated_and_refused() -> None:
    curve = np.array([1, 1, 0.75, 0.25, 0.0])
    assert resolution_at(curve, 0.5, 8, 1.0, interpolate=True) == pytest.approx(8 / 2.5)
    for bad in (curve[:-1], np.where(curve == 0, np.nan, curve)):
        with pytest.raises(InputError):
            resolution_at(bad, 0.5, 8, 1.0)


def test_ratios() -> None:
    assert spectral_snr([0.5, 0.0, -0.3]) == pytest.approx([2.0, 0.0, 0.0])
    assert spectral_snr([0.5], of="half") == pytest.approx([1.0])
    assert np.isfinite(spectral_snr([1.0])).all()
    assert reference_correlation([1.0, 1 / 3, -0.2]) == pytest.approx([1.0, np.sqrt(0.5), 0.0])


def test_masked_fsc() -> None:
    n = 40
    a, b, truth = halves(n, 6.0)
    good = masked_fsc(a, b, spherical_mask(n, 0.36 * n, 4), seed=1)
    assert good.unmasked == pytest.approx(shell_correlation(a, b), abs=1e-5)
    start = good.randomised_from
    assert good.unmasked[start] < 0.8 <= good.unmasked[start - 1]
    assert (good.corrected[: start + 2] == good.masked[: start + 2]).all()
    beyond = slice(start + 2, None)
    expected = (good.masked[beyond] - good.randomised[beyond]) / (1 - good.randomised[beyond])
    assert good.corrected[beyond] == pytest.approx(expected, abs=1e-6)
    assert (masked_fsc(a, b, spherical_mask(n, 0.36 * n, 4), seed=1).corrected == good.corrected).all()
    assert (masked_fsc(a, b, spherical_mask(n, 0.36 * n, 4), seed=2).randomised != good.randomised)[start:].any()
    assert not good.mask_makes_resolution(spherical_mask(n, 0.36 * n, 4))
    assert good.masked[2:10].mean() > good.unmasked[2:10].mean()


def test_a_tight_mask_is_noticed_and_its_correlation_taken_out() -> None:
    n = 40
    rng = np.random.default_rng(4)
    a, b = (rng.standard_normal((n, n, n)) + 0.5 for _ in range(2))
    tight = (rng.random((n, n, n)) < 0.1).astype(np.float32)  # a mask of fine detail correlates pure noise
    offset = masked_fsc(a, b, tight)
    assert offset.masked[8:].mean() > 0.1
    assert offset.mask_makes_resolution(tight)
    assert abs(offset.corrected[offset.randomised_from + 2 :].mean()) < 0.05


def test_table() -> None:
    a, b, _ = halves(16, 1.0)
    table = fsc_table(masked_fsc(a, b, spherical_mask(16, 6, 2)), 16, 2.0)
    assert list(table["rlnSpectralIndex"]) == list(range(9))
    assert table["rlnAngstromResolution"].iloc[[0, 8]].tolist() == [999.0, 4.0]
    assert table["rlnResolution"].iloc[8] == 0.25
    assert table["rlnFourierShellCorrelation"].equals(
        table["rlnFourierShellCorrelationCorrected"].rename("rlnFourierShellCorrelation")
    )
    assert len(fsc_table(np.ones(9), 16, 2.0).columns) == 4
    with pytest.raises(InputError):
        fsc_table(np.ones(8), 16, 2.0)
