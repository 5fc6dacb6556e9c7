"""`nephila archive`: put a project away, and get it back."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(short_help="Put a project away with checksums, and get it back.")
def archive() -> None:
    """Put a project away in two archives, check them, get them back.

    order.tar holds what tells what was done: settings, edits, tables, logs, records. project.tar holds what cannot be made
    again: settings, edits, micrographs, references. Both hold SHA-256 checksums of their files.
    """


@archive.command(short_help="Write order.tar and project.tar.")
@click.argument("folder", type=FOLDER)
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--only", type=click.Choice(["order", "project"]), help="Write only this one.")
def make(folder: Path, out: Path, only: str | None) -> None:
    """Write the archives of the project in FOLDER into the folder OUT. Existing archives are not overwritten.

    What links lead to is stored, not the link, so that micrographs that lie elsewhere are kept too.
    """
    from nephila.cli.clean import size
    from nephila.errors import InputError
    from nephila.maintenance.archive import make_archive

    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: no project (there is no config.yaml)")
    for which in [only] if only else ["order", "project"]:
        done = make_archive(folder, which, out / f"{which}.tar")
        click.echo(f"{done.path}: {done.files} files, {size(done.size)}")
        for name in done.broken:
            click.echo(f"warning  {name} leads nowhere and is not in the archive", err=True)


@archive.command(short_help="Check an archive against its checksums.")
@click.argument("files", nargs=-1, required=True, type=FILE)
def check(files: tuple[Path, ...]) -> None:
    """Check that FILES are whole."""
    from nephila.maintenance.archive import check_archive

    for path in files:
        click.echo(f"{path}: {len(check_archive(path))} files, all as they were stored")


@archive.command(short_help="Unpack an archive after checking it.")
@click.argument("file", type=FILE)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def restore(file: Path, folder: Path) -> None:
    """Unpack the archive FILE into FOLDER after checking it. A file that is there with other content stops it before anything
    is written."""
    from nephila.maintenance.archive import restore_archive

    written, same = restore_archive(file, folder)
    click.echo(f"{folder}: {written} files restored" + (f", {same} were there already" if same else ""))
