"""Where a project stands: stages done, jobs running, failed or broken off, from the jobs' logs and what Snakemake keeps.

Nothing is started and nothing is written, so it can be asked at any time, also while a run is going on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from nephila.maintenance.snakemake_state import STATE, locks
from nephila.run_records import read_records
from nephila.stages import STAGE_OF_RULE, STAGES

SHOWN_STAGES = ("project", *STAGES)
TAIL = 4096
"""Bytes at the end of a log that are read."""

_TIME = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)"
_FIRST = re.compile(_TIME + r" INFO rule (\w+),")
_LINE = re.compile(_TIME + r" (INFO|WARNING|ERROR) (.*)")
_PROGRESS = re.compile(_TIME + r" INFO (.+): (\d+) of (\d+), (\S+) per second, \d+ s left$")
"""As `nephila.job.Progress` writes it."""
_STEPS = re.compile(r"^(\d+) of (\d+) steps", re.MULTILINE)


@dataclass(frozen=True)
class JobProgress:
    """What a job said of its progress: how many of how many `what` are done, per second, and when (seconds since 1970)."""

    what: str
    done: int
    total: int
    rate: float
    at: float

    def left(self, now: float) -> float:
        """Seconds left of this loop at the rate until then."""
        return max((self.total - self.done) / self.rate - (now - self.at), 0.0) if self.rate > 0 else 0.0


@dataclass(frozen=True)
class JobLog:
    """A job as its log shows it.

    state: done, failed, or open (running, or broken off when no run is going on); began: seconds since 1970; last: what it said
    last; name: the log's path under logs/ without suffix; progress: of its latest loop, None where it says nothing of one.
    """

    name: str
    rule: str
    state: Literal["done", "failed", "open"]
    began: float
    last: str
    progress: JobProgress | None = None

    @property
    def stage(self) -> str:
        """The stage that the job belongs to."""
        return STAGE_OF_RULE.get(self.rule, "refinement")


@dataclass(frozen=True)
class StageState:
    """A stage: its state in a word, its jobs with records, and their CPU seconds."""

    name: str
    state: Literal["done", "running", "failed", "broken off", "begun", "not begun"]
    jobs: int
    cpu_seconds: float


@dataclass(frozen=True)
class ProjectState:
    """stages: in order; running, failed, broken: jobs; process: id of the Snakemake that runs the project, None where none does
    here; locked: whether Snakemake's lock is set; steps: jobs done and planned in the last run, None where it says nothing."""

    stages: tuple[StageState, ...]
    running: tuple[JobLog, ...]
    failed: tuple[JobLog, ...]
    broken: tuple[JobLog, ...]
    process: int | None
    locked: bool
    steps: tuple[int, int] | None

    @property
    def begun(self) -> bool:
        """Whether anything was ever run."""
        return any(stage.state != "not begun" for stage in self.stages)


def project_state(folder: Path) -> ProjectState:
    """Look at a project."""
    logs = list(read_logs(folder))
    process, locked = running_process(folder), bool(locks(folder))
    # a run on a cluster may be steered from elsewhere; without one, a lock that no process holds is a killed run's
    live = process is not None or (locked and (folder / STATE / "slurm_logs").is_dir())
    is_open = [log for log in logs if log.state == "open"]
    running, broken = (tuple(is_open), ()) if live else ((), tuple(is_open))
    failed = tuple(log for log in logs if log.state == "failed")
    spent: dict[str, list[float]] = {}
    for record in read_records(folder).values():
        spent.setdefault(STAGE_OF_RULE.get(record["rule"], "refinement"), []).append(
            float(record.get("cpu_seconds", 0))
        )
    stages = tuple(
        StageState(name, _state(name, folder, running, failed, broken, name in spent), len(spent.get(name, ())),
                   sum(spent.get(name, ())))
        for name in SHOWN_STAGES
    )  # fmt: skip
    return ProjectState(stages, running, failed, broken, process, locked, last_steps(folder))


def _state(
    name: str,
    folder: Path,
    running: tuple[JobLog, ...],
    failed: tuple[JobLog, ...],
    broken: tuple[JobLog, ...],
    seen: bool,
) -> Literal["done", "running", "failed", "broken off", "begun", "not begun"]:
    if any(job.stage == name for job in failed):
        return "failed"
    if any(job.stage == name for job in running):
        return "running"
    if any(job.stage == name for job in broken):
        return "broken off"
    if stage_is_done(folder, name):
        return "done"
    return "begun" if seen else "not begun"


