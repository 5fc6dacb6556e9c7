"""The progress of a run, from Snakemake's log and the records that jobs leave."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nephila.errors import InputError
from nephila.maintenance.recover import is_head, processes_in
from nephila.maintenance.snakemake_state import STATE, locks
from nephila.report.state import read_logs
from nephila.review.project import NotYet, Project
from nephila.run_records import read_records

STAGES = (
    "project",
    "ctf",
    "defocus_groups",
    "picks",
    "particles",
    "alignment",
    "thresholds",
    "reconstruction",
    "refinement",
)
LOG_LINES = 300
CLOCK = 5.0
"""Seconds by which the clocks of two machines may differ."""
_TIME = re.compile(r"^\[(\w{3} \w{3} +\d+ [\d:]{8} \d{4})\]$")
_JOB = re.compile(r"^(?:Job (?P<number>\d+): (?P<message>.*)|(?:local)?(?:rule|checkpoint) (?P<rule>\w+):)$")
_FINISHED = re.compile(r"^Finished jobid: (\d+) \(Rule: (\w+)\)$")
_STEPS = re.compile(r"^(\d+) of (\d+) steps \(\d+%\) done$")
_FAILED = re.compile(r"^Error in rule (\w+)")


def stage_of(rule: str) -> str:
    """The stage that a rule belongs to."""
    from nephila.summary import STAGE_OF_RULE

    return STAGE_OF_RULE.get(rule, "refinement")


@dataclass
class Log:
    """What a log of Snakemake says."""

    started: float = 0.0
    last: float = 0.0
    planned: dict[str, int] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)
    running: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: list[dict[str, str]] = field(default_factory=list)
    done: int = 0
    total: int = 0
    ended: bool = False
    dry: bool = False


def read_log(text: str) -> Log:
    """Jobs planned, running, finished and failed."""
    log = Log()
    lines = text.splitlines()
    i = 0
    while i < len(lines):
        line = lines[i]
        i += 1
        if match := _TIME.match(line):
            log.last = time.mktime(time.strptime(match[1], "%a %b %d %H:%M:%S %Y"))
            log.started = log.started or log.last
        elif line.startswith("Job stats:"):
            i += 2
            while i < len(lines) and (row := re.match(r"^(\w+) +(\d+)$", lines[i])):
                log.planned[row[1]] = log.planned.get(row[1], 0) + int(row[2]) if log.total else int(row[2])
                i += 1
            log.planned.pop("total", None)
        elif match := _JOB.match(line):
            if match["number"]:
                log.running[match["number"]] = {"message": match["message"], "since": log.last}
        elif match := _FINISHED.match(line):
            log.running.pop(match[1], None)
            log.finished[match[2]] = log.finished.get(match[2], 0) + 1
        elif match := _STEPS.match(line):
            log.done, log.total = int(match[1]), int(match[2])
        elif match := _FAILED.match(line):
            log.failed.append({"rule": match[1], **_details(lines[i : i + 12])})
            log.running.pop(log.failed[-1].get("jobid", ""), None)
        elif line.startswith("Complete log"):
            log.ended = True
        elif "This was a dry-run" in line:
            log.dry = True
    return log


def _details(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        if not line.startswith(" "):
            break
        name, _, value = line.strip().partition(": ")
        if name in ("jobid", "log", "message"):
            found[name] = value.split(" (")[0]
    return found


def latest_log(project: Project) -> Path | None:
    """Snakemake's latest log that is not a dry run's."""
    for name in reversed(project.names(f"{STATE}/log/*.snakemake.log")):
        path = project.path(name)
        if "This was a dry-run" not in path.read_text(errors="replace")[-3000:]:
            return path
    return None


def is_running(project: Project) -> bool:
    """Whether Snakemake works on the project on this machine, or has it locked on another one."""
    if not locks(project.folder):
        return False
    return any(is_head(words) for _, words in processes_in(project.folder)) or _recent(project)


def _recent(project: Project) -> bool:
    path = latest_log(project)
    return path is not None and time.time() - path.stat().st_mtime < 600


def run_status(project: Project) -> dict[str, Any]:
    """Stages with their jobs, running and failed jobs, records of the last ones, and an estimate of the time left."""
    path = latest_log(project)
    if path is None:
        raise NotYet("the project has not been run yet")
    log = project.kept(("log",), (str(path), path.stat().st_size), lambda: read_log(path.read_text(errors="replace")))
    running = is_running(project)
    records = read_records(project.folder)
    stages = {name: {"planned": 0, "finished": 0} for name in STAGES}
    for rule, count in log.planned.items():
        if rule != "all":
            stages[stage_of(rule)]["planned"] += count
    for rule, count in log.finished.items():
        if rule != "all":
            stages[stage_of(rule)]["finished"] += count
    latest = sorted(records.items(), key=lambda item: -float(item[1].get("started", 0)))[:60]
    return {
        "running": running,
        "locked": bool(locks(project.folder)),
        "started": log.started,
        "last": log.last,
        "now": time.time(),
        "done": log.done,
        "total": max(log.total, sum(log.planned.values())),
        "ended": log.ended,
        "left": _time_left(log, records) if running else None,
        "stages": [
            {"name": name, **counts} for name, counts in stages.items() if counts["planned"] or counts["finished"]
        ],
        "jobs": running_jobs(project, log) if running else [],
        "failed": log.failed,
        "records": [
            {
                "log": str(where.with_suffix(".log").relative_to(project.folder)),
                "rule": record["rule"],
                "wildcards": record.get("wildcards", {}),
                "started": record.get("started", 0),
                "wall": round(float(record.get("wall_seconds", 0)), 1),
                "cpu": round(float(record.get("cpu_seconds", 0)), 1),
                "memory": round(float(record.get("peak_memory_mb", 0))),
            }
            for where, record in latest
        ],
    }


def running_jobs(project: Project, log: Log) -> list[dict[str, Any]]:
    """Jobs at work: those that have begun a log, with their progress, then those that Snakemake has only just started.

    since: seconds since 1970; log: the log's path, None where there is none yet; progress: what, done, total, rate (per second) and
    left (seconds), None where the job says nothing of one.
    """
    now = time.time()
    found: list[dict[str, Any]] = []
    for job in read_logs(project.folder):
        if job.state == "open" and job.began >= log.started - CLOCK:  # an older one broke off
            said = job.progress
            progress = said and {
                "what": said.what,
                "done": said.done,
                "total": said.total,
                "rate": said.rate,
                "left": said.left(now),
            }
            found.append({"message": job.name, "since": job.began, "log": f"logs/{job.name}.log", "progress": progress})
    starting = sorted(log.running.values(), key=lambda job: -float(job["since"]))[
        : max(len(log.running) - len(found), 0)
    ]
    return found + [
        {"message": job["message"], "since": job["since"], "log": None, "progress": None} for job in starting
    ]


def time_left(folder: Path) -> float | None:
    """Seconds that a run still takes; None where none is going on here, or nothing is known yet."""
    project = Project(folder)
    path = latest_log(project)
    if path is None or not is_running(project):
        return None
    return _time_left(read_log(path.read_text(errors="replace")), read_records(project.folder))


def _time_left(log: Log, records: dict[Path, Any]) -> float | None:
    """Seconds: wall time of the remaining jobs at what jobs of their rule took, shared out as the finished ones were."""
    took: dict[str, list[float]] = {}
    for record in records.values():
        took.setdefault(record["rule"], []).append(float(record.get("wall_seconds", 0)))
    mean = {rule: sum(times) / len(times) for rule, times in took.items()}
    if not mean or not log.done or log.last <= log.started:
        return None
    typical = sorted(mean.values())[len(mean) // 2]
    left = sum(
        max(count - log.finished.get(rule, 0), 0) * mean.get(rule, typical) for rule, count in log.planned.items()
    )
    spent = sum(count * mean.get(rule, typical) for rule, count in log.finished.items())
    return left * (log.last - log.started) / spent if spent > 0 else None


def job_log(project: Project, name: str) -> str:
    """The end of a job's log; InputError for anything but a log below logs/."""
    if not re.fullmatch(r"logs/[\w./-]+\.log", name) or ".." in name:
        raise InputError(f"{name!r} is not a job's log")
    project.stamp(name)
    path = project.path(name)
    with open(path, "rb") as stream:
        stream.seek(max(0, path.stat().st_size - 200_000))
        return "\n".join(stream.read().decode(errors="replace").splitlines()[-LOG_LINES:])
