"""Wiener merging of defocus groups on sums, and the signal-to-noise ratio from an FSC."""

from __future__ import annotations

import numpy as np
import pytest
from naive_backprojection import GaussianPhantom, random_matrices, shell_correlation

from nephila.backprojection import Backprojector
from nephila.ctf import Optics, ctf_1d, ctf_2d
from nephila.errors import InputError
from nephila.finishing import finish
from nephila.fourier import filter_shells
from nephila.merging import add_sums, signal_to_noise_from_fsc
from nephila.partial_sum import PartialSum
from nephila.sharpening import rotational_power

N, PIXEL = 32, 3.0
OPTICS = Optics(300.0, 2.7, 0.1)
DEFOCUS = (9000.0, 14000.0, 21000.0)


def groups(
    m: int = 240, noise: tuple[float, ...] = (0.0, 0.0, 0.0), seed: int = 0
) -> tuple[list[PartialSum], np.ndarray]:
    """Sums by group of simulated particles, and the truth. `noise`: standard deviation per pixel, per group."""
    phantom = GaussianPhantom.random(N, 60, sigma=(0.8, 1.3))
    sums = []
    for index, (defocus, sd) in enumerate(zip(DEFOCUS, noise, strict=True)):
        matrices = random_matrices(m // 3, seed * 10 + index)
        ctf = ctf_2d(N, PIXEL, defocus, defocus, 0.0, OPTICS)
        rng = np.random.default_rng([seed, index])
        dirt = np.fft.rfft2(sd * rng.standard_normal((m // 3, N, N)))
        collector = Backprojector(N)
        collector.insert(phantom.slices(N, matrices) * ctf + dirt, matrices, ctf)
        sums.append(collector.partial_sum())
    return sums, phantom.volume(N)


def test_merging_sums_is_reconstructing_all() -> None:
    sums, truth = groups()
    merged = finish(add_sums(sums), regulariser=1 / 3)
    assert np.array_equal(merged, finish(add_sums(sums[::-1]), regulariser=1 / 3))
    assert sums[0].particles == 80  # the inputs are left alone
    assert shell_correlation(merged, truth)[:12].min() > 0.95
    # every shell is damped by mean CTF^2 / (mean CTF^2 + 1/3)
    k = np.arange(N // 2 + 1) / (N * PIXEL)
    mean_square = np.mean([ctf_1d(k, d, OPTICS) ** 2 for d in DEFOCUS], axis=0)
    damped = filter_shells(truth, mean_square / (mean_square + 1 / 3))
    assert np.linalg.norm(merged - damped) < 0.25 * np.linalg.norm(damped)


def test_groups_fill_each_others_zeros() -> None:
    sums, truth = groups(600)
    single = shell_correlation(finish(sums[2], regulariser=0.05), truth)
    together = shell_correlation(finish(add_sums(sums), regulariser=0.05), truth)
    assert together[4:12].min() > single[4:12].min()
    assert np.abs(finish(add_sums(sums), regulariser=1 / 3)).max() < 2 * np.abs(truth).max()


def test_filter_by_spectral_snr() -> None:
    sums, _ = groups(noise=(1.0, 1.0, 1.0))
    total = add_sums(sums)
    snr = np.linspace(20, 0.1, N // 2 + 1)
    filtered = rotational_power(finish(total, snr=snr))[5:14]
    plain = rotational_power(finish(total))[5:14]
    assert (filtered < plain).all()
    assert (np.diff(filtered / plain) < 0.1).all()


def test_snr_from_fsc_does_not_open_again() -> None:
    curve = np.array([1, 0.9, 0.5, 0.1, 0.3, 0.0, -0.1])
    assert signal_to_noise_from_fsc(curve)[2:] == pytest.approx([2, 0.2 / 0.9, 0.2 / 0.9, 0, 0])
    assert signal_to_noise_from_fsc(curve, first_noise=None)[4] == pytest.approx(0.6 / 0.7)
    assert signal_to_noise_from_fsc(curve, of="half")[2] == pytest.approx(1)


def test_refusals() -> None:
    with pytest.raises(InputError, match="no sums"):
        add_sums([])
