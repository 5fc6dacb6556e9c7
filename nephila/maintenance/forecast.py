"""What a run will take before it starts: jobs, CPU time, memory, disk.

Jobs come from Snakemake's dry run; those that depend on defocus groups and picks are not in it before these are known, and are
counted from the work instead. CPU time comes from the records of earlier jobs of the same rule, otherwise from the model.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from nephila.config import Config
from nephila.errors import InputError
from nephila.resources import Work, cpu_seconds, fourier_cells, peak_memory_mb
from nephila.run_records import read_records
from nephila.stages import STAGES

RESERVE = 0.05
"""Share of the disk's need that must be free beyond it."""
BY_GROUP = ("win2stk", "apshgrp", "average", "dftotals", "bestim", "recon")
BY_CHUNK = ("endmerge",)
ROW_BYTES = 320
"""A particle's row in a STAR table."""
STAGE_OF_KIND = {
    "spectra and figures": "ctf",
    "window stacks": "particles",
    "stacks by group": "alignment",
    "views by group": "thresholds",
    "volumes by group": "reconstruction",
    "sums by group": "reconstruction",
}
"""The stage that writes a kind of file; what is not named belongs to the refinement."""


@dataclass(frozen=True)
class Forecast:
    """jobs by rule; CPU seconds by rule, and the share of them that comes from records; MB by rule; bytes by kind; bytes free."""

    jobs: dict[str, int]
    cpu: dict[str, float]
    recorded_share: float
    memory_mb: dict[str, float]
    disk: dict[str, float]
    present: float
    free: float

    @property
    def disk_needed(self) -> float:
        """Bytes still to be written, with a reserve."""
        return bytes_to_come(self.disk, self.present)

    @property
    def disk_is_enough(self) -> bool:
        """Whether the run fits on its disk."""
        return self.disk_needed <= self.free


def bytes_to_come(disk: Mapping[str, float], present: float) -> float:
    """Bytes still to be written, with a reserve."""
    return max(0.0, sum(disk.values()) - present) * (1 + RESERVE)


def require_disk(needed: float, free: float) -> None:
    """InputError where fewer bytes are free than needed."""
    if needed > free:
        raise InputError(
            f"the disk is too small: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free; `nephila clean` shows what "
            "can go, particles.dtype: float16 halves the stacks"
        )


def disk_shortage(folder: Path, config: Config, work: Work, stage: str | None = None) -> tuple[float, float] | None:
    """Bytes needed and bytes free where a run to the end, or up to a stage, does not fit on its disk; None where it does.

    Looks at the size of the work and of what is there alone, so it costs next to nothing.
    """
    disk, free = disk_bytes(config, work, stage), float(shutil.disk_usage(folder).free)
    if bytes_to_come(disk, 0.0) <= free:
        return None
    needed = bytes_to_come(disk, folder_bytes(folder / "results"))
    return (needed, free) if needed > free else None


def forecast(
    folder: Path, config: Config, work: Work, planned: Mapping[str, int], growing: bool, stage: str | None = None
) -> Forecast:
    """What is to come.

    Parameters
    ----------
    planned : jobs by rule in the dry run
    growing : whether the dry run says that more jobs follow from their results
    stage : where the run stops; None: at the end
    """
    jobs = complete_jobs(config, work, planned) if growing else dict(planned)
    measured = recorded_cpu(folder)
    usual = replace(work, group_share=1 / max(1, work.groups))  # the largest group counts for memory alone
    cpu = {rule: number * measured.get(rule, cpu_seconds(rule, usual)) for rule, number in jobs.items()}
    known = sum(seconds for rule, seconds in cpu.items() if rule in measured)
    total = sum(cpu.values())
    return Forecast(
        jobs=jobs,
        cpu=cpu,
        recorded_share=known / total if total else 0.0,
        memory_mb={rule: peak_memory_mb(rule, work) for rule in jobs},
        disk=disk_bytes(config, work, stage) if jobs else {},
        present=folder_bytes(folder / "results") if jobs else 0.0,
        free=float(shutil.disk_usage(folder).free),
    )


