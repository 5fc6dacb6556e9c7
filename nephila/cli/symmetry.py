"""`nephila symmetry`: the point group of a map and its orientation; `nephila expand`: particles once for each of its rotations."""

from __future__ import annotations

from pathlib import Path

import click

from nephila.cli.numbers import POSITIVE

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Find the point group of a map, or turn the map to its axes.")
@click.argument("volume", metavar="MAP", type=FILE)
@click.option("--group", help="Point group: Cn, Dn, T, O or I. Without it the likely ones are compared.")
@click.option(
    "--diameter", type=POSITIVE, help="Sphere that holds the particle, A; without it eight tenths of the box."
)
@click.option(
    "--resolution", type=POSITIVE, default=20.0, show_default=True, help="Details finer than this do not count, A."
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Write the map with its axes where the group has them."
)
def symmetry(volume: Path, group: str | None, diameter: float | None, resolution: float, out: Path | None) -> None:
    """Say how well MAP agrees with copies of itself turned about its best axes, and how it must be turned and moved to have them
    where RELION and Nephila expect them."""
    from nephila.errors import InputError
    from nephila.io.mrc import read_volume, write_volume
    from nephila.relabelling import mark_for
    from nephila.symmetry_search import CANDIDATES, SymmetrySearch, apply_orientation, likely_symmetry, principal_axis

    data, pixel_size = read_volume(volume)
    if out is not None and out.exists():
        raise InputError(f"{out}: exists already; choose another name")
    search = SymmetrySearch(data, pixel_size, diameter or 0.8 * len(data) * pixel_size, resolution)
    if group is None:
        from nephila.symmetry import point_group_matrices

        axes = search.axes()
        click.echo("fold  correlation  elsewhere  rot, tilt of the best axis")
        for row in axes.itertuples(index=False):
            direction = f"{row.rlnAngleRot:.0f}, {row.rlnAngleTilt:.0f}"
            click.echo(f"{row.nphFold:4d}  {row.nphCorrelation:11.3f}  {row.nphTypical:9.3f}  {direction}")
        best = dict(zip(axes["nphFold"], axes["nphCorrelation"], strict=True))
        floor = max(best.values()) - 0.3
        names = [name for name in CANDIDATES if best[principal_axis(point_group_matrices(name))[1]] >= floor]
        found = [search.orient(name) for name in names]
        for one in sorted(found, key=lambda one: -one.correlation):
            click.echo(f"{one.symmetry:>4}  {one.correlation:11.3f}")
        chosen = likely_symmetry(found)
        if chosen is None:
            click.echo("no point group explains this map: C1")
            if out is not None:
                raise InputError(f"{out}: not written, there are no axes to turn to; name a group with --group")
            return
        click.echo(f"likely: {chosen.symmetry}")
    else:
        chosen = search.orient(group)
    angles = ", ".join(f"{angle:.1f}" for angle in chosen.euler_deg)
    shift = ", ".join(f"{value:.1f}" for value in chosen.shift)
    click.echo(f"{chosen.symmetry}: correlation {chosen.correlation:.3f}")
    click.echo(f"turn by rot, tilt, psi = {angles} degrees and move by ({shift}) A")
    if out is not None:
        mark = mark_for(volume, pixel_size, pixel_size)  # a map that was relabelled stays one
        write_volume(out, apply_orientation(data, pixel_size, chosen), pixel_size, mark)
        click.echo(str(out))


@click.command(short_help="Repeat particles for every rotation of a point group.")
@click.argument("particles", type=FILE)
@click.option("--symmetry", "group", required=True, help="Point group: Cn, Dn, T, O or I.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Table to write.")
def expand(particles: Path, group: str, out: Path) -> None:
    """Write the table PARTICLES with every particle in all poses that the symmetry makes equal, for work on one subunit."""
    from nephila.errors import InputError
    from nephila.io.tables import KINDS, check_columns, read_blocks, write_blocks
    from nephila.symmetry_search import expand_symmetry

    if out.exists():
        raise InputError(f"{out}: exists already; choose another name")
    blocks = read_blocks(particles)
    if "particles" not in blocks:
        raise InputError(f"{particles}: no block data_particles; tables of RELION 3.1 and Nephila have one")
    check_columns(blocks["particles"], KINDS["poses"].required, str(particles))
    number = len(blocks["particles"])
    blocks["particles"] = expand_symmetry(blocks["particles"], group)
    write_blocks(out, blocks, f"{particles} expanded by {group.upper()}.")
    click.echo(f"{out}: {number} particles in {len(blocks['particles']) // max(number, 1)} poses each")
