"""`nephila merge-advice`: whether joining the data sets of a project gains resolution."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("merge-advice", short_help="Say which data sets are worth joining.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option("-c", "--cores", metavar="N", help="Use this many cores; without it all of this machine.")
@click.option("--profile", metavar="NAME", help="A profile of Nephila's (default, slurm) or a folder with one.")
def merge_advice(folder: Path, cores: str | None, profile: str | None) -> None:
    """Refine each table of input.particles alone, then add one at a time to the best, and say what gains.

    Each combination is a project of its own in FOLDER/merge, run with FOLDER's configuration; what is there already is not run
    again. The table FOLDER/merge/advice.star has a row for each. Set input.optics_groups to several where the data sets have
    different pixel sizes, boxes or optics.
    """
    from nephila.cli.run import _call, snakemake_command
    from nephila.config import load_config
    from nephila.errors import InputError
    from nephila.merge_advice import advise, verdict

    def run(project: Path) -> None:
        status = _call(snakemake_command(project, profile, ["--cores", cores] if cores else []))
        if status:
            raise InputError(f"{project}: the run failed ({status}); look at {project}/logs, and start again")

    done = advise(load_config(folder / "config.yaml"), folder, run, click.echo)
    click.echo(verdict(done))
