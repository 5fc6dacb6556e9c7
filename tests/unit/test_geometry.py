"""Rotations and directions: RELION's convention, inverses, symmetry, SPIDER's list of views."""

from __future__ import annotations

import numpy as np
import pytest

from nephila.errors import InputError
from nephila.geometry import (
    angular_distance,
    euler_matrix,
    matrix_to_euler,
    quasi_even_directions,
    rotation_angle,
    rotation_vector_to_matrix,
    view_direction,
)
from nephila.symmetry import point_group_matrices


def about_z(angle_deg):
    """Coordinates' rotation about z as in the 3DEM convention."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def about_y(angle_deg):
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


def random_angles(number, seed=3):
    rng = np.random.default_rng(seed)
    return (
        rng.uniform(-180, 180, number),
        np.rad2deg(np.arccos(rng.uniform(-1, 1, number))),
        rng.uniform(-180, 180, number),
    )


def test_matrix_is_the_product_of_the_three_rotations():
    for rot, tilt, psi in zip(*random_angles(20), strict=True):
        np.testing.assert_allclose(
            euler_matrix(rot, tilt, psi), about_z(psi) @ about_y(tilt) @ about_z(rot), atol=1e-12
        )


def test_matrix_in_numbers():
    expected = [[-0.047367, 0.789149, -0.612372], [-0.659740, 0.435596, 0.612372], [0.75, 0.433013, 0.5]]
    np.testing.assert_allclose(euler_matrix(30, 60, 45), expected, atol=1e-6)


def test_rows_are_orthonormal_and_right_handed():
    matrix = euler_matrix(*random_angles(50))
    np.testing.assert_allclose(matrix @ np.swapaxes(matrix, 1, 2), np.broadcast_to(np.eye(3), (50, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrix), 1, atol=1e-12)


def test_third_row_is_the_direction_of_view():
    rot, tilt, psi = random_angles(10)
    np.testing.assert_allclose(euler_matrix(rot, tilt, psi)[:, 2], view_direction(rot, tilt), atol=1e-12)
    np.testing.assert_allclose(view_direction(90, 90), [0, 1, 0], atol=1e-12)


def test_angles_broadcast():
    assert euler_matrix(np.zeros((4, 1)), np.zeros(5), 0).shape == (4, 5, 3, 3)


def test_angles_come_back():
    rot, tilt, psi = random_angles(200)
    for given, found in zip((rot, tilt, psi), matrix_to_euler(euler_matrix(rot, tilt, psi)), strict=True):
        np.testing.assert_allclose(found, given, atol=1e-9)


@pytest.mark.parametrize("tilt", [0.0, 180.0])
@pytest.mark.parametrize(("rot", "psi"), [(0, 0), (20, 30), (-170, 100), (180, 180)])
def test_poles_give_the_same_matrix_with_rot_0(tilt, rot, psi):
    matrix = euler_matrix(rot, tilt, psi)
    found = matrix_to_euler(matrix)
    assert found[0] == 0
    np.testing.assert_allclose(euler_matrix(*found), matrix, atol=1e-12)


def test_angles_lie_in_the_half_open_interval():
    rot, _, psi = matrix_to_euler(euler_matrix([-180.0, 180.0], 40.0, [180.0, -180.0]))
    np.testing.assert_allclose(rot, 180)
    np.testing.assert_allclose(psi, 180)


@pytest.mark.parametrize("angle", [1e-7, 1e-3, 1.0, 90.0, 179.9])
def test_rotation_vector_turns_by_its_length(angle):
    axis = np.array([1.0, -2.0, 0.5]) / np.linalg.norm([1.0, -2.0, 0.5])
    matrix = rotation_vector_to_matrix(axis * np.deg2rad(angle))
    assert rotation_angle(matrix) == pytest.approx(angle, rel=1e-6)
    np.testing.assert_allclose(matrix @ axis, axis, atol=1e-12)


def test_rotation_vector_of_zero_and_its_sense():
    np.testing.assert_array_equal(rotation_vector_to_matrix(np.zeros((2, 3))), np.broadcast_to(np.eye(3), (2, 3, 3)))
    np.testing.assert_allclose(rotation_vector_to_matrix([0, 0, np.pi / 2]) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_distance_is_the_full_rotation():
    start = euler_matrix(10, 50, 20)
    assert angular_distance(start, euler_matrix(10, 50, 27)) == pytest.approx(7)
    assert angular_distance(start, euler_matrix(10, 62, 20)) == pytest.approx(12)
    assert angular_distance(start, start) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("group", ["C4", "D2", "O", "I"])
def test_distance_ignores_what_the_symmetry_leaves_unchanged(group):
    operators = point_group_matrices(group)
    pose = euler_matrix(33, 71, -12)
    turned = rotation_vector_to_matrix([0, 0, np.deg2rad(2.5)]) @ pose
    for operator in operators:
        assert angular_distance(pose, turned @ operator, operators) == pytest.approx(2.5, abs=1e-6)


def test_directions_at_15_degrees_are_spiders(real_data):
    from nephila.io.spider import read_document

    spider = read_document(real_data / "spider" / "project" / "Alignment" / "refangles.dat").to_numpy()
    ours = quasi_even_directions(15)
    assert len(ours) == 83
    np.testing.assert_allclose(ours, spider[:83, [2, 1]], atol=1e-3)


@pytest.mark.parametrize(("step", "count"), [(15, 83), (10, 194), (5, 798), (2, 5087)])
def test_number_of_directions(step, count):
    # SPIDER's documents state 195, 799 and 5088: with the mirror of rot 0 at the end of the equator
    assert len(quasi_even_directions(step)) == count


@pytest.mark.parametrize("step", [15.0, 7.5, 4.0])
def test_every_view_or_its_mirror_has_a_direction_within_the_step(step):
    views = view_direction(*quasi_even_directions(step).T)
    rng = np.random.default_rng(1)
    wanted = rng.normal(size=(500, 3))
    wanted /= np.linalg.norm(wanted, axis=1)[:, None]
    nearest = np.rad2deg(np.arccos(np.clip(np.abs(wanted @ views.T).max(axis=1), 0, 1)))
    assert nearest.max() < step


@pytest.mark.parametrize("step", [0, -1, 91, float("nan")])
def test_impossible_step(step):
    with pytest.raises(InputError, match="angular step"):
        quasi_even_directions(step)
