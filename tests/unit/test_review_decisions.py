"""Decisions of the review page: bytes of the edits, history, undo, merging, files changed by other hands, death in mid-save."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from review_projects import NAMES, small_project

from nephila.cli.run import finish_decision
from nephila.errors import InputError
from nephila.io.tables import read_table
from nephila.review import journal
from nephila.review.decisions import COMMENT, Decisions, Stale
from nephila.review.project import Project, Refused


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return small_project(tmp_path_factory.mktemp("template"))


@pytest.fixture
def project(template, tmp_path):
    return shutil.copytree(template, tmp_path / "project")


@pytest.fixture
def decisions(project):
    return Decisions(Project(project), who="ann@there")


def content(project, name):
    path = project / "edits" / f"{name}.star"
    return path.read_text() if path.exists() else None


def history(project):
    return [json.loads(line) for line in (project / "edits" / "history.jsonl").read_text().splitlines()]


def decide(decisions, name, changes, what="a decision"):
    """Decide on the file as it is now."""
    state = decisions.state(name)
    rows = [(key, state["rows"].get(key), value) for key, value in changes.items()]
    return decisions.decide(name, state["hash"], rows, what)


@pytest.mark.parametrize(
    ("name", "changes", "lines"),
    [
        ("sel_micrograph", {NAMES[1]: 0}, ["_rlnMicrographName #1", "_nphKeep #2", f"{NAMES[1]}\t0"]),
        ("good", {f"{NAMES[1]}#2": 0, f"{NAMES[0]}#3": 1},
         ["_rlnMicrographName #1", "_nphParticleNumber #2", "_nphKeep #3", f"{NAMES[0]}\t3\t1", f"{NAMES[1]}\t2\t0"]),
        ("thresh", {"2": 0.654321}, ["_nphDefocusGroup #1", "_nphThreshold #2", "2\t0.654321"]),
        ("best_per_view", {"2": 12, "1": 3}, ["_nphDefocusGroup #1", "_nphAtMost #2", "1\t3", "2\t12"]),
        ("defocus", {NAMES[2]: "15300.5 15100 -12.5"}, ["_rlnMicrographName #1", "_rlnDefocusU #2", "_rlnDefocusV #3",
         "_rlnDefocusAngle #4", f"{NAMES[2]}\t15300.5\t15100\t-12.5"]),
        ("def_sort", {NAMES[1]: 2},
         ["_rlnMicrographName #1", "_nphDefocusGroup #2", *(f"{n}\t{g}" for n, g in zip(NAMES, (1, 2, 2, 2), strict=False))]),
    ],
)  # fmt: skip
def test_a_decision_and_its_undoing_byte_by_byte(project, decisions, name, changes, lines):
    decide(decisions, name, changes)
    expected = "\n".join([f"# {COMMENT}", "", f"data_{name}", "", "loop_", *lines])
    assert content(project, name).rstrip("\n") == expected
    first = content(project, name)
    entry = history(project)[0]
    assert entry["who"] == "ann@there" and entry["what"] == "a decision" and entry["when"][:2] == "20"
    assert [tuple(row) for row in entry["parts"][0]["changes"]] == [
        (key, None, value) for key, value in changes.items()
    ]
    assert decisions.undo(name)["what"] == "Undo: a decision"
    assert content(project, name) is None
    assert decisions.undo(name, redo=True)["what"] == "Redo: a decision"
    assert content(project, name) == first
    assert [entry["number"] for entry in history(project)] == [1, 2, 3]
    with pytest.raises(InputError, match="nothing to redo"):
        decisions.undo(name, redo=True)


def test_what_is_decided_is_what_the_workflow_reads(project, decisions):
    decide(decisions, "thresh", {"1": 0.123456789123})
    table = read_table(project / "edits" / "thresh.star", kind="thresh")
    assert table["nphThreshold"].tolist() == [0.123456789]


def test_several_decisions_are_undone_in_turn(project, decisions):
    states = [content(project, "good")]
    for number, value in ((1, 0), (2, 0), (3, 1)):
        decide(decisions, "good", {f"{NAMES[0]}#{number}": value})
        states.append(content(project, "good"))
    for state in states[-2::-1]:
        decisions.undo("good")
        assert content(project, "good") == state
    for state in states[1:]:
        decisions.undo("good", redo=True)
        assert content(project, "good") == state
    decisions.undo("good")
    decide(decisions, "good", {f"{NAMES[1]}#1": 0})
    assert decisions.state("good")["redo"] is None


def test_a_file_by_another_hand_keeps_its_columns_comments_blocks_and_comes_back_whole(project, decisions):
    path = project / "edits" / "sel_micrograph.star"
    path.parent.mkdir(exist_ok=True)
    text = (
        "# mine; do not lose\n\ndata_sel_micrograph\nloop_\n_rlnMicrographName\n_nphReason\n_nphKeep\n"
        f"{NAMES[2]} dark 0\n{NAMES[0]}   drift 0\n\ndata_notes\nloop_\n_nphName\n_nphValue\nby ann\n"
    )
    path.write_text(text)
    decide(decisions, "sel_micrograph", {NAMES[1]: 0, NAMES[2]: None})
    assert content(project, "sel_micrograph").startswith("# mine; do not lose\n")
    table = read_table(path, kind="sel_micrograph")
    assert table.columns.tolist() == ["rlnMicrographName", "nphReason", "nphKeep"]
    assert table.to_numpy().tolist() == [[NAMES[0], "drift", 0], [NAMES[1], "nan", 0]]
    assert read_table(path, block="notes")["nphValue"].tolist() == ["ann"]
    decisions.undo("sel_micrograph")
    assert path.read_text() == text


def test_a_stale_decision_is_refused_and_says_what_conflicts(project, decisions):
    seen = decisions.state("sel_micrograph")
    decide(decisions, "sel_micrograph", {NAMES[0]: 0, NAMES[2]: 0})  # another tab
    before = content(project, "sel_micrograph")
    with pytest.raises(Stale) as stale:
        decisions.decide("sel_micrograph", seen["hash"], [(NAMES[1], None, 0)], "mine")
    assert stale.value.conflicts == []  # the page may merge
    with pytest.raises(Stale) as stale:
        decisions.decide("sel_micrograph", seen["hash"], [(NAMES[1], None, 0), (NAMES[0], 1, None)], "mine")
    assert stale.value.conflicts == [{"key": NAMES[0], "was": 1, "yours": None, "theirs": 0}]
    assert content(project, "sel_micrograph") == before and len(history(project)) == 1


def test_undo_refuses_to_take_back_what_another_hand_wrote(project, decisions):
    decide(decisions, "thresh", {"1": 0.7})
    path = project / "edits" / "thresh.star"
    path.write_text(path.read_text().replace("\t0.7", "\t0.75"))
    with pytest.raises(Stale):
        decisions.undo("thresh")
    path.write_text(path.read_text().replace("\t0.75", "\t0.7").rstrip("\n") + "\n2\t0.6\n")
    decisions.undo("thresh")  # the other row stays
    assert read_table(path, kind="thresh").to_numpy().tolist() == [[2, 0.6]]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("sel_micrograph", dict.fromkeys(NAMES[:4], 0), "no micrograph is kept"),
        ("sel_micrograph", {NAMES[0]: 2}, "1 keeps, 0 drops"),
        ("sel_micrograph", {"other.mrc": 0}, "not in this project"),
        ("good", {f"{NAMES[0]}#{i}": 0 for i in (1, 2, 3)} | {f"{NAMES[1]}#{i}": 0 for i in (1, 2)}, "no particle is left"),
        ("good", {f"{NAMES[0]}#7": 0}, "no particle 7"),
        ("good", {NAMES[0]: 0}, "not a key"),
        ("good", {f"{NAMES[0]}#x": 0}, "not a key"),
        ("thresh", {"1": 2.0, "2": 2.0}, "no particle in any group"),
        ("thresh", {"3": 0.5}, "group 3 does not exist"),
        ("thresh", {"1": float("nan")}, "not a number"),
        ("thresh", {"1": "high"}, "not a number"),
        ("def_sort", {NAMES[0]: 0}, "whole number from 1"),
        ("def_sort", {NAMES[0]: 1.5}, "whole number"),
        ("defocus", {NAMES[0]: "-100 -200 0"}, "must be an underfocus"),
        ("defocus", {NAMES[0]: "12000 11000"}, "is not 3 numbers"),
        ("defocus", {"other.mrc": "12000 11000 0"}, "not in this project"),
        ("best_per_view", {"3": 5}, "group 3 does not exist"),
        ("best_per_view", {"1": -1}, "must be a whole number"),
        ("def_sort", {NAMES[4]: 1}, "not among the kept"),
    ],
)  # fmt: skip
def test_what_the_workflow_would_refuse_is_not_written(project, decisions, name, changes, message):
    with pytest.raises(InputError, match=message) as error:
        decide(decisions, name, changes)
    assert ".tmp" not in str(error.value)
    assert not list(project.glob("edits/*"))


def test_a_group_may_be_left_out(project, decisions):
    assert "left out" in decide(decisions, "thresh", {"2": 2.0})["warnings"][0]


def test_what_a_threshold_was_before_is_known_also_after_a_restart(project, decisions):
    decide(decisions, "thresh", {"1": 0.61, "2": 0.62})
    decide(decisions, "thresh", {"2": 2.0})
    again = Decisions(Project(project))
    assert again.state("thresh")["former"] == {"1": None, "2": 0.62}
    path = project / "edits" / "thresh.star"
    path.write_text(path.read_text().replace("2\t2", "2\t0.63"))  # an editor's: nothing is known of it
    assert again.state("thresh")["former"] == {"1": None}


def test_groups_follow_the_selection_in_one_decision(project, decisions):
    decide(decisions, "def_sort", {NAMES[1]: 2})
    groups = content(project, "def_sort")
    answer = decide(decisions, "sel_micrograph", {NAMES[1]: 0, NAMES[4]: 1})
    assert answer["followed"] == ["edits/def_sort.star: 2 rows followed"]
    table = read_table(project / "edits" / "def_sort.star", kind="def_sort").set_index("rlnMicrographName")
    assert table["nphDefocusGroup"].to_dict() == {NAMES[0]: 1, NAMES[2]: 2, NAMES[3]: 2, NAMES[4]: 2}
    assert decisions.state("def_sort")["problem"] is None
    decisions.undo("sel_micrograph")
    assert content(project, "sel_micrograph") is None and content(project, "def_sort") == groups


def test_a_file_that_no_longer_fits_is_shown_and_can_be_mended(project, decisions):
    path = project / "edits" / "thresh.star"
    path.parent.mkdir(exist_ok=True)
    path.write_text("data_thresh\nloop_\n_nphDefocusGroup\n_nphThreshold\n1 0.7\n9 0.4\n")
    state = decisions.state("thresh")
    assert "group 9 does not exist" in state["problem"] and state["strangers"] == ["9"]
    decisions.mend("thresh")
    assert decisions.state("thresh")["problem"] is None
    assert read_table(path, kind="thresh")["nphThreshold"].tolist() == [0.7]


def test_lines_of_groups_that_are_no_more_go_in_the_same_decision(project, decisions):
    decide(decisions, "thresh", {"1": 0.7, "2": 0.6})
    decide(decisions, "best_per_view", {"2": 9})
    before = content(project, "thresh")
    answer = decide(decisions, "def_sort", dict.fromkeys(NAMES[2:4], 1))
    assert answer["followed"] == ["edits/thresh.star: 1 rows followed", "edits/best_per_view.star: 1 rows followed"]
    assert read_table(project / "edits" / "thresh.star", kind="thresh")["nphDefocusGroup"].tolist() == [1]
    assert content(project, "best_per_view") is None
    decisions.undo("def_sort")
    assert content(project, "thresh") == before and content(project, "best_per_view").rstrip().endswith("2\t9")
    answer = decide(decisions, "def_sort", {NAMES[1]: 3})  # a new group needs no line
    assert answer["followed"] == [] and answer["warnings"] == [] and content(project, "thresh") == before


def test_a_fit_by_hand_takes_up_a_micrograph_and_its_group_follows(project, decisions):
    decide(decisions, "def_sort", {NAMES[1]: 2})
    groups = content(project, "def_sort")
    assert decisions.state("sel_micrograph")["proposal"][NAMES[4]] == 0
    answer = decide(decisions, "defocus", {NAMES[4]: "20100 20000 15"}, "by hand")
    assert answer["followed"] == ["edits/def_sort.star: 1 rows followed"]
    assert decisions.state("sel_micrograph")["proposal"][NAMES[4]] == 1
    assert decisions.state("def_sort")["rows"][NAMES[4]] == 2 and decisions.state("def_sort")["problem"] is None
    decisions.undo("defocus")
    assert content(project, "defocus") is None and content(project, "def_sort") == groups


def test_an_error_in_mid_save_leaves_the_old_file(project, decisions, monkeypatch):
    decide(decisions, "good", {f"{NAMES[0]}#1": 0})
    before = content(project, "good")

    def fail(*arguments):
        raise OSError("no space left on device")

    state = decisions.state("good")
    monkeypatch.setattr("nephila.io.atomic.os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        decisions.decide("good", state["hash"], [(f"{NAMES[0]}#2", None, 0)], "lost")
    monkeypatch.undo()
    assert content(project, "good") == before
    assert sorted(path.name for path in (project / "edits").iterdir()) == ["good.star", "history.jsonl"]
    assert (
        decisions.state("good")["undo"]["what"] == "a decision"
    )  # the line about what never came about does not count
    decisions.undo("good")
    assert content(project, "good") is None


KILLED = """
import os, signal, sys
from pathlib import Path
from nephila.io import atomic
from nephila.review.decisions import Decisions
from nephila.review.project import Project
decisions = Decisions(Project(Path(sys.argv[1])))
state = decisions.state("good")
replace = atomic.os.replace
def killed(source, target):
    if Path(target).name == "good.star":
        if sys.argv[2] == "after":
            replace(source, target)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
