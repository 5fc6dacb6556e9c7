"""`nephila plan`: what a run will take."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import click

from nephila.errors import InputError


@click.command("plan", short_help="Say what a run will take: jobs, CPU time, memory, disk.")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("targets", nargs=-1)
def plan(folder: Path, targets: tuple[str, ...]) -> None:
    """Sum up what running the project in FOLDER (the current folder, where none is named) will take. Nothing is started.

    TARGETS are stages or files; without any: everything. Ends with exit code 2 when the disk is too small. A job that needs
    more memory than this machine has is pointed out: it needs another machine, or a cluster.
    """
    from nephila.config import load_config
    from nephila.maintenance.forecast import forecast, format_forecast, require_disk
    from nephila.project import open_project
    from nephila.resources import estimate_work
    from nephila.stages import last_stage

    config = load_config(folder / "config.yaml")
    with chdir(folder):
        work = estimate_work(config, open_project(config).batches)
    planned, growing = dry_run(folder, targets)
    found = forecast(folder, config, work, planned, growing, last_stage(targets))
    click.echo(format_forecast(found, os.cpu_count() or 1))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    heavy = [rule for rule, size in found.memory_mb.items() if size * 1e6 > memory]
    if heavy:
        click.echo(f"warning  {', '.join(heavy)}: more memory than this machine's {memory / 1e9:.0f} GB", err=True)
    require_disk(found.disk_needed, found.free)


def dry_run(folder: Path, targets: Sequence[str]) -> tuple[dict[str, int], bool]:
    """Jobs by rule of a dry run, and whether more follow from their results. InputError where Snakemake cannot plan."""
    from nephila.cli.recover import job_counts
    from nephila.cli.run import snakemake_command

    done = subprocess.run(
        snakemake_command(folder, None, ["--dry-run", *targets]), capture_output=True, text=True, check=False
    )
    text = done.stdout + done.stderr
    if done.returncode:
        raise InputError(f"Snakemake cannot plan this run: {' '.join(text.split())[-400:]}")
    counts = job_counts(text)
    counts.pop("total", None)
    return counts, "The run involves checkpoint jobs" in text
