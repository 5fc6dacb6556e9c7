"""STAR tables: round trips, what RELION writes, and messages that name file, row and column."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nephila.errors import InputError
from nephila.io.tables import KINDS, check_columns, read_blocks, read_table, write_blocks, write_table

RELION_FILE = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
opticsGroup1            1   300.000000


# version 30001

data_particles

loop_
_rlnCoordinateX #1
_rlnMicrographName #2
_rlnImageName #3
_rlnOpticsGroup #4
  120.500000 mic_001.mrc 000001@a.mrcs            1
   -3.000000 mic_002.mrc 000002@a.mrcs            1

"""


def def_sort(names=("micrographs/a.mrc", "micrographs/b.mrc", "micrographs/c.mrc")):
    return pd.DataFrame(
        {
            "rlnMicrographName": list(names),
            "nphDefocus": [10000.0, 12345.678901, 1e-7][: len(names)],
            "nphDefocusGroup": [1, 2, 2][: len(names)],
        }
    )


def test_a_table_comes_back(tmp_path):
    write_table(tmp_path / "t.star", def_sort(), kind="def_sort")
    read = read_table(tmp_path / "t.star", kind="def_sort")
    pd.testing.assert_frame_equal(read, def_sort(), check_dtype=False, rtol=1e-8)
    assert read["nphDefocusGroup"].dtype.kind == "i"
    assert "data_def_sort" in (tmp_path / "t.star").read_text()


@pytest.mark.parametrize(
    "names", [("001", "2", "3e5"), ("a b.mrc", "c", "d"), ("none", "nan", "NA"), ("1.0", "x", "y")]
)
def test_names_stay_what_they_are(tmp_path, names):
    write_table(tmp_path / "t.star", def_sort(names), kind="def_sort")
    assert tuple(read_table(tmp_path / "t.star", kind="def_sort")["rlnMicrographName"]) == names


@pytest.mark.parametrize("rows", [0, 1])
def test_short_tables(tmp_path, rows):
    write_table(tmp_path / "t.star", def_sort()[:rows], kind="def_sort")
    read = read_table(tmp_path / "t.star", kind="def_sort")
    assert len(read) == rows and list(read.columns) == list(def_sort().columns)


def test_blocks_keep_their_order_and_names(tmp_path):
    write_blocks(tmp_path / "t.star", {"optics": pd.DataFrame({"rlnOpticsGroup": [1]}), "particles": def_sort()})
    assert list(read_blocks(tmp_path / "t.star")) == ["optics", "particles"]
    assert len(read_table(tmp_path / "t.star", block="particles")) == 3


def test_a_file_of_relions(tmp_path):
    (tmp_path / "t.star").write_text(RELION_FILE)
    particles = read_table(tmp_path / "t.star", kind="particles")
    assert particles["rlnCoordinateX"].tolist() == [120.5, -3.0]
    assert particles["rlnImageName"].tolist() == ["000001@a.mrcs", "000002@a.mrcs"]
    assert read_table(tmp_path / "t.star", block="optics")["rlnVoltage"].tolist() == [300]


def test_the_only_block_counts_whatever_its_name(tmp_path):
    write_table(tmp_path / "t.star", def_sort(), block="mine")
    assert len(read_table(tmp_path / "t.star", kind="def_sort")) == 3


def test_columns_may_stand_in_any_order_with_others(tmp_path):
    table = def_sort()[["nphDefocusGroup", "rlnMicrographName"]].assign(nphNote=3)
    write_table(tmp_path / "t.star", table, kind="def_sort")
    assert read_table(tmp_path / "t.star", kind="def_sort")["nphNote"].tolist() == [3, 3, 3]


def test_the_comment_comes_first_and_resolved_files_are_read_only(tmp_path):
    for _ in range(2):
        write_table(
            tmp_path / "t.star", def_sort(), kind="def_sort", comment="Do not edit.\nSee edits/.", read_only=True
        )
    assert (tmp_path / "t.star").read_text().startswith("# Do not edit.\n# See edits/.\n")
    assert not (tmp_path / "t.star").stat().st_mode & 0o222


