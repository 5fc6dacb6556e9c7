"""Refinement: poses, sums, noise, schedule and files, on a small analytic object."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.fourier import centred_rfft2, half_weights, shell_index_2d
from nephila.fsc import fourier_shell_correlation, resolution_at
from nephila.geometry import angular_distance, matrix_to_euler, rotation_vector_to_matrix
from nephila.io.mrc import write_stack
from nephila.masks import spherical_mask
from nephila.particle_sums import ctf_planes, pose_matrices, pose_shifts
from nephila.projection import FourierProjector
from nephila.refinement.certainty import Certainty
from nephila.refinement.chunk import (
    WeightedPoses,
    refine_chunk,
    rows_of_chunk,
    sum_chunk,
    weighted_poses,
    with_poses,
)
from nephila.refinement.levels import Amplitudes
from nephila.refinement.merge import frame_offset, join_weights, merge_iteration, monotone_tail, next_references
from nephila.refinement.model import Decision, IterationRow, RefinementModel, iteration_table, read_model, write_model
from nephila.refinement.noise import NoiseSum, measure_noise
from nephila.refinement.schedule import (
    LATER_STEP_DEG,
    LEAST_BAND,
    LEAST_EXHAUSTIVE,
    LEAST_LOCAL,
    MOST_EXHAUSTIVE,
    MOST_LOCAL,
    alignment_band,
    compared_samples,
    next_decision,
)
from nephila.refinement.settings import IterationSettings
from nephila.refinement.start import order_particles
from nephila.refinement.sums import ChunkSums, add_chunks
from nephila.sampling import ImageSampling

N, PIXEL = 32, 5.0
OPTICS = Optics(300.0, 2.7, 0.1)
SAMPLING = ImageSampling(1, N, PIXEL, N, PIXEL, OPTICS)
POSE_COLUMNS = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"]


def settings(**changes):
    values = IterationSettings(
        iteration=1, pixel_size=PIXEL, box=N, diameter=100.0, symmetry="C1", seed=3, search="continuous", schedule="auto",
        angular_step_deg=10.0, search_range_deg=0.0, shift_range=15.0, halves="independent", ctf="group",
        snr=None, join_resolution=40.0, start_resolution=40.0, centre=True, mask_file=None, mask_edge=15.0,
        mask_diameter=110.0,
    )  # fmt: skip
    return replace(values, **changes)


def blobs(n=N, seed=5):
    """Gaussian blobs within a radius of 0.3 n: no symmetry, power up to Nyquist."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.arange(n) - n // 2,) * 3, indexing="ij")
    volume = np.zeros((n, n, n))
    for _ in range(14):
        place = rng.normal(size=3)
        place *= 0.24 * n * rng.uniform(0.2, 1.0) / np.linalg.norm(place)
        width = rng.uniform(1.1, 2.2)
        volume += np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2) / (2 * width**2))
    return volume.astype(np.float32)


