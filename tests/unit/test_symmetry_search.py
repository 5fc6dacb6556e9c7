"""Point groups are found in turned and shifted volumes, and symmetry expansion reconstructs what the symmetry does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from naive_backprojection import GaussianPhantom

from nephila.backprojection import Backprojector
from nephila.cli import main
from nephila.errors import InputError
from nephila.finishing import finish
from nephila.fourier import centred_rfft2
from nephila.geometry import angular_distance, euler_matrix, rotation_vector_to_matrix
from nephila.io.mrc import read_volume, write_volume
from nephila.io.tables import read_blocks, write_blocks
from nephila.projection import FourierProjector
from nephila.rigid_fit import transform_volume
from nephila.symmetry import point_group_matrices
from nephila.symmetry_search import (
    Orientation,
    SymmetrySearch,
    apply_orientation,
    expand_symmetry,
    likely_symmetry,
    principal_axis,
)

N, PIXEL = 40, 4.0
TURN = rotation_vector_to_matrix(np.array([0.7, -0.5, 0.9]))
SHIFT = np.array([0.8, -0.6, 0.5])


def symmetric(name, seed=0):
    """A phantom of a point group with its axes in place."""
    phantom = GaussianPhantom.random(N, 7, seed, sigma=(1.8, 2.4))
    return phantom.repeated(point_group_matrices(name)).volume(N).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "other"), [("C3", "C7"), ("D7", "D5"), pytest.param("O", "C5", marks=pytest.mark.slow)]
)
def test_a_turned_volume_is_brought_back(name, other):
    volume = symmetric(name)
    moved = transform_volume(volume, TURN, SHIFT)
    search = SymmetrySearch(moved, PIXEL, 130.0)
    found = search.orient(name)
    assert found.symmetry == name and found.correlation > 0.97
    upright = apply_orientation(moved, PIXEL, found)
    again = SymmetrySearch(upright, PIXEL, 130.0)
    group = point_group_matrices(name)[1:]
    assert again.group_score(group, np.eye(3), np.zeros(3)) > 0.96
    assert search.orient(other).correlation < found.correlation - 0.02


def test_axes_and_the_likely_group():
    search = SymmetrySearch(transform_volume(symmetric("D5"), TURN, SHIFT), PIXEL, 130.0)
    axes = search.axes((2, 3, 5)).set_index("nphFold")
    assert axes.loc[5, "nphCorrelation"] > 0.9 > axes.loc[3, "nphCorrelation"] + 0.1
    assert (axes["nphTypical"] < axes["nphCorrelation"]).all()

    def one(name, correlation):
        return Orientation(name, np.eye(3), np.zeros(3), correlation)

    chosen = likely_symmetry([one("C5", 0.99), one("D5", 0.97), one("I", 0.6), one("C2", 0.98)])
    assert chosen is not None and chosen.symmetry == "D5"
    assert likely_symmetry([one("C5", 0.3)]) is None and likely_symmetry([]) is None


@pytest.mark.parametrize(("name", "fold"), [("C3", 3), ("D2", 2), ("D7", 7), ("T", 3), ("O", 4), ("I", 5)])
def test_principal_axis(name, fold):
    group = point_group_matrices(name)
    axis, found = principal_axis(group)
    assert found == fold
    turn = rotation_vector_to_matrix(axis * 2 * np.pi / fold)
    assert np.abs(group - turn).max(axis=(1, 2)).min() < 1e-6


def test_expanded_particles_reconstruct_the_symmetric_volume():
    rng = np.random.default_rng(4)
    phantom = GaussianPhantom.random(N, 7, sigma=(1.6, 2.2))
    angles = {"rlnAngleRot": rng.uniform(-180, 180, 30), "rlnAngleTilt": rng.uniform(0, 180, 30)}
    names = [f"{number}@a.mrcs" for number in range(1, 31)]
    table = pd.DataFrame(angles | {"rlnAnglePsi": rng.uniform(-180, 180, 30), "rlnImageName": names})
    expanded = expand_symmetry(table, "D2")
    assert expanded["nphSymmetryCopy"].tolist() == [1, 2, 3, 4] * 30
    own = expanded[expanded["nphSymmetryCopy"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(own[table.columns], table)
    group = point_group_matrices("D2")
    poses, copies = (euler_matrix(t["rlnAngleRot"], t["rlnAngleTilt"], t["rlnAnglePsi"]) for t in (table, expanded))
    assert angular_distance(copies, np.repeat(poses, 4, axis=0), group).max() < 1e-3
    transforms = centred_rfft2(FourierProjector.from_volume(phantom.volume(N).astype(np.float32)).project(poses))
    plane = np.ones((1, N, N // 2 + 1), dtype=np.float32)
    one, many = Backprojector(N), Backprojector(N)
    one.insert(transforms, poses, plane)
    many.insert(np.repeat(transforms, 4, axis=0), copies, plane)
    symmetrised, from_copies = finish(one.partial_sum(), "D2"), finish(many.partial_sum(), "C1")
    assert np.corrcoef(symmetrised.ravel(), from_copies.ravel())[0, 1] > 0.999


def test_bad_input():
    with pytest.raises(InputError, match="C1 has no axes"):
        SymmetrySearch(symmetric("C3"), PIXEL, 130.0).orient("C1")
    with pytest.raises(InputError, match="every symmetry and none"):
        SymmetrySearch(np.ones((N, N, N)), PIXEL, 130.0)
    with pytest.raises(InputError, match="at most the box"):
        SymmetrySearch(symmetric("C3"), PIXEL, 500.0)


def test_commands(tmp_path):
    write_volume(tmp_path / "map.mrc", transform_volume(symmetric("D5"), TURN, SHIFT), PIXEL)
    out = tmp_path / "upright.mrc"
    done = CliRunner().invoke(
        main, ["symmetry", f"{tmp_path}/map.mrc", "--group", "D5", "--diameter", "130", "-o", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "D5: correlation 1.0" in done.output and read_volume(out)[1] == pytest.approx(PIXEL)
    again = CliRunner().invoke(main, ["symmetry", f"{tmp_path}/map.mrc", "--group", "D5", "-o", str(out)])
    assert again.exit_code == 2 and "exists already" in again.output
    poses = {f"rlnAngle{name}": [10.0, 20.0] for name in ("Rot", "Tilt", "Psi")}
    particles = pd.DataFrame(poses | {"rlnOriginXAngst": [1.0, 2.0], "rlnOriginYAngst": [0.0, 0.0]})
    write_blocks(tmp_path / "p.star", {"optics": pd.DataFrame({"rlnOpticsGroup": [1, 2]}), "particles": particles})
    done = CliRunner().invoke(main, ["expand", f"{tmp_path}/p.star", "--symmetry", "d5", "-o", f"{tmp_path}/e.star"])
    assert done.exit_code == 0 and "2 particles in 10 poses each" in done.output
    assert len(read_blocks(tmp_path / "e.star")["particles"]) == 20
