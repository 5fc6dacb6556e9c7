"""Defocus groups: SPIDER's rule against SPIDER's own files, exact clustering against brute force, edits."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nephila.ctf import Optics, phase_error_limit
from nephila.defocus_groups import (
    average_groups,
    check_edit,
    group_table,
    optimal_groups,
    phase_error,
    propose_groups,
    sort_into_groups,
)
from nephila.errors import InputError

OPTICS = Optics(300, 2.0, 0.1)
SPIDER = Path(__file__).parents[3] / "shared/data/spider/project/Power_Spectra"


def micrographs(names, defocus, astigmatism=0.0, angle=0.0):
    defocus = np.asarray(defocus, dtype=float)
    return pd.DataFrame(
        {
            "rlnMicrographName": list(names),
            "rlnDefocusU": defocus + 0.5 * np.asarray(astigmatism),
            "rlnDefocusV": defocus - 0.5 * np.asarray(astigmatism),
            "rlnDefocusAngle": np.zeros(len(defocus)) + angle,
        }
    )


def read_document(path):
    rows = [line.split() for line in path.read_text().splitlines() if not line.strip().startswith(";")]
    return np.array([[float(x) for x in row[2:]] for row in rows])


@pytest.mark.skipif(not SPIDER.exists(), reason="SPIDER's files are not here")
def test_groups_and_averages_are_those_of_spider():
    def_sort, sel_group = read_document(SPIDER / "def_sort.dat"), read_document(SPIDER / "sel_group.dat")
    def_avg = read_document(SPIDER / "def_avg.dat")
    names = [f"m{int(m):04d}" for m in def_avg[:, 0]]
    table = sort_into_groups(names, def_avg[:, 1])
    assert list(table.rlnMicrographName) == [f"m{int(m):04d}" for m in def_sort[:, 0]]
    assert list(table.nphDefocusGroup) == list(def_sort[:, 2].astype(int))
    averages, groups = average_groups(table, micrographs(names, def_avg[:, 1]), OPTICS)
    np.testing.assert_allclose(groups.nphGroupDefocus, sel_group[:, 1], atol=0.06)
    np.testing.assert_allclose(averages.nphGroupDefocus, def_avg[:, 3], atol=0.06)


@pytest.mark.parametrize(
    ("defocus", "groups"),
    [
        ([10000, 11000, 11001], [1, 1, 2]),
        ([], []),
        ([5000], [1]),
        ([3, 1, 2], [1, 1, 1]),
        ([1000, 1900, 2800], [1, 1, 2]),
    ],
)
def test_a_group_is_as_wide_as_the_difference_from_its_lowest(defocus, groups):
    names = [f"m{i}" for i in range(len(defocus))]
    table = sort_into_groups(names, np.array(defocus, dtype=float), 1000.0)
    assert list(table.nphDefocusGroup) == groups
    assert list(table.nphDefocus) == sorted(defocus)


def partition_key(parts, smallest):
    """(undersized, groups, squared deviation) of a partition into arrays [members, (defocus, astigmatism)]."""
    spread = sum((np.abs(p - p.mean(axis=0)) ** 2).sum() for p in parts)
    return sum(len(p) < smallest for p in parts), len(parts), float(spread)


def brute_force(values, limit, smallest):
    """Best key over all partitions of values [n, 2] sorted by defocus."""
    best = None
    for cuts in itertools.product([0, 1], repeat=len(values) - 1):
        parts = np.split(values, [i + 1 for i, c in enumerate(cuts) if c])
        if any(len(p) > 1 and np.abs(p - p.mean(axis=0)).sum(axis=1).max() > limit + 1e-6 for p in parts):
            continue
        key = partition_key(parts, smallest)
        best = key if best is None or key < best else best
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("smallest", [1, 3])
@pytest.mark.parametrize("astigmatism", [0.0, 600.0])
def test_optimal_groups_equal_brute_force(seed, smallest, astigmatism):
    rng = np.random.default_rng(seed)
    z = np.sort(rng.uniform(10000, 14000, 10))
    vectors = 0.5 * rng.uniform(0, astigmatism, 10) * np.exp(2j * rng.uniform(0, np.pi, 10))
    groups = optimal_groups(z, OPTICS, phase_error_limit(500.0, OPTICS), smallest, vectors)
    values = np.column_stack([z, vectors])
    found = partition_key([values[groups == g] for g in np.unique(groups)], smallest)
    assert found == pytest.approx(brute_force(values, 500.0, smallest))


def test_many_micrographs_are_grouped_in_under_a_second_and_within_the_phase_limit():
    z = np.random.default_rng(1).uniform(8000, 38000, 1067)
    start = time.process_time()
    groups = optimal_groups(z, OPTICS, 4.0)
    assert time.process_time() - start < 1.0
    names = [f"m{i}" for i in range(len(z))]
    _, sel_group = average_groups(group_table(names, z, groups), micrographs(names, z), OPTICS)
    assert sel_group.nphPhaseErrorLimit.max() <= 4.0 + 1e-6
    width = 2 * 4.0**2 / (2 * OPTICS.wavelength)
    assert len(sel_group) <= np.ceil(np.ptp(z) / width) + 2
    assert np.all(np.diff(sel_group.nphGroupDefocus) > 0)


def test_astigmatism_narrows_groups():
    rng = np.random.default_rng(3)
    z = np.linspace(10000, 14000, 40)
    plain = optimal_groups(z, OPTICS, 4.4)
    alike = optimal_groups(z, OPTICS, 4.4, astigmatism=np.full(40, 250.0 + 100j))
    np.testing.assert_array_equal(alike, plain)  # the group has it too
    vectors = 250.0 * np.exp(2j * rng.uniform(0, np.pi, 40))
    assert optimal_groups(z, OPTICS, 4.4, astigmatism=vectors).max() > plain.max()
    assert optimal_groups(z, OPTICS, 4.4, astigmatism=1e3 * np.exp(2j * np.arange(40))).max() == 40
    with pytest.raises(InputError, match="39 astigmatisms for 40"):
        optimal_groups(z, OPTICS, 4.4, astigmatism=vectors[1:])


def test_no_group_is_over_its_limit_with_astigmatism():
    rng = np.random.default_rng(5)
    z, astigmatism, angle = rng.uniform(8000, 38000, 400), rng.uniform(0, 800, 400), rng.uniform(0, 180, 400)
    names = [f"m{i}" for i in range(len(z))]
    table = micrographs(names, z, astigmatism, angle)
    settings = {"method": "optimal", "width": 1000.0, "resolution": 4.0, "smallest": 1}
    proposal = propose_groups(table, {"voltage_kv": 300, "cs_mm": 2.0, "amplitude_contrast": 0.1}, settings)
    _, groups = average_groups(proposal, table, OPTICS)
    assert groups.nphPhaseErrorLimit.max() <= 4.0 + 1e-6


def test_group_averages_take_astigmatism_as_a_vector():
    table = micrographs(["a", "b"], [20000, 20400], astigmatism=[600, 600], angle=[0.0, 90.0])
    def_sort = pd.DataFrame({"rlnMicrographName": ["a", "b"], "nphDefocusGroup": [1, 1]})
    _, groups = average_groups(def_sort, table, OPTICS)
    row = groups.iloc[0]
    assert row.nphGroupDefocusU == pytest.approx(20200) and row.nphGroupDefocusV == pytest.approx(20200)
    assert row.nphDefocusSpread == pytest.approx(400) and row.nphMicrographs == 2
    assert row.nphWorstDeviation == pytest.approx(200 + 300)
    assert row.nphPhaseErrorLimit == pytest.approx(phase_error_limit(500, OPTICS))
    assert phase_error(row.nphWorstDeviation, 1 / row.nphPhaseErrorLimit, OPTICS) == pytest.approx(90)


def test_an_edit_that_moves_a_micrograph_is_taken():
    proposal = sort_into_groups(["a", "b", "c"], [10000.0, 10500.0, 20000.0])
    edit = proposal.copy()
    edit.loc[1, "nphDefocusGroup"] = 7
    checked = check_edit(proposal, edit.iloc[::-1])
    assert list(checked.nphDefocusGroup) == [1, 2, 7]
    assert checked.nphDefocus.tolist() == [10000.0, 20000.0, 10500.0]


@pytest.mark.parametrize(
    ("names", "groups", "message"),
    [
        (["a", "b"], [1, 1], "c is missing"),
        (["a", "b", "c", "d"], [1, 1, 2, 2], "row 4: micrograph d is not"),
        (["a", "b", "b", "c"], [1, 1, 1, 2], "row 3: micrograph b is already in row 2"),
        (["a", "b", "c"], [1, 0, 2], "row 2: defocus group 0 of b"),
        (["a", "b", "c"], [1, 1.5, 2], "row 2: defocus group 1.5"),
        (["a", "b", "c"], [1, "x", 2], "row 2: defocus group x"),
    ],
)
def test_bad_edits_are_refused_by_row(names, groups, message):
    proposal = sort_into_groups(["a", "b", "c"], [10000.0, 10500.0, 20000.0])
    edit = pd.DataFrame({"rlnMicrographName": names, "nphDefocusGroup": groups})
    with pytest.raises(InputError, match=message) as caught:
        check_edit(proposal, edit, "edits/def_sort.star")
    assert "edits/def_sort.star" in str(caught.value)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="number 2"):
        sort_into_groups(["a", "b"], [1.0, np.nan])
    with pytest.raises(InputError, match="twice"):
        sort_into_groups(["a", "a"], [1.0, 2.0])
    with pytest.raises(InputError, match="width"):
        sort_into_groups(["a"], [1.0], 0)
    with pytest.raises(InputError, match="lacks"):
        average_groups(
            pd.DataFrame({"rlnMicrographName": ["x"], "nphDefocusGroup": [1]}), micrographs(["a"], [1.0]), OPTICS
        )
