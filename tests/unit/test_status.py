"""Where a project stands: never run, going on, failed, broken off, done."""

from __future__ import annotations

import json
import os
import sys

import pandas as pd
import pytest
from click.testing import CliRunner

from nephila.cli import main
from nephila.io.atomic import write_text
from nephila.io.tables import write_blocks
from nephila.report import state

BEGAN = "2026-03-01 10:00:00"


@pytest.fixture
def project(tmp_path):
    write_text(tmp_path / "config.yaml", "project:\n  name: mine\n")
    return tmp_path


def log(project, name, *lines, rule=None):
    first = f"{BEGAN} INFO rule {rule or name.split('/')[0]}, nephila 0.1.0 from /somewhere, python 3.11, threads 1"
    write_text(project / "logs" / f"{name}.log", "\n".join([first, *lines]) + "\n")


def done(project, name, rule=None):
    log(project, name, f"{BEGAN} INFO done in 1.5 s, 1.0 CPU s", rule=rule)
    write_text(project / "logs" / f"{name}.json", json.dumps({"rule": rule or name.split("/")[0], "cpu_seconds": 2.0}))


def status(project):
    result = CliRunner().invoke(main, ["status", str(project)])
    assert result.exit_code == 0, result.output
    return result.output


def running(project, monkeypatch, process=4321):
    monkeypatch.setattr(state, "running_process", lambda folder: process)


def states(project):
    return {stage.name: stage.state for stage in state.project_state(project).stages}


def test_a_project_that_was_never_run(project):
    assert "not run yet" in status(project)


def test_a_run_that_is_going_on(project, monkeypatch):
    done(project, "powdefocus/0001")
    log(project, "ctffind/0001", f"{BEGAN} INFO fits: 3 of 12, 0.5 per second, 18 s left")
    log(project, "ctffind/0002")
    write_text(
        project / ".snakemake" / "log" / "2026-03-01.snakemake.log",
        "1 of 40 steps (2%) done\n7 of 40 steps (18%) done\n",
    )
    running(project, monkeypatch)
    printed = status(project)
    assert "process 4321, 7 of 40 jobs done" in printed
    assert "fits: 3 of 12, 0.5 per second, 0 s left" in printed and "starting" in printed  # that was long ago
    assert states(project)["ctf"] == "running" and states(project)["picks"] == "not begun"


def test_the_progress_of_a_job_counts_on_from_when_it_was_said(project):
    log(
        project, "ctffind/0001", f"{BEGAN} INFO fits: 2 of 12, 0.4 per second, 25 s left",
        "2026-03-01 10:00:10 INFO fits: 6 of 12, 0.5 per second, 12 s left", "2026-03-01 10:00:11 WARNING a remark",
    )  # fmt: skip
    log(project, "pick/0001")
    found = {job.name: job for job in state.read_logs(project)}
    said = found["ctffind/0001"].progress
    assert (said.what, said.done, said.total, said.rate) == ("fits", 6, 12, 0.5) and found["pick/0001"].progress is None
    assert said.left(said.at) == 12 and said.left(said.at + 5) == 7 and said.left(said.at + 60) == 0
    done(project, "ctffind/0001")
    assert next(state.read_logs(project)).progress is None


def test_the_time_left_of_a_run_is_said(project, monkeypatch):
    running(project, monkeypatch)
    done(project, "powdefocus/0001")
    monkeypatch.setattr("nephila.review.pages.runs.time_left", lambda folder: 240.0)
    assert "process 4321, about 4 min left" in status(project)


def test_the_same_after_it_was_killed(project):
    log(project, "ctffind/0001", f"{BEGAN} INFO fits: 3 of 12, 0.5 per second, 18 s left")
    assert states(project)["ctf"] == "broken off"
    assert "broken off" in status(project)


