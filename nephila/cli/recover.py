"""`nephila recover`: after a run that was killed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click


@click.command(short_help="After a run that was killed: end its jobs, unlock, say what will be done again.")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
def recover(folder: Path) -> None:
    """Make the project in FOLDER (the current folder, where none is named) ready to run again after its run was killed.

    Cancels jobs that the dead run left on the cluster or on this machine, removes its lock and half-written files, and says
    what the next run will do again. Does nothing where Snakemake still runs on this machine; one that still runs on another
    machine cannot be seen from here: stop it there first.
    """
    from nephila.maintenance.recover import recover as bring_back

    done = bring_back(folder)
    for job in done.cluster_jobs:
        click.echo(f"cancelled  cluster job {job.number} ({job.comment}, {job.state.lower()})")
    for pid in done.processes:
        click.echo(f"ended      process {pid}")
    if done.locks:
        click.echo("unlocked   the project")
    for path in done.temporary:
        click.echo(f"removed    {path}, half-written")
    for name in done.incomplete:
        click.echo(f"unfinished {name}")
    if not (done.cluster_jobs or done.processes or done.locks or done.temporary or done.incomplete):
        click.echo("nothing to recover")
    counts = jobs_to_run(folder)
    click.echo(f"next run   {counts}; start it with: nephila run {folder}")


def jobs_to_run(folder: Path) -> str:
    """What a dry run would do, in a line."""
    from nephila.cli.run import snakemake_command

    command = snakemake_command(folder, None, ["--dry-run", "--rerun-incomplete"])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    if "Nothing to be done" in text:
        return "has nothing to do"
    rows = job_counts(text)
    if not rows:
        return f"cannot be planned: {' '.join(text.split())[-300:]}"
    total = rows.pop("total", sum(rows.values()))
    names = ", ".join(f"{number} {name}" for name, number in list(rows.items())[:8])
    more = ", …" if len(rows) > 8 else ""
    return f"has {total} jobs ({names}{more}), and those that follow from them"


def job_counts(text: str) -> dict[str, int]:
    """Number of jobs by rule from the table of Snakemake's dry run; `total` as it states it, `all` left out."""
    match = re.search(r"Job stats:\njob +count\n[- ]+\n((?:\S+ +\d+\n)+)", text)
    rows = {} if not match else {name: int(number) for name, number in (line.split() for line in match[1].splitlines())}
    rows.pop("all", None)
    return rows
