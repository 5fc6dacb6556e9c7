"""`nephila compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path

import click

from nephila.errors import InputError


@click.command(short_help="Compare runs: settings that differ, results, curves.")
@click.argument(
    "runs", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("compare.html"), show_default=True,
    help="The page to write.",
)  # fmt: skip
def compare(runs: tuple[Path, ...], output: Path) -> None:
    """Compare two or more runs (project folders): what came out, the settings that differ, and their curves over each other, here
    as a table and in a page for any browser.
    """
    from nephila.config import load_config
    from nephila.io.atomic import write_text
    from nephila.report.collect import collect
    from nephila.report.comparison import (
        code_differs,
        render_comparison,
        result_rows,
        run_names,
        setting_rows,
        text_table,
    )

    if len(runs) < 2:
        raise InputError("compare needs at least two project folders")
    names = run_names(runs)
    found = [collect(folder, load_config(folder / "config.yaml")) for folder in runs]
    for folder, run in zip(runs, found, strict=True):
        if not run.tables:
            raise InputError(f"{folder}: no results yet; `nephila run {folder}` makes them")
    settings = setting_rows(found)
    click.echo("\n".join(text_table(names, [*result_rows(found), *settings])))
    if not settings:
        click.echo("  no setting and no version differs")
    if code_differs(found):
        click.echo(f"  {code_differs(found)}")
    write_text(output, render_comparison(found, names))
    click.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