atomic.os.replace = killed
decisions.decide("good", state["hash"], [("micrographs/mic_1.mrc#2", None, 0)], "killed")
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_server_killed_in_mid_save_leaves_the_old_file_or_the_new_one(project, decisions, moment):
    decide(decisions, "good", {f"{NAMES[0]}#1": 0})
    before = content(project, "good")
    done = subprocess.run([sys.executable, "-c", KILLED, str(project), moment], check=False, env={**os.environ})
    assert done.returncode == -9
    new = before.rstrip("\n") + f"\n{NAMES[0]}\t2\t0\n"
    assert content(project, "good").rstrip("\n") == (before if moment == "before" else new).rstrip("\n")
    again = Decisions(Project(project))
    assert sorted(path.name for path in (project / "edits").iterdir()) == ["good.star", "history.jsonl"]
    assert again.state("good")["undo"]["what"] == ("a decision" if moment == "before" else "killed")


KILLED_IN_A_PAIR = """
import os, signal, sys
from pathlib import Path
from nephila.io import atomic
from nephila.review.decisions import Decisions
from nephila.review.project import Project
decisions = Decisions(Project(Path(sys.argv[1])))
state = decisions.state("sel_micrograph")
number, calls = int(sys.argv[2]), []
def counted(function, *arguments, **named):
    calls.append(arguments)
    if len(calls) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*arguments, **named)
replace, unlink = os.replace, Path.unlink
def moved(source, target):
    return replace(source, target) if ".tmp" in Path(target).name else counted(replace, source, target)
atomic.os.replace = moved
def removed(path, *arguments, **named):
    return counted(unlink, path, *arguments, **named) if path.suffix in (".star", ".json") and ".tmp" not in path.name else (
        unlink(path, *arguments, **named))
Path.unlink = removed
decisions.decide("sel_micrograph", state["hash"], [("micrographs/mic_2.mrc", None, 0), ("micrographs/mic_5.mrc", None, 1)], "pair")
print(len(calls))
"""