def test_two_writes_give_the_same_bytes(tmp_path):
    for name in ("a.star", "b.star"):
        write_table(tmp_path / name, def_sort(), kind="def_sort")
    assert (tmp_path / "a.star").read_bytes() == (tmp_path / "b.star").read_bytes()


def test_a_failed_fit_is_a_row_without_numbers(tmp_path):
    table = pd.DataFrame(
        {
            "rlnMicrographName": ["a", "b"],
            "rlnDefocusU": [10000.0, np.nan],
            "rlnDefocusV": [9000.0, np.nan],
            "rlnDefocusAngle": [1.0, np.nan],
            "nphKeep": [1, 0],
            "nphReason": ["none", "no rings found"],
        }
    )
    write_table(tmp_path / "t.star", table, kind="defocus")
    read = read_table(tmp_path / "t.star", kind="defocus")
    assert np.isnan(read["rlnDefocusU"][1]) and read["nphReason"].tolist() == ["none", "no rings found"]


@pytest.mark.parametrize("name", ["mic#1.mrc", "it's.mrc", 'a"b', "data_001.mrc", "a\nb"])
def test_names_that_a_star_table_cannot_hold(tmp_path, name):
    with pytest.raises(InputError, match="cannot hold this name"):
        write_table(tmp_path / "t.star", def_sort(("a", "b", name)), kind="def_sort")
    assert list(tmp_path.iterdir()) == []


def test_remarks_are_changed_to_what_a_table_can_hold(tmp_path):
    table = pd.DataFrame({"rlnMicrographName": ["a", "b"], "nphKeep": 0, "nphReason": ["'a.mrc': #1\nis \"cut\"", ""]})
    write_table(tmp_path / "t.star", table, kind="sel_micrograph")
    assert read_table(tmp_path / "t.star")["nphReason"].tolist() == ["`a.mrc`:  1 is `cut`", "none"]


TABLE = "data_def_sort\n\nloop_\n_rlnMicrographName #1\n_nphDefocusGroup #2\na.mrc 1\n{row}\n"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "no such file"),
        ("", "the file is empty"),
        ("some words\n", "no data block"),
        (TABLE.format(row="b.mrc"), "line 7 has 1 fields for 2 columns"),
        (TABLE.format(row="b.mrc 1 2"), "line 7 has 3 fields for 2 columns"),
        (TABLE.format(row="b.mrc two"), "row 2, column _nphDefocusGroup: 'two' is not a finite number"),
        (TABLE.format(row="b.mrc nan"), "row 2, column _nphDefocusGroup"),
        (
            TABLE.replace("_nphDefocusGroup", "_group").format(row="b.mrc 1"),
            r"column _nphDefocusGroup is missing .*_group",
        ),
        (RELION_FILE, "no block 'data_def_sort'; the file has data_optics, data_particles"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, named):
    path = tmp_path / "mine.star"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=f"mine.star: .*{named}"):
        read_table(path, kind="def_sort")


def test_windows_line_ends(tmp_path):
    (tmp_path / "t.star").write_bytes(TABLE.format(row="b.mrc 2").replace("\n", "\r\n").encode())
    read = read_table(tmp_path / "t.star", kind="def_sort")
    assert read["rlnMicrographName"].tolist() == ["a.mrc", "b.mrc"] and read["nphDefocusGroup"].tolist() == [1, 2]


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "t.star").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(InputError, match="t.star"):
        read_table(tmp_path / "t.star")


def test_a_table_without_its_columns_is_not_written(tmp_path):
    with pytest.raises(InputError, match="_nphDefocusGroup is missing"):
        write_table(tmp_path / "t.star", def_sort().drop(columns="nphDefocusGroup"), kind="def_sort")
    assert list(tmp_path.iterdir()) == []


def test_every_kind_is_checked():
    for kind, rule in KINDS.items():
        with pytest.raises(InputError, match=f"{kind}.star: column _{rule.required[0]}"):
            check_columns(pd.DataFrame(), rule.required, f"{kind}.star")
