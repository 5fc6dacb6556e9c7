"""Equal-area view distribution and changes between iterations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nephila.errors import InputError
from nephila.geometry import euler_matrix, matrix_to_euler, rotation_vector_to_matrix, view_direction
from nephila.views import (
    angular_distribution,
    change_statistics,
    direction_changes,
    equal_area_position,
    fold_to_hemisphere,
)

D2 = np.array([np.diag(d) for d in ([1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1])], dtype=float)


def even_directions(number, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-180, 180, number), np.rad2deg(np.arccos(rng.uniform(-1, 1, number)))


def poses(matrices, shift=0.0):
    rot, tilt, psi = matrix_to_euler(matrices)
    return pd.DataFrame(
        {
            "rlnAngleRot": rot,
            "rlnAngleTilt": tilt,
            "rlnAnglePsi": psi,
            "rlnOriginXAngst": 0.6 * shift,
            "rlnOriginYAngst": 1.0 + 0.8 * shift,
        }
    )


def test_fold_keeps_the_axis():
    rot, tilt = even_directions(300)
    folded_rot, folded_tilt = fold_to_hemisphere(rot, tilt)
    assert folded_tilt.max() <= 90 and folded_rot.min() >= 0 and folded_rot.max() < 360
    cosine = (view_direction(rot, tilt) * view_direction(folded_rot, folded_tilt)).sum(axis=1)
    np.testing.assert_allclose(np.abs(cosine), 1.0)


def test_bins_have_equal_solid_angle():
    bins = angular_distribution([], [], n_rings=7).bins
    area = np.deg2rad(bins[:, 1] - bins[:, 0]) * (np.cos(np.deg2rad(bins[:, 2])) - np.cos(np.deg2rad(bins[:, 3])))
    np.testing.assert_allclose(area, 2 * np.pi / len(bins))
    assert len(bins) == 3 * 7**2
    assert bins[-1, 3] == pytest.approx(90.0)


def test_each_direction_lies_in_its_bin():
    rot, tilt = even_directions(200, seed=3)
    folded_rot, folded_tilt = fold_to_hemisphere(rot, tilt)
    for k in range(200):
        found = angular_distribution(rot[k : k + 1], tilt[k : k + 1])
        rot_from, rot_to, tilt_from, tilt_to = found.bins[np.argmax(found.counts)]
        assert rot_from <= folded_rot[k] <= rot_to and tilt_from <= folded_tilt[k] <= tilt_to


def test_even_views_are_even():
    found = angular_distribution(*even_directions(30_000), n_rings=5)
    assert found.counts.sum() == found.particles == 30_000
    # Poisson: 400 per bin, so the density scatters by 0.05.
    assert np.std(found.density) == pytest.approx(0.05, abs=0.02)
    assert found.density.mean() == pytest.approx(1.0)
    assert found.evenness > 0.999 and found.share_empty == 0


def test_one_view_is_uneven():
    found = angular_distribution(np.full(10, 20.0), np.full(10, 130.0))
    assert found.evenness == 0 and found.counts.max() == 10
    assert found.share_empty == pytest.approx(1 - 1 / len(found.bins))


@pytest.mark.parametrize(("rot", "tilt"), [(0, 0), (180, 180), (360, 90), (-90, 90), (0, 90), (90, 180)])
def test_borders_belong_to_one_bin(rot, tilt):
    assert angular_distribution([float(rot)], [float(tilt)]).counts.sum() == 1


def test_map_is_equal_area():
    x, y = equal_area_position([0.0, 90.0, 45.0], [90.0, 90.0, 60.0])
    np.testing.assert_allclose(np.hypot(x, y), [1.0, 1.0, np.sqrt(0.5)])
    np.testing.assert_allclose([x[0], y[1]], [1.0, 1.0])


@pytest.mark.parametrize("angle", [1e-5, 0.3, 7.0, 120.0])
def test_known_rotation_is_found(angle):
    rng = np.random.default_rng(1)
    before = euler_matrix(*even_directions(50), rng.uniform(-180, 180, 50))
    axis = rng.normal(size=(50, 3))
    turn = rotation_vector_to_matrix(np.deg2rad(angle) * axis / np.linalg.norm(axis, axis=1)[:, None])
    changes = direction_changes(poses(before), poses(turn @ before, shift=2.5))
    np.testing.assert_allclose(changes["nphRotationChange"], angle, rtol=1e-4)
    assert (changes["nphDirectionChange"] <= angle * 1.0001).all()
    np.testing.assert_allclose(changes["nphShiftChange"], 2.5)


def test_in_plane_turn_leaves_the_direction():
    before = euler_matrix(*even_directions(20), 0.0)
    changes = direction_changes(poses(before), poses(euler_matrix(0, 0, 33.0) @ before))
    np.testing.assert_allclose(changes["nphRotationChange"], 33.0)
    np.testing.assert_allclose(changes["nphDirectionChange"], 0.0, atol=1e-5)


def test_symmetry_equivalents_have_not_moved():
    before = euler_matrix(*even_directions(40), 15.0)
    after = before @ D2[np.arange(40) % 4]
    changes = direction_changes(poses(before), poses(after), D2)
    np.testing.assert_allclose(changes[["nphRotationChange", "nphDirectionChange"]], 0.0, atol=2e-5)
    assert direction_changes(poses(before), poses(after))["nphRotationChange"].max() > 100


def test_statistics():
    changes = pd.DataFrame(
        {
            "nphRotationChange": [1.0, 2.0, 30.0],
            "nphDirectionChange": [0.5, 1.5, 20.0],
            "nphShiftChange": [0.0, 3.0, 6.0],
            "nphCorrelationChange": [0.1, -0.1, 0.2],
        }
    )
    found = change_statistics(changes, moved_by=1.5)
    assert (found.median_rotation, found.median_direction, found.mean_shift) == (2.0, 1.5, 3.0)
    assert found.share_moved == pytest.approx(1 / 3) and found.share_correlation_rose == pytest.approx(2 / 3)
    assert change_statistics(changes[:0], 1.0).particles == 0


def test_other_particles_are_refused():
    table = poses(euler_matrix([0.0, 1.0], 10.0, 0.0)).assign(rlnImageName=["1@a", "2@a"])
    with pytest.raises(InputError, match="particle 1 is 2@a"):
        direction_changes(table.iloc[::-1], table)
    with pytest.raises(InputError, match="1 particles"):
        direction_changes(table[:1], table)
    with pytest.raises(InputError, match="rlnAngleTilt"):
        direction_changes(table.drop(columns="rlnAngleTilt"), table)


def test_bad_angles_are_refused():
    with pytest.raises(InputError, match="not a number"):
        angular_distribution([np.nan], [0.0])
    with pytest.raises(InputError, match="2 rot and 1 tilt"):
        angular_distribution([0.0, 1.0], [0.0])


def test_mates_fill_the_sphere_and_keep_what_is_uneven():
    """Angles kept in one octant, as a search under D2 leaves them: with the mates they are as even as they were drawn."""
    rot, tilt = even_directions(30_000, seed=4)
    rot, tilt = np.abs(rot) / 2, np.minimum(tilt, 180 - tilt)
    alone, whole = angular_distribution(rot, tilt, 5), angular_distribution(rot, tilt, 5, symmetry=D2)
    assert alone.share_empty > 0.4 and whole.share_empty == 0
    assert whole.density.max() < 1.25 and whole.density.mean() == pytest.approx(1.0) and whole.evenness > 0.999
    assert whole.particles == 30_000 and whole.counts.sum() == 4 * 30_000
    one = angular_distribution(np.full(10, 20.0), np.full(10, 70.0), 5, symmetry=D2)
    assert sorted(one.counts[one.counts > 0]) == [10] * 4