def test_a_server_killed_between_two_files_leaves_both_old_or_both_new(project, decisions, tmp_path):
    """Killed before each move into place and each removal in turn; what the next start finds is one of two states."""
    decide(decisions, "def_sort", {NAMES[1]: 2})
    done = {name: content(project, name) for name in ("sel_micrograph", "def_sort")}
    whole = shutil.copytree(project, tmp_path / "whole")
    answer = subprocess.run([sys.executable, "-c", KILLED_IN_A_PAIR, str(whole), "0"], check=True, capture_output=True)
    after = {name: content(whole, name) for name in done}
    assert after["sel_micrograph"] is not None and after["def_sort"] != done["def_sort"]
    steps, half = int(answer.stdout), 0
    assert steps == 4  # the journal, two edits, the journal's end
    for step in range(1, steps + 1):
        copy = shutil.copytree(project, tmp_path / f"killed_{step}")
        killed = subprocess.run([sys.executable, "-c", KILLED_IN_A_PAIR, str(copy), str(step)], check=False)
        assert killed.returncode == -9
        found = {name: content(copy, name) for name in done}
        half += found not in (done, after)
        again = Decisions(Project(copy))
        found = {name: content(copy, name) for name in done}
        assert found == (done if step == 1 else after), step
        assert all(again.state(name)["problem"] is None for name in done)
        assert sorted(path.name for path in (copy / "edits").iterdir()) == sorted(
            ["history.jsonl", *(f"{name}.star" for name, text in found.items() if text is not None)]
        )
        if step > 1:
            again.undo("sel_micrograph")
            assert {name: content(copy, name) for name in done} == done
    assert half == 1  # there was something to end