def stage_is_done(folder: Path, stage: str) -> bool:
    """Whether what the stage is for is there; not whether a changed setting would make it again."""
    results = folder / "results"
    files = {
        "project": ["project/params.star", "project/micrographs.star", "project/reference_volume.mrc"],
        "ctf": ["ctf/micrographs.star", "ctf/sel_micrograph.star"],
        "defocus_groups": ["ctf/def_sort.star", "ctf/sel_group.star"],
        "picks": ["particles/coordinates.star"],
        "particles": ["particles/ngood.star", "particles/percent_selected.star"],
        "thresholds": ["averages/thresh.star", "averages/sel_group_cclim.star"],
        "reconstruction": ["reconstruction/vol01.mrc", "reconstruction/resolution.star"],
        "refinement": ["refinement/map.mrc", "refinement/particles.star"],
    }
    if stage == "alignment":
        stacks = list((results / "alignment").glob("group_*/sel_particles.star"))
        return bool(stacks) and all((path.parent / "align.star").is_file() for path in stacks)
    wanted = files[stage]
    if stage == "project" and not (results / wanted[-1]).is_file() and (results / "alignment").is_dir():
        return True  # started from particles, where the list of micrographs is not needed
    return all((results / name).is_file() for name in wanted)


def read_logs(folder: Path) -> Iterator[JobLog]:
    """All jobs' logs, by path; files that are no log of a job are passed over."""
    top = folder / "logs"
    for path in sorted(top.rglob("*.log")):
        try:
            with path.open("rb") as stream:
                head = stream.read(400).decode(errors="replace")
                size = stream.seek(0, 2)
                stream.seek(max(0, size - TAIL))
                tail = stream.read().decode(errors="replace")
        except OSError:
            continue
        first = _FIRST.match(head)
        if first is None:
            continue
        began = datetime.strptime(first[1], "%Y-%m-%d %H:%M:%S").timestamp()
        lines = [match for line in tail.splitlines() if (match := _LINE.match(line))]
        errors = [match[3] for match in lines if match[2] == "ERROR"]
        last = lines[-1][3] if lines else ""
        name = path.relative_to(top).with_suffix("").as_posix()
        if errors:
            # of an unexpected error the last line of its trace says what it is
            said = errors[-1] if not errors[-1].startswith("Traceback") else tail.strip().splitlines()[-1]
            yield JobLog(name, first[2], "failed", began, said)
        else:
            found = "done" if last.startswith("done in ") else "open"
            said = [match for match in map(_PROGRESS.match, tail.splitlines()) if match] if found == "open" else []
            yield JobLog(
                name,
                first[2],
                "done" if found == "done" else "open",
                began,
                last,
                _progress(said[-1]) if said else None,
            )


def _progress(line: re.Match[str]) -> JobProgress:
    at = datetime.strptime(line[1], "%Y-%m-%d %H:%M:%S").timestamp()
    return JobProgress(line[2], int(line[3]), int(line[4]), float(line[5]), at)


def running_process(folder: Path) -> int | None:
    """Id of a Snakemake on this machine that works on the project; None where there is none."""
    import psutil

    project = folder.resolve()
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if not any(Path(word).name == "snakemake" for word in words[:4]) or "-n" in words or "--dry-run" in words:
            continue
        try:
            where = Path(process.cwd())
        except (psutil.Error, OSError):
            continue
        # Snakemake steps into the folder that it is given: before that its words lead there, afterwards it is there
        places = [where] + [
            where / words[words.index(flag) + 1] for flag in ("--directory", "-d") if flag in words[:-1]
        ]
        if project in (place.resolve() for place in places):
            return int(process.info["pid"])
    return None


def last_steps(folder: Path) -> tuple[int, int] | None:
    """Jobs done and planned in the newest of Snakemake's logs that counts them."""
    for path in sorted((folder / STATE / "log").glob("*.snakemake.log"), reverse=True):
        try:
            with path.open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(max(0, size - 16 * TAIL))
                found = _STEPS.findall(stream.read().decode(errors="replace"))
        except OSError:
            continue
        if found:
            return int(found[-1][0]), int(found[-1][1])
    return None
