"""Selection: duplicates, numbers, half sets, edits, proposals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nephila.errors import InputError
from nephila.particle_selection import (
    apply_selection_edit,
    assign_random_subsets,
    percent_selected,
    propose_bad_particles,
    remove_duplicates,
    renumber,
)


def table(counts: dict[str, int], seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    names = [name for name, count in counts.items() for _ in range(count)]
    frame = pd.DataFrame(
        {
            "rlnMicrographName": names,
            "rlnCoordinateX": rng.uniform(0, 1000, len(names)),
            "rlnCoordinateY": rng.uniform(0, 1000, len(names)),
            "rlnAutopickFigureOfMerit": rng.uniform(0, 1, len(names)),
        }
    )
    return renumber(frame)


def test_of_two_too_near_the_better_stays() -> None:
    frame = pd.DataFrame(
        {
            "rlnMicrographName": ["a", "a", "b", "a"],
            "rlnCoordinateX": [10.0, 13.0, 11.0, 16.0],
            "rlnCoordinateY": [10.0, 10.0, 10.0, 10.0],
            "rlnAutopickFigureOfMerit": [0.2, 0.9, 0.1, 0.3],
        }
    )
    kept, dropped = remove_duplicates(frame, 8.0, 2.0)
    assert kept.index.tolist() == [1, 2] and dropped.index.tolist() == [0, 3]
    near, _ = remove_duplicates(frame, 6.0, 2.0)
    assert len(near) == 4  # exactly at the distance is far enough
    plain, _ = remove_duplicates(frame.drop(columns="rlnAutopickFigureOfMerit"), 8.0, 2.0)
    assert plain.index.tolist() == [0, 2, 3]


def test_duplicates_do_not_depend_on_the_order_of_rows() -> None:
    frame = table({"a": 60, "b": 40})
    frame["rlnAutopickFigureOfMerit"] = np.round(frame["rlnAutopickFigureOfMerit"], 1)  # many equals
    kept, _ = remove_duplicates(frame, 150.0, 1.0)
    shuffled, _ = remove_duplicates(frame.sample(frac=1, random_state=1), 150.0, 1.0)
    assert sorted(kept.index) == sorted(shuffled.index)
    assert 0 < len(kept) < len(frame)
    with pytest.raises(InputError, match="rlnCoordinateX"):
        remove_duplicates(frame.drop(columns="rlnCoordinateX"), 1.0, 1.0)


def test_numbers_restart_with_each_micrograph() -> None:
    frame = pd.DataFrame({"rlnMicrographName": ["b", "a", "b", "b"]}, index=[7, 3, 9, 1])
    assert renumber(frame)["nphParticleNumber"].tolist() == [1, 1, 2, 3]


def test_percent_selected() -> None:
    picked, selected = table({"a": 10, "b": 4, "c": 2}), table({"a": 5, "c": 2})
    rows, overall = percent_selected(picked, selected)
    assert rows["nphSelected"].tolist() == [5, 0, 2] and rows["nphPercent"].tolist() == [50.0, 0.0, 100.0]
    assert overall.iloc[0].tolist() == [3, 16, 7, 43.75]
    with pytest.raises(InputError, match="nothing was picked"):
        percent_selected(selected, picked)


def test_halves_are_balanced_and_independent_of_other_micrographs() -> None:
    frame = assign_random_subsets(table({"a": 31, "b": 18, "c": 1}), 5)
    counts = frame.groupby("rlnMicrographName")["rlnRandomSubset"].value_counts().unstack(fill_value=0)
    assert (np.abs(counts[1] - counts[2]) <= 1).all()
    alone = assign_random_subsets(table({"b": 18}), 5)
    assert alone["rlnRandomSubset"].tolist() == frame[frame.rlnMicrographName == "b"]["rlnRandomSubset"].tolist()
    assert assign_random_subsets(frame, 6)["rlnRandomSubset"].tolist() != frame["rlnRandomSubset"].tolist()
    back = assign_random_subsets(frame.iloc[::-1], 5).sort_index()
    assert back["rlnRandomSubset"].tolist() == frame["rlnRandomSubset"].tolist()


def proposal() -> pd.DataFrame:
    frame = table({"a": 3, "b": 2})[["rlnMicrographName", "nphParticleNumber"]]
    frame["nphKeep"] = [1, 0, 1, 1, 1]
    frame["nphReason"] = ["none", "dust", "none", "none", "none"]
    return frame


def edit(*rows: tuple[str, object, object]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["rlnMicrographName", "nphParticleNumber", "nphKeep"])


def test_the_edit_has_the_last_word_and_the_rest_stays() -> None:
    out = apply_selection_edit(proposal(), edit(("a", 2, 1), ("b", 1, 0)), "edits/good.star")
    assert out["nphKeep"].tolist() == [1, 1, 1, 0, 1]
    assert out["nphReason"].tolist() == ["none", "none", "none", "dropped by the user", "none"]
    pd.testing.assert_frame_equal(apply_selection_edit(proposal(), None), proposal())


@pytest.mark.parametrize(
    "row,text",
    [
        (("z", 1, 0), "good.star: micrograph z is not in this run"),
        (("a", 9, 0), "has no particle 9"),
        (("a", 1, 2), "must be 1"),
        (("a", "x", 1), "whole numbers"),
    ],
)
def test_wrong_edits_are_refused(row: tuple[str, object, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        apply_selection_edit(proposal(), edit(row), "edits/good.star")


def test_twice_named_is_refused() -> None:
    with pytest.raises(InputError, match="twice"):
        apply_selection_edit(proposal(), edit(("a", 1, 0), ("a", 1, 1)), "e")


def test_outliers_are_proposed_with_the_statistic_named() -> None:
    rng = np.random.default_rng(0)
    frame = table({"a": 100, "b": 100})[["rlnMicrographName", "nphParticleNumber"]]
    frame["background deviation"] = rng.normal(5, 0.2, 200)
    frame["maximum"] = rng.normal(4, 0.3, 200)
    frame.loc[17, "maximum"] = 40.0
    frame.loc[30, "background deviation"] = np.nan
    out = propose_bad_particles(frame)
    assert out.index[out.nphKeep == 0].tolist() == [17, 30]
    assert out.loc[17, "nphReason"].startswith("maximum off by +")
    assert (out.loc[out.nphKeep == 1, "nphReason"] == "none").all()
