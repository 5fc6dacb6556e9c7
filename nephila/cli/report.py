"""`nephila report`: the page of a run, made anew."""

from __future__ import annotations

from pathlib import Path

import click

from nephila.errors import InputError


@click.command(short_help="Write a run's report again.")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the page there instead.")
def report(folder: Path, output: Path | None) -> None:
    """Write FOLDER/results/report.html from the results that are there: one page with all figures, for any browser.

    A run writes it at its end. This command also makes one of a run that is still going on, or after a figure was drawn again.
    """
    from nephila.config import load_config
    from nephila.io.atomic import write_text
    from nephila.report.collect import collect
    from nephila.report.page import render_report

    run = collect(folder, load_config(folder / "config.yaml"))
    if not run.tables:
        raise InputError(f"{folder}: no results yet; `nephila run {folder}` makes them")
    path = output or folder / "results" / "report.html"
    write_text(path, render_report(run))
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