def test_a_lock_without_a_process_here(project):
    log(project, "ctffind/0001")
    write_text(project / ".snakemake" / "locks" / "0.input.lock", "")
    assert "nephila recover" in status(project) and states(project)["ctf"] == "broken off"
    (project / ".snakemake" / "slurm_logs").mkdir()
    assert states(project)["ctf"] == "running"  # steered from another machine


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([f"{BEGAN} ERROR micrographs/a.mrc: no such file"], "micrographs/a.mrc: no such file"),
        (
            [f"{BEGAN} ERROR Traceback (most recent call last):", '  File "x.py", line 1, in y', "KeyError: 'z'"],
            "KeyError: 'z'",
        ),
    ],
)
def test_a_failed_job_says_why_and_where(project, lines, said):
    log(project, "powdefocus/0001", *lines)
    printed = status(project)
    assert said in printed and "logs/powdefocus/0001.log" in printed
    assert states(project)["ctf"] == "failed"


def test_a_job_that_worked_later_is_not_failed_any_more(project):
    log(project, "pick/0001", f"{BEGAN} ERROR bad")
    done(project, "pick/0001")
    assert states(project)["picks"] == "begun"


def test_stages_are_done_when_their_results_are_there(project):
    assert not any(state.stage_is_done(project, name) for name in state.SHOWN_STAGES)
    results = project / "results"
    for name in ("ctf/micrographs.star", "ctf/sel_micrograph.star", "alignment/group_001/sel_particles.star",
                 "alignment/group_001/align.star", "alignment/group_002/sel_particles.star"):  # fmt: skip
        write_text(results / name, "")
    assert state.stage_is_done(project, "ctf") and not state.stage_is_done(project, "alignment")
    write_text(results / "alignment" / "group_002" / "align.star", "")
    assert state.stage_is_done(project, "alignment")
    assert state.stage_is_done(project, "project")  # a run that starts from particles keeps no list of micrographs


def model(project, number, search, resolution, converged=0):
    general = pd.DataFrame(
        {
            "nphIteration": [number],
            "nphSearch": search,
            "nphResolution": resolution,
            "nphMovedAngle": 1.25,
            "nphConverged": converged,
        }
    )
    write_blocks(project / "results" / "refinement" / f"iter_{number:02d}" / "model.star", {"general": general})


def test_resolution_is_drawn_by_iteration(project):
    done(project, "mergegroups/01")
    model(project, 0, "start", 20.0)
    model(project, 1, "exhaustive", 10.0)
    model(project, 2, "local", 0.0)
    model(project, 3, "local", 5.0, 1)
    model(project, 4, "none", 5.0, 1)
    lines = [line for line in status(project).splitlines() if line.strip()[:1].isdigit()]
    assert [line.count("#") for line in lines] == [40, 20, 0, 10]
    assert "none" in lines[2] and lines[3].endswith("converged") and "turned 1.25 degrees" in lines[1]


def test_a_snakemake_of_this_project_is_found(project, monkeypatch):
    import psutil

    class Process:
        def __init__(self, words, where):
            self.info, self.where = {"pid": 7, "cmdline": words}, where

        def cwd(self):
            return str(self.where)

    def found(*words, where=project.parent):
        monkeypatch.setattr(psutil, "process_iter", lambda attributes: [Process(list(words), where)])
        return state.running_process(project)

    command = [sys.executable, "-m", "snakemake"]
    assert found(*command, "--directory", str(project)) == 7
    assert found(*command, "--directory", project.name) == 7
    assert found(*command, "--directory", project.name, where=project) == 7  # it has stepped into its folder
    assert found("/usr/bin/snakemake", where=project) == 7
    assert found(*command, "--directory", str(project), "-n") is None
    assert found(*command, "--directory", str(project / "other")) is None
    assert found(sys.executable, "snakemake_notes.py", where=project) is None
    assert found(where=project) is None


def test_this_process_runs_no_snakemake(project):
    assert os.getpid() != state.running_process(project)
