"""Whole refinements in one process: what they recover, what they must not claim, and the checks of their results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.particle_sets import RADIUS, SetSettings, grouped, phantom, simulate
from benchmarks.phantom import OPTICS
from benchmarks.refinement import common_frame, judge
from nephila.config import parse_config
from nephila.fourier import lowpass
from nephila.fsc import resolution_at
from nephila.geometry import euler_matrix
from nephila.io.mrc import read_image
from nephila.references import filter_reference
from nephila.refinement.claims import claimed_fsc, common_limit
from nephila.refinement.findings import Finding, checks_table, doubts
from nephila.refinement.in_process import Refined, refine_in_process
from nephila.refinement.model import Decision, IterationRow, RefinementModel
from nephila.refinement.pose_check import check_poses, common_rotation
from nephila.refinement.reference_check import check_reference, mirror, stretch
from nephila.refinement.schedule import decision_of
from nephila.refinement.settings import IterationSettings, iteration_settings
from nephila.refinement.symmetry_check import check_symmetry
from nephila.rigid_fit import transform_volume
from nephila.symmetry import point_group_matrices

START = 50.0


class Case:
    """A simulated set and its refinement."""

    def __init__(self, folder, symmetry, **changes):
        self.set = SetSettings(n=48, **changes)
        self.subject = phantom(self.set)
        self.true = simulate(folder, self.set)
        self.table = grouped(self.true, folder)
        self.pixel = self.subject.pixel_size
        diameter = 2 * 0.33 * 48 * self.pixel
        config = parse_config(
            {
                "input": {"pixel_size": self.pixel},
                "particle": {"diameter": diameter, "box": 48, "symmetry": symmetry},
                "reference": {"resolution": START},
                "refinement": {"shift_range": [5 * self.pixel], "mask": {"file": str(folder / "mask.mrc")}},
            }
        )
        self.settings = IterationSettings(**iteration_settings(config, 1))
        self.reference = read_image(folder / "reference.mrc")[0]
        self.mask = read_image(folder / "mask.mrc")[0]

    def refine(self, iterations=8) -> Refined:
        start = filter_reference(self.reference, self.pixel, START)
        self.refined = refine_in_process(
            self.table, start, self.settings, OPTICS, iterations,
            alignment={"shift_range": 5 * self.pixel}, end_method="direct",
        )  # fmt: skip
        return self.refined

    def outcome(self, symmetry=None):
        found = self.refined.particles.reset_index(drop=True)
        rows = found["rlnImageName"].str[:6].astype(int).to_numpy() - 1
        true = self.true.iloc[rows].reset_index(drop=True)
        volumes = self.refined.volumes
        maps = (volumes.map, volumes.half1, volumes.half2)
        return judge("own", found, true, maps, self.subject, self.mask, self.pixel, (0.0, 0.0), symmetry)

    def check(self, function):
        return function(self.refined.particles, self.refined.models[-1], self.settings, OPTICS)


@pytest.mark.slow
def test_noise_resolves_nothing_beyond_start_and_join(tmp_path):
    """Einstein from noise: 800 images without any particle, against a detailed object."""
    case = Case(tmp_path, "C1", count=800, snr=None)
    refined = case.refine()
    claimed = [model.row.resolution_0143 for model in refined.models[1:]]
    assert min(value for value in claimed if value > 0) >= 40.0  # the join, finer than the start
    final = resolution_at(refined.volumes.fsc.corrected, 0.143, 48, case.pixel)
    assert final is None or final >= 40.0
    poses = check_poses(refined.particles, refined.references, refined.models[-1], case.settings, OPTICS)
    assert poses.doubtful


@pytest.mark.slow
@pytest.mark.parametrize(("group", "count"), [("C1", 500), ("D2", 300), ("D7", 200), ("O", 150), ("I", 100)])
def test_point_groups_are_recovered(group, count, tmp_path):
    case = Case(tmp_path, group, count=count, snr=0.2, kind="blobs" if group == "C1" else group)
    refined = case.refine()
    operators = point_group_matrices(group)
    found = case.outcome(operators if len(operators) > 1 else None)
    assert found.median_deg < 2.5 and found.outliers < 0.03
    assert found.truth_05 < 24.0  # from a start at 50 A
    # no overfitting, no underfiltering: within a shell of where the truth is lost
    shells = [48 * case.pixel / value for value in (found.half_0143, found.truth_at_half)]
    assert abs(shells[0] - shells[1]) <= 1.01
    poses = check_poses(refined.particles, refined.references, refined.models[-1], case.settings, OPTICS)
    assert not poses.doubtful and poses.median_deg < 3.0


@pytest.mark.slow
def test_a_symmetry_that_the_object_lacks_is_doubted(tmp_path):
    """12 of the 14 subunits of a D7 ring, refined as D7, and a complete ring."""
    incomplete = Case(tmp_path / "part", "D7", count=1000, snr=0.1, kind="ring")
    incomplete.refine(4)
    found = incomplete.check(check_symmetry)
    assert found.doubtful and found.agreement > 0.5
    whole = Case(tmp_path / "whole", "D7", count=1000, snr=0.1, kind="D7")
    whole.refine(4)
    found = whole.check(check_symmetry)
    assert not found.doubtful and found.agreement < 0.3


def test_hand_and_size_of_the_given_volume():
    subject = phantom(SetSettings(n=32, count=1))
    volume, pixel = subject.volume(), subject.pixel_size
    mask = read_mask(32)
    rng = np.random.default_rng(1)
    noisy = lowpass(volume, pixel, 30.0) + 0.3 * volume.std() * rng.standard_normal(volume.shape).astype(np.float32)
    same = check_reference(noisy, volume, mask, pixel, 30.0)
    assert not same.wrong_hand and not same.wrong_scale and same.correlation > 0.8
    turned = transform_volume(mirror(volume), euler_matrix(30.0, 50.0, 70.0), np.zeros(3))
    other = check_reference(noisy, turned, mask, pixel, 30.0)
    assert other.wrong_hand and other.mirrored > 0.7
    large = check_reference(noisy, stretch(volume, 1.07), mask, pixel, 30.0)
    assert large.wrong_scale and large.scale == pytest.approx(1.07, abs=0.02)


def read_mask(n):
    from nephila.masks import spherical_mask

    return spherical_mask(n, RADIUS * n, 0.06 * n)


def test_common_rotation_of_two_halves():
    rng = np.random.default_rng(4)
    group = point_group_matrices("D2")
    poses = euler_matrix(*rng.uniform(0, 180, (3, 60)))
    frame = euler_matrix(2.0, 3.0, -1.0)
    other = poses @ frame @ group[rng.integers(0, 4, 60)]
    other[:12] = euler_matrix(*rng.uniform(0, 180, (3, 12)))
    assert np.allclose(common_rotation(poses, other, group), frame, atol=2e-3)


def test_frame_of_a_turned_and_displaced_map():
    rng = np.random.default_rng(5)
    columns = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    true = pd.DataFrame(rng.uniform(0, 180, (80, 3)), columns=columns).assign(rlnOriginXAngst=1.0, rlnOriginYAngst=-2.0)
    frame, shift = euler_matrix(4.0, 5.0, -3.0), np.array([3.0, -1.0, 2.0])
    from nephila.geometry import matrix_to_euler

    matrices = euler_matrix(*true[columns].to_numpy().T) @ frame
    found = true.assign(**dict(zip(columns, matrix_to_euler(matrices), strict=True)))
    found[["rlnOriginXAngst", "rlnOriginYAngst"]] += np.einsum("nij,j->ni", matrices[:, :2], shift)
    g, t, error = common_frame(found, true)
    assert np.allclose(g, frame, atol=1e-6) and np.allclose(t, shift, atol=1e-4) and error.max() < 1e-3


def test_what_the_join_explains_is_not_claimed(tmp_path):
    config = parse_config({"input": {"pixel_size": 5.0}, "particle": {"diameter": 160.0, "box": 48}})
    choice = IterationSettings(**iteration_settings(config, 1))
    assert common_limit(choice) == 6  # 240 A / 40 A
    near = np.where(np.arange(25) <= 9, 0.9, 0.0)
    assert resolution_at(claimed_fsc(near, choice), 0.143, 48, 5.0) == pytest.approx(40.0)
    for last in (4, 10):  # coarser, or beyond what the mask smears
        curve = np.where(np.arange(25) <= last, 0.9, 0.0)
        assert np.array_equal(claimed_fsc(curve, choice), curve)
    dip = np.where(np.arange(25) == 9, 0.1, 0.3)
    assert np.array_equal(claimed_fsc(dip, choice), dip)
    assert common_limit(replace(choice, join_resolution=0.0, start_resolution=60.0)) == 4


def test_doubts_are_sentences():
    table = checks_table([Finding("a", 0.1, 0.2), Finding("b", 0.5, 0.2, "this is doubtful")])
    assert doubts(table) == ["this is doubtful"] and list(table["nphName"]) == ["a", "b"]


def test_lists_say_nothing_to_the_automatic_schedule():
    lists = {"angular_step_deg": [15.0, 5.0], "search_range_deg": [0.0, 12.0], "small_angle": [False, True]}
    for schedule, same in (("auto", True), ("lists", False)):
        config, plain = (parse_config({"refinement": {"schedule": schedule} | keys}) for keys in (lists, {}))
        assert (iteration_settings(config, 2) == iteration_settings(plain, 2)) == same


def test_changes_hold_from_their_iteration_on():
    changes = [
        {"from_iteration": 4, "symmetry": "D7", "start_again": True},
        {"from_iteration": 6, "snr": 3.0, "symmetry": "C7"},
    ]
    config = parse_config({"refinement": {"changes": changes}})
    plain = parse_config({})
    for iteration in (1, 3):
        assert iteration_settings(config, iteration) == iteration_settings(plain, iteration)
    at = {i: IterationSettings(**iteration_settings(config, i)) for i in (4, 5, 6, 7)}
    assert [at[i].symmetry for i in (4, 5, 6, 7)] == ["D7", "D7", "C7", "C7"]
    assert [at[i].snr for i in (5, 6, 7)] == [None, 3.0, 3.0]
    assert [(at[i].changed, at[i].start_again) for i in (4, 5, 6, 7)] == [
        (True, True), (False, False), (True, False), (False, False)
    ]  # fmt: skip
    curve = np.zeros(25)
    model = RefinementModel(IterationRow(converged=True), Decision("local", 3.0, 9.0, 6.0, 13), curve, curve, curve + 1)
    assert decision_of(model, at[4]).search == "exhaustive" and decision_of(model, at[4]).band == 13
    assert decision_of(model, at[6]).search == "local"
    lists = replace(at[6], schedule="lists", search_range_deg=0.0)
    assert decision_of(model, lists).search == "exhaustive"
