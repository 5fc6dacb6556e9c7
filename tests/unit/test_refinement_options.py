"""Every option of the refinement and of solving for volumes does what it says, from the configuration to the result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_iterative_reconstruction import particles as sums_of_particles
from test_refinement import (
    OPTICS,
    PIXEL,
    POSE_COLUMNS,
    N,
    blobs,
    disturbed,
    model_of,
    particles,
    settings,
)

from nephila.config import parse_config
from nephila.errors import InputError
from nephila.first_reconstruction import half_volumes, solve
from nephila.fourier import centred_rfftn, radial_average
from nephila.fsc import MaskedFsc
from nephila.geometry import angular_distance
from nephila.iterative_reconstruction import ConjugateGradientSettings, RichardsonSettings
from nephila.particle_sums import pose_matrices
from nephila.project import ProjectPlan
from nephila.references import filter_at_resolution
from nephila.refinement.chunk import refine_chunk
from nephila.refinement.final import FinalSettings, final_volumes
from nephila.refinement.merge import next_references
from nephila.refinement.model import Decision
from nephila.refinement.reference_filter import reference_filters
from nephila.refinement.schedule import decision_of
from nephila.refinement.settings import IterationSettings, enhances, iteration_settings
from nephila.refinement.sums import ChunkSums

METHODS = ("direct", "conjugate_gradients", "richardson")


def plan(**sections: dict[str, Any]) -> ProjectPlan:
    return ProjectPlan(parse_config(sections), {}, ())


def at(iteration: int, **sections: dict[str, Any]) -> IterationSettings:
    return IterationSettings(**iteration_settings(parse_config(sections), iteration))


def power(volume: np.ndarray) -> np.ndarray:
    return radial_average(np.abs(centred_rfftn(volume)) ** 2, len(volume))[2:-2]


@pytest.mark.parametrize("method", METHODS)
def test_the_snr_counts_for_every_method(method: str) -> None:
    total, _ = sums_of_particles(24, 100, noise=2.0)
    halves = ChunkSums({1: total, 2: total}, None)
    volumes = {}
    for snr in (3.0, 0.1):
        chosen = plan(reconstruction={"method": method, "snr": snr}).reconstruction_settings
        volumes[snr] = half_volumes(halves, chosen, "C1")[0]
    # the mean CTF^2 is about 1 / 2: the filter CTF^2 / (CTF^2 + 1 / SNR) leaves 0.6 of amplitudes at SNR 3, 0.05 at 0.1
    ratio = np.sqrt(power(volumes[0.1]) / power(volumes[3.0]))
    assert (ratio < 0.35).all() and (ratio > 0.02).all(), ratio
    # and as much as in the division
    divided = [power(solve(total, "direct", "C1", 1 / snr)) for snr in (0.1, 3.0)]
    assert np.median(ratio) == pytest.approx(np.median(np.sqrt(divided[0] / divided[1])), rel=0.25)


@pytest.mark.parametrize("method", METHODS)
def test_the_snr_counts_in_the_final_volumes(method: str) -> None:
    first, second = (sums_of_particles(24, 80, noise=1.0)[0] for _ in range(2))
    halves = ChunkSums({0: first}, None), ChunkSums({0: second}, None)
    final = FinalSettings(**plan(refinement={"end_method": method}).final_settings)
    maps = [
        final_volumes(halves, settings(box=24, pixel_size=3.0, diameter=50.0, mask_diameter=55.0, snr=snr), final).map
        for snr in (None, 3.0, 0.1)
    ]
    means = [np.sqrt(power(volume)).mean() for volume in maps]
    assert means[0] > 1.1 * means[1] > 2 * means[2], means


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("conjugate_gradients", {"rounds": 1}),
        ("conjugate_gradients", {"prior": 0.0}),
        ("conjugate_gradients", {"smoothness": 3.0}),
        ("conjugate_gradients", {"radius": 0.7}),
        ("richardson", {"rounds": 2}),
        ("richardson", {"step": 0.1}),
        ("richardson", {"radius": 0.7}),
        ("richardson", {"positive": True}),
    ],
)
def test_settings_of_the_iterative_methods_arrive(method: str, options: dict[str, Any]) -> None:
    total, _ = sums_of_particles(20, 60, noise=2.0)
    chosen = plan(reconstruction={method: options}, refinement={"end_method": method}).final_settings
    plain = plan(refinement={"end_method": method}).final_settings
    changed, usual = (solve(total, method, "C1", None, options=each["options"]) for each in (chosen, plain))
    assert np.linalg.norm(changed - usual) > 1e-3 * np.linalg.norm(usual)
    if options.get("positive"):
        assert changed.min() >= 0 > usual.min()


def test_defaults_of_the_configuration_are_those_of_the_functions() -> None:
    defaults = parse_config({}).reconstruction
    assert ConjugateGradientSettings(**defaults.options_of("conjugate_gradients")) == ConjugateGradientSettings()
    assert RichardsonSettings(**defaults.options_of("richardson")) == RichardsonSettings()
    assert FinalSettings(**plan().final_settings).options == defaults.options_of("conjugate_gradients")


def test_what_a_method_does_not_use_reruns_nothing() -> None:
    other = {"richardson": {"rounds": 7}, "conjugate_gradients": {"rounds": 3}}
    assert plan(reconstruction=other).reconstruction_settings == plan().reconstruction_settings
    end = {"end_method": "direct"}
    assert plan(reconstruction=other, refinement=end).final_settings == plan(refinement=end).final_settings


def test_the_shift_range_is_that_of_the_iteration() -> None:
    lists = {"refinement": {"shift_range": [16.0, 8.0, 20.0]}, "input": {"pixel_size": 2.0}}
    model = model_of(Decision("exhaustive", 10.0, 0.0, 16.0, 9))
    assert [decision_of(model, at(i, **lists)).shift_range for i in (1, 2, 3)] == [16.0, 8.0, 20.0]
    # a local pass reaches four times what the last one moved, within the iteration's own limit
    for moved, expected in ((1.5, 6.0), (3.0, 8.0), (0.1, 4.0)):
        local = model_of(Decision("local", 3.0, 9.0, 16.0, 9), moved_angst=moved)
        assert decision_of(local, at(2, **lists)).shift_range == expected
    change = {"changes": [{"from_iteration": 2, "shift_range": 5.0}]}
    assert decision_of(model, at(2, refinement=change)).shift_range == 5.0


def test_small_angles_have_their_own_step_and_range() -> None:
    section = {"schedule": "lists", "small_angle": [False, True], "angular_step_deg": [9.0], "search_range_deg": [30.0]}
    first, second = (at(i, refinement=section) for i in (1, 2))
    assert (first.angular_step_deg, first.search_range_deg) == (9.0, 30.0)
    assert (second.angular_step_deg, second.search_range_deg) == (0.5, 2.0)
    chosen = at(2, refinement=section | {"small_angle_step_deg": 1.0, "small_angle_range_deg": 4.0})
    decision = decision_of(model_of(Decision()), chosen)
    assert (decision.search, decision.angular_step_deg, decision.search_range_deg) == ("local", 1.0, 4.0)


def test_other_entries_of_the_lists_keep_a_refinement_going() -> None:
    section = {
        "schedule": "lists",
        "angular_step_deg": [15.0, 15.0, 5.0],
        "search_range_deg": [0.0],
        "enhance": [False] * 4,
    }
    assert [at(i, refinement=section).changed for i in (1, 2, 3, 4)] == [False, False, True, False]
    small = section | {"small_angle": [False, True]}
    assert [at(i, refinement=small).changed for i in (1, 2, 3)] == [False, True, False]
    enhanced = section | {"enhance": [False, True], "scattering": "curve.star"}
    assert [at(i, refinement=enhanced).changed for i in (1, 2, 3, 4)] == [False, True, True, False]
    assert not any(at(i, refinement=section | {"schedule": "auto"}).changed for i in (1, 2, 3, 4))


@pytest.mark.parametrize("search", ["continuous", "grid"])
def test_range_and_step_of_listed_local_passes(tmp_path, search: str) -> None:
    volume = blobs()
    truth = particles(tmp_path, 24, 0.1, volume=volume)
    start = disturbed(truth, 40.0, 0.3)
    away = angular_distance(pose_matrices(start), pose_matrices(truth))

    def errors(step: float, search_range: float) -> tuple[np.ndarray, np.ndarray]:
        choice = settings(
            schedule="lists", search=search, angular_step_deg=step, search_range_deg=search_range, shift_step=PIXEL / 2
        )
        found, _ = refine_chunk(start, volume, model_of(Decision("local", 5.0, 9.0, 9.0, 12), 0.01), choice, OPTICS)
        matrices = pose_matrices(found)
        if search == "grid":  # the range is that of directions
            moved = np.rad2deg(np.arccos(np.clip((matrices[:, 2] * pose_matrices(start)[:, 2]).sum(axis=1), -1, 1)))
        else:
            moved = angular_distance(matrices, pose_matrices(start))
        return angular_distance(matrices, pose_matrices(truth)), moved

    wide, moved = errors(8.0, 70.0)
    near = away < 65.0
    assert near.sum() > 15 and np.quantile(wide[near], 0.8) < (2.0 if search == "continuous" else 8.0)
    assert moved.max() < 70.1
    narrow, moved = errors(8.0, 10.0)
    assert moved.max() < 10.1 and np.median(narrow[away > 15]) > 5.0
    if search == "grid":  # SPIDER's: the angles of the grid limit what is found
        assert np.median(errors(16.0, 70.0)[0][near]) > 1.3 * np.median(wide[near])
    else:  # a step as wide as the range starts from the last pose alone
        assert (errors(90.0, 70.0)[0][near] > 5.0).mean() > (wide[near] > 5.0).mean() + 0.1


def test_small_angles_on_the_grid_mend_what_is_left(tmp_path) -> None:
    volume = blobs()
    truth = particles(tmp_path, 16, 0.1, volume=volume)
    start = disturbed(truth, 3.0, 0.1)
    choice = settings(
        schedule="lists", search="grid", angular_step_deg=1.0, search_range_deg=4.0, shift_step=PIXEL / 10
    )
    found, _ = refine_chunk(start, volume, model_of(Decision("local", 5.0, 9.0, PIXEL / 2, 15), 0.01), choice, OPTICS)
    before, after = (angular_distance(pose_matrices(table), pose_matrices(truth)) for table in (start, found))
    assert np.median(after) < 0.6 * np.median(before)


def test_the_step_of_shifts(tmp_path) -> None:
    volume = blobs()
    truth = particles(tmp_path, 12, 0.1, volume=volume)
    start = truth.assign(**dict.fromkeys(POSE_COLUMNS, 0.0))
    for step in (2 * PIXEL, PIXEL / 2):
        choice = settings(search="grid", shift_step=step)
        found, _ = refine_chunk(start, volume, model_of(Decision("exhaustive", 15.0, 0.0, 12.0, 12)), choice, OPTICS)
        units = found[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() / step
        assert np.allclose(units, np.rint(units)) and (np.rint(units) != 0).any()
    assert not np.allclose(units / 4, np.rint(units / 4))
    assert at(1, alignment={"shift_step": 3.0}).shift_step == 3.0


def test_changes_of_mask_lists_search_and_enhancement() -> None:
    section = {
        "mask": {"file": "first.mrc", "edge": 9.0},
        "scattering": "curve.star",
        "changes": [
            {"from_iteration": 3, "mask": {"edge": 5.0}, "enhance": True, "search": "grid"},
            {
                "from_iteration": 4,
                "mask": {"file": None, "shape": "auto"},
                "schedule": "lists",
                "angular_step_deg": 4.0,
            },
            {"from_iteration": 5, "search_range_deg": 7.0, "enhance": False, "shift_range": 3.0},
            {"from_iteration": 6, "small_angle": True},
        ],
    }
    config, plain = parse_config({"refinement": section}), parse_config({"refinement": section | {"changes": []}})
    assert all(iteration_settings(config, i) == iteration_settings(plain, i) for i in (1, 2))
    by = {i: IterationSettings(**iteration_settings(config, i)) for i in range(2, 8)}
    assert [by[i].mask_file for i in (2, 3, 4)] == ["first.mrc", "first.mrc", None]
    assert [by[i].mask_edge for i in (2, 3, 4)] == [9.0, 5.0, 5.0] and by[4].mask_shape == "auto"
    assert [by[i].search for i in (2, 3)] == ["continuous", "grid"]
    assert [enhances(config, i) for i in (2, 3, 4, 5)] == [False, True, True, False]
    # lists of the configuration hold where the schedule was changed to lists
    assert [by[i].angular_step_deg for i in (3, 4, 5, 6)] == [0.0, 4.0, 4.0, 0.5]
    assert [by[i].search_range_deg for i in (4, 5, 6)] == [15.0, 7.0, 2.0] and by[5].shift_range == 3.0
    project = ProjectPlan(config, {}, ())
    assert [project.mask_files(i) for i in (3, 4)] == [["first.mrc"], []]
    assert project.result_settings["mask_file"] == "results/refinement/mask.mrc"


def test_the_butterworth_filter_of_references() -> None:
    box = 64
    choice = at(
        1, input={"pixel_size": 3.0}, particle={"box": box, "diameter": 100.0}, refinement={"filter": "butterworth"}
    )
    fsc = np.where(np.arange(33) <= 10, 0.9, 0.2)
    fsc[0] = 1.0
    filters = reference_filters(fsc, choice)
    shells = np.arange(33) / box
    assert all(np.array_equal(filters.half, each) for each in filters)
    assert filters.half[10] == pytest.approx(0.75, abs=0.01)  # 1 / sqrt(1 + 0.882^2)
    assert np.interp(10 / box + 0.15, shells, filters.half) == pytest.approx(0.094, abs=0.01)
    sharp = reference_filters(fsc, replace(choice, filter_stop=0.03))
    assert sharp.half[14] < 0.1 < filters.half[14] and sharp.half[8] > filters.half[8]
    full, capped = (reference_filters(np.ones(33), replace(choice, filter_at_most=most)).half for most in (0.5, 0.4))
    assert capped[26] == pytest.approx(0.71, abs=0.02) and full[26] > 0.9 and full[32] == pytest.approx(0.75, abs=0.01)
    wiener = reference_filters(fsc, replace(choice, filter="wiener"))
    assert np.array_equal(wiener.half, fsc) and np.allclose(wiener.map**2, wiener.shared)
    with_bands = {"filter_stop": 0.1, "filter_at_most": 0.3}
    assert at(1, refinement=with_bands) == at(1)  # they say nothing to wiener, and rerun nothing
    chosen = at(1, refinement=with_bands | {"filter": "butterworth"})
    assert (chosen.filter_stop, chosen.filter_at_most) == (0.1, 0.3)


@pytest.mark.parametrize("halves", ["shared", "independent"])
def test_references_are_filtered_as_chosen(halves: str) -> None:
    rng = np.random.default_rng(4)
    first, second = (rng.standard_normal((N, N, N)).astype(np.float32) for _ in range(2))
    fsc = np.linspace(0.95, 0.2, N // 2 + 1)
    curves = MaskedFsc(fsc, fsc, fsc, fsc, 9)
    choice = settings(halves=halves, centre=False, join_resolution=0.0)
    found = {}
    for kind in ("wiener", "butterworth"):
        chosen = replace(choice, filter=kind)
        references, volume = next_references((first, second), curves, np.ones_like(first), chosen)
        weights = reference_filters(np.r_[1.0, fsc[1:]], chosen)
        of_reference = weights.shared if halves == "shared" else weights.half
        given = 0.5 * (first + second) if halves == "shared" else first
        for filtered, unfiltered, expected in (
            (references[0], given, of_reference),
            (volume, 0.5 * (first + second), weights.map),
        ):
            ratio = np.sqrt(power(filtered) / power(unfiltered))
            assert np.allclose(ratio, expected[2:-2], rtol=0.1)
        found[kind] = volume
    assert not np.allclose(found["wiener"], found["butterworth"])


def test_noise_sharpens_the_final_map(caplog) -> None:
    first, second = (sums_of_particles(24, 80, noise=0.5)[0] for _ in range(2))
    halves = ChunkSums({0: first}, None), ChunkSums({0: second}, None)
    plain, noise = (
        FinalSettings(**plan(refinement={"end_method": "direct", "sharpening": kind}).final_settings)
        for kind in ("b_factor", "noise")
    )
    fine = settings(
        box=24, pixel_size=1.5, diameter=25.0, mask_diameter=28.0, start_resolution=9.0, join_resolution=0.0
    )
    usual, level = (final_volumes(halves, fine, each) for each in (plain, noise))
    assert np.array_equal(usual.map, level.map)
    ratio = np.sqrt(power(level.filtered) / power(usual.filtered))
    shells = np.arange(2, 2 + len(ratio))
    coarse = shells * 10.0 < 24 * 1.5 - 10
    assert np.allclose(ratio[coarse], 1.0, atol=0.05) and ratio[~coarse][1:7].min() > 1.05
    coarse_map = replace(fine, pixel_size=5.0, diameter=80.0, mask_diameter=90.0)
    kept = final_volumes(halves, coarse_map, noise)
    assert np.array_equal(kept.filtered, final_volumes(halves, coarse_map, plain).filtered)


@pytest.mark.parametrize(("below", "above"), [(0.0, 0.1), (0.02, 0.02), (0.05, 0.05)])
def test_bands_of_filt(below: float, above: float) -> None:
    point = np.zeros((48, 48, 48), dtype=np.float32)
    point[24, 24, 24] = 1.0
    filtered = filter_at_resolution(point, 3.0, 15.0, below, above)  # 0.2 of sampling
    weights = np.abs(centred_rfftn(filtered))[0, 0]
    at_bands = np.interp([48 * (0.2 - below), 48 * (0.2 + above)], np.arange(25), weights)
    assert at_bands == pytest.approx([0.75, 0.094], abs=0.06)
    assert np.isfinite(filter_at_resolution(point, 3.0, 6.0, 0.0, above)).all()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"refinement": {"shift_range": []}}, "refinement.shift_range: list should have at least 1 item"),
        ({"refinement": {"enhance": []}}, "refinement.enhance: list should"),
        ({"refinement": {"angular_step_deg": []}}, "refinement.angular_step_deg: list should"),
        ({"refinement": {"search_range_deg": []}}, "refinement.search_range_deg: list should"),
        ({"refinement": {"small_angle": []}}, "refinement.small_angle: list should"),
        ({"refinement": {"changes": [{"from_iteration": 2, "symmetry": "cube"}]}}, "refinement.changes.0.symmetry"),
        ({"refinement": {"changes": [{"from_iteration": 9}]}}, "9 is beyond the last iteration; raise"),
        ({"refinement": {"changes": [{"from_iteration": 2, "enhance": True}]}}, "changes.0.enhance: needs refinement.scat"),
        ({"refinement": {"changes": [{"from_iteration": 2, "angular_step_deg": 3.0}]}}, "set schedule: lists in this"),
        ({"refinement": {"changes": [{"from_iteration": 2, "mask": {"edg": 1}}]}}, "mask.edg: unknown key; did you mean"),
        ({"refinement": {"changes": [{"from_iteration": 2, "join_resolution": 1.5}]}}, "changes.0.join_resolution: 1.5 A is"),
        ({"refinement": {"join_resolution": 1.9}}, "refinement.join_resolution: 1.9 A is finer than Nyquist (2 A"),
        ({"reference": {"initial": {"resolution": 1.0}}}, "reference.initial.resolution: 1 A is finer than Nyquist"),
        ({"refinement": {"b_factor": -50, "sharpening": "noise"}}, "b_factor: -50 is not used with sharpening: noise"),
        ({"optics": {"voltage_kv": 20}}, "optics.voltage_kv"),
        ({"reconstruction": {"snr": None}}, "reconstruction.snr: empty, but method: direct"),
        ({"reconstruction": {"richardson": {"step": 2.0}}}, "reconstruction.richardson.step"),
        ({"reconstruction": {"conjugate_gradients": {"radius": 1.5}}}, "reconstruction.conjugate_gradients.radius"),
        ({"alignment": {"shift_step": 0}}, "alignment.shift_step"),
    ],
)  # fmt: skip
def test_what_would_do_nothing_or_fail_is_refused(content: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as error:
        parse_config(content)
    assert named in str(error.value) and "\n" not in str(error.value)


def test_a_typing_error_within_a_change_is_named() -> None:
    with pytest.raises(InputError, match=r"refinement.changes.0.symetry: unknown key; did you mean symmetry\?"):
        parse_config({"refinement": {"changes": [{"from_iteration": 2, "symetry": "C2"}]}})
