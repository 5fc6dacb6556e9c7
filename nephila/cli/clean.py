"""`nephila clean`: free disk space."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Show what can be removed, and remove it.")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--level",
    type=click.Choice(["scratch", "intermediate", "results"]),
    default="intermediate",
    show_default=True,
    help="scratch: leavings of dead jobs, Snakemake's logs and caches; intermediate: also stacks, sums and volumes that later "
    "steps no longer need; results: everything that a run can make again.",
)
@click.option("--yes", is_flag=True, help="Remove it; without this it is only shown.")
def clean(folder: Path, level: str, yes: bool) -> None:
    """Show what can be removed from the project in FOLDER (the current folder, where none is named), and with --yes remove it.

    Your files (config.yaml, edits/, micrographs, references) are never touched. A later run remakes what it then needs.
    """
    from nephila.errors import InputError
    from nephila.maintenance.cleaning import removable, remove

    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: no project (there is no config.yaml); nothing is removed")
    found = removable(folder, level)
    for kind in found:
        click.echo(f"{kind.level:12}  {size(kind.size):>9}  {len(kind.paths):6d} files  {kind.what}")
    total = sum(kind.size for kind in found)
    click.echo(f"{'together':12}  {size(total):>9}  {sum(len(kind.paths) for kind in found):6d} files")
    if not found:
        return
    if yes:
        click.echo(f"removed {size(remove(folder, found))}")
    else:
        click.echo("nothing was removed; add --yes to remove it")


def size(number: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError
