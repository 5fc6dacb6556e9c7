"""Batches, groups and chunks: pure functions of tables and edits."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nephila import plan
from nephila.config import parse_config
from nephila.errors import InputError
from nephila.io.tables import write_table

CONFIG = parse_config({"defocus_groups": {"width": 1000.0}})


def ctf_table(defoci: list[float], keep: list[int] | None = None) -> pd.DataFrame:
    names = [f"mic_{i}.mrc" for i in range(1, len(defoci) + 1)]
    return pd.DataFrame(
        {
            "rlnMicrographName": names,
            "rlnDefocusU": defoci,
            "rlnDefocusV": defoci,
            "rlnDefocusAngle": 0.0,
            "nphKeep": keep or [1] * len(defoci),
            "nphReason": "none",
        }
    )


def test_batches_are_even_and_in_order() -> None:
    batches = plan.assign_batches([f"m{i}" for i in range(13)], 12)
    sizes = pd.Series(batches).value_counts().to_dict()
    assert sizes == {1: 7, 2: 6}
    assert list(batches.values()) == sorted(batches.values())


def test_added_micrographs_disturb_no_old_batch() -> None:
    first = plan.assign_batches(["a", "c", "d"], 2)
    previous = pd.DataFrame({"rlnMicrographName": list(first), "nphBatch": list(first.values())})
    second = plan.assign_batches(["a", "b", "c", "d"], 2, previous)
    assert {name: second[name] for name in first} == first
    assert second["b"] == max(first.values()) + 1
    assert list(second) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("rows", "chunks"), [(0, 1), (1, 3), (1000, 3), (1024, 2), (2561, 4)])
def test_chunks_cover_all_rows_once_in_whole_blocks(rows: int, chunks: int) -> None:
    ranges = [plan.chunk_rows(chunk, chunks, rows) for chunk in range(1, chunks + 1)]
    assert ranges[0][0] == 0 and ranges[-1][1] == rows
    assert all(a[1] == b[0] for a, b in zip(ranges, ranges[1:], strict=False))
    assert all(first % plan.BLOCK == 0 or first == rows for first, _ in ranges)


def test_chunk_count_follows_the_configured_size() -> None:
    small = parse_config({"jobs": {"particles_per_chunk": 1000}})
    assert plan.chunk_count(100, small) == 1
    # 1000 rounds up to four blocks of 256; 10,000 particles are 5,000 per half
    assert plan.chunk_count(10_000, small) == 5


def test_groups_follow_the_rule_and_the_edit(tmp_path: Path) -> None:
    kept = ctf_table([10_000, 10_900, 11_100, 20_000])
    groups = plan.form_groups(kept, CONFIG, None)
    assert [g.micrographs for g in groups] == [("mic_1.mrc", "mic_2.mrc"), ("mic_3.mrc",), ("mic_4.mrc",)]
    assert [g.label for g in groups] == ["001", "002", "003"]
    assert groups[0].defocus_u == pytest.approx(10_450)
    edit = tmp_path / "def_sort.star"
    table = pd.DataFrame({"rlnMicrographName": kept["rlnMicrographName"], "nphDefocusGroup": [1, 2, 2, 3]})
    write_table(edit, table, kind="def_sort")
    edited = plan.form_groups(kept, CONFIG, str(edit))
    assert [g.micrographs for g in edited] == [("mic_1.mrc",), ("mic_2.mrc", "mic_3.mrc"), ("mic_4.mrc",)]


def test_selection_edit_drops_and_brings_back(tmp_path: Path) -> None:
    ctf = ctf_table([10_000, 12_000, 14_000], keep=[1, 0, 1])
    edit = tmp_path / "sel_micrograph.star"
    write_table(
        edit, pd.DataFrame({"rlnMicrographName": ["mic_1.mrc", "mic_2.mrc"], "nphKeep": [0, 1]}), kind="sel_micrograph"
    )
    assert plan.resolve_micrographs(ctf, None)["rlnMicrographName"].tolist() == ["mic_1.mrc", "mic_3.mrc"]
    assert plan.resolve_micrographs(ctf, edit)["rlnMicrographName"].tolist() == ["mic_2.mrc", "mic_3.mrc"]


@pytest.mark.parametrize(
    ("names", "keep", "message"),
    [
        (["mic_9.mrc"], [1], "row 1: micrograph mic_9.mrc is not in this project"),
        (["mic_1.mrc", "mic_1.mrc"], [1, 0], "mic_1.mrc is named twice"),
        (["mic_1.mrc"], [2], "_nphKeep is 2"),
    ],
)
def test_bad_selection_edits_are_refused(names: list[str], keep: list[int], message: str) -> None:
    edit = pd.DataFrame({"rlnMicrographName": names, "nphKeep": keep})
    with pytest.raises(InputError, match=message):
        plan.apply_micrograph_edit(ctf_table([10_000.0]), edit, "edits/sel_micrograph.star")


def test_nothing_kept_is_an_error() -> None:
    with pytest.raises(InputError, match="no micrograph is kept"):
        plan.resolve_micrographs(ctf_table([10_000.0], keep=[0]), None)


def test_a_failed_fit_cannot_be_kept(tmp_path: Path) -> None:
    ctf = ctf_table([0.0, 12_000.0], keep=[0, 1])
    edit = tmp_path / "sel_micrograph.star"
    write_table(edit, pd.DataFrame({"rlnMicrographName": ["mic_1.mrc"], "nphKeep": [1]}), kind="sel_micrograph")
    with pytest.raises(InputError, match="mic_1.mrc is kept but has no defocus"):
        plan.resolve_micrographs(ctf, edit)