def complete_jobs(config: Config, work: Work, planned: Mapping[str, int]) -> dict[str, int]:
    """Jobs of the dry run, and those that are added once groups and picks are known."""
    jobs, iterations = dict(planned), config.refinement.iterations
    if not {"prepare", "mergegroups", "endrefine"} & set(planned):
        return jobs  # a stage before the refinement is the target
    for rule in BY_GROUP:
        if rule != "bestim" or config.thresholds.best_per_view or "bestim" in planned:
            jobs[rule] = max(jobs.get(rule, 0), work.groups)
    for rule in BY_CHUNK:
        jobs[rule] = max(jobs.get(rule, 0), 2 * work.chunks)
    jobs["grploop"] = max(jobs.get("grploop", 0), 2 * work.chunks * iterations)
    return jobs


def recorded_cpu(folder: Path) -> dict[str, float]:
    """Mean CPU seconds of a job by rule, from the records of earlier jobs."""
    rows = [(record["rule"], float(record["cpu_seconds"])) for record in read_records(folder).values()]
    if not rows:
        return {}
    means = pd.DataFrame(rows, columns=["rule", "seconds"]).groupby("rule")["seconds"].mean()
    return {str(rule): float(seconds) for rule, seconds in means.items()}


def disk_bytes(config: Config, work: Work, stage: str | None = None) -> dict[str, float]:
    """Bytes of a run up to a stage (None: to its end) by kind; `passing` is the largest that is there for a time and removed."""
    iterations, n = config.refinement.iterations, work.box
    window = work.particles * n * n * float(work.itemsize)
    image = n * n * 4.0
    volume = n * image
    sums_of_iteration = 24e6 * fourier_cells(work, work.band) * work.groups_per_chunk * work.chunks
    kept = iterations * sums_of_iteration if config.jobs.keep_intermediate else 0.0
    with_volumes = min(2, iterations) if config.jobs.lean else iterations
    final = 24e6 * fourier_cells(work) * work.chunks
    spectra = work.micrographs * 3e6
    kinds = {
        "window stacks": window * (2 if config.particles.pfilt else 1),
        "stacks by group": window,
        "views by group": 2 * 83 * image * work.groups,
        "volumes by group": volume * 2 * work.groups,
        "volumes": volume * (3 * with_volumes + 14),
        "sums by group": 24e6 * fourier_cells(work) * work.groups,
        "tables": ROW_BYTES * float(work.particles) * (iterations + 8),
        "spectra and figures": spectra + 5e6,
        "passing sums": max(kept, sums_of_iteration, final),
    }
    reached = STAGES[: STAGES.index(stage) + 1] if stage else STAGES
    return {kind: size for kind, size in kinds.items() if STAGE_OF_KIND.get(kind, STAGES[-1]) in reached}


def folder_bytes(folder: Path) -> float:
    """Bytes of all files below a folder."""
    total = 0.0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except OSError:
                continue
    return total


def format_forecast(found: Forecast, cores: int) -> str:
    """Lines for the terminal."""
    if not found.jobs:
        return "nothing to do: all results are up to date"
    number, seconds = sum(found.jobs.values()), sum(found.cpu.values())
    heaviest = max(found.memory_mb, key=lambda rule: found.memory_mb[rule])
    most = sorted(found.cpu, key=lambda rule: -found.cpu[rule])[:6]
    lines = [
        f"jobs     {number}",
        f"CPU      {format_seconds(seconds)} ({format_seconds(seconds / cores)} on {cores} cores at best); "
        f"{100 * found.recorded_share:.0f} % of it known from earlier jobs of this project, the rest from the model",
        *(f"           {rule:16} {found.jobs[rule]:6d} jobs  {format_seconds(found.cpu[rule])}" for rule in most),
        f"memory   {found.memory_mb[heaviest] / 1e3:.1f} GB for the largest job ({heaviest})",
        f"disk     {found.disk_needed / 1e9:.2f} GB more, {found.present / 1e9:.2f} GB there, {found.free / 1e9:.1f} GB free",
        *(f"           {kind:20} {size / 1e9:8.2f} GB" for kind, size in found.disk.items() if size > 1e7),
    ]
    return "\n".join(lines)


def format_seconds(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 360000 else f"{math.ceil(seconds / 3600)} h"
