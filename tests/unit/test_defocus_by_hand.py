"""Defoci by hand: what an edit changes in tables, groups and particles, and what it is refused for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nephila import plan
from nephila.config import parse_config
from nephila.defocus_by_hand import hand_fits, particles_by_hand, resolve_defocus, with_hand_fits
from nephila.errors import InputError
from nephila.io.tables import write_table
from nephila.particle_groups import as_group, particles_of_group
from nephila.project import refuse_hand_fits

CONFIG = parse_config({"defocus_groups": {"method": "defsort", "width": 1000.0}})


def ctf() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rlnMicrographName": ["m1", "m2", "m3", "m4"],
            "rlnDefocusU": [10_050.0, 10_250.0, 20_000.0, 0.0],
            "rlnDefocusV": [9_950.0, 10_150.0, 19_800.0, 0.0],
            "rlnDefocusAngle": [30.0, 30.0, -10.0, 0.0],
            "nphDefocusError": [40.0, 41.0, 42.0, 0.0],
            "rlnCtfFigureOfMerit": [0.9, 0.8, 0.7, 0.0],
            "nphKeep": [1, 1, 1, 0],
            "nphReason": ["none", "none", "none", "no rings"],
        }
    )


def edit(*rows: tuple[str, object, object, object]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["rlnMicrographName", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"])


def test_the_named_micrographs_change_and_a_failed_fit_is_taken_up() -> None:
    table = resolve_defocus(ctf(), edit(("m4", 15_000, 14_800, 5), ("m2", 10_300, 10_200, 40)), "e")
    assert table["rlnDefocusU"].tolist() == [10_050, 10_300, 20_000, 15_000]
    assert table["rlnDefocusV"].tolist() == [9_950, 10_200, 19_800, 14_800]
    assert table["rlnDefocusAngle"].tolist() == [30, 40, -10, 5]
    assert table["nphDefocusError"].tolist() == [40, 0, 42, 0]
    assert table["nphKeep"].tolist() == [1, 1, 1, 1]
    assert table["nphReason"].tolist() == ["none", "by hand", "none", "by hand"]
    assert table["rlnCtfFigureOfMerit"].tolist() == ctf()["rlnCtfFigureOfMerit"].tolist()


def test_what_says_the_same_as_the_fit_changes_nothing() -> None:
    fits = hand_fits(ctf(), edit(("m1", "10050.0000001", 9950, 30.0)), "e")
    assert fits == []
    pd.testing.assert_frame_equal(with_hand_fits(ctf(), fits), ctf())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("m9", 1e4, 1e4, 0)], "e: row 1: micrograph m9 is not in this project"),
        ([("m1", 1e4, 1e4, 0), ("m1", 1e4, 1e4, 0)], "row 2: micrograph m1 is named twice"),
        ([("m1", -1e4, 1e4, 0)], "rlnDefocusU of m1 is -10000: must be an underfocus"),
        ([("m1", 1e4, "much", 0)], "rlnDefocusV of m1 is nan"),
        ([("m1", 1e4, 2e6, 0)], "rlnDefocusV of m1"),
        ([("m1", 1e4, 1e4, "nan")], "rlnDefocusAngle of m1 is not a number"),
    ],
)
def test_slips_are_refused_by_row(rows: list[tuple[str, object, object, object]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hand_fits(ctf(), edit(*rows), "e")
    with pytest.raises(InputError, match="e: no column rlnDefocusAngle"):
        hand_fits(ctf(), edit().drop(columns="rlnDefocusAngle"), "e")


def test_particles_keep_their_distance_from_their_micrograph() -> None:
    particles = pd.DataFrame(
        {
            "rlnMicrographName": ["m1", "m2", "m2"],
            "rlnDefocusU": [10_050.0, 10_250.0, 10_290.5],
            "rlnDefocusV": [9_950.0, 10_150.0, 10_190.5],
            "rlnDefocusAngle": [30.0, 30.0, 30.0],
        }
    )
    moved = particles_by_hand(particles, hand_fits(ctf(), edit(("m2", 12_000, 11_700, 60)), "e"))
    assert moved["rlnDefocusU"].tolist() == [10_050, 12_000, 12_040.5]
    assert moved["rlnDefocusV"].tolist() == [9_950, 11_700, 11_740.5]
    assert moved["rlnDefocusAngle"].tolist() == [30, 60, 60]
    assert particles_by_hand(particles, []) is particles


def test_only_the_groups_that_a_fit_by_hand_touches_change(tmp_path: Path) -> None:
    path, edited = tmp_path / "micrographs.star", tmp_path / "defocus.star"
    write_table(path, ctf(), kind="defocus")
    before = plan.read_groups(str(path), CONFIG, None, None)
    write_table(edited, edit(("m2", 10_500, 10_400, 30)), kind="hand_defocus")
    after = plan.read_groups(str(path), CONFIG, None, None, str(edited))
    assert [g.micrographs for g in after] == [g.micrographs for g in before] == [("m1", "m2"), ("m3",)]
    assert after[1] == before[1] and before[0].by_hand == ()
    assert after[0].defocus_u == pytest.approx(before[0].defocus_u + 125)
    assert after[0].by_hand == (("m2", 10_500.0, 10_400.0, 30.0, 10_250.0, 10_150.0),)
    # far away it changes its group, and the failed one joins in
    write_table(edited, edit(("m2", 20_500, 20_400, 30), ("m4", 10_100, 10_000, 0)), kind="hand_defocus")
    moved = plan.read_groups(str(path), CONFIG, None, None, str(edited))
    assert [g.micrographs for g in moved] == [("m1", "m4"), ("m2", "m3")]


def test_a_job_gets_its_fits_with_its_group() -> None:
    values = (1, ["m2"], 1e4, 1e4, 0.0, [["m2", 12_000.0, 11_700.0, 60.0, 10_250.0, 10_150.0]])
    particles = pd.DataFrame(
        {"rlnMicrographName": ["m2", "m3"], "nphParticleNumber": [1, 1], "rlnDefocusU": [10_250.0, 1.0],
         "rlnDefocusV": [10_150.0, 1.0], "rlnDefocusAngle": 0.0}
    )  # fmt: skip
    mine = particles_of_group(particles, as_group(values))
    assert mine[["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]].to_numpy().tolist() == [[12_000, 11_700, 60]]
    assert mine["nphGroupDefocusU"].tolist() == [1e4]


def test_particles_with_defoci_of_their_own_are_not_fitted_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "defocus.star"
    given = CONFIG.model_copy(update={"input": CONFIG.input.model_copy(update={"particles": "p.star"})})
    refuse_hand_fits(given, path)
    path.touch()
    refuse_hand_fits(CONFIG, path)
    with pytest.raises(InputError, match=r"input\.particles"):
        refuse_hand_fits(given, path)


def test_caps_follow_the_settings_where_no_line_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "best_per_view.star"
    assert plan.caps_by_group(None, [1, 2, 3], 40) == {1: 40, 2: 40, 3: 40}
    write_table(path, pd.DataFrame({"nphDefocusGroup": [3, 1], "nphAtMost": [7, 0]}), kind="best_per_view")
    assert plan.caps_by_group(str(path), [1, 2, 3], 40) == {1: None, 2: 40, 3: 7}
    assert plan.caps_by_group(str(path), [1, 2, 3], None) == {1: None, 2: None, 3: 7}


@pytest.mark.parametrize(
    ("groups", "caps", "message"),
    [
        ([1, 4], [5, 5], "row 2: defocus group 4 does not exist"),
        ([1, 1], [5, 5], "row 2: defocus group 1 is named twice"),
        ([1], [-1], "_nphAtMost is -1"),
        ([1], [2.5], "_nphAtMost is 2.5"),
        ([np.nan], [2], "defocus group nan"),
    ],
)
def test_bad_caps_are_refused(groups: list[float], caps: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan.check_caps(pd.DataFrame({"nphDefocusGroup": groups, "nphAtMost": caps}), [1, 2, 3], "e")
