"""Coordinates of other programs: whose corner, whose centre, which micrograph; and a picture to check them by."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from nephila.cli import main
from nephila.errors import InputError
from nephila.io.coordinates import box_centre, match_micrographs, micrograph_stem, read_coordinates, spider_coordinates
from nephila.io.mrc import write_image
from nephila.io.spider import write_document
from nephila.io.tables import read_table, write_blocks
from nephila.picking.tables import given_coordinates

SIDE = 96
CBOX = """
data_global

_cbox_format_version 1.0

data_cryolo

loop_
_CoordinateX #1
_CoordinateY #2
_CoordinateZ #3
_Width #4
_Height #5
_Depth #6
_EstWidth #7
_EstHeight #8
_Confidence #9
_NumBoxes #10
_Angle #11
{rows}

data_cryolo_include

loop_
_slice_index #1


"""


def call(*arguments: object):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(("corner", "size", "centre"), [(10, 8, 14), (10, 9, 14), (10.5, 8, 14.5), (10.0, 7.5, 13.75)])
def test_the_centre_of_a_box_is_its_pixel_half(corner: float, size: float, centre: float) -> None:
    assert box_centre(corner, size) == centre
    if float(corner).is_integer() and float(size).is_integer():
        window = np.arange(int(corner), int(corner) + int(size))
        assert window[int(size) // 2] == centre  # the pixel about which a window of this size is cut


CASES = [
    ("a.box", "10 20 8 8\n10.5\t20 7 7 -3\n", None),
    ("a.cbox", "10\t20\t8\t8\t0.9\t7.5\t7.5\n10.5\t20\t7\t7\t0.2\t7\t7\n", [0.9, 0.2]),
    ("b.cbox", CBOX.format(rows="10 20 <NA> 8 8 1 7.5 7.5 0.9 1 <NA>\n10.5 20 <NA> 7 7 1 7 7 0.2 1 <NA>"), [0.9, 0.2]),
]


@pytest.mark.parametrize(("name", "text", "score"), CASES)
def test_boxes_state_corners(tmp_path: Path, name: str, text: str, score: list[float] | None) -> None:
    picks = read_coordinates(write(tmp_path / name, text))
    np.testing.assert_allclose(picks.x, [14, 13.5])
    np.testing.assert_allclose(picks.y, [24, 23])
    np.testing.assert_array_equal(picks.score, score or [np.nan, np.nan])
    assert picks.micrographs is None


@pytest.mark.parametrize("block", ["", "particles", "images"])
def test_star_tables_state_centres(tmp_path: Path, block: str) -> None:
    table = pd.DataFrame({"rlnCoordinateX": [14.0, 13.5], "rlnCoordinateY": [24.0, 23.0]})
    write_blocks(tmp_path / "m_manualpick.star", {block: table.assign(rlnAutopickFigureOfMerit=-999.0)})
    picks = read_coordinates(tmp_path / "m_manualpick.star")
    np.testing.assert_array_equal(picks.x, [14, 13.5])
    assert np.isnan(picks.score).all()  # -999: picked by hand
    write_blocks(tmp_path / "all.star", {block: table.assign(rlnMicrographName=["a/m1.mrc", "a/m2.mrc"])})
    assert read_coordinates(tmp_path / "all.star").micrographs == ("a/m1.mrc", "a/m2.mrc")


def test_windows_of_spider_lie_where_spider_cut_them(tmp_path: Path) -> None:
    box = 8
    # lfc_pick: the window's first pixel, from 1, is x - (box // 2 + 1); pick: it is x
    write_document(tmp_path / "l.dat", {"x": [51.0], "y": [31.0], "n": [1.0], "peak": [0.3]})
    write_document(tmp_path / "p.dat", {"x": [46.0], "y": [26.0], "n": [1.0]})
    for name, score in (("l.dat", 0.3), ("p.dat", np.nan)):
        picks = spider_coordinates(tmp_path / name, box)
        first = 46 - 1
        assert (picks.x[0], picks.y[0]) == (first + box // 2, 26 - 1 + box // 2)
        np.testing.assert_array_equal(picks.score, [score])
    write_document(tmp_path / "bad.dat", {"x": [1.0], "y": [2.0]})
    with pytest.raises(InputError, match="2 columns"):
        spider_coordinates(tmp_path / "bad.dat", box)
    write(tmp_path / "none.dat", " ; no particles\n")
    assert len(spider_coordinates(tmp_path / "none.dat", box)) == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.box", "10 20 8\n", "line 1: not x, y, width, height"),
        ("a.box", "10 20 8 8\nx y 8 8\n", "line 2"),
        ("a.box", "10 20 0 8\n", "size must be positive"),
        ("a.box", "10 20 8 8 -1\n", "end of a helix"),
        (
            "a.cbox",
            CBOX.replace("_Width", "_Wide").format(rows="1 2 <NA> 8 8 1 7 7 0.9 1 <NA>"),
            "column _Width is missing",
        ),
        ("a.cbox", CBOX.format(rows="1 2 3 8 8 1 7 7 1 1 0\n1 2 4 8 8 1 7 7 1 1 0"), "several slices"),
        ("a.cbox", CBOX.format(rows="1 2 <NA> 8 8 1 7 7 0.9 1"), "a.cbox"),
        ("a.star", "data_x\n\nloop_\n_rlnMicrographName #1\nm.mrc\n", "no table with the columns _rlnCoordinateX"),
        ("a.star", "data_\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographCoordinates #2\nm.mrc c.star\n", "a list of"),
        ("a.star", "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 nan\n", "row 1"),
        ("a.star", "", "empty"),
        ("a.txt", "1 2\n", "come as .star"),
    ],
)
def test_files_that_are_none_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_coordinates(write(tmp_path / name, text))
    assert name in str(error.value)


def test_files_belong_to_micrographs_by_name() -> None:
    names = ["mics/m_001.mrc", "mics/m_002.tif.gz", "mics/raw3.dat"]
    files = ["x/m_001_autopick.star", "y/m_002.cbox", "raw3_manualpick.star"]
    assert list(match_micrographs(files, names).values()) == names
    assert micrograph_stem("a/b_autopick.star") == "b"
    with pytest.raises(InputError, match="no micrograph is named m_004"):
        match_micrographs(["m_004.box"], names)
    with pytest.raises(InputError, match="2 micrographs are named m"):
        match_micrographs(["m.box"], ["a/m.mrc", "b/m.mrc"])


@pytest.fixture
def micrographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two noisy micrographs, not square, with bright spots at known pixels."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    spots = {"m1": [(20, 30), (70, 11)], "m2": [(40, 50)]}
    for name, places in spots.items():
        image = rng.normal(size=(64, SIDE)).astype(np.float32)
        for x, y in places:
            image[y, x] += 60
        (tmp_path / "mics").mkdir(exist_ok=True)
        write_image(tmp_path / "mics" / f"{name}.mrc", image, 4.0)
    return SimpleNamespace(folder=tmp_path, spots=spots)


@pytest.mark.parametrize("kind", ["star", "box", "cbox"])
def test_the_command_writes_the_table_that_the_workflow_takes(micrographs: SimpleNamespace, kind: str) -> None:
    for name, places in micrographs.spots.items():
        if kind == "star":
            table = pd.DataFrame(places, columns=["rlnCoordinateX", "rlnCoordinateY"])
            write_blocks(f"{name}_autopick.star", {"": table.assign(rlnAutopickFigureOfMerit=0.5)})
            continue
        rows = [f"{x - 6} {y - 6} 12 12" for x, y in places]
        text = "\n".join(rows) if kind == "box" else "\n".join(f"{row} 0.5 12 12" for row in rows)
        write(Path(f"{name}.{kind}"), text + "\n")
    files = sorted(Path().glob(f"m*.{kind}"))
    result = call("import", "coordinates", *files, "-o", "picks.star", "--micrographs", "mics/*.mrc", "--diameter", 40)
    assert result.exit_code == 0, result.stderr
    assert "3 picks on 2 of 2 micrographs" in result.output and Path("picks.png").stat().st_size > 5000
    table = given_coordinates(
        read_table("picks.star", kind="coordinates"), ["mics/m1.mrc", "mics/m2.mrc"], "picks.star"
    )
    found = {
        Path(n).stem: list(zip(t["rlnCoordinateX"], t["rlnCoordinateY"], strict=True))
        for n, t in table.groupby("rlnMicrographName")
    }
    assert found == micrographs.spots


def test_the_list_of_relions_autopick_job(micrographs: SimpleNamespace) -> None:
    """RELION 4: a table of micrographs and their coordinate files, paths from its project folder."""
    rows = []
    for name, places in micrographs.spots.items():
        path = Path("relion/AutoPick/job007/mics") / f"{name}_autopick.star"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_blocks(path, {"": pd.DataFrame(places, columns=["rlnCoordinateX", "rlnCoordinateY"])})
        rows.append((f"MotionCorr/job002/mics/{name}.mrc", str(path.relative_to("relion"))))
    columns = ["rlnMicrographName", "rlnMicrographCoordinates"]
    listed = Path("relion/AutoPick/job007/autopick.star")
    write_blocks(listed, {"coordinate_files": pd.DataFrame(rows, columns=columns)})
    result = call("import", "coordinates", listed, "-o", "picks.star", "--micrographs", "mics/*.mrc")
    assert result.exit_code == 0, result.stderr
    table = read_table("picks.star", kind="coordinates")
    assert table["rlnMicrographName"].tolist() == ["mics/m1.mrc", "mics/m1.mrc", "mics/m2.mrc"]
    Path("relion/AutoPick/job007/mics/m2_autopick.star").unlink()
    result = call("import", "coordinates", listed, "-o", "picks.star", "--micrographs", "mics/*.mrc")
    assert result.exit_code == 2 and "m2_autopick.star is neither here nor in a folder above" in result.stderr


def test_the_command_refuses_what_is_wrong(micrographs: SimpleNamespace) -> None:
    write(Path("m1.box"), f"{SIDE} 20 8 8\n")
    options = ("-o", "picks.star", "--micrographs", "mics/*.mrc")
    for arguments, message in (
        (("m1.box", *options), "lies outside the 96 x 64 px (1 of 1); are these picks of binned"),
        (("m1.box", *options, "--threshold", 0.5), "have no score"),
        (("m1.box", "-o", "picks.star", "--micrographs", "none/*.mrc"), "nothing matches"),
        (("none.box", *options), "no such file"),
    ):
        result = call("import", "coordinates", *arguments)
        assert result.exit_code == 2 and message in result.stderr, result.stderr
    assert not Path("picks.star").exists()
    write(Path("m1.cbox"), "10 20 8 8 0.9 8 8\n20 20 8 8 0.2 8 8\n")
    result = call("import", "coordinates", "m1.cbox", *options, "--threshold", 0.3, "--binning", 2)
    assert "1 picks on 1 of 2 micrographs, 1 below the threshold left out" in result.output
    table = read_table("picks.star", kind="coordinates")
    assert table["rlnCoordinateX"].tolist() == [28.5] and table["rlnCoordinateY"].tolist() == [48.5]
    write_blocks(
        "all.star",
        {"": pd.DataFrame({"rlnMicrographName": ["z.mrc"], "rlnCoordinateX": [1.0], "rlnCoordinateY": [1.0]})},
    )
    assert "z.mrc of the coordinates is not among" in call("import", "coordinates", "all.star", *options).stderr
