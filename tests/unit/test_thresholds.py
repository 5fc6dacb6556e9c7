"""Thresholds: exact counts, ties, edits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nephila.errors import InputError
from nephila.thresholds import (
    apply_thresholds,
    best_per_view,
    check_threshold_edit,
    complete_thresholds,
    correlation_histograms,
    count_by_threshold,
    group_totals,
    propose_thresholds,
)


@pytest.fixture
def particles():
    rng = np.random.default_rng(4)
    number = 999
    return pd.DataFrame(
        {
            "nphParticleNumber": np.arange(number),
            "nphDefocusGroup": rng.integers(1, 5, number),
            "nphCorrelation": rng.normal(0.2, 0.05, number),
            "rlnDefocusU": rng.uniform(15000, 25000, number),
            "rlnDefocusV": 14000.0,
        }
    )


def columns(particles):
    return particles["nphCorrelation"], particles["nphDefocusGroup"]


def test_histograms_hold_every_particle_once(particles):
    table = correlation_histograms(*columns(particles), bins=128)
    sums = table.groupby("nphDefocusGroup")["nphParticles"].sum()
    assert sums[0] == 999
    assert sums[1:].to_dict() == particles["nphDefocusGroup"].value_counts().to_dict()
    assert (table.groupby("nphDefocusGroup").size() == 128).all()
    one = table[(table["nphDefocusGroup"] == 2)].iloc[60]
    mine = particles[particles["nphDefocusGroup"] == 2]["nphCorrelation"]
    assert one["nphParticles"] == ((mine >= one["nphBinStart"]) & (mine < one["nphBinEnd"])).sum()


def test_equal_correlations_have_a_histogram():
    assert correlation_histograms([0.3] * 5, [1] * 5, bins=4)["nphParticles"].sum() == 10


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 0.999])
def test_counts_are_exact(particles, share):
    table = propose_thresholds(*columns(particles), share)
    assert table["nphDefocusGroup"].tolist() == [1, 2, 3, 4]
    for row in table.itertuples():
        mine = particles.loc[particles["nphDefocusGroup"] == row.nphDefocusGroup, "nphCorrelation"]
        assert row.nphTotal == len(mine) == row.nphAbove + row.nphBelow
        assert row.nphBelow == (mine < row.nphThreshold).sum() == int(share * len(mine))


@pytest.mark.parametrize(("number", "share", "below"), [(20, 0.15, 3), (100, 0.29, 29), (1, 0.9, 0), (7, 0.15, 1)])
def test_share_is_not_lost_to_rounding(number, share, below):
    values = np.random.default_rng(number).permutation(np.linspace(0.1, 0.4, number))
    assert propose_thresholds(values, np.ones(number, dtype=int), share)["nphBelow"].tolist() == [below]


def test_ties_stay_together():
    values = [0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.3, 0.3, 0.4, 0.5]
    table = propose_thresholds(values, [1] * 10, 0.4)
    assert table[["nphBelow", "nphAbove"]].to_numpy().tolist() == [[1, 9]]
    assert propose_thresholds([0.25] * 10, [3] * 10, 0.4)["nphBelow"].tolist() == [0]


def test_threshold_survives_being_written(particles):
    table = propose_thresholds(particles["nphCorrelation"].round(6), particles["nphDefocusGroup"])
    read = pd.DataFrame(
        {
            "nphDefocusGroup": table["nphDefocusGroup"],
            "nphThreshold": [float(f"{x:.6f}") for x in table["nphThreshold"]],
        }
    )
    again = count_by_threshold(read, particles["nphCorrelation"].round(6), particles["nphDefocusGroup"])
    pd.testing.assert_frame_equal(table, again)


@pytest.mark.parametrize(("below", "at_least"), [(-0.50001, -0.5), (0.123456, 0.123457), (1e-9, 2e-9), (0.1, 0.7)])
def test_negative_and_close_correlations(below, at_least):
    table = propose_thresholds([below, at_least], [1, 1], 0.5)
    assert below < table["nphThreshold"][0] <= at_least


def test_kept_and_rejected_are_sorted_and_complete(particles):
    table = propose_thresholds(*columns(particles))
    kept, rejected = apply_thresholds(particles, table, "thresh.star")
    assert len(kept) == table["nphAbove"].sum() and len(rejected) == table["nphBelow"].sum()
    assert sorted([*kept["nphParticleNumber"], *rejected["nphParticleNumber"]]) == list(range(999))
    for part in (kept, rejected):
        assert part["nphCorrelation"].is_monotonic_decreasing
    cuts = table.set_index("nphDefocusGroup")["nphThreshold"]
    assert (kept["nphCorrelation"] >= kept["nphDefocusGroup"].map(cuts)).all()
    assert (rejected["nphCorrelation"] < rejected["nphDefocusGroup"].map(cuts)).all()


def test_equal_correlations_keep_their_order():
    table = pd.DataFrame({"nphDefocusGroup": 1, "nphCorrelation": [0.2, 0.3, 0.2, 0.3]})
    kept, _ = apply_thresholds(table, None, "none")
    assert kept.index.tolist() == [1, 3, 0, 2]


def test_without_thresholds_all_are_kept(particles):
    kept, rejected = apply_thresholds(particles, None)
    assert len(kept) == 999 and len(rejected) == 0 and list(rejected.columns) == list(particles.columns)


def test_group_without_threshold_is_named(particles):
    table = propose_thresholds(*columns(particles)).iloc[[0, 2, 3]]
    with pytest.raises(InputError, match=r"thresh\.star: no line for group 2"):
        apply_thresholds(particles, table, "thresh.star")


def unknown_group(table):
    return pd.concat([table, table.iloc[[0]].assign(nphDefocusGroup=9)])


def double_group(table):
    return pd.concat([table, table.iloc[[1]]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (unknown_group, ["group 9 does not exist", "from 1 to 4"]),
        (double_group, ["group 2 is listed more than once"]),
        (lambda t: t.assign(nphThreshold=[0.1, np.nan, 0.1, 0.1]), ["group 2 is not a finite number"]),
        (lambda t: t.assign(nphThreshold=["0.1", "0.1", "o.1", "0.1"]), ["'o.1' of group 3"]),
        (lambda t: t.assign(nphThreshold=np.inf), ["group 1 is not a finite number"]),
        (lambda t: t.assign(nphDefocusGroup=[1, 2.5, 3, 4]), ["2.5", "line 2"]),
        (lambda t: t.drop(columns="nphThreshold"), ["column nphThreshold is missing"]),
        (lambda t: t.assign(nphThreshold=2.0), ["leave no particle in any group"]),
    ],
)
def test_bad_edits_are_refused(particles, change, words):
    proposal = propose_thresholds(*columns(particles))
    with pytest.raises(InputError) as error:
        check_threshold_edit(
            proposal,
            change(proposal),
            "edits/thresh.star",
            correlation=particles["nphCorrelation"],
            group=particles["nphDefocusGroup"],
        )
    assert str(error.value).startswith("edits/thresh.star: ") and "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


def test_groups_without_a_line_follow_the_proposal(particles):
    values, group = columns(particles)
    proposal = propose_thresholds(values, group)
    edit = proposal.iloc[[2]].assign(nphThreshold=0.15)
    assert check_threshold_edit(proposal, edit, "edits/thresh.star", correlation=values, group=group) == []
    whole = complete_thresholds(proposal, edit)
    assert whole["nphDefocusGroup"].tolist() == [1, 2, 3, 4]
    expected = proposal["nphThreshold"].tolist()
    assert whole["nphThreshold"].tolist() == [*expected[:2], 0.15, expected[3]]


def test_good_edit_passes_and_an_emptied_group_warns(particles):
    values, group = columns(particles)
    proposal = propose_thresholds(values, group)
    edit = proposal[["nphThreshold", "nphDefocusGroup"]].iloc[::-1].astype(str)
    assert check_threshold_edit(proposal, edit, "x", correlation=values, group=group) == []
    edit = proposal.assign(nphThreshold=[0.1, 0.9, 0.1, 0.1])
    (warning,) = check_threshold_edit(proposal, edit, "x", correlation=values, group=group)
    assert warning.startswith("x: group 2 keeps none of its")


@pytest.mark.parametrize("at_most", [1, 4, 1000])
def test_best_per_view(particles, at_most):
    values, group = columns(particles)
    view = np.random.default_rng(0).integers(1, 20, 999)
    keep = best_per_view(pd.DataFrame({"nphView": view}), values.round(2), group, at_most)
    table = pd.DataFrame({"v": view, "g": group, "c": values.round(2), "k": keep})
    for _, part in table.groupby(["v", "g"]):
        expected = part["c"].sort_values(ascending=False, kind="stable").index[:at_most]
        assert sorted(part.index[part["k"]]) == sorted(expected)


def test_empty_groups_pass_through(particles):
    none = particles[:0]
    assert best_per_view(pd.DataFrame({"nphView": []}), *columns(none), at_most=3).tolist() == []
    groups = pd.DataFrame({"nphDefocusGroup": [1, 2], "nphGroupDefocus": [1e4, 2e4]})
    assert group_totals(none, groups)["nphParticles"].tolist() == [0, 0]
    assert len(group_totals(none)) == 0


def test_group_totals(particles):
    mean = group_totals(particles)
    assert mean["nphParticles"].sum() == 999
    mine = particles[particles["nphDefocusGroup"] == 3]
    assert mean["nphGroupDefocus"][2] == pytest.approx((mine["rlnDefocusU"].mean() + 14000) / 2)
    groups = pd.DataFrame({"nphDefocusGroup": [5, 4, 3, 2, 1], "nphGroupDefocus": [5e4, 4e4, 3e4, 2e4, 1e4]})
    listed = group_totals(particles, groups)
    assert listed["nphDefocusGroup"].tolist() == [1, 2, 3, 4, 5]
    assert listed["nphParticles"].tolist()[-1] == 0 and listed["nphGroupDefocus"].tolist()[0] == 1e4
    with pytest.raises(InputError, match="group 4"):
        group_totals(particles, groups.iloc[2:])


@pytest.mark.parametrize(
    ("correlation", "group", "word"),
    [
        ([], [], "no particles"),
        ([0.1, np.nan], [1, 1], "particle 2 is nan"),
        ([0.1], [0], "from 1"),
        ([1, 2], [1], "2 corr"),
    ],
)
def test_bad_particles_are_refused(correlation, group, word):
    with pytest.raises(InputError, match=word):
        propose_thresholds(correlation, group)