def test_a_run_ends_a_decision_that_broke_off(project, decisions):
    decide(decisions, "def_sort", {NAMES[1]: 2})
    subprocess.run([sys.executable, "-c", KILLED_IN_A_PAIR, str(project), "3"], check=False)
    assert (project / "edits" / journal.NAME).is_file()
    finish_decision(project)
    assert not (project / "edits" / journal.NAME).exists()
    assert f"{NAMES[1]}\t" not in content(project, "def_sort") and f"{NAMES[1]}\t0" in content(
        project, "sel_micrograph"
    )


def test_what_another_hand_wrote_is_not_ended(project, decisions):
    decide(decisions, "def_sort", {NAMES[1]: 2})
    subprocess.run([sys.executable, "-c", KILLED_IN_A_PAIR, str(project), "3"], check=False)
    mine = content(project, "def_sort").replace(f"{NAMES[2]}\t2", f"{NAMES[2]}\t1")
    (project / "edits" / "def_sort.star").write_text(mine)
    assert journal.finish_in(project) == [] and content(project, "def_sort") == mine
    assert not (project / "edits" / journal.NAME).exists()


def test_a_full_disk_at_the_second_file_takes_the_first_one_back(project, decisions, monkeypatch):
    decide(decisions, "def_sort", {NAMES[1]: 2})
    done = {name: content(project, name) for name in ("sel_micrograph", "def_sort")}
    replace, failed = os.replace, []

    def fail(source, target):
        if str(target).endswith("def_sort.star") and not failed:
            failed.append(target)
            raise OSError("no space left on device")
        replace(source, target)

    monkeypatch.setattr("nephila.io.atomic.os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        decide(decisions, "sel_micrograph", {NAMES[1]: 0, NAMES[4]: 1})
    assert failed and {name: content(project, name) for name in done} == done
    assert not (project / "edits" / journal.NAME).exists()


def test_a_torn_line_of_the_history_loses_only_itself(project, decisions):
    decide(decisions, "good", {f"{NAMES[0]}#1": 0}, "first")
    path = project / "edits" / "history.jsonl"
    path.write_bytes(path.read_bytes() + b'{"number": 2, "wh')
    decide(decisions, "good", {f"{NAMES[0]}#2": 0}, "second")
    assert decisions.undo("good")["what"] == "Undo: second"
    assert decisions.undo("good")["what"] == "Undo: first"
    assert content(project, "good") is None


@pytest.mark.parametrize("link", ["edits", "edits/good.star"])
def test_edits_that_lead_out_of_the_project_are_refused(project, tmp_path_factory, link):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "good.star").write_text("data_good\nloop_\n_rlnMicrographName\n_nphParticleNumber\n_nphKeep\na 1 1\n")
    path = project / link
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(outside if link == "edits" else outside / "good.star")
    with pytest.raises(Refused, match="outside the project"):
        Decisions(Project(project)).state("good")
