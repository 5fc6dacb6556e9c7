"""Conjugate gradients and Richardson iteration: the right equations, and maps at least as good as by division."""

from __future__ import annotations

import numpy as np
import pytest
from naive_backprojection import GaussianPhantom, random_matrices, shell_correlation

from nephila.backprojection import Backprojector
from nephila.ctf import Optics, ctf_2d
from nephila.errors import InputError
from nephila.finishing import finish
from nephila.fourier import centred_rfftn, radial_average
from nephila.iterative_reconstruction import (
    ConjugateGradientSettings,
    RichardsonSettings,
    conjugate_gradients,
    normal_equations,
    richardson,
)
from nephila.masks import apply_mask, spherical_mask
from nephila.normal_equations import dot
from nephila.partial_sum import GridShape, PartialSum
from nephila.radial_prior import powers_inside_and_outside, signal_to_noise
from nephila.symmetry import point_group_matrices, symmetrise_volume

OPTICS = Optics(300.0, 2.7, 0.1)


def particles(
    n: int, m: int, noise: float = 0.0, uneven: bool = False, symmetry: str = "C1"
) -> tuple[PartialSum, np.ndarray]:
    """Sums of m simulated particles and the truth; uneven: three quarters of the views lie within a narrow cone."""
    phantom = GaussianPhantom.random(n, 50, sigma=(0.9, 1.5)).repeated(point_group_matrices(symmetry))
    matrices = random_matrices(m)
    if uneven:
        tilted = matrices[:, 2, 2] < 0.9
        tilted[: m // 4] = False
        matrices = np.concatenate([matrices[~tilted], random_matrices(40 * m, 1)])
        near = np.flatnonzero(matrices[:, 2, 2] > 0.9)
        matrices = np.concatenate([matrices[: m // 4], matrices[near][: m - m // 4]])
    u = np.linspace(8000, 22000, len(matrices))
    ctf = ctf_2d(n, 3.0, u, u, 0.0 * u, OPTICS)
    images = phantom.slices(n, matrices) * ctf
    rng = np.random.default_rng(9)
    scale = noise * np.sqrt(np.mean(np.abs(images) ** 2)) / n
    images = images + np.fft.rfft2(scale * rng.standard_normal((len(matrices), n, n)))
    collector = Backprojector(n)
    collector.insert(images, matrices, ctf)
    return collector.partial_sum(), phantom.volume(n)


def curve(volume: np.ndarray, truth: np.ndarray) -> np.ndarray:
    mask = spherical_mask(len(truth), 0.42 * len(truth), 3)
    return shell_correlation(apply_mask(volume, mask, 0.0), apply_mask(truth, mask, 0.0))


def test_equations_are_symmetric_positive_and_fit_the_truth() -> None:
    n = 24
    total, truth = particles(n, 150)
    equations = normal_equations(total, "C1", np.zeros(n // 2 + 1), 0.95)
    rng = np.random.default_rng(1)
    a, b = (equations.mask * rng.standard_normal((n, n, n)).astype(np.float32) for _ in range(2))
    for operator in (equations.apply, equations.precondition):
        size = np.sqrt(dot(operator(a), operator(a)) * dot(b, b))
        assert abs(dot(operator(a), b) - dot(a, operator(b))) < 1e-5 * size
    assert dot(a, equations.apply(a)) > 0
    difference = equations.apply(truth) - equations.right
    assert np.linalg.norm(difference) < 0.06 * np.linalg.norm(equations.right)


@pytest.mark.parametrize("n", [32, 33])
@pytest.mark.parametrize(("noise", "uneven"), [(0.0, True), (1.0, True), (2.5, True), (1.0, False)])
def test_at_least_as_good_as_division(n: int, noise: float, uneven: bool) -> None:
    total, truth = particles(n, 200, noise, uneven)
    divided = curve(finish(total), truth)[1 : n // 2 - 2]
    iterated = curve(conjugate_gradients(total), truth)[1 : n // 2 - 2]
    assert (iterated > divided - 0.01).all(), (iterated - divided).round(4)
    assert iterated.mean() > divided.mean()


def test_the_prior_weighs_cells_and_keeps_the_scale_of_shells() -> None:
    n = 32
    total, truth = particles(n, 200, noise=2.5, uneven=True)
    weighed = conjugate_gradients(total)
    means = [curve(volume, truth)[1 : n // 2 - 2].mean() for volume in (weighed, finish(total))]
    assert means[0] > means[1] + 0.02, means
    sphere = spherical_mask(n, 0.4 * n, 0)
    powers = [radial_average(np.abs(centred_rfftn(v * sphere)) ** 2, n)[2:12] for v in (weighed, finish(total))]
    assert (powers[0] / powers[1] < 1.3).all() and (powers[0] / powers[1] > 0.2).all(), powers[0] / powers[1]


@pytest.mark.parametrize("n", [32, 33])
def test_signal_and_noise_of_one_map(n: int) -> None:
    truth = GaussianPhantom.random(n, 50, sigma=(0.9, 1.5)).volume(n)
    noise = 0.3 * truth.std() * np.random.default_rng(3).standard_normal((n, n, n)).astype(np.float32)
    ratio = signal_to_noise(*powers_inside_and_outside(truth + noise), 1e-3)
    window = spherical_mask(n, 0.4 * n, 3)
    known, rest = (radial_average(np.abs(centred_rfftn(v * window)) ** 2, n) for v in (truth, noise))
    shells = np.flatnonzero(known > rest)[3:]  # the first few hold too few samples
    assert np.abs(np.log(ratio[shells] / (known / rest)[shells])).max() < 0.6
    assert (signal_to_noise(*powers_inside_and_outside(np.zeros_like(truth)), 0.1) == 0.1).all()


def test_gaps_between_views_do_not_blow_up_noise() -> None:
    total, truth = particles(48, 60, noise=2.5, uneven=True)
    volume = finish(total)
    assert np.abs(volume).max() < 4 * np.abs(truth).max()
    assert curve(volume, truth)[1:6].min() > 0.9


@pytest.mark.parametrize(("symmetry", "n"), [("T", 32), ("D7", 33)])
def test_symmetry_keeps_the_last_shells(symmetry: str, n: int) -> None:
    total, truth = particles(n, 40, symmetry=symmetry)
    last = curve(finish(total, symmetry), truth)[n // 2 - 2 : n // 2]
    assert last.min() > 0.93, last


def test_richardson_comes_to_the_same_map() -> None:
    total, truth = particles(28, 300)
    gradients = conjugate_gradients(total)
    iterated = richardson(total, settings=RichardsonSettings(rounds=40))
    assert shell_correlation(iterated, gradients)[1:10].min() > 0.99
    assert (iterated * truth).sum() / (truth * truth).sum() == pytest.approx(1.0, abs=0.08)


def test_constraints_hold() -> None:
    n = 24
    total, _ = particles(n, 60, noise=2.0)
    volume = richardson(total, settings=RichardsonSettings(rounds=8, positive=True, radius=0.8))
    assert volume.min() >= 0 and volume.max() > 0
    outside = spherical_mask(n, 0.4 * n, 1.0) == 0
    assert not volume[outside].any()
    assert not conjugate_gradients(total, settings=ConjugateGradientSettings(rounds=3, radius=0.8))[outside].any()


def test_smoothness_and_snr_damp_high_frequencies() -> None:
    total, _ = particles(24, 100, noise=3.0)
    rough = conjugate_gradients(total, settings=ConjugateGradientSettings(prior=0.0))
    for damped in (
        conjugate_gradients(total, settings=ConjugateGradientSettings(prior=0.0, smoothness=5.0)),
        conjugate_gradients(total, snr=np.linspace(30, 0.05, 13)),
        conjugate_gradients(total, regulariser=1 / 3),
    ):
        assert np.abs(np.diff(damped, axis=0)).mean() < 0.8 * np.abs(np.diff(rough, axis=0)).mean()


@pytest.mark.parametrize("method", [conjugate_gradients, richardson])
def test_symmetry_and_nothing(method: object) -> None:
    n = 24
    assert callable(method)
    total, truth = particles(n, 30, symmetry="D3")
    volume = method(total, "D3")
    sphere = spherical_mask(n, 0.4 * n, 0)
    again = symmetrise_volume(volume, point_group_matrices("D3"))
    assert np.linalg.norm((volume - again) * sphere) < 4e-3 * np.linalg.norm(volume)
    assert curve(volume, truth)[1:9].min() > 0.97
    assert not method(PartialSum.empty(GridShape.of(n, 2.0, None))).any()
    with pytest.raises(InputError):
        method(total, "Q2")


@pytest.mark.parametrize("n", [16, 17])
@pytest.mark.parametrize("method", [conjugate_gradients, richardson])
def test_one_particle_and_blank_images(method: object, n: int) -> None:
    assert callable(method)
    matrices = random_matrices(3)
    one = Backprojector(n)
    one.insert(GaussianPhantom.random(n).slices(n, matrices[:1]), matrices[:1])
    volume = method(one.partial_sum())
    assert np.isfinite(volume).all() and volume.any()
    assert np.abs(volume).max() < 10 * GaussianPhantom.random(n).volume(n).max()
    for ctf in (None, np.zeros((n, n // 2 + 1))):
        blank = Backprojector(n)
        blank.insert(np.zeros((3, n, n // 2 + 1)), matrices, ctf)
        assert not method(blank.partial_sum()).any()


def test_same_bytes_for_any_threads() -> None:
    total, _ = particles(20, 50, noise=1.0)
    assert conjugate_gradients(total, threads=2).tobytes() == conjugate_gradients(total).tobytes()


def test_bad_settings() -> None:
    total, _ = particles(16, 5)
    with pytest.raises(InputError):
        conjugate_gradients(total, settings=ConjugateGradientSettings(rounds=0))
    with pytest.raises(InputError):
        conjugate_gradients(total, snr=3.0, regulariser=0.3)
    for settings in (RichardsonSettings(step=2.5), RichardsonSettings(radius=1.5)):
        with pytest.raises(InputError):
            richardson(total, settings=settings)
