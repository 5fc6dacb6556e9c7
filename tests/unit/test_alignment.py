"""Alignment: known poses come back, kernels equal their slow forms, results do not depend on how the work is cut."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from naive_projection import Blobs, best_on_grid, correlation, half_plane

from nephila.alignment import (
    BLOCK,
    AlignmentResult,
    AlignmentSettings,
    OrientationGrid,
    ParticleCtfs,
    Poses,
    ShiftGrid,
    align_exhaustively,
    align_locally,
)
from nephila.alignment.coarse import CoarseGrid
from nephila.alignment.grids import VARIANT_MATRICES
from nephila.alignment.samples import SampleSet
from nephila.ctf import Optics, ctf_2d
from nephila.errors import InputError
from nephila.fourier import centred_rfft2
from nephila.geometry import angular_distance, euler_matrix, matrix_to_euler, rotation_vector_to_matrix
from nephila.kernels.pose import Limits, Particle, _normal_equations, climb, evaluate_pose
from nephila.projection import FourierProjector
from nephila.symmetry import point_group_matrices

OPTICS = Optics(300, 2.7, 0.1)


class Case:
    """Simulated particles with known poses."""

    def __init__(self, n: int, m: int, snr: float | None, seed: int = 0, symmetry: str = "C1") -> None:
        rng = np.random.default_rng([seed, 7])
        blobs = Blobs.random(n, seed=seed)
        self.symmetry = point_group_matrices(symmetry)
        if symmetry != "C1":
            copies = np.concatenate([blobs.positions @ s.T for s in self.symmetry])
            blobs = Blobs(copies, np.tile(blobs.weights, len(self.symmetry)), blobs.sigma)
        self.n, self.projector = n, FourierProjector.from_volume(blobs.volume(n), 1.5)
        tilt = np.rad2deg(np.arccos(rng.uniform(-1, 1, m)))
        self.matrices = euler_matrix(rng.uniform(-180, 180, m), tilt, rng.uniform(-180, 180, m))
        self.shifts = rng.uniform(-3, 3, (m, 2))
        defocus = rng.uniform(10000, 20000, m)
        self.ctfs = ParticleCtfs(defocus + 200, defocus - 200, rng.uniform(0, 180, m), OPTICS, 5.0)
        self.ctf = ctf_2d(n, 5.0, self.ctfs.defocus_u, self.ctfs.defocus_v, self.ctfs.angle_deg, OPTICS)
        images = FourierProjector.from_volume(blobs.volume(n), 2.0).project(self.matrices, self.shifts, self.ctf)
        noise = rng.normal(size=images.shape) * (images.std() / np.sqrt(snr) if snr else 0.0)
        self.images = (images + noise).astype(np.float32)

    def poses(self, turn_deg: float = 0.0, move_px: float = 0.0, seed: int = 0) -> Poses:
        """The true poses, displaced by random turns and moves of the given size."""
        rng = np.random.default_rng([seed, 13])
        axes = rng.normal(size=(len(self.shifts), 3))
        axes *= np.deg2rad(turn_deg) / np.linalg.norm(axes, axis=1, keepdims=True)
        moves = rng.normal(size=self.shifts.shape)
        moves *= move_px / np.linalg.norm(moves, axis=1, keepdims=True)
        angles = matrix_to_euler(rotation_vector_to_matrix(axes) @ self.matrices)
        return Poses(*angles, *(self.shifts + moves).T)

    def errors(self, result: AlignmentResult) -> tuple[np.ndarray, np.ndarray]:
        turns = angular_distance(result.poses.matrices, self.matrices, self.symmetry)
        return turns, np.hypot(*(result.poses.shifts - self.shifts).T)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(32, 40, snr=0.5)


def same(a: AlignmentResult, b: AlignmentResult, rows: slice = slice(None)) -> bool:
    """Whether two results are the same bytes (for some rows of the first)."""
    names = [f.name for f in fields(AlignmentResult) if f.name not in ("poses", "candidates", "candidate_weights")]
    arrays = [(getattr(a, k)[rows], getattr(b, k)) for k in names]
    arrays += [(getattr(a.poses, f.name)[rows], getattr(b.poses, f.name)) for f in fields(Poses)]
    return all(x.tobytes() == y.tobytes() for x, y in arrays)


@pytest.mark.parametrize("n", [32, 33])
def test_noiseless_poses_come_back(n: int) -> None:
    case = Case(n, 24, snr=None)
    result = align_exhaustively(case.images, case.projector, case.ctf, AlignmentSettings(final_band=14))
    turns, moves = case.errors(result)
    assert np.median(turns) < 0.15 and np.quantile(turns, 0.9) < 1.0
    assert np.median(moves) < 0.02
    assert np.median(result.correlation) > 0.998 and not result.empty.any()
    local = align_locally(case.images, case.projector, case.ctf, case.poses(4.0, 0.5), AlignmentSettings(final_band=14))
    turns, moves = case.errors(local)
    assert turns.max() < 0.3 and moves.max() < 0.05
    assert np.allclose(local.moved_deg, 4.0, atol=0.4) and np.allclose(local.moved_px, 0.5, atol=0.06)


def test_noisy_poses(case: Case) -> None:
    result = align_exhaustively(case.images, case.projector, case.ctf, AlignmentSettings(final_band=12))
    turns, moves = case.errors(result)
    assert np.median(turns) < 2.5 and np.median(moves) < 0.2
    assert (result.runner_up[np.isfinite(result.runner_up)] <= result.correlation[np.isfinite(result.runner_up)]).all()
    assert (result.runner_up_distance_deg[np.isfinite(result.runner_up)] >= 10).all()
    assert np.isnan(result.moved_deg).all()


@pytest.mark.parametrize("local", [False, True])
def test_same_bytes_for_threads_and_chunks(case: Case, local: bool) -> None:
    def align(rows: slice, threads: int) -> AlignmentResult:
        prior = case.poses(3.0, 0.4)
        part = Poses(*(getattr(prior, f.name)[rows] for f in fields(Poses)))
        settings = AlignmentSettings(final_band=10, candidates=4)
        if local:
            return align_locally(case.images[rows], case.projector, case.ctf[rows], part, settings, threads=threads)
        return align_exhaustively(case.images[rows], case.projector, case.ctf[rows], settings, part, threads=threads)

    whole = align(slice(None), 1)
    assert same(whole, align(slice(None), 2))
    assert same(whole, align(slice(0, BLOCK), 1), slice(0, BLOCK))
    assert same(whole, align(slice(BLOCK, None), 1), slice(BLOCK, None))


def test_forms_of_the_ctf_agree(case: Case) -> None:
    settings = AlignmentSettings(final_band=10, candidates=3)
    array = align_exhaustively(case.images, case.projector, case.ctf, settings)
    function = align_exhaustively(case.images, case.projector, lambda a, b: case.ctf[a:b], settings)
    by_defocus = align_exhaustively(case.images, case.projector, case.ctfs, settings)
    assert same(array, function)
    assert angular_distance(array.poses.matrices, by_defocus.poses.matrices).max() < 0.05
    group = align_exhaustively(case.images, case.projector, case.ctf[:1], settings)
    each = align_exhaustively(case.images, case.projector, np.repeat(case.ctf[:1], 40, axis=0), settings)
    assert same(group, each)


@pytest.mark.parametrize("n", [14, 15])
def test_planes_of_the_ctf(n: int) -> None:
    ctfs = ParticleCtfs([15000.0, 9000.0], [14000.0, 9000.0], [30.0, 0.0], OPTICS, 2.0, b_factor=20.0)
    expected = ctf_2d(n, 2.0, ctfs.defocus_u, ctfs.defocus_v, ctfs.angle_deg, OPTICS, b_factor=20.0)
    np.testing.assert_allclose(ctfs.planes(slice(0, 2), n), expected, atol=2e-6)


def test_derivatives_by_differences() -> None:
    n, band = 32, 10
    case = Case(n, 1, snr=1.0)
    samples = SampleSet.build(n, (band,))
    ctf = samples.take_ctf(case.ctf, 1, 0, 1)
    loaded, _ = samples.gather(case.images, ctf, samples.root_weights(None), 0)
    particle = Particle(loaded.real[0], loaded.imag[0], loaded.ctf[0])
    rotation, shift = rotation_vector_to_matrix([0.03, -0.02, 0.05]) @ case.matrices[0], case.shifts[0] + 0.3 - n // 2
    work, sums = np.zeros((8, 256), np.float32), np.zeros(25)
    grid, count, unit = case.projector.grid, len(samples.targets), 2 * np.pi / n

    def match(step: np.ndarray) -> float:
        evaluate_pose(
            grid,
            samples.band,
            count,
            particle,
            rotation_vector_to_matrix(step[:3]) @ rotation,
            shift + step[3:],
            work,
            sums,
        )
        return sums[1] / np.sqrt(sums[0])

    match(np.zeros(5))
    matrix, gradient = np.zeros((5, 5)), np.zeros(5)
    assert _normal_equations(sums.copy(), unit, matrix, gradient)
    amplitude_scale = sums[1] / np.sqrt(sums[0])  # d(match) = gradient * <X, S> / |S|^3 ... = gradient * match / |S|^2
    expected = gradient * amplitude_scale / sums[0]
    step = np.array([1e-3, 1e-3, 1e-3, 1e-2, 1e-2])
    numeric = [(match(e) - match(-e)) / (2 * s) for e, s in zip(np.diag(step), step, strict=True)]
    assert numeric == pytest.approx(expected, rel=2e-2, abs=2e-2 * np.abs(expected).max())


def test_sums_and_climb_equal_the_plain_form() -> None:
    n, band = 33, 9
    case = Case(n, 2, snr=1.0)
    samples = SampleSet.build(n, (5, band))
    loaded, powers = samples.gather(case.images, samples.take_ctf(case.ctf, 2, 0, 2), samples.root_weights(None), 0)
    kx, ky, place = half_plane(n, band)
    image, factors = centred_rfft2(case.images[1]).ravel()[place], case.ctf[1].ravel()[place]
    model = case.projector.sample(case.matrices[1:], np.stack([kx, ky]))[0] * factors
    model = model * np.exp(2j * np.pi / n * (kx * case.shifts[1, 0] + ky * case.shifts[1, 1]))
    rotation, shift = case.matrices[1].copy(), case.shifts[1] - n // 2
    limits = Limits(np.zeros(2) - n // 2, 9.0, np.eye(3), -2.0)
    particle, work = Particle(loaded.real[1], loaded.imag[1], loaded.ctf[1]), np.zeros((8, 256), np.float32)
    count, grid = len(samples.targets), case.projector.grid
    start, _ = climb(grid, samples.band, count, band, particle, rotation, shift, limits, 0, work)
    norm = np.sqrt(powers[1])
    assert start / norm == pytest.approx(correlation(image, model), rel=1e-4)
    better, amplitude = climb(grid, samples.band, count, band, particle, rotation, shift, limits, 6, work)
    assert better > start and amplitude == pytest.approx(1.0, abs=0.3)
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-9)


def test_coarse_search_equals_brute_force() -> None:
    n, band = 24, 6
    case = Case(n, 5, snr=0.3)
    samples = SampleSet.build(n, (band,))
    orientations, shift_grid = OrientationGrid.build(30.0, 60.0), ShiftGrid.centred(3.0, 1.5)
    grid = CoarseGrid.build(case.projector, samples, len(samples.targets), orientations.matrices(), shift_grid)
    loaded, powers = samples.gather(case.images, samples.take_ctf(case.ctf, 5, 0, 5), samples.root_weights(None), 0)
    rotations, shifts, matches, places, number = grid.search(loaded, grid.norms(loaded.ctf, 5), 4, 20.0)
    everything = (VARIANT_MATRICES[None] @ orientations.matrices()[:, None]).reshape(-1, 3, 3)
    norms = np.sqrt(powers)
    for i in range(5):
        image = centred_rfft2(case.images[i])
        r, s, value = best_on_grid(image, case.ctf[i], case.projector, everything, shift_grid.shifts, band)
        assert matches[i, 0] / norms[i] == pytest.approx(value, rel=1e-4)
        assert places[i, 0] == r or angular_distance(rotations[i, 0], everything[r]) < 1e-3
        assert shifts[i, 0] == pytest.approx(shift_grid.shifts[s])
        apart = angular_distance(rotations[i, 0], rotations[i, 1 : number[i]])
        assert (apart >= 20.0 - 1e-3).all() and (np.diff(matches[i, : number[i]]) <= 0).all()


def test_grid_search_like_spider(case: Case) -> None:
    settings = AlignmentSettings(search="grid", coarse_band=10, shift_step_px=1.0, in_plane_step_deg=10.0)
    result = align_exhaustively(case.images, case.projector, case.ctf, settings)
    turns, moves = case.errors(result)
    assert np.median(turns) < 12 and np.median(moves) < 1.0
    assert np.array_equal(result.poses.shifts, np.rint(result.poses.shifts))
    views = OrientationGrid.build(15.0, 10.0)
    assert len(views.views) == 83
    signs = np.where(result.mirrored, -1, 1)
    cosines = np.einsum("mi,mi->m", result.poses.matrices[:, 2], views.directions()[result.reference]) * signs
    assert np.allclose(cosines, 1)
    assert 0.2 < result.mirrored.mean() < 0.8


def test_restricted_grid_search(case: Case) -> None:
    settings = AlignmentSettings(
        search="grid",
        angular_step_deg=6,
        coarse_band=10,
        in_plane_step_deg=6,
        shift_range_px=2,
        shift_step_px=1,
        range_deg=15,
    )
    prior = case.poses(5.0, 1.0)
    result = align_locally(
        case.images[:6],
        case.projector,
        case.ctf[:6],
        Poses(*(getattr(prior, f.name)[:6] for f in fields(Poses))),
        settings,
    )
    turns = angular_distance(result.poses.matrices, case.matrices[:6])
    away = np.einsum("mi,mi->m", result.poses.matrices[:, 2], prior.matrices[:6, 2])
    assert np.median(turns) < 7 and (away >= np.cos(np.deg2rad(15.01))).all()
    with pytest.raises(InputError, match="needs range_deg"):
        align_locally(case.images, case.projector, case.ctf, prior, AlignmentSettings(search="grid"))


def test_limits_hold(case: Case) -> None:
    prior = case.poses(8.0, 2.0)
    settings = AlignmentSettings(final_band=10, range_deg=3.0, shift_range_px=0.5)
    result = align_locally(case.images, case.projector, case.ctf, prior, settings)
    assert result.moved_deg.max() <= 3.001 and result.moved_px.max() <= 0.5 * np.sqrt(2) + 1e-5


def test_symmetry() -> None:
    case = Case(32, 24, snr=None, symmetry="D2")
    settings = AlignmentSettings(final_band=12, symmetry=case.symmetry)
    whole, unit = OrientationGrid.build(15, 15), OrientationGrid.build(15, 15, case.symmetry)
    assert len(unit.views) < 0.5 * len(whole.views)
    turns, _ = case.errors(align_exhaustively(case.images, case.projector, case.ctf, settings))
    assert np.median(turns) < 0.3


@pytest.mark.parametrize("group", ["C3", "D7", "O", "I"])
def test_asymmetric_unit_leaves_no_gap(group: str) -> None:
    operators = point_group_matrices(group)
    step = 10.0
    unit, whole = OrientationGrid.build(step, 10, operators).directions(), OrientationGrid.build(2.0, 10).directions()
    cosines = np.max([np.abs(whole @ s @ unit.T).max(axis=1) for s in operators], axis=0)
    assert np.rad2deg(np.arccos(np.minimum(cosines, 1))).max() < step
    assert len(unit) < 2.6 * len(OrientationGrid.build(step, 10).views) / len(operators) + 12


def test_weights_and_marginal_candidates(case: Case) -> None:
    noise = (np.abs(centred_rfft2(case.images)) ** 2).mean()
    settings = AlignmentSettings(final_band=12, marginal=3)
    result = align_exhaustively(
        case.images, case.projector, case.ctf, settings, weights_by_shell=np.full(17, 1 / noise)
    )
    assert result.candidates is not None and result.candidate_weights is not None
    assert len(result.candidates) == 3 * len(case.images)
    assert result.candidate_weights.sum(axis=1) == pytest.approx(1)
    assert (np.diff(result.candidate_weights, axis=1) <= 1e-12).all()
    assert np.array_equal(result.candidates.rot[::3], result.poses.rot)
    flat = align_exhaustively(case.images, case.projector, case.ctf, AlignmentSettings(final_band=12, candidates=8))
    assert np.median(angular_distance(flat.poses.matrices, result.poses.matrices)) < 0.5
    assert flat.candidates is None


def test_empty_images_and_few_particles(case: Case) -> None:
    settings = AlignmentSettings(final_band=10, candidates=3)
    images = case.images[:4].copy()
    images[1], images[2] = 0, 7.5
    for result in (
        align_exhaustively(images, case.projector, case.ctf[:4], settings),
        align_locally(images, case.projector, None, Poses(*np.full((5, 4), 3.0)), settings),
        align_exhaustively(images, case.projector, None, AlignmentSettings(search="grid")),
    ):
        assert result.empty.tolist() == [False, True, True, False]
        assert (result.correlation[1:3] == 0).all() and np.isfinite(result.correlation).all()
        assert np.isfinite(result.poses.rot).all()
    nobody = Poses(*np.zeros((5, 0)))
    for none in (
        align_exhaustively(images[:0], case.projector, None, settings),
        align_locally(images[:0], case.projector, None, nobody, settings),
    ):
        assert len(none) == 0 and none.correlation.shape == (0,)
    blank = FourierProjector.from_volume(np.zeros((32, 32, 32)))
    lost = align_exhaustively(images[:1], blank, None, settings)
    assert lost.correlation[0] == 0 and np.isfinite(lost.poses.matrices).all()
    one = align_exhaustively(images[:1], case.projector, case.ctf[:1], settings)
    assert len(one) == 1 and one.correlation[0] > 0.3


def test_bad_input(case: Case) -> None:
    images = case.images.copy()
    images[37, 3, 3] = np.nan
    with pytest.raises(InputError, match="row 37"):
        align_exhaustively(images, case.projector, case.ctf)
    with pytest.raises(InputError, match="box is 32"):
        align_exhaustively(np.zeros((2, 30, 30)), case.projector)
    with pytest.raises(InputError, match="CTF of shape"):
        align_exhaustively(case.images, case.projector, case.ctf[:3])
    with pytest.raises(InputError, match="CTF of row 2"):
        align_exhaustively(case.images[:3], case.projector, np.stack([case.ctf[0], case.ctf[1], case.ctf[2] * np.nan]))
    with pytest.raises(InputError, match="bands"):
        align_exhaustively(case.images, case.projector, None, AlignmentSettings(final_band=30))
    with pytest.raises(InputError, match="3 prior poses"):
        align_locally(case.images, case.projector, None, Poses(*np.zeros((5, 3))))
    with pytest.raises(InputError, match="rot of row 0 is nan"):
        Poses(*np.full((5, 1), np.nan))
    with pytest.raises(InputError, match="weights for 4 shells"):
        align_exhaustively(case.images, case.projector, weights_by_shell=np.ones(4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"angular_step_deg": 0},
        {"search": "fast"},
        {"shift_range_px": -1},
        {"bands": (8, 4)},
        {"range_deg": 0},
        {"shift_step_px": 0},
    ],
)
def test_bad_settings(wrong: dict) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        AlignmentSettings(**wrong)
