"""`nephila run`: a thin front to Snakemake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

import click

import nephila
from nephila.errors import InputError
from nephila.stages import STAGES

if TYPE_CHECKING:
    from nephila.config import Config

ONLY_SHOWN = frozenset(
    {
        *(
            "-h",
            "--help",
            "-v",
            "--version",
            "-n",
            "--dry-run",
            "--dryrun",
            "--unlock",
            "--lint",
            "--report",
            "--summary",
            "-S",
        ),
        *(
            "-D",
            "--detailed-summary",
            "--dag",
            "--rulegraph",
            "--filegraph",
            "--d3dag",
            "-t",
            "--touch",
            "--delete-all-output",
        ),
        *("--delete-temp-output", "--cleanup-metadata", "--archive", "--containerize", "--conda-create-envs-only"),
    }
)
"""Options with which Snakemake makes no results."""

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
@click.option("--ignore-disk", is_flag=True, help="Start also where the disk is too small for what the run will write.")
@click.argument("arguments", metavar="[FOLDER] [STAGE]... [SNAKEMAKE OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
def run(dry_run: bool, cores: str | None, profile: str | None, ignore_disk: bool, arguments: tuple[str, ...]) -> None:
    """Run the project in FOLDER (the current folder, where none is named) to the end, or up to STAGE.

    What is there already and up to date is not done again. Nothing is started where the disk is too small for what will be
    written; `nephila plan` shows what that is.
    """
    from nephila.config import load_config

    folder, rest = split_folder(arguments)
    finish_decision(folder)
    if not any(argument.split("=")[0] in ("--configfile", "--configfiles") for argument in rest):
        config = load_config(folder / "config.yaml")
        if not (dry_run or ignore_disk or names_files(rest)) and computes(rest):
            check_disk(folder, config, rest)
    options = ["--dry-run"] if dry_run else []
    options += ["--cores", cores] if cores else []
    status = _call(snakemake_command(folder, profile, [*options, *rest]))
    summary = folder / "results" / "summary.json"
    whole_run = not dry_run and not rest
    if status == 0 and whole_run and summary.is_file():
        from nephila.summary import format_summary

        click.echo(format_summary(summary))
    sys.exit(status)


def finish_decision(folder: Path) -> None:
    """End a decision whose review page was killed between two of its files: one without the other would be refused."""
    from nephila.review.journal import NAME, finish_in

    if (folder / "edits" / NAME).is_file():
        for name in finish_in(folder):
            click.echo(f"edits/{name}.star: a decision that broke off was ended", err=True)


def computes(arguments: Sequence[str]) -> bool:
    """Whether Snakemake will make results with these arguments, rather than show or tidy something."""
    options = {argument.split("=")[0] for argument in arguments}
    return not (options & ONLY_SHOWN or any(option.startswith("--list-") for option in options))


def names_files(arguments: Sequence[str]) -> bool:
    """Whether single files are asked for."""
    return any(argument.startswith("results/") for argument in arguments)


def check_disk(folder: Path, config: Config, arguments: Sequence[str]) -> None:
    """Refuse a run that will not fit on its disk.

    The estimate needs no plan of the jobs; only where it says no is one made, since a run with nothing to do needs nothing.

    Raises
    ------
    InputError
        The disk is too small.
    """
    from nephila.cli.plan_command import dry_run
    from nephila.maintenance.forecast import disk_shortage, require_disk
    from nephila.project import open_project
    from nephila.resources import estimate_work
    from nephila.stages import last_stage

    with chdir(folder):
        try:
            work = estimate_work(config, open_project(config).batches)
        except InputError:
            return  # files are missing: Snakemake names them
        short = disk_shortage(Path(), config, work, last_stage(arguments))
    if short is None:
        return
    if dry_run(folder, arguments)[0]:
        try:
            require_disk(*short)
        except InputError as error:
            raise InputError(f"{error}; --ignore-disk starts it all the same") from None


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
