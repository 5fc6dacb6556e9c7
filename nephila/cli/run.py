"""`nephila run`: a thin front to Snakemake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click

import nephila
from nephila.errors import InputError

STAGES = ("ctf", "defocus_groups", "picks", "particles", "alignment", "thresholds", "reconstruction", "refinement")
"""Targets at which a run can stop, in order."""

DEFAULT_PROFILE = "default"


@click.command(
    short_help="Run a project, or a part of it.",
    context_settings={"ignore_unknown_options": True},
    epilog="Stages: "
    + ", ".join(STAGES)
    + ". Every option of snakemake may follow, such as --forcerun RULE or --keep-going.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be done, and why; do nothing.")
@click.option("-c", "--cores", metavar="N", help="Use this many cores; without it all of this machine.")
@click.option(
    "--profile",
    metavar="NAME",
    help="A profile of Nephila's (default, slurm) or a folder with a profile's config.yaml.",
)
@click.argument("arguments", metavar="[FOLDER] [STAGE]... [SNAKEMAKE OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
def run(dry_run: bool, cores: str | None, profile: str | None, arguments: tuple[str, ...]) -> None:
    """Run the project in FOLDER (the current folder, where none is named) to the end, or up to STAGE.

    What is there already and up to date is not done again.
    """
    from nephila.config import load_config

    folder, rest = split_folder(arguments)
    if not any(argument.split("=")[0] in ("--configfile", "--configfiles") for argument in rest):
        load_config(folder / "config.yaml")
    options = ["--dry-run"] if dry_run else []
    options += ["--cores", cores] if cores else []
    status = _call(snakemake_command(folder, profile, [*options, *rest]))
    summary = folder / "results" / "summary.json"
    whole_run = not dry_run and not rest
    if status == 0 and whole_run and summary.is_file():
        from nephila.summary import format_summary

        click.echo(format_summary(summary))
    sys.exit(status)


def split_folder(arguments: tuple[str, ...]) -> tuple[Path, list[str]]:
    """The project folder and what is left for Snakemake.

    The first argument is the folder, unless it is an option or a stage; a folder of a stage's name counts when it holds a
    project and the current folder holds none. InputError where there is no such folder.
    """
    here = Path()
    if not arguments or arguments[0].startswith("-"):
        return here, list(arguments)
    first = Path(arguments[0])
    if arguments[0] in STAGES and ((here / "config.yaml").is_file() or not first.is_dir()):
        return here, list(arguments)
    if first.is_dir():
        return first, list(arguments[1:])
    if (here / "config.yaml").is_file():
        return here, list(arguments)  # a rule, or a file to make
    raise InputError(f"{first}: no such folder; `nephila init {first}` makes a project there")


def snakemake_command(folder: Path, profile: str | None, options: list[str]) -> list[str]:
    """The command line that runs the workflow on `folder`."""
    snakefile = find_snakefile()
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--directory", str(folder)]
    if profile and profile != DEFAULT_PROFILE:
        own = snakefile.parent / "profiles" / profile
        chosen = own if own.is_dir() and "/" not in profile else Path(profile)
        if not (chosen / "config.yaml").is_file():
            raise InputError(
                f"--profile {profile}: no such profile; give default, slurm, or a folder with a profile's config.yaml"
            )
        command += ["--workflow-profile", str(chosen)]
    return command + options


def find_snakefile() -> Path:
    """The workflow beside the package, as in a checkout (also one that was installed with `pip install --editable`)."""
    snakefile = Path(nephila.__file__).resolve().parents[1] / "Snakefile"
    if not snakefile.is_file():
        raise InputError(
            f"{snakefile}: the workflow is not there; install Nephila from its repository with `pip install --editable .`, "
            "or call snakemake --snakefile REPOSITORY/Snakefile"
        )
    return snakefile


def _call(command: list[str]) -> int:
    """Run a command to its end; it alone decides what an interrupt means, so that its jobs are cleaned up."""
    with subprocess.Popen(command) as process:
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        terminate = signal.signal(signal.SIGTERM, lambda number, _: os.kill(process.pid, number))
        try:
            status = process.wait()
        finally:
            signal.signal(signal.SIGINT, interrupt)
            signal.signal(signal.SIGTERM, terminate)
    return status if status >= 0 else 128 - status
