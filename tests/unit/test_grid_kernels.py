"""Kernels on padded half transforms, residuals and candidates, each against its obvious slow form."""

from __future__ import annotations

import naive_grids as naive
import numpy as np
import pytest
from naive_projection import Blobs, half_plane

from nephila.alignment.samples import SampleSet
from nephila.fourier import centred_rfft2, half_weights, shell_index_2d
from nephila.geometry import euler_matrix
from nephila.kernels import gridding, residual, rotation
from nephila.kernels.candidates import Plan, refine_batch
from nephila.kernels.kaiser import kaiser_bessel_beta, weight_polynomials
from nephila.kernels.modulation import gather_samples, row_powers
from nephila.kernels.pose import Limits, Particle
from nephila.projection import FourierProjector
from nephila.symmetry import point_group_matrices

N_PAD = 16
PADDING = 2.0


def density(seed: int = 0, reach: float = 6.0) -> np.ndarray:
    """A positive half transform that is symmetric under k -> -k and ends before Nyquist's planes."""
    values = np.random.default_rng(seed).uniform(0.5, 2.0, (N_PAD,) * 3)
    mirror = np.ix_(*[(-np.arange(N_PAD)) % N_PAD] * 3)
    values = (values + values[mirror]) / 2 * (naive.radius(N_PAD) <= reach)
    return values[:, :, : N_PAD // 2 + 1].astype(np.float32)


def slices(seed: int = 1) -> np.ndarray:
    """A half transform of noise without its Nyquist planes."""
    half = np.fft.rfftn(np.random.default_rng(seed).standard_normal((N_PAD,) * 3))
    return (half * naive.off_nyquist(N_PAD)[:, :, : N_PAD // 2 + 1]).astype(np.complex64)


def half(values: np.ndarray) -> np.ndarray:
    return values[:, :, : N_PAD // 2 + 1]


def test_shells() -> None:
    values = density(reach=20.0)
    total, count = gridding.shell_totals(values, PADDING, 5)
    expected = naive.shell_totals(naive.whole(values), PADDING, 5)
    assert total == pytest.approx(expected[0], rel=1e-5)
    assert np.array_equal(count, expected[1])
    added = np.linspace(1.0, 3.0, 6)
    changed = values.copy()
    gridding.add_to_shells(changed, 0.5, added, PADDING)
    # the kernel's last entry but one holds beyond
    assert changed == pytest.approx(
        half(0.5 * naive.whole(values).real + naive.by_radius(added[:-1], PADDING, N_PAD)), rel=1e-5
    )


def test_density_compensation() -> None:
    values = density()
    weights = np.zeros_like(values)
    for step in range(3):
        gridding.balance_weights(values, weights, step == 0)
    expected = half(naive.balanced(naive.whole(values), 3).real)
    measured = values > 0
    assert weights[measured] == pytest.approx(expected[measured], rel=1e-4)


def test_weights_are_applied_and_added() -> None:
    numerator, weights, added = slices(), density(2, 20.0), np.linspace(0.2, 2.0, 8)
    limit = 3
    divided = numerator.copy()
    gridding.apply_weights(divided, weights, added, PADDING, limit)
    w = naive.whole(weights).real
    expected = naive.whole(numerator) * w / (1 + naive.by_radius(added, PADDING, N_PAD) * w)
    expected[naive.radius(N_PAD) / PADDING > limit] = 0
    assert divided == pytest.approx(half(expected), rel=1e-4, abs=1e-5)


def test_sums_over_operators() -> None:
    numerator, denominator = slices(6), density(7, 20.0)
    for operators in (point_group_matrices("D2"), point_group_matrices("C4")):
        out = np.zeros_like(numerator), np.zeros_like(denominator)
        rotation.sum_permuted(numerator, denominator, np.rint(operators).astype(np.int64), 6.0, *out)
        for got, values in zip(out, (numerator, denominator), strict=True):
            expected = half(naive.summed_over(naive.whole(values), np.rint(operators), 6.0))
            assert got == pytest.approx(expected, rel=1e-4, abs=1e-4)
    matrices = euler_matrix(np.array([20.0, 130.0]), np.array([50.0, 100.0]), np.array([-70.0, 10.0]))
    beta = kaiser_bessel_beta(2, PADDING)
    taps = weight_polynomials(2, beta, gridding.DEGREE).astype(np.float32)
    out = np.zeros_like(numerator), np.zeros_like(denominator)
    rotation.sum_rotated(numerator, denominator, matrices, 5.0, taps, *out)
    for got, values in zip(out, (numerator, denominator), strict=True):
        expected = half(naive.summed_over(naive.whole(values), matrices, 5.0, 2, beta))
        assert np.abs(got - expected).max() < 1e-3 * np.abs(expected).max()


def test_mean_over_rotations() -> None:
    transform, matrices = slices(8), euler_matrix(np.array([20.0, 130.0]), np.array([50.0, 100.0]), np.zeros(2))
    beta = 1.1 * kaiser_bessel_beta(4, PADDING)
    taps = weight_polynomials(4, beta, 7).astype(np.float32)
    small = N_PAD // 2
    out = np.zeros((small, small, small // 2 + 1), dtype=np.complex64)
    rotation.average_rotated(transform, matrices, 2, PADDING, taps, out)
    values = naive.whole(transform)
    for z, y, x in np.ndindex(5, 5, 3):
        k = np.array([x, y - 2, z - 2])
        if k @ k <= 4:
            expected = np.mean([naive.at_point(values, PADDING * (m @ k), 4, beta) for m in matrices])
            assert out[z - 2, y - 2, x] == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("n", [12, 13])
def test_residuals(n: int) -> None:
    rng = np.random.default_rng(n)
    model = rng.standard_normal((2, n, n))
    images = model * [[[1.5]], [[-0.5]]] + rng.standard_normal((2, n, n))
    transforms, planes = (np.fft.rfft2(v).astype(np.complex64) for v in (images, model))
    shells, band = shell_index_2d(n), 4
    planes[:, shells > band] = 0
    ctf = np.where(np.arange(n // 2 + 1) % 2, -0.5, 0.8) * np.ones((1, n, 1), dtype=np.float32)
    still = np.ones((2, n // 2 + 1), np.complex64), np.ones((2, n), np.complex64)
    left, signal = np.zeros((2, n // 2 + 1)), np.zeros((2, n // 2 + 1))
    weights, fit = rng.uniform(0.2, 2.0, n // 2 + 1), np.zeros((2, 2))
    arguments = (shells, half_weights(n), weights, band, left, signal, fit)
    residual.add_residual_power(transforms, planes, ctf.astype(np.float32), *still, *arguments)
    full = np.fft.fft2(model)
    column = np.abs(np.fft.fftfreq(n, 1 / n)).astype(int)
    factors = np.where(column % 2, -0.5, 0.8)
    for i in range(2):
        expected = naive.residual_power(np.fft.fft2(images[i]), full[i] * factors, band, weights)
        assert left[i] == pytest.approx(expected[0], rel=1e-4)
        assert signal[i] == pytest.approx(expected[1], rel=1e-4, abs=1e-6)
        assert fit[i] == pytest.approx(expected[2:], rel=1e-4)
    counts = np.bincount(np.rint(np.hypot(*np.meshgrid(*[np.fft.fftfreq(n, 1 / n)] * 2))).astype(int).ravel())
    assert np.array_equal(residual.shell_counts(n), counts[: n // 2 + 1])


def test_samples_are_gathered() -> None:
    rng = np.random.default_rng(3)
    transforms = (rng.standard_normal((2, 40)) + 1j * rng.standard_normal((2, 40))).astype(np.complex64)
    targets, root = rng.integers(0, 40, 9), rng.uniform(0, 1, 9).astype(np.float32)
    real, imag = np.empty((2, 9), np.float32), np.empty((2, 9), np.float32)
    gather_samples(transforms, targets, root, real, imag)
    assert np.array_equal(real, transforms.real[:, targets] * root)
    assert np.array_equal(imag, transforms.imag[:, targets] * root)
    powers = np.ones(2)
    row_powers(real, powers)
    assert powers == pytest.approx(1 + (real**2).sum(axis=1), rel=1e-5)


def test_candidates_are_ranked_band_by_band() -> None:
    """Without steps: matches of the first band choose who enters the second, whose matches sort them."""
    n, bands, enter = 24, (4, 9), (6, 3)
    blobs = Blobs.random(n)
    projector = FourierProjector.from_volume(blobs.volume(n))
    rng = np.random.default_rng(2)
    rotations = euler_matrix(*rng.uniform(0, 180, (3, 7)))
    rotations[5] = rotations[1]  # the same pose twice: the second one is dropped
    shifts = np.zeros((7, 2))
    image = centred_rfft2(blobs.projection(n, rotations[1]) + rng.standard_normal((n, n))).ravel()
    samples = SampleSet.build(n, bands)
    values = image[samples.targets].astype(np.complex64)
    particle = Particle(values.real[None].copy(), values.imag[None].copy(), np.ones((1, len(values)), np.float32))
    plan = Plan(
        samples.counts, np.array(bands), np.array(enter), np.zeros(2, np.int64), np.zeros(2, np.int64), np.cos(1e-3)
    )
    limits = Limits(np.zeros((1, 2)), 9.0, np.eye(3)[None], -2.0)
    poses = rotations[None].copy(), shifts[None].copy(), np.array([6])
    scores, amplitudes = np.full((1, 7), -np.inf), np.zeros((1, 7))
    refine_batch(projector.grid, samples.band, plan, particle, poses, limits, scores, amplitudes)

    def matches(band: int) -> np.ndarray:
        kx, ky, place = half_plane(n, band)
        models = projector.sample(rotations, np.stack([kx, ky]))
        return (models.conj() * image[place]).real.sum(axis=1) / np.sqrt((np.abs(models) ** 2).sum(axis=1))

    first, last = matches(bands[0]), matches(bands[1])
    order = [i for i in np.argsort(-first[:6], kind="stable") if i != 5][: enter[1]]
    order.sort(key=lambda i: -last[i])
    assert poses[2].tolist() == [len(order)]
    assert poses[0][0, : len(order)] == pytest.approx(rotations[order])
    assert scores[0, : len(order)] == pytest.approx(last[order], rel=1e-4)
    assert np.isneginf(scores[0, len(order) :]).all()
