"""`nephila classes`: the 3D classes of a run, and the edit that keeps only some of them."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Show the 3D classes of a run, or keep the particles of some of them.")
@click.argument("project", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--keep", multiple=True, type=int, metavar="N", help="Class whose particles stay; may be repeated.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Edit to write; edits/good.star of the project.")
def classes(project: Path, keep: tuple[int, ...], out: Path | None) -> None:
    """List the 3D classes of PROJECT; with --keep write the edit that drops the particles of all other classes, for the next run.

    Lines of an edits/good.star that is there already are taken over; it is never overwritten: name another file with -o, look at
    it, and put it in its place.
    """
    from nephila.classes.results import selection_of_classes
    from nephila.errors import InputError
    from nephila.io.tables import read_blocks, read_table, write_table

    folder = project / "results" / "refinement" / "classes"
    if not (folder / "classes.star").exists():
        raise InputError(
            f"{folder / 'classes.star'}: no such file; set classes.count in config.yaml to the number of classes and run again"
        )
    click.echo("class  particles  share  probability  A at 0.143")
    for row in read_table(folder / "classes.star", block="classes").to_dict("records"):
        click.echo(
            f"{int(row['rlnClassNumber']):5d}  {int(row['nphParticles']):9d}  {row['nphShare']:5.0%}  "
            f"{row['nphClassProbability']:11.3f}  {row['nphResolution']:10.2f}"
        )
    if not keep:
        return
    usual = project / "edits" / "good.star"
    target = out or usual
    if target.exists():
        raise InputError(f"{target}: exists already; give another file with -o, and put it in its place yourself")
    before = read_table(usual, kind="good") if usual.exists() else None
    particles = read_blocks(folder / "particles.star")["particles"]
    edit = selection_of_classes(particles, keep, before)
    target.parent.mkdir(parents=True, exist_ok=True)
    names = ", ".join(map(str, sorted(keep)))
    write_table(target, edit, kind="good", comment=f"Particles of 3D classes other than {names} are dropped.")
    click.echo(f"{target}: {int((edit['nphKeep'] == 0).sum())} particles dropped")
