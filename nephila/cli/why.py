"""`nephila why`: what made a file."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click

from nephila.errors import InputError


@click.command(short_help="Say what made a file, from what, and why.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-C", "--project", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Project folder."
)
@click.option("--no-plan", is_flag=True, help="Leave out whether the next run would make it again.")
def why(file: Path, folder: Path | None, no_plan: bool) -> None:
    """Say which inputs, settings, code and versions made FILE, what made its job run, what has changed since, and whether the
    next run would make it again.

    The project is the folder above FILE that holds a config.yaml, unless --project names it.
    """
    from nephila.cli.run import find_snakefile
    from nephila.maintenance.explain import explain

    project, name = locate(file, folder)
    snakefile = find_snakefile()
    click.echo(explain(project, name, snakefile.parent / "scripts"))
    if not no_plan:
        click.echo(f"  next run\n    {next_run(project, name)}")


def locate(file: Path, folder: Path | None) -> tuple[Path, str]:
    """The project and the file's path from it. InputError where there is no project above the file."""
    if folder is not None:
        path = file if file.is_absolute() else folder / file
        if not file.is_absolute() and file.resolve().is_relative_to(folder.resolve()):
            path = file
        return folder, path.resolve().relative_to(folder.resolve()).as_posix()
    for parent in file.absolute().parents:
        if (parent / "config.yaml").is_file() and (parent / "logs").is_dir():
            return parent, file.absolute().relative_to(parent).as_posix()
    raise InputError(f"{file}: no project above it; give the project's folder: nephila why -C FOLDER {file}")


def next_run(folder: Path, name: str) -> str:
    """Whether the next run would make the file again, in Snakemake's words."""
    from nephila.cli.run import snakemake_command

    done = subprocess.run(
        snakemake_command(folder, None, ["--dry-run", name]), capture_output=True, text=True, check=False
    )
    return verdict(done.stdout + done.stderr, done.returncode)


def verdict(text: str, status: int) -> str:
    """What a dry run for one file says about it; the file's own job has the number 0 there."""
    if "Nothing to be done" in text:
        return "leaves it as it is"
    if status:
        return f"cannot be planned: {' '.join(text.split())[-300:]}"
    reason = re.search(r"^ *Job 0: .*\n *Reason: (.*)$", text, re.MULTILINE)
    return f"makes it again: {reason[1]}" if reason else "makes it again, after what it depends on"
