"""`nephila diff`: where two maps differ by more than noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nephila.difference import MapWithHalves

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Say where two maps differ by more than noise.")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--resolution", type=float, help="Low-pass of both maps, A; without it 3 pixels of the coarser one.")
@click.option("--diameter", type=float, help="Sphere in which they are compared, A; without it nine tenths of A's box.")
@click.option("--halves-a", nargs=2, type=FILE, help="A's half maps; without it half1.mrc and half2.mrc beside A.")
@click.option("--halves-b", nargs=2, type=FILE, help="B's half maps.")
@click.option("--fit/--no-fit", default=True, help="Move B onto A first (up to 10 degrees and a few A).")
@click.option("--match/--no-match", default=True, help="Give B the amplitudes of A, shell by shell.")
@click.option("--rate", default=0.01, show_default=True, help="Share of false ones among significant voxels.")
@click.option(
    "-o", "--out", default="difference", show_default=True, type=click.Path(path_type=Path),
    help="Beginning of the names: OUT.mrc, OUT_score.mrc, OUT_peaks.star.",
)  # fmt: skip
def diff(
    a: Path,
    b: Path,
    resolution: float | None,
    diameter: float | None,
    halves_a: tuple[Path, Path] | None,
    halves_b: tuple[Path, Path] | None,
    fit: bool,
    match: bool,
    rate: float,
    out: Path,
) -> None:
    """Subtract map B from map A, after fitting B in position and amplitudes, and list where the rest exceeds the noise.

    The noise is measured in the half maps. Without them, the solvent around the particle stands for it.
    """
    from nephila.difference import DifferenceSettings, compare_maps
    from nephila.errors import InputError
    from nephila.io.mrc import write_volume
    from nephila.io.tables import write_table

    if not 0 < rate < 1:
        raise InputError(f"--rate {rate}: give a share between 0 and 1, such as 0.01")
    first, second = _read(a, halves_a), _read(b, halves_b)
    finest = resolution or 3 * max(first.pixel_size, second.pixel_size)
    sphere = diameter or 0.9 * len(first.volume) * first.pixel_size
    found = compare_maps(first, second, DifferenceSettings(finest, sphere, fit, match, rate))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Path(f"{out}.mrc"), found.difference, first.pixel_size)
    write_volume(Path(f"{out}_score.mrc"), found.score, first.pixel_size)
    write_table(f"{out}_peaks.star", found.peaks, kind="peaks", comment=f"{a} minus {b}: what exceeds the noise.")
    if fit:
        moved = ", ".join(f"{value:.2f}" for value in found.shift)
        click.echo(f"B was turned by {found.rotation_deg:.2f} degrees and moved by ({moved}) A")
    click.echo(f"correlation at {finest:g} A within {sphere:g} A: {found.correlation:.4f}")
    if found.significant is None:
        click.echo("no voxel differs by more than the noise")
    else:
        click.echo(
            f"{len(found.peaks)} places differ by {found.significant:.1f} standard deviations or more; the largest:"
        )
        for row in found.peaks.head(10).itertuples(index=False):
            click.echo(f"  {row.nphScore:+7.1f} deviations  {row.nphVolume:9.0f} A^3  at x, y, z = "
                       f"{row.rlnCoordinateX:.0f}, {row.rlnCoordinateY:.0f}, {row.rlnCoordinateZ:.0f}")  # fmt: skip
    click.echo(f"{out}.mrc, {out}_score.mrc, {out}_peaks.star")


def _read(path: Path, halves: tuple[Path, Path] | None) -> MapWithHalves:
    """A map and its half maps: those that are named, or those that lie beside it."""
    from nephila.difference import MapWithHalves
    from nephila.errors import InputError
    from nephila.io.mrc import read_volume

    volume, pixel_size = read_volume(path)
    if not pixel_size > 0:
        raise InputError(
            f"{path}: the header has no pixel size; write one into it (relion_image_handler --rescale_angpix)"
        )
    paths = halves
    if paths is None:
        beside = path.parent / "half1.mrc", path.parent / "half2.mrc"
        if all(half.is_file() for half in beside) and path not in beside:
            paths = beside
    if paths is None:
        return MapWithHalves(volume, pixel_size)
    click.echo(f"{path}: half maps: {paths[0]}, {paths[1]}")
    both = [read_volume(half) for half in paths]
    for half, (data, half_pixel_size) in zip(paths, both, strict=True):
        if data.shape != volume.shape or abs(half_pixel_size / pixel_size - 1) > 1e-4:
            raise InputError(
                f"{half}: {data.shape} voxels of {half_pixel_size:g} A, but {path} has {volume.shape} of {pixel_size:g} A"
            )
    return MapWithHalves(volume, pixel_size, (both[0][0], both[1][0]))
