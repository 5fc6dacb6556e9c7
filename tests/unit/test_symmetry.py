"""Point groups: orders, closure, axes as RELION has them, and symmetrised volumes."""

from __future__ import annotations

import numpy as np
import pytest
from naive_backprojection import GaussianPhantom

from nephila.errors import InputError
from nephila.symmetry import (
    centre_is_fixed,
    grid_cosets,
    parse_point_group,
    point_group_matrices,
    point_group_name,
    subgroup_chain,
    symmetrise_volume,
)

ORDERS = {"C1": 1, "C2": 2, "C7": 7, "D2": 4, "D7": 14, "T": 12, "O": 24, "I": 60, "I1": 60, "I3": 60, "I4": 60}
GOLDEN = (1 + np.sqrt(5)) / 2


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_group(name: str, order: int) -> None:
    group = point_group_matrices(name)
    assert group.shape == (order, 3, 3)
    assert (group[0] == np.eye(3)).all()
    assert np.allclose(group @ group.transpose(0, 2, 1), np.eye(3))
    assert np.allclose(np.linalg.det(group), 1)
    products = np.einsum("aij,bjk->abik", group, group).reshape(-1, 9)
    nearest = np.abs(products[:, None] - group.reshape(1, -1, 9)).max(axis=2)
    assert nearest.min(axis=1).max() < 1e-9
    assert (np.sort(nearest, axis=1)[:, 1:2] > 0.1).all() or order == 1  # no element stands twice


@pytest.mark.parametrize(
    ("name", "axis", "fold"),
    [
        ("C5", (0, 0, 1), 5),
        ("D3", (1, 0, 0), 2),
        ("O", (0, 1, 0), 4),
        ("O", (1, 1, 1), 3),
        ("T", (0, 0, 1), 3),
        ("T", (0, np.sqrt(2), 1), 2),
        ("I", (1, 0, GOLDEN), 5),
        ("I1", (0, 1, GOLDEN), 5),
        ("I3", (0, 0, 1), 5),
        ("I4", (0, 0, 1), 5),
        ("I3", (0, 1, 0), 2),
    ],
)
def test_axes_are_relions(name: str, axis: tuple[float, float, float], fold: int) -> None:
    direction = np.array(axis) / np.linalg.norm(axis)
    about = [m for m in point_group_matrices(name) if np.allclose(m @ direction, direction)]
    assert len(about) == fold


@pytest.mark.parametrize(("setting", "sign"), [("I3", -1.0), ("I4", 1.0)])
def test_the_two_settings_with_a_five_fold_on_z_differ(setting: str, sign: float) -> None:
    # printed by relion_refine --sym I3 --print_symmetry_ops (3.1): the second operator
    printed = np.array([[-0.44721, 0, sign * 0.89443], [0, -1, 0], [sign * 0.89443, 0, 0.44721]])
    assert np.abs(point_group_matrices(setting) - printed).max(axis=(1, 2)).min() < 1e-4


@pytest.mark.parametrize("name", ["", "C0", "X3", "D", "c-1", "I5", "C1.5", "O2", "C999"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(InputError, match="point group"):
        point_group_matrices(name)


def test_names() -> None:
    assert parse_point_group(" d7 ") == ("D", 7)
    assert point_group_name("i") == "I2"
    assert point_group_name("o") == "O"


@pytest.mark.parametrize(
    ("name", "fixed"),
    [("C1", (0, 0, 0)), ("C3", (1, 1, 0)), ("D1", (0, 1, 1)), ("D2", (1, 1, 1)), ("T", (1, 1, 1)), ("I4", (1, 1, 1))],
)
def test_centre(name: str, fixed: tuple[int, int, int]) -> None:
    assert centre_is_fixed(name) == tuple(map(bool, fixed))
    # what the group leaves in place is the space of its common axes
    mean = point_group_matrices(name).mean(axis=0)
    assert np.allclose(np.diag(mean), 1 - np.array(fixed))


@pytest.mark.parametrize("name", ["D2", "C4", "D4", "O", "I", "T", "D7"])
def test_cosets_and_chain_rebuild_the_group(name: str) -> None:
    group = point_group_matrices(name)
    on_grid, representatives = grid_cosets(group)
    rebuilt = np.einsum("hij,cjk->hcik", on_grid, representatives).reshape(-1, 3, 3)
    assert len(rebuilt) == len(group)
    assert all(np.abs(rebuilt - m).max(axis=(1, 2)).min() < 1e-9 for m in group)
    products = np.eye(3, dtype=np.int64)[None]
    for factor in subgroup_chain(on_grid):
        products = np.einsum("aij,bjk->abik", products, factor).reshape(-1, 3, 3)
    assert {m.tobytes() for m in products} == {np.ascontiguousarray(m).tobytes() for m in on_grid}


@pytest.mark.parametrize("n", [32, 33])
@pytest.mark.parametrize("name", ["C3", "D2", "T", "D5", "O"])
def test_symmetrised_volume(n: int, name: str) -> None:
    group = point_group_matrices(name)
    phantom = GaussianPhantom.random(n, 6, sigma=(1.4, 2.0))
    expected = phantom.repeated(group).volume(n) / len(group)
    got = symmetrise_volume(phantom.volume(n), group)
    place = np.arange(n) - n // 2
    inside = place[:, None, None] ** 2 + place[None, :, None] ** 2 + place[None, None, :] ** 2 < (0.45 * n) ** 2
    assert np.linalg.norm((got - expected)[inside]) < 2e-3 * np.linalg.norm(expected)


def test_symmetrise_refuses() -> None:
    with pytest.raises(InputError, match="cubic"):
        symmetrise_volume(np.zeros((4, 4, 5)), point_group_matrices("C3"))
    with pytest.raises(InputError, match="finite"):
        symmetrise_volume(np.full((8, 8, 8), np.nan), point_group_matrices("C3"))