def particles(folder, number, noise, seed=1, volume=None):
    """A table with true poses and its stack in `folder`; two groups; signal of about one deviation inside the object."""
    rng = np.random.default_rng(seed)
    n = N if volume is None else len(volume)
    axes = rng.normal(size=(number, 3))
    axes /= np.linalg.norm(axes, axis=1)[:, None]
    matrices = rotation_vector_to_matrix(axes * rng.uniform(0, np.pi, (number, 1)))
    rot, tilt, psi = matrix_to_euler(matrices)
    origins = rng.uniform(-1.5, 1.5, (number, 2)) * PIXEL
    group = 1 + (np.arange(number) * 2 // max(number, 1))
    defocus = np.where(group == 1, 9000.0, 14000.0)
    table = pd.DataFrame(dict(zip(POSE_COLUMNS, (rot, tilt, psi, *origins.T), strict=True)))
    table = table.assign(
        rlnMicrographName="m.mrc", nphParticleNumber=np.arange(1, number + 1), rlnOpticsGroup=1, nphDefocusGroup=group,
        nphGroupDefocusU=defocus, nphGroupDefocusV=defocus - 200, nphGroupDefocusAngle=20.0, nphCorrelation=0.5,
        rlnRandomSubset=1 + np.arange(number) % 2, rlnImageName=[f"{i:06d}@{folder}/stack.mrcs" for i in range(1, number + 1)],
    )  # fmt: skip
    images = np.zeros((number, n, n), dtype=np.float32)
    if volume is not None:
        slices = FourierProjector.from_volume(volume).slices(pose_matrices(table))
        planes = np.concatenate([ctf_planes(table.iloc[i : i + 1], n, PIXEL, OPTICS, "group") for i in range(number)])
        shifts = pose_shifts(table, PIXEL)
        kx, ky = np.arange(n // 2 + 1), np.fft.fftfreq(n, 1 / n)
        phase = kx[None, None, :] * shifts[:, 0, None, None] + ky[None, :, None] * shifts[:, 1, None, None]
        transforms = slices * planes * np.exp(2j * np.pi * phase / n)
        images = np.fft.fftshift(np.fft.irfft2(transforms, s=(n, n)), axes=(1, 2)).astype(np.float32)
        images /= images[:, n // 4 : -n // 4, n // 4 : -n // 4].std()
    images = (images + noise * rng.standard_normal(images.shape)).astype(np.float32)
    write_stack(folder / "stack.mrcs", images, PIXEL)
    return table


def model_of(decision, noise=1.0, n=N, **row):
    curve = np.zeros(n // 2 + 1)
    return RefinementModel(IterationRow(**row), decision, curve, curve, np.full(n // 2 + 1, float(noise)))


def disturbed(table, degrees, pixels, seed=9):
    rng = np.random.default_rng(seed)
    turned = rotation_vector_to_matrix(
        np.deg2rad(degrees) * rng.normal(size=(len(table), 3)) / np.sqrt(3)
    ) @ pose_matrices(table)
    rot, tilt, psi = matrix_to_euler(turned)
    moved = table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() + PIXEL * pixels * rng.normal(size=(len(table), 2))
    return table.assign(**dict(zip(POSE_COLUMNS, (rot, tilt, psi, *moved.T), strict=True)))


@pytest.mark.parametrize(
    "decision",
    [Decision("local", 5.0, 20.0, 12.0, 12), Decision("exhaustive", 15.0, 0.0, 12.0, 12)],
    ids=lambda d: d.search,
)
def test_known_poses_are_recovered(tmp_path, decision):
    volume = blobs()
    truth = particles(tmp_path, 60, 0.1, volume=volume)
    start = (
        disturbed(truth, 6.0, 0.7) if decision.search == "local" else truth.assign(**dict.fromkeys(POSE_COLUMNS, 0.0))
    )
    found, _ = refine_chunk(start, volume, model_of(decision, 0.01), settings(), OPTICS)
    error = angular_distance(pose_matrices(found), pose_matrices(truth))
    shift = np.hypot(*(pose_shifts(found, PIXEL) - pose_shifts(truth, PIXEL)).T)
    assert np.median(error) < 1.0 and (error > 5).mean() < 0.05
    assert np.median(shift) < 0.1


def test_the_same_for_any_chunks_and_threads(tmp_path):
    volume = blobs(24)
    table = particles(tmp_path, 600, 1.0, volume=volume)
    table = table.assign(rlnRandomSubset=1)
    decision = Decision("exhaustive", 20.0, 0.0, 8.0, 8)
    # groups, micrographs, particles and views that differ
    rng = np.random.default_rng(4)
    fits = {"nphScaleFit": rng.normal(1, 0.3, 600).round(5), "nphScaleError": 0.1}
    table = table.assign(rlnMicrographName=np.where(np.arange(600) % 3, "a.mrc", "b.mrc"), **fits)
    model = replace(
        model_of(decision, n=24), group_factors={1: np.linspace(0.5, 1.5, 13), 2: np.full(13, 1.2)},
        levels={"a.mrc": 0.8, "b.mrc": 1.4}, amplitudes=Amplitudes(1.0, 0.2), views=np.linspace(0.5, 1.0, 12).round(5),
    )  # fmt: skip
    choice = settings(box=24, diameter=80.0, mask_diameter=90.0)

    def run(chunks, threads):
        tables = []
        paths = []
        for chunk in range(1, chunks + 1):
            part, sums = refine_chunk(rows_of_chunk(table, 1, chunk, chunks), volume, model, choice, OPTICS, threads)
            tables.append(part)
            paths.append(tmp_path / f"{chunks}_{chunk}.npz")
            sums.save(paths[-1])
        return pd.concat(tables, ignore_index=True), add_chunks(paths)

    whole, sums = run(1, 1)
    cut, cut_sums = run(2, 2)
    pd.testing.assert_frame_equal(whole, cut, check_exact=True)
    assert sums.groups.keys() == cut_sums.groups.keys() == {1, 2}
    for group, part in sums.groups.items():
        assert part.sums.any() and np.array_equal(part.sums, cut_sums.groups[group].sums)
    assert np.array_equal(sums.noise.residual, cut_sums.noise.residual)
    assert sums.group_noise.keys() == cut_sums.group_noise.keys() == {1, 2}
    for group, noise in sums.group_noise.items():
        assert np.array_equal(noise.residual, cut_sums.group_noise[group].residual)
    assert len(whole["nphScale"].unique()) > 100 and len(whole["nphViewWeight"].unique()) == 12
    assert sums.noise.particles == cut_sums.noise.particles == 600


def iterate(table, references, model, passes, choice):
    for iteration in range(1, passes + 1):
        step = replace(choice, iteration=iteration)
        done = [
            refine_chunk(
                table[table["rlnRandomSubset"] == half].reset_index(drop=True),
                references[half - 1],
                model,
                step,
                OPTICS,
            )
            for half in (1, 2)
        ]
        new = pd.concat([part for part, _ in done], ignore_index=True)
        merged = merge_iteration((done[0][1], done[1][1]), new, table, model, step, model.next.search)
        table, references, model = new, merged.references, merged.model
    return table, merged


def test_noise_claims_nothing_beyond_the_join_and_the_start(tmp_path):
    table = order_particles([particles(tmp_path, 300, 1.0)])
    reference = np.asarray(blobs())
    _, merged = iterate(
        table, (reference, reference), model_of(Decision("exhaustive", 15.0, 0.0, 10.0, 6)), 3, settings()
    )
    limit = N * PIXEL / 40.0
    assert merged.model.row.resolution_0143 >= N * PIXEL / (limit + 2)
    assert merged.model.next.band <= limit + 5


def test_refinement_mends_poses_and_claims_what_is_true(tmp_path):
    volume = blobs()
    truth = order_particles([particles(tmp_path, 400, 0.4, volume=volume)])
    mask = spherical_mask(N, 11, 3)
    low = volume * mask
    start = disturbed(truth, 12.0, 0.8)
    before = angular_distance(pose_matrices(start), pose_matrices(truth))
    found, merged = iterate(start, (low, low), model_of(Decision("exhaustive", 15.0, 0.0, 12.0, 6)), 2, settings())
    after = angular_distance(pose_matrices(found), pose_matrices(truth))
    assert np.median(after) < 0.4 * np.median(before)
    curve = fourier_shell_correlation(merged.volume * mask, volume * mask)
    true_shell = N * PIXEL / (resolution_at(curve, 0.5, N, PIXEL) or np.inf)
    claimed_shell = N * PIXEL / merged.model.row.resolution_0143
    assert claimed_shell <= true_shell + 1.01


def test_white_noise_has_power_one():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((40, N, N)).astype(np.float32)
    none = np.zeros((40, N, N // 2 + 1), dtype=np.complex64)
    total = measure_noise(centred_rfft2(images), none, np.ones((1, N, N // 2 + 1), np.float32), np.zeros((40, 2)), 0)
    assert np.allclose(total.noise[4:], 1.0, atol=0.12) and not total.signal_power.any()


def test_noise_is_the_residual_of_the_fitted_model():
    rng = np.random.default_rng(1)
    image = centred_rfft2(rng.standard_normal((1, N, N)).astype(np.float32))
    slices = centred_rfft2(rng.standard_normal((1, N, N)).astype(np.float32))
    ctf = rng.uniform(0.2, 1.0, (1, N, N // 2 + 1)).astype(np.float32)
    shift, band = np.array([[0.7, -1.3]]), 9
    got = measure_noise(image, slices, ctf, shift, band)
    kx, ky = np.arange(N // 2 + 1)[None, :], np.fft.fftfreq(N, 1 / N)[:, None]
    centred = image[0] * np.exp(-2j * np.pi * (kx * shift[0, 0] + ky * shift[0, 1]) / N)
    shells = shell_index_2d(N)
    weights = np.broadcast_to(half_weights(N), shells.shape)
    inside = (shells >= 1) & (shells <= band)
    fitted = slices[0] * ctf[0]
    amplitude = (weights * (fitted.conj() * centred).real)[inside].sum() / (weights * np.abs(fitted) ** 2)[inside].sum()
    left = np.where(shells <= band, centred - max(amplitude, 0) * fitted, centred)
    for shell in range(1, N // 2):
        mine = shells == shell
        expected = (weights * np.abs(left) ** 2)[mine].sum() / weights[mine].sum() / N**2
        assert got.noise[shell] == pytest.approx(expected, rel=1e-3)


def test_sums_of_noise_are_exact():
    a, b = NoiseSum.empty(N), NoiseSum.empty(N)
    a.residual += 3
    b.residual += 4
    b.particles = 2
    assert (a.add(b).residual == 7).all() and a.particles == 2


def fsc_curve(last, value=0.9, n=90):
    curve = np.zeros(n // 2 + 1)
    curve[: last + 1] = value
    return curve


BIG = {"box": 90, "pixel_size": 3.0, "diameter": 170.0, "mask_diameter": 187.0}


def test_band_follows_the_fsc_past_a_dip():
    choice = settings(**BIG)
    assert 20 <= alignment_band(fsc_curve(20), choice) <= 24
    dip = fsc_curve(33)
    dip[20:30] = 0.1
    assert alignment_band(dip, choice) >= 33
    assert alignment_band(np.zeros(46), choice) == LEAST_BAND
    assert alignment_band(np.ones(46), choice) == 44


def test_band_is_not_opened_by_chance():
    choice = settings(**BIG)
    share = np.pi / 6 * (187.0 / 270.0) ** 3
    shells = np.arange(46)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        curve = fsc_curve(10) + rng.normal(size=46) / np.sqrt(np.maximum(2 * np.pi * shells**2 * share, 1))
        assert alignment_band(curve, choice) <= 16


def test_schedule_goes_from_exhaustive_to_local_to_the_end():
    choice, curve = settings(**BIG), fsc_curve(20)
    band = alignment_band(curve, choice)
    exhaustive = Decision("exhaustive", LATER_STEP_DEG, 0.0, choice.shift_range, band)

    def after(
        search, moved, moved_before, band_before=band, exhaustive_passes=0, local_passes=0, share=0.01, earlier=0.01
    ):
        row = IterationRow(
            search=search,
            moved_deg=moved,
            share_moved=share,
            moved_angst=0.1,
            exhaustive_passes=exhaustive_passes,
            local_passes=local_passes,
        )
        before = model_of(replace(exhaustive, band=band_before), n=90, moved_deg=moved_before, share_moved=earlier)
        return next_decision(before, row, curve, choice)

    assert after("exhaustive", 5.0, 0.0, exhaustive_passes=1) == (False, exhaustive)
    assert after("exhaustive", 5.0, 10.0, exhaustive_passes=LEAST_EXHAUSTIVE)[1].search == "exhaustive"
    assert after("exhaustive", 5.0, 5.5, exhaustive_passes=LEAST_EXHAUSTIVE)[1].search == "local"
    assert after("exhaustive", 5.0, 10.0, exhaustive_passes=MOST_EXHAUSTIVE)[1].search == "local"
    assert after("exhaustive", 0.5, 5.0, exhaustive_passes=LEAST_EXHAUSTIVE)[1].search == "local"
    # the median is quiet, but many particles change their view: on, as long as they become fewer
    assert after("exhaustive", 0.5, 0.6, exhaustive_passes=3, share=0.1, earlier=0.2)[1].search == "exhaustive"
    assert after("exhaustive", 0.5, 0.6, exhaustive_passes=3, share=0.1, earlier=0.1)[1].search == "local"
    assert not after("local", 0.1, 1.0, local_passes=LEAST_LOCAL - 1)[0]
    assert after("local", 0.1, 1.0, local_passes=LEAST_LOCAL)[0]
    assert not after("local", 0.1, 1.0, band_before=band - 3, local_passes=LEAST_LOCAL)[0]
    assert after("local", 3.0, 4.0, local_passes=MOST_LOCAL)[0]
    assert after("local", 3.0, 4.0, local_passes=1)[1].search_range_deg == pytest.approx(9.0)


@pytest.mark.parametrize("rows", [[0], [1], [0, 1]])
def test_runners_up_do_not_depend_on_the_other_particles_of_a_chunk(rows):
    """A particle without one has 0 after an exhaustive search, alone or not, and keeps the last one through local passes."""
    runner_up, zeros = np.array([np.nan, 0.3])[rows], np.zeros(len(rows))
    poses = SimpleNamespace(rot=zeros, tilt=zeros, psi=zeros, shift_x=zeros, shift_y=zeros)
    result = SimpleNamespace(poses=poses, correlation=zeros + 0.5, runner_up=runner_up)
    table = pd.DataFrame({"nphRunnerUp": np.array([0.6, 0.2])[rows]})
    assert with_poses(table, result, 2.0, everywhere=True)["nphRunnerUp"].tolist() == [[0.0, 0.3][i] for i in rows]
    assert with_poses(table, result, 2.0)["nphRunnerUp"].tolist() == [[0.6, 0.2][i] for i in rows]


def test_model_star_round_trip(tmp_path):
    row = IterationRow(3, "local", True, 250, 8.1, 9.7, 10.2, 5.0, 0.12, 0.4, 0.01, 0.25, 0.6, 2, 1)
    rng = np.random.default_rng(2)
    curves = np.round(rng.uniform(0, 1, (3, N // 2 + 1)), 5)
    groups = pd.DataFrame({"nphDefocusGroup": [1, 2], "nphParticles": [100, 150], "nphResolutionHalf": [20.0, 18.5]})
    certainty = Certainty(0.6, 0.2, 0.02, 0.3, 0.03)
    model = RefinementModel(row, Decision("local", 3.5, 9.0, 6.0, 13), *curves, groups, certainty)
    write_model(tmp_path / "model.star", model, PIXEL, N)
    back = read_model(tmp_path / "model.star")
    assert back.row == row and back.next == model.next and back.certainty == certainty
    for name in ("fsc", "fsc_unmasked", "noise"):
        assert np.allclose(getattr(back, name), getattr(model, name), atol=2e-5)
    pd.testing.assert_frame_equal(back.groups, groups, check_dtype=False)
    assert len(iteration_table([model, model.passed_on(4)])) == 2
    older = (tmp_path / "model.star").read_text().replace("_nphShareRight", "_nphOther")
    (tmp_path / "older.star").write_text(older)
    with pytest.raises(InputError, match="older.star: column nphShareRight is missing.*delete the file"):
        read_model(tmp_path / "older.star")
    (tmp_path / "bad.star").write_text("data_general\n\n_nphIteration 1\n")
    with pytest.raises(InputError, match="fsc"):
        read_model(tmp_path / "bad.star")


def test_weighted_poses_add_up_to_one(tmp_path):
    volume = blobs()
    table = particles(tmp_path, 40, 3.0, volume=volume)
    model, choice = model_of(Decision("exhaustive", 15.0, 0.0, 10.0, 10), 9.0), settings()
    found, sums = refine_chunk(table, volume, model, choice, OPTICS)
    assert sum(part.weight for part in sums.groups.values()) == pytest.approx(40, rel=1e-3)
    single = WeightedPoses.single(found, PIXEL)
    assert single.weights.shape == (40, 1) and np.allclose(single.matrices[:, 0], pose_matrices(found))


def test_unlikely_candidates_are_left_out():
    class Result:
        candidates = type("P", (), {"matrices": np.tile(np.eye(3), (6, 1, 1)), "shifts": np.zeros((6, 2))})()
        candidate_weights = np.array([[0.7, 0.295, 0.005], [1.0, 0.0, 0.0]])

    table = pd.DataFrame(np.zeros((2, 5)), columns=POSE_COLUMNS)
    weights = weighted_poses(table, Result(), PIXEL).weights
    assert np.allclose(weights.sum(axis=1), 1) and weights[0, 2] == 0 and weights[0, 1] == pytest.approx(0.295 / 0.995)
    Result.candidates = None
    assert weighted_poses(table, Result(), PIXEL).weights.shape == (2, 1)


def test_sums_of_candidates_are_sums_of_their_poses(tmp_path):
    """Two poses of weight 1/2 give the mean of the sums of either."""
    volume = blobs()
    table = particles(tmp_path, 12, 0.5, volume=volume).assign(nphDefocusGroup=1)
    other = disturbed(table, 20.0, 1.0)
    from nephila.particle_images import ParticleImages

    images, projector = ParticleImages(table), FourierProjector.from_volume(volume)
    first, second = WeightedPoses.single(table, PIXEL), WeightedPoses.single(other, PIXEL)
    both = WeightedPoses(
        np.concatenate([first.matrices, second.matrices], axis=1),
        np.concatenate([first.shifts, second.shifts], axis=1),
        np.full((12, 2), 0.5, dtype=np.float32),
    )

    def total(poses):
        sums, _ = sum_chunk(table, images, projector, 10, np.ones(N // 2 + 1), settings(), SAMPLING, 1, poses)
        return sums.groups[1].sums.astype(float)

    expected = 0.5 * (total(first) + total(second))
    assert np.abs(total(both) - expected).max() < 2e-3 * np.abs(expected).max()


def test_samples_that_a_search_compares():
    search = Decision("exhaustive", 15.0, 0.0, 10.0, 20)
    assert compared_samples(search, settings()) == pytest.approx(np.pi * 200)
    assert compared_samples(search, settings(search="grid")) == pytest.approx(np.pi * 32)


def test_particles_weigh_what_their_pose_is_worth(tmp_path):
    """A particle of weight 0.25 adds a quarter of what it adds with weight 1."""
    from nephila.particle_images import ParticleImages

    volume = blobs()
    table = particles(tmp_path, 6, 0.5, volume=volume).assign(nphDefocusGroup=1)
    images, projector = ParticleImages(table), FourierProjector.from_volume(volume)

    def total(rows):
        sums, _ = sum_chunk(rows, images, projector, 10, np.ones(N // 2 + 1), settings(), SAMPLING, 1)
        return sums.groups[1].sums.astype(float)

    whole = total(table)
    assert np.abs(total(table.assign(nphWeight=0.25)) - 0.25 * whole).max() < 2e-3 * np.abs(whole).max()


def test_frame_offset_and_its_correction(tmp_path):
    table = particles(tmp_path, 300, 1.0)
    moved = np.array([2.0, -1.0, 1.5])
    inplane = np.einsum("nij,j->ni", pose_matrices(table)[:, :2], moved) * PIXEL
    table[["rlnOriginXAngst", "rlnOriginYAngst"]] += inplane
    choice = settings()
    offset = frame_offset(table, choice)
    assert np.allclose(offset, moved, atol=0.2)
    assert np.array_equal(frame_offset(table, settings(symmetry="D2")), np.zeros(3))
    assert np.array_equal(frame_offset(table, settings(symmetry="C3"))[:2], np.zeros(2))
    volume = blobs()
    ones = np.ones(N // 2 + 1)
    curves = type("Curves", (), {"corrected": ones})()
    whole = np.ones_like(volume)
    same, _ = next_references((volume, volume), curves, whole, choice, 0.3 * moved / np.linalg.norm(moved))
    assert np.allclose(same[0], volume, atol=1e-3)
    back, _ = next_references(
        (np.roll(volume, (2, -1, 2), axis=(0, 1, 2)),) * 2, curves, whole, choice, (2.0, -1.0, 2.0)
    )
    assert np.allclose(back[0], volume, atol=1e-3)


def test_join_and_tail():
    weights = join_weights(N, settings())
    assert weights[0] == 1 and weights[3] == 1 and weights[6] == 0 and (np.diff(weights) <= 0).all()
    assert not join_weights(N, settings(join_resolution=0.0)).any()
    curve = np.array([1.0, 0.9, 0.5, 0.04, 0.3, 0.01, 0.02, 0.4, 0.5])
    assert np.array_equal(monotone_tail(curve), [1.0, 0.9, 0.5, 0.04, 0.3, 0, 0, 0, 0])


def test_order_and_empty_halves(tmp_path):
    table = particles(tmp_path, 9, 1.0).assign(nphDefocusGroup=[1, 2, 2, 2, 1, 2, 1, 2, 2])
    ordered = order_particles([table[table["nphDefocusGroup"] == g] for g in (1, 2)])
    assert list(ordered["rlnRandomSubset"]) == sorted(ordered["rlnRandomSubset"])
    assert list(ordered["nphDefocusGroup"][:3]) == [2, 2, 1] or ordered["nphDefocusGroup"].iloc[0] == 2
    with pytest.raises(InputError, match="half-sets"):
        order_particles([table.assign(rlnRandomSubset=1)])
    empty, sums = refine_chunk(table.iloc[:0], blobs(), model_of(Decision("local", 5, 5, 5, 6)), settings(), OPTICS)
    assert len(empty) == 0 and sums.groups == {}
    with pytest.raises(InputError, match="32"):
        refine_chunk(table, blobs(), model_of(Decision("local", 5, 5, 5, 6)), settings(box=40), OPTICS)


def test_a_file_of_sums_that_is_none(tmp_path):
    (tmp_path / "sums.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"sums\.npz"):
        add_chunks([tmp_path / "sums.npz"])
    ChunkSums({}, None).save(tmp_path / "none.npz")
    assert add_chunks([tmp_path / "none.npz"]).groups == {}
