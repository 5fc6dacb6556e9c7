"""What the edits lead to: a real dry run of the workflow beside whatever runs, without its lock, and its list of jobs."""

from __future__ import annotations

import atexit
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from nephila.edits import FOLDER, NAMES
from nephila.errors import InputError
from nephila.review.pages.runs import STAGES, is_running, stage_of
from nephila.review.project import NotYet, Project

_JOB = re.compile(r"^ *Job \d+: (.*)\n *Reason: (.*)$", re.MULTILINE)
_STATS = re.compile(r"Job stats:\njob +count\n[- ]+\n((?:\S+ +\d+\n)+)")
ATTEMPTS = 3
TIMEOUT = 600
"""Seconds after which a dry run is given up."""


class Reruns:
    """Dry runs of a project, one at a time; the last one is kept until an edit or the settings change."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._lock = threading.Lock()
        self._asked: subprocess.Popen[str] | None = None
        atexit.register(self.stop)

    def stop(self) -> None:
        """End a dry run that is under way."""
        if self._asked is not None and self._asked.poll() is None:
            self._asked.kill()

    def stamp(self) -> tuple[Any, ...]:
        """Changes with the edits and the settings."""
        found: list[Any] = []
        for name in (*(f"{FOLDER}/{name}.star" for name in NAMES), "config.yaml"):
            try:
                found.append(self.project.stamp(name))
            except NotYet:
                found.append(None)
        return tuple(found)

    def plan(self) -> dict[str, Any]:
        """Jobs that the next run would do, with the reason of each, and how many of each rule and stage.

        `more`: further jobs follow from the results of these. `running`: a run is going on; what it has yet to do is in the list.
        InputError where the workflow cannot be planned, with Snakemake's words.
        """
        with self._lock:
            stamp = self.stamp()
            busy = is_running(self.project)
            if busy:
                return self._dry_run_beside_a_run()
            logs = self.project.names(".snakemake/log/*.log")
            return self.project.kept(("plan",), (stamp, logs[-1:]), lambda: self._dry_run(busy))

    def _dry_run_beside_a_run(self) -> dict[str, Any]:
        """Files come and go while Snakemake looks at them, which it may take for an error: it is asked again."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self._dry_run(True)
            except InputError:
                time.sleep(1.0)
        return self._dry_run(True)

    def _dry_run(self, busy: bool) -> dict[str, Any]:
        command = dry_run_command(self.project.folder)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as self._asked:
            try:
                text, _ = self._asked.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                self.stop()
                raise InputError(f"the dry run took more than {TIMEOUT} s") from None
        if self._asked.returncode:
            said = [line for line in text.splitlines() if line.startswith("nephila: ")]
            raise InputError(said[-1].removeprefix("nephila: ") if said else f"cannot be planned: {_end_of(text)}")
        return {**parse_plan(text), "running": busy}


def dry_run_command(folder: Path) -> list[str]:
    """Snakemake, only planning; it neither takes the project's lock nor minds one, nor files that a run is writing."""
    from nephila.cli.run import snakemake_command

    return snakemake_command(folder, None, ["--dry-run", "--nolock", "--rerun-incomplete"])


def parse_plan(text: str) -> dict[str, Any]:
    """Jobs, counts by rule and by stage, and whether more follow, from the words of a dry run."""
    match = _STATS.search(text)
    rows = [line.split() for line in match[1].splitlines()] if match else []
    rules = {name: int(number) for name, number in rows if name not in ("total", "all")}
    stages = dict.fromkeys(STAGES, 0)
    for rule, number in rules.items():
        stages[stage_of(rule)] += number
    jobs = [{"what": what, "why": _shortened(why)} for what, why in _JOB.findall(text)]
    return {
        "nothing": "Nothing to be done" in text,
        "rules": rules,
        "stages": [{"name": name, "jobs": number} for name, number in stages.items() if number],
        "jobs": jobs,
        "total": sum(rules.values()),
        "more": "The run involves checkpoint jobs" in text,
    }


def _shortened(reason: str) -> str:
    return reason if len(reason) <= 300 else reason[:297] + "..."


def _end_of(text: str) -> str:
    return " ".join(text.split())[-400:]
