"""`nephila status`: where a project stands."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nephila.report.state import JobLog, ProjectState

SIGNS = {"done": "+", "running": ">", "failed": "!", "broken off": "!", "begun": "-", "not begun": " "}
WIDTH = 40
"""Characters of the longest bar."""
MOST_JOBS = 8
"""More running or failed jobs than this are only counted."""


@click.command(short_help="Say where a project stands: stages, running and failed jobs, resolution.")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
def status(folder: Path) -> None:
    """Say what is done of the project in FOLDER (the current folder, where none is named), what is running and what failed, and the
    resolution of each iteration.

    It reads logs and results only, so it may be asked while a run is going on. Whether a changed setting would redo something,
    'nephila run FOLDER -n' says.
    """
    from nephila.config import load_config
    from nephila.report.state import project_state

    config = load_config(folder / "config.yaml")
    state = project_state(folder)
    lines = [f"{config.project.name} ({folder})"]
    if not state.begun and state.process is None:
        lines.append(f"  not run yet; `nephila run {folder}` starts it")
    else:
        lines += [*_activity(state, folder), *_stages(state), *_jobs(state), *resolution_lines(folder)]
        report = folder / "results" / "report.html"
        if report.is_file():
            lines.append(f"  report  {report}")
    click.echo("\n".join(lines))


def _activity(state: ProjectState, folder: Path) -> list[str]:
    from nephila.review.pages.runs import time_left

    count = f"{state.steps[0]} of {state.steps[1]} jobs" if state.steps else ""
    if state.process is not None:
        left = time_left(folder)
        words = (f", {count} done" if count else "") + (f", about {_duration(left)} left" if left else "")
        return [f"  running  process {state.process}{words}"]
    if state.locked:
        return ["  locked   by a run on another machine, or by one that was killed: `nephila recover` looks into it"]
    if state.failed or state.broken:
        return [f"  stopped  after {count}" if count else "  stopped"]
    return []


def _stages(state: ProjectState) -> list[str]:
    lines = []
    for stage in state.stages:
        spent = f"{stage.jobs:5d} jobs {stage.cpu_seconds:9.0f} CPU s" if stage.jobs else ""
        lines.append(f"  {SIGNS[stage.state]} {stage.name.replace('_', ' '):16s} {stage.state:10s} {spent}".rstrip())
    return lines


def _jobs(state: ProjectState) -> list[str]:
    lines = []
    for title, jobs in (("running", state.running), ("failed", state.failed), ("broken off", state.broken)):
        for job in jobs[:MOST_JOBS]:
            lines.append(f"  {title:10s} {job.name}: {_said(job, title)}")
            if title == "failed":
                lines.append(f"             log: logs/{job.name}.log")
        if len(jobs) > MOST_JOBS:
            lines.append(f"  {title:10s} and {len(jobs) - MOST_JOBS} more")
    return lines


def _said(job: JobLog, title: str) -> str:
    if title == "running":
        said = "starting" if job.last.startswith("rule ") else _short(job.last)
        if job.progress is not None and job.last.startswith(f"{job.progress.what}: "):
            now, one = time.time(), job.progress
            said = f"{one.what}: {one.done} of {one.total}, {one.rate:.3g} per second, {_duration(one.left(now))} left"
        return f"{_duration(time.time() - job.began)}; {said}"
    return _short(job.last)


def _short(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def resolution_lines(folder: Path) -> list[str]:
    """Resolution of the iterations that have ended, as bars; nothing before the first one."""
    from nephila.io.tables import read_blocks

    rows = []
    for path in sorted((folder / "results" / "refinement").glob("iter_[0-9]*/model.star")):
        row = next(iter(read_blocks(path)["general"].to_dict("records")))
        if row["nphSearch"] != "none":  # after convergence, iterations only pass on
            rows.append(row)
    if not rows:
        return []
    longest = max(float(row["nphResolution"]) for row in rows)
    lines = ["  resolution by iteration, A at FSC 0.143"]
    for row in rows:
        value = float(row["nphResolution"])
        bar = "#" * max(1, round(WIDTH * value / longest)) if value > 0 else ""
        shown = f"{value:6.2f}" if value > 0 else "  none"
        turned = f"  turned {float(row['nphMovedAngle']):.2f} degrees" if row["nphSearch"] != "start" else ""
        settled = "  converged" if int(row["nphConverged"]) else ""
        lines.append(f"    {int(row['nphIteration']):2d} {row['nphSearch']:10s} {shown} {bar}{turned}{settled}")
    return lines
