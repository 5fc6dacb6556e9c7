"""Noise of groups and micrographs, amplitudes, crowded views: what is measured, and that sums weighted by it are better."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_refinement import OPTICS, PIXEL, POSE_COLUMNS, SAMPLING, N, blobs, model_of, particles, settings

from nephila.config import parse_config
from nephila.errors import InputError
from nephila.finishing import finish
from nephila.fourier import centred_rfft2
from nephila.fsc import fourier_shell_correlation
from nephila.io.mrc import write_stack
from nephila.kernels.residual import shell_counts
from nephila.masks import spherical_mask
from nephila.particle_images import ParticleImages
from nephila.particle_sums import at_unit_amplitude, backproject_table, particle_scales, particle_weights
from nephila.projection import FourierProjector
from nephila.refinement.chunk import sum_chunk, weighted_poses
from nephila.refinement.groups import correlation_changes, group_fsc_table, with_mean_factors
from nephila.refinement.levels import (
    Amplitudes,
    group_factors,
    micrograph_levels,
    noise_levels,
    view_factors,
    with_levels,
)
from nephila.refinement.merge import STABILISER, merge_iteration
from nephila.refinement.model import Decision, RefinementModel, iteration_table, read_model, write_model
from nephila.refinement.settings import iteration_settings
from nephila.refinement.sums import whole
from nephila.views import view_bins

ONES = np.ones(N // 2 + 1)
BAND = 13


class Set:
    """Particles in their true poses, with noise and signal as wished [m], two groups."""

    def __init__(self, folder, number, deviation, amplitude=1.0, groups=2):
        folder.mkdir(exist_ok=True)
        self.volume = blobs()
        self.table = particles(folder, number, 0.0, volume=self.volume)
        clean = ParticleImages(self.table)[0:number]
        rng = np.random.default_rng(17)
        noise = rng.standard_normal(clean.shape) * np.broadcast_to(deviation, number)[:, None, None]
        images = clean * np.broadcast_to(amplitude, number)[:, None, None] + noise
        write_stack(folder / "stack.mrcs", images.astype(np.float32), PIXEL)
        if groups == 1:
            same = self.table.iloc[0]
            self.table = self.table.assign(nphDefocusGroup=1, nphGroupDefocusU=same.nphGroupDefocusU).assign(
                nphGroupDefocusV=same.nphGroupDefocusV
            )
        self.projector = FourierProjector.from_volume(self.volume, max_radius=BAND)

    def sums(self, table=None, factors=None, noise=ONES):
        rows = self.table if table is None else table
        return sum_chunk(
            rows, ParticleImages(rows), self.projector, BAND, noise, settings(), SAMPLING, 1, factors=factors
        )

    def correlation(self, sums):
        """Mean FSC of the map with the truth, over shells that noise limits."""
        found = finish(whole(sums.groups), "C1", STABILISER)
        mask = spherical_mask(N, 12, 4)
        return float(fourier_shell_correlation(found * mask, self.volume * mask)[2:BAND].mean())


def test_a_noisy_group_weighs_less_and_the_map_is_better(tmp_path):
    """Two groups whose noise power differs by four, coloured alike."""
    case = Set(tmp_path, 240, np.where(np.arange(240) < 120, 2.0, 4.0))
    equal, _ = case.sums()
    assert equal.noise is not None
    overall = equal.noise.noise
    factors = group_factors(equal.group_noise, dict.fromkeys(equal.group_noise, overall))
    assert np.mean(factors[2][3:] / factors[1][3:]) == pytest.approx(4.0, rel=0.2)  # shrunk, and what shrinks says
    weighted, _ = case.sums(factors=factors)
    gain = case.correlation(weighted) - case.correlation(equal)
    assert gain > 0.02


def test_equal_noise_changes_nothing(tmp_path):
    case = Set(tmp_path, 240, 3.0)
    plain, _ = case.sums()
    same, _ = case.sums(factors={1: ONES, 2: ONES})
    assert all(np.array_equal(plain.groups[i].sums, same.groups[i].sums) for i in (1, 2))
    factors = group_factors(plain.group_noise, dict.fromkeys(plain.group_noise, plain.noise.noise))
    assert all(np.abs(curve[3:] - 1).max() < 0.12 for curve in factors.values())
    measured, _ = case.sums(factors=factors)
    maps = [finish(whole(part.groups), "C1", STABILISER) for part in (plain, measured)]
    assert np.abs(maps[0] - maps[1]).max() < 0.02 * np.abs(maps[0]).max()
    assert case.correlation(measured) == pytest.approx(case.correlation(plain), abs=2e-3)


def test_few_particles_are_shrunk_towards_the_overall_spectrum(tmp_path):
    sums, _ = Set(tmp_path, 240, 3.0).sums()
    noise = sums.group_noise
    for number, part in noise.items():
        part.particles = {1: 5, 2: 2000}[number]
        part.residual = part.residual * 0 + int(4 * part.particles * 2**20)
    factors = group_factors(noise, {1: ONES, 2: ONES})
    prior = 3 + 50 / shell_counts(N)
    for number, size in ((1, 5), (2, 2000)):
        expected = 1 + 3 * size / (size + prior)
        assert factors[number][1:] == pytest.approx(expected[1:], abs=1e-4)


def test_a_micrograph_with_twice_the_noise_weighs_a_quarter(tmp_path):
    number = 200
    noisy = np.arange(number) % 2 == 1
    case = Set(tmp_path, number, np.where(noisy, 4.0, 2.0), groups=1)
    table = case.table.assign(rlnMicrographName=np.where(noisy, "b.mrc", "a.mrc"))
    _, fit = case.sums(table)
    measured = table.assign(nphNoiseFit=fit.level)
    measured.loc[1, "nphNoiseFit"] = 500.0  # a particle on dirt does not speak for its micrograph
    levels = micrograph_levels(measured)
    weights = particle_weights(with_levels(measured, levels, Amplitudes(), np.zeros(0)))
    assert weights[noisy][0] / weights[~noisy][0] == pytest.approx(0.25, rel=0.1)
    assert np.mean([levels["a.mrc"], levels["b.mrc"]]) == pytest.approx(1.0, abs=0.02)
    few = micrograph_levels(measured.iloc[:4])
    assert 1.5 < few["b.mrc"] / few["a.mrc"] < 2.6


def test_amplitudes_are_recovered_and_noise_alone_spreads_none(tmp_path):
    rng = np.random.default_rng(5)
    number = 300
    true = np.clip(rng.normal(1.0, 0.25, number), 0.4, 1.6)
    for amplitude, spread in ((true, 0.25), (np.ones(number), 0.0)):
        case = Set(tmp_path / f"{spread}", number, 2.0, amplitude)
        _, fit = case.sums(noise=4.0 * ONES)
        table = case.table.assign(nphScaleFit=fit.amplitude, nphScaleError=fit.error)
        found = Amplitudes.measure(table)
        scales = found.scales(table)
        assert scales.min() >= 0.5 and scales.max() <= 2.0
        if spread:
            assert found.deviation == pytest.approx(spread, rel=0.2)
            assert np.corrcoef(scales, amplitude)[0, 1] > 0.85
            assert np.abs(scales - amplitude / np.median(amplitude)).mean() < 0.6 * np.abs(amplitude - 1).mean()
            errors = (fit.amplitude / np.median(fit.amplitude) - amplitude) / (fit.error / found.mean)
            assert errors.std() == pytest.approx(1.0, abs=0.25)  # the stated errors are true
        else:
            assert np.abs(scales - 1).max() < 0.1
    assert Amplitudes.measure(table.iloc[:20]) == Amplitudes()


def test_scaled_images_add_what_scaled_projections_would(tmp_path):
    rng = np.random.default_rng(8)
    transforms = centred_rfft2(rng.standard_normal((3, N, N)).astype(np.float32))
    weights, scales = np.array([1, 0.5, 2], np.float32), np.array([0.5, 1.5, 1.0], np.float32)
    images, changed = at_unit_amplitude(transforms, weights, scales)
    assert np.allclose(images * changed[:, None, None], transforms * (weights * scales)[:, None, None])
    assert np.allclose(changed, weights * scales**2)
    same, kept = at_unit_amplitude(transforms, weights, np.ones(3, np.float32))
    assert same is transforms and kept is weights
    case = Set(tmp_path, 12, 1.0)
    one = backproject_table(case.table, PIXEL, N, OPTICS, "group")
    double = backproject_table(case.table.assign(nphScale=2.0), PIXEL, N, OPTICS, "group")
    assert np.abs(double.sums[:, :2] - 2 * one.sums[:, :2]).max() < 100
    assert np.abs(double.sums[:, 2] - 4 * one.sums[:, 2]).max() < 100
    assert np.array_equal(particle_scales(case.table), np.ones(12, np.float32))


def test_final_sums_take_the_groups_noise(tmp_path):
    case = Set(tmp_path, 40, 1.0)
    whole_sum = backproject_table(case.table, PIXEL, N, OPTICS, "group", group_factors={1: 2 * ONES, 2: 4 * ONES})
    parts = [
        backproject_table(
            case.table[case.table["nphDefocusGroup"] == i], PIXEL, N, OPTICS, "group", noise=factor * ONES
        )
        for i, factor in ((1, 2.0), (2, 4.0))
    ]
    assert np.array_equal(whole_sum.sums, parts[0].sums + parts[1].sums)


def test_noise_flattens_likelihoods():
    class Result:
        candidates = type("P", (), {"matrices": np.tile(np.eye(3), (4, 1, 1)), "shifts": np.zeros((4, 2))})()
        candidate_weights = np.array([[0.9, 0.1], [0.9, 0.1]])

    table = pd.DataFrame(np.zeros((2, 5)), columns=POSE_COLUMNS).assign(
        nphDefocusGroup=[1, 2], rlnMicrographName=["a.mrc", "b.mrc"]
    )
    level = noise_levels(table, {2: 2 * ONES}, {"b.mrc": 2.0}, BAND)
    assert level.tolist() == [1.0, 4.0]
    weights = weighted_poses(table, Result(), PIXEL, level).weights
    assert weights[0] == pytest.approx([0.9, 0.1])
    assert weights[1, 0] / weights[1, 1] == pytest.approx(9**0.25, rel=1e-5)


@pytest.mark.parametrize("group", ["C1", "D2"])
def test_crowded_views_are_capped(group):
    rng = np.random.default_rng(3)
    table = pd.DataFrame(
        {
            "rlnAngleRot": rng.uniform(-180, 180, 3000),
            "rlnAngleTilt": np.rad2deg(np.arccos(rng.uniform(-1, 1, 3000))),
        }
    )
    crowd = pd.DataFrame({"rlnAngleRot": 40 + rng.normal(0, 2, 1500), "rlnAngleTilt": 60 + rng.normal(0, 2, 1500)})
    both = pd.concat([table, crowd], ignore_index=True)
    views = view_factors(both, group, 2.0)
    capped = with_levels(both, {}, Amplitudes(), views)
    weights = particle_weights(capped)
    assert np.mean(weights[:3000]) > 0.95 and np.mean(weights[3000:]) < 0.4
    if group == "C1":
        rings = round(np.sqrt(len(views) / 3))
        counts = np.bincount(view_bins(both, rings), weights=weights, minlength=len(views))
        assert counts.max() == pytest.approx(2 * len(both) / len(views), rel=1e-3)
    even = view_factors(table, group, 3.0)
    assert even.min() > 0.99
    assert len(view_factors(both, group, None)) == 0
    assert "nphViewWeight" not in with_levels(capped, {}, Amplitudes(), np.zeros(0))


def test_model_star_keeps_levels(tmp_path):
    curve = np.zeros(N // 2 + 1)
    start = model_of(Decision("local", 5.0, 20.0, 12.0, 12))
    model = RefinementModel(
        start.row, start.next, curve, curve, ONES, group_factors={3: 1.5 * ONES, 12: 0.5 * ONES},
        levels={"a b.mrc": 1.25}, amplitudes=Amplitudes(0.9, 0.2), views=np.array([1.0, 0.5, 1.0]),
    )  # fmt: skip
    write_model(tmp_path / "model.star", model, PIXEL, N)
    back = read_model(tmp_path / "model.star")
    assert back.levels == model.levels and back.amplitudes == model.amplitudes
    assert back.group_factors.keys() == {3, 12} and np.array_equal(back.views, model.views)
    assert all(np.array_equal(back.group_factors[i], model.group_factors[i]) for i in (3, 12))
    assert read_model(tmp_path / "model.star").entering(pd.DataFrame()).empty


def test_rows_of_groups(tmp_path):
    case = Set(tmp_path, 80, 1.0)
    half = case.table["rlnRandomSubset"]
    sums = tuple(case.sums(case.table[half == i].reset_index(drop=True))[0] for i in (1, 2))
    before = pd.concat([case.table[half == i] for i in (1, 2)], ignore_index=True)
    after = before.copy()
    first = (after["nphDefocusGroup"] == 1).to_numpy()
    after.loc[first, "nphCorrelation"] += np.where(np.arange(first.sum()) % 4 == 0, -0.2, 0.1)
    after.loc[first, "rlnOriginXAngst"] += np.where(np.arange(first.sum()) % 2 == 0, 4.0, 0.0)
    rows = with_mean_factors(group_fsc_table(sums, after, before, settings(), 5.0), {1: 2 * ONES})
    one, two = rows.iloc[0], rows.iloc[1]
    assert (one["nphShareCorrelationUp"], one["nphShareCorrelationDown"]) == (0.75, 0.25)
    assert one["nphCorrelationGained"] == pytest.approx(0.075) and one["nphCorrelationLost"] == pytest.approx(0.05)
    assert one["nphMeanShift"] == pytest.approx(2.0) and two["nphMeanShift"] == 0.0
    assert two["nphShareCorrelationUp"] == two["nphShareCorrelationDown"] == 0.0
    assert 0 < one["nphResolution"] <= one["nphResolutionHalf"]
    assert (one["nphNoiseFactor"], two["nphNoiseFactor"]) == (2.0, 1.0)
    assert correlation_changes(pd.DataFrame())["correlation_gained"] == 0.0


def test_each_iteration_tells_of_a_mask_that_makes_resolution(tmp_path, caplog):
    rng = np.random.default_rng(4)
    case = Set(tmp_path, 120, 1.0)
    half = case.table["rlnRandomSubset"]
    sums = tuple(case.sums(case.table[half == i].reset_index(drop=True))[0] for i in (1, 2))
    table = pd.concat([case.table[half == i] for i in (1, 2)], ignore_index=True)
    from nephila.io.mrc import write_volume

    write_volume(tmp_path / "speckled.mrc", (rng.random((N, N, N)) < 0.03).astype(np.float32), PIXEL)
    for file, suspect in ((None, False), (str(tmp_path / "speckled.mrc"), True)):
        model = model_of(Decision("local", 5.0, 20.0, 12.0, 12))
        caplog.clear()
        with caplog.at_level("WARNING"):
            row = merge_iteration(sums, table, table, model, settings(mask_file=file), "local").model.row
        assert row.mask_suspect == suspect
        assert any("mask itself" in record.message for record in caplog.records) == suspect
    assert iteration_table([model])["nphMaskSuspect"].tolist() == [0]
    capped = merge_iteration(sums, table, table, model, settings(view_cap=2.0), "local").model
    assert len(capped.views) and capped.views.min() > 0 and not len(model.views)
    configured = iteration_settings(parse_config({"refinement": {"view_cap": 2.0}}), 1)
    assert configured["view_cap"] == 2.0
    with pytest.raises(InputError, match="view_cap"):
        parse_config({"refinement": {"view_cap": 0.5}})
