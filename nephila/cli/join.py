"""`nephila join`: particle tables of several data sets into one."""

from __future__ import annotations

from pathlib import Path

import click

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Join particle tables (STAR), with their optics groups.")
@click.argument("tables", metavar="STAR...", nargs=-1, required=True, type=FILE)
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="STAR file to write.")
@click.option(
    "--rename", is_flag=True, help="Give groups whose name is taken by a different one a name with the file's."
)
@click.option("--allow-overfocus", is_flag=True, help="Take negative defoci, which otherwise stop it.")
def join(tables: tuple[Path, ...], out: Path, rename: bool, allow_overfocus: bool) -> None:
    """Join the particle tables STAR... (RELION 3.1, or 3.0).

    Optics groups are told apart by _rlnOpticsGroupName and renumbered. Equal names with equal values become one group; equal
    names with different values stop it. Aberrations that only some groups have are filled: beam tilt 0, unit magnification,
    zero Zernike coefficients. Paths of images stay as they are.
    """
    from nephila.errors import InputError
    from nephila.joining import join_particle_sets, refuse_micrographs
    from nephila.optics_groups import read_particle_set, with_image_sizes, write_particle_set

    for path in tables:
        refuse_micrographs(path)
    if out.resolve() in [path.resolve() for path in tables]:
        raise InputError(f"{out}: is one of the tables to join; write to another file")
    sets = [with_image_sizes(read_particle_set(path)) for path in tables]
    joined = join_particle_sets(sets, rename=rename, overfocus=allow_overfocus)
    write_particle_set(out, joined.particles, f"Joined from {', '.join(map(str, tables))}")
    for path, rows in zip(tables, joined.rows, strict=True):
        click.echo(f"{path}: {rows} particles")
    for note in joined.notes:
        click.echo(f"note: {note}", err=True)
    groups = len(joined.particles.optics)
    click.echo(f"{out}: {sum(joined.rows)} particles in {groups} optics group{'s' if groups > 1 else ''}")
