"""Wiener merging of defocus groups against naive forms, and the joining of halves."""

from __future__ import annotations

import numpy as np
import pytest
from naive_backprojection import GaussianPhantom, random_matrices, shell_correlation

from nephila.backprojection import Backprojector
from nephila.ctf import Optics, ctf_1d, ctf_2d
from nephila.errors import InputError
from nephila.finishing import finish
from nephila.fourier import filter_shells, frequency_radius_3d
from nephila.merging import (
    add_sums,
    join_halves,
    merge_group_volumes,
    optimal_merge,
    signal_power_from_snr,
    signal_to_noise_from_fsc,
    wiener_merge,
)
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
    merged = wiener_merge(sums, snr=3.0)
    assert np.array_equal(merged, finish(add_sums(sums), regulariser=1 / 3))
    assert np.array_equal(merged, wiener_merge(sums[::-1], snr=3.0))
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
    together = shell_correlation(wiener_merge(sums, snr=20.0), truth)
    assert together[4:12].min() > single[4:12].min()
    assert np.abs(wiener_merge(sums, snr=3.0)).max() < 2 * np.abs(truth).max()


def test_filter_by_spectral_snr() -> None:
    sums, _ = groups(noise=(1.0, 1.0, 1.0))
    total = add_sums(sums)
    snr = np.linspace(20, 0.1, N // 2 + 1)
    filtered = rotational_power(wiener_merge(sums, snr=snr))[5:14]
    plain = rotational_power(finish(total))[5:14]
    assert (filtered < plain).all()
    assert (np.diff(filtered / plain) < 0.1).all()


def test_optimal_merge_weighs_noisy_groups_less() -> None:
    sd = (1.0, 1.0, 8.0)
    sums, truth = groups(480, sd)
    noise = [np.full(N // 2 + 1, (s * N) ** 2) for s in sd]
    power = rotational_power(truth)
    best = shell_correlation(optimal_merge(sums, noise, power), truth)[2:12]
    equal = shell_correlation(wiener_merge(sums), truth)[2:12]
    assert best.mean() > equal.mean() + 0.02
    estimate = signal_power_from_snr(sums[0], np.ones(N // 2 + 1), noise[0])
    assert (estimate[2:] > 0).all()
    with pytest.raises(InputError):
        optimal_merge(sums, noise[:2], power)


def test_optimal_merge_of_equal_groups_is_the_wiener_filter() -> None:
    sums, truth = groups(480, (1.0, 1.0, 1.0))
    noise = np.full(N // 2 + 1, float(N) ** 2)
    signal = rotational_power(truth)
    volume = optimal_merge(sums, [noise] * 3, signal)
    # mean-square error is least at the right filter
    errors = [np.linalg.norm(optimal_merge(sums, [noise] * 3, signal * f) - truth) for f in (0.05, 20.0)]
    assert np.linalg.norm(volume - truth) < min(errors)


def test_join_halves() -> None:
    (a, b), _ = (groups(60, seed=s)[0][0] for s in (1, 2)), None
    first, second = join_halves(a, b, 5.0)
    low = [p.expand() for p in (first, second)]
    before = [p.expand() for p in (a, b)]
    radius = frequency_radius_3d(a.grid.n_pad) / a.grid.padding
    inside, outside = radius <= 4.9, radius > 5.1
    assert np.array_equal(low[0][0][inside], low[1][0][inside])
    assert np.allclose(low[0][1][inside], (before[0][1] + before[1][1])[inside] / 2, atol=1e-4)
    for joined, original in zip(low, before, strict=True):
        assert np.array_equal(joined[0][outside], original[0][outside])
    assert not np.array_equal(a.sums, first.sums)
    assert np.array_equal(join_halves(a, b, 0.0)[0].sums, a.sums)


def test_snr_from_fsc_does_not_open_again() -> None:
    curve = np.array([1, 0.9, 0.5, 0.1, 0.3, 0.0, -0.1])
    assert signal_to_noise_from_fsc(curve)[2:] == pytest.approx([2, 0.2 / 0.9, 0.2 / 0.9, 0, 0])
    assert signal_to_noise_from_fsc(curve, first_noise=None)[4] == pytest.approx(0.6 / 0.7)
    assert signal_to_noise_from_fsc(curve, of="half")[2] == pytest.approx(1)


@pytest.mark.parametrize("n", [16, 17])
def test_group_volumes_as_spider_merges_them(n: int) -> None:
    truth = GaussianPhantom.random(n).volume(n)
    k = np.arange(n) / (n * PIXEL)
    curves = [ctf_1d(k, d, OPTICS) for d in DEFOCUS]
    volumes = [filter_shells(truth, c) for c in curves]
    counts = [10, 30, 60]
    merged = merge_group_volumes(volumes, curves, counts, snr=3.0)
    radius = np.sqrt(sum(np.meshgrid(*[np.fft.fftfreq(n, 1 / n) ** 2] * 3, indexing="ij")))
    ctfs = [np.interp(radius, np.arange(n), c) for c in curves]
    top = sum(w / 100 * c * np.fft.fftn(v) for w, c, v in zip(counts, ctfs, volumes, strict=True))
    bottom = sum(w / 100 * c**2 for w, c in zip(counts, ctfs, strict=True)) + 1 / 3
    assert merged == pytest.approx(np.fft.ifftn(top / bottom).real, abs=1e-5)


def test_refusals() -> None:
    with pytest.raises(InputError, match="no sums"):
        add_sums([])
    with pytest.raises(InputError, match="positive"):
        wiener_merge(groups(6)[0], snr=0.0)
    with pytest.raises(InputError):
        merge_group_volumes([np.zeros((8, 8, 8))], [np.ones(5)], [0])
    with pytest.raises(InputError):
        merge_group_volumes([np.zeros((8, 8, 8))], [np.ones(3)], [5])
