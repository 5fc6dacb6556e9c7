"""Pairing with simulated truth, and the errors that follow."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nephila.geometry import euler_matrix
from nephila.truth import defocus_errors, match_particles, pose_errors, precision_recall, with_true_poses


def table(x: list[float], y: list[float], name: str = "mic_1.mrc", **columns: object) -> pd.DataFrame:
    return pd.DataFrame({"rlnMicrographName": name, "rlnCoordinateX": x, "rlnCoordinateY": y, **columns})


def test_pairs_are_nearest_and_unique() -> None:
    truth = table([10, 30], [10, 30])
    found = table([11, 12, 90], [10, 10, 90], name="folder/mic_1.mrc")
    match = match_particles(found, truth, 5.0)
    assert match.index.tolist() == [0, -1, -1]
    assert match.displacement[0].tolist() == [-1, 0]
    assert precision_recall(match, 2) == (pytest.approx(1 / 3), 0.5)


def test_other_micrographs_do_not_match() -> None:
    match = match_particles(table([10], [10], name="b.mrc"), table([10], [10], name="a.mrc"), 5.0)
    assert match.index.tolist() == [-1]


def test_origin_of_a_displaced_pick_is_the_shift_to_the_centre() -> None:
    pose = {"rlnAngleRot": [10.0], "rlnAngleTilt": [20.0], "rlnAnglePsi": [30.0]}
    ctf = {"rlnDefocusU": [1e4], "rlnDefocusV": [1e4], "rlnDefocusAngle": [0.0]}
    truth = table([12.0], [10.0], rlnOriginXAngst=[0.5], rlnOriginYAngst=[0.0], **pose, **ctf)
    found = table([10.0], [10.0], **pose, **ctf)
    match = match_particles(found, truth, 5.0)
    out = with_true_poses(found, truth, match, micrograph_pixel_size=3.0)
    # the particle lies 2 px to the right of the window's centre: it has to be moved left by 6 A
    assert out["rlnOriginXAngst"].tolist() == [-5.5]


def test_pose_errors_ignore_a_common_shift_of_the_map() -> None:
    rng = np.random.default_rng(1)
    m = 200
    angles = {
        "rlnAngleRot": rng.uniform(-180, 180, m),
        "rlnAngleTilt": np.rad2deg(np.arccos(rng.uniform(-1, 1, m))),
        "rlnAnglePsi": rng.uniform(-180, 180, m),
    }
    true = pd.DataFrame({**angles, "rlnOriginXAngst": rng.normal(size=m), "rlnOriginYAngst": rng.normal(size=m)})
    moved = euler_matrix(*angles.values())[:, :2] @ np.array([3.0, -2.0, 5.0])
    found = true.assign(
        rlnAnglePsi=true["rlnAnglePsi"] + 1.5,
        rlnOriginXAngst=true["rlnOriginXAngst"] + moved[:, 0],
        rlnOriginYAngst=true["rlnOriginYAngst"] + moved[:, 1],
    )
    errors = pose_errors(found, true)
    assert errors["median_deg"] == pytest.approx(1.5, abs=1e-6)
    assert errors["median_shift_angst"] < 0.2
    assert errors["share_beyond_15_deg"] == 0


def test_defocus_errors_leave_failed_fits_out() -> None:
    truth = pd.DataFrame(
        {"rlnMicrographName": ["a", "b", "c"], "rlnDefocusU": [1e4, 2e4, 3e4], "rlnDefocusV": [1e4, 2e4, 3e4]}
    )
    found = truth.assign(rlnDefocusU=[1.01e4, 2e4, np.nan])
    errors = defocus_errors(found, truth)
    assert errors["worst_angst"] == pytest.approx(50)
