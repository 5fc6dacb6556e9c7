"""An initial model from particles alone: probabilities against the plain formula, frames and hands, and a small search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from naive_initial_model import naive_expectation

from benchmarks.phantom import OPTICS, Phantom
from nephila.config import parse_config
from nephila.ctf import ctf_2d
from nephila.errors import InputError
from nephila.fourier import centred_irfft2, centred_rfft2
from nephila.geometry import euler_matrix, rotation_angle
from nephila.initial_model import InitialModelSettings, make_initial_model
from nephila.initial_model.agreement import PosedModel, common_frame, compare_models
from nephila.initial_model.build import skewness
from nephila.initial_model.climb import climb, model_mask, random_rotation
from nephila.initial_model.data import SmallParticles, small_particles, split, take_particles
from nephila.initial_model.expectation import Expectation, PoseGrid, expect
from nephila.initial_model.model import ForgettingSums
from nephila.initial_model.settings import BOX
from nephila.initial_tries import looks_dark
from nephila.masks import spherical_mask
from nephila.projection import FourierProjector
from nephila.symmetry import point_group_matrices

PIXEL = 360.0 / BOX
SETTINGS = InitialModelSettings(diameter=250.0, shift_range=25.0, seed=3)
SEARCH = replace(SETTINGS, tries=2, rounds=15, resolution=40.0)


def rotations(count: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([random_rotation(rng) for _ in range(count)])


def simulated(
    count: int, noise: float, shift_px: float = 2.0, settings: InitialModelSettings = SETTINGS, seed: int = 5
) -> tuple[SmallParticles, np.ndarray, Phantom]:
    """Particles of a phantom, their true rotations, and the phantom."""
    rng = np.random.default_rng(seed)
    subject = Phantom.random(BOX, seed)
    matrices, shifts = rotations(count, seed), rng.uniform(-shift_px, shift_px, (count, 2))
    mean = rng.uniform(10000, 25000, count)
    defocus = np.stack([mean + 100, mean - 100, np.full(count, 20.0)], axis=1)
    clean = subject.projections(matrices, shifts)
    images = centred_irfft2(centred_rfft2(clean) * ctf_2d(BOX, PIXEL, *defocus.T, OPTICS), BOX)
    images = images / images.std() + noise * rng.standard_normal(images.shape)
    return small_particles(images.astype(np.float32), defocus, PIXEL, OPTICS, settings), matrices, subject


def test_probabilities_are_those_of_the_formula() -> None:
    particles, matrices, subject = simulated(4, 0.5)
    band = 6
    projector = FourierProjector.from_volume(subject.volume(), max_radius=band)
    rng = np.random.default_rng(2)
    grid = PoseGrid(
        np.concatenate([matrices, rotations(9)]),
        rng.uniform(-2, 2, (5, 2)),
        np.log(rng.uniform(0.1, 1, 5)).astype(np.float32),
    )
    noise = rng.uniform(50, 100, particles.count(band))
    found = expect(particles, projector, grid, band, noise)
    numerator, denominator, residual, evidence = naive_expectation(particles, projector, grid, band, noise)
    np.testing.assert_allclose(found.numerator, numerator, rtol=2e-3, atol=1e-4 * np.abs(numerator).max())
    np.testing.assert_allclose(found.denominator, denominator, rtol=2e-3, atol=1e-5 * denominator.max())
    np.testing.assert_allclose(found.residual, residual, rtol=1e-3)
    np.testing.assert_allclose(found.evidence, evidence, rtol=1e-3, atol=1e-2)


def test_slices_of_known_poses_give_the_object_back() -> None:
    particles, matrices, subject = simulated(300, 0.0, shift_px=0.0)
    band = 10
    count = particles.count(band)
    factors = particles.factors[:, :count]
    found = Expectation(
        (particles.values[:, :count] * factors).astype(np.complex64), factors**2, np.ones(count), np.zeros(300), 1.0
    )
    sums = ForgettingSums(band)
    sums.add(found, matrices, particles, 1.0)
    mask = model_mask(particles, SETTINGS)
    volume = sums.volume("C1", band, mask, 1e-3)
    truth = subject.volume() * mask
    assert np.corrcoef(volume.ravel(), truth.ravel())[0, 1] > 0.93
    # the scale is that of the images: a projection explains a particle as it is
    projector = FourierProjector.from_volume(volume, max_radius=band)
    grid = PoseGrid(matrices[:20], np.zeros((1, 2)), np.zeros(1, dtype=np.float32))
    residual = expect(particles.rows(np.arange(20)), projector, grid, band, np.ones(count)).residual
    power = (np.abs(particles.values[:20, :count]) ** 2).mean(axis=0)
    assert residual[: particles.count(6)].sum() < 0.1 * power[: particles.count(6)].sum()


def test_a_batch_replaces_its_share() -> None:
    particles, matrices, _ = simulated(40, 0.0)
    count = particles.count(6)
    found = Expectation(
        (particles.values * particles.factors)[:, :count],
        particles.factors[:, :count] ** 2,
        np.ones(count),
        np.zeros(40),
        1.0,
    )
    sums = ForgettingSums(6)
    sums.add(found, matrices, particles, 1.0)
    assert sums.numerator is not None
    first = sums.numerator.copy()
    sums.add(found, matrices, particles, 0.25)
    np.testing.assert_allclose(sums.numerator, first, atol=1e-4 * np.abs(first).max())
    sums.add(Expectation(-found.numerator, *list(vars(found).values())[1:]), matrices, particles, 0.5)
    assert np.abs(sums.numerator).max() < 1e-3 * np.abs(first).max()


def posed(subject: Phantom, matrices: np.ndarray, displacement: tuple[float, ...] = (0.0, 0.0, 0.0)) -> PosedModel:
    """A phantom, moved by `displacement`, with the poses that leave its images as they are."""
    moved = Phantom(subject.n, subject.positions + displacement, subject.weights)
    return PosedModel(moved.volume(), matrices, (matrices @ displacement)[:, :2])


@pytest.mark.parametrize("group", ["C1", "D2"])
def test_frames_follow_from_poses_in_spite_of_outliers(group: str) -> None:
    operators = point_group_matrices(group)
    rng = np.random.default_rng(4)
    second, wanted, displacement = rotations(80), random_rotation(rng), np.array([1.0, -0.5, 2.0])
    first = second @ operators[rng.integers(0, len(operators), 80)] @ wanted
    origins = (first @ displacement)[:, :2]
    first[:30] = rotations(30, 9)
    empty = np.zeros((BOX,) * 3, dtype=np.float32)
    frame = common_frame(PosedModel(empty, first, np.zeros((80, 2))), PosedModel(empty, second, origins), operators)
    assert min(rotation_angle((operator @ wanted).T @ frame.rotation) for operator in operators) < 0.5
    np.testing.assert_allclose(frame.displacement, displacement, atol=0.05)
    assert 0.55 < frame.share < 0.8


def test_poses_of_the_mirror_image() -> None:
    model = posed(Phantom.random(BOX, 8), rotations(5))
    other = model.mirrored()
    own, mirrored = (FourierProjector.from_volume(item.volume).project(item.matrices) for item in (model, other))
    np.testing.assert_allclose(own, mirrored, atol=2e-3 * np.abs(own).max())


@pytest.mark.parametrize("mirrored", [False, True])
def test_models_in_other_frames_and_hands_agree(mirrored: bool) -> None:
    subject, matrices = Phantom.random(BOX, 8), rotations(60)
    frame = euler_matrix(40.0, 70.0, -20.0)
    other = posed(Phantom(BOX, subject.positions @ frame.T, subject.weights), matrices @ frame.T, (0.7, -1.0, 0.4))
    mask = spherical_mask(BOX, 12.0, 2.0)
    found = compare_models(posed(subject, matrices), other.mirrored() if mirrored else other, np.eye(3)[None], mask)
    assert found.mirrored == mirrored and found.share == 1.0
    assert found.fsc[1:11].min() > 0.9


def test_a_small_search_finds_the_object() -> None:
    particles, matrices, subject = simulated(130, 1.0, settings=SEARCH)
    model = make_initial_model(particles, SEARCH)
    assert list(model.tries["nphLogLikelihood"]) == sorted(model.tries["nphLogLikelihood"], reverse=True)
    assert model.tries["nphAgreement"].iloc[0] <= model.resolution
    assert 0 < model.resolution < 60.0
    dark = skewness(-model.volume, model_mask(particles, SEARCH))
    assert not looks_dark(model.tries) and looks_dark(model.tries.assign(nphSkewness=dark))
    _, held = split(len(particles), SEARCH.seed)
    from nephila.initial_model.polish import align

    poses = align(model.volume, np.ones(BOX // 2 + 1), particles.rows(held), particles.band, SEARCH).poses
    truth = PosedModel(subject.volume(), matrices[held], np.zeros((len(held), 2)))
    mask = model_mask(particles, SEARCH)
    found = compare_models(truth, PosedModel(model.volume, poses.matrices, poses.shifts), np.eye(3)[None], mask)
    assert (found.fsc[1:7] > 0.5).all()


def test_a_search_depends_on_its_number_alone() -> None:
    particles, _, _ = simulated(60, 1.0)
    short = replace(SEARCH, rounds=8)
    first, again, other = (climb(particles, short, number).volume for number in (1, 1, 2))
    assert np.array_equal(first, again) and not np.allclose(first, other)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="tries is 0"):
        InitialModelSettings(diameter=100.0, tries=0)
    few = pd.DataFrame({"rlnImageName": ["1@none.mrcs"] * 10})
    with pytest.raises(InputError, match="at least 50 particles, there are 10"):
        take_particles(few, PIXEL, OPTICS, SETTINGS)
    with pytest.raises(InputError, match="picking.method: pick"):
        parse_config({"reference": {"volume": None}})
    assert parse_config({"reference": {"volume": None}, "picking": {"method": "pick"}}).reference.volume is None
