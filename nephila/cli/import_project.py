"""`nephila import`: coordinates, particles and project folders of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nephila.cli.numbers import NUMBER, PIXEL_SIZE, POSITIVE
from nephila.errors import InputError

if TYPE_CHECKING:
    from nephila.optics_groups import ParticleSet

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group("import", short_help="Take in coordinates, particles, SPIDER projects.")
def import_command() -> None:
    """Take in what other programs made. Each import says what it did and draws a picture to check it by."""


@import_command.command(short_help="Coordinates of RELION, EMAN, crYOLO.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@click.option("-o", "--out", required=True, type=FILE, help="STAR table to write, for input.coordinates.")
@click.option("--micrographs", required=True, help="Pattern of the micrographs, quoted, as input.micrographs.")
@click.option(
    "--threshold", type=NUMBER, help="Leave out picks of a lower score (crYOLO: confidence, its default 0.3)."
)
@click.option("--binning", type=click.IntRange(1), default=1, help="Picks are of micrographs binned by this.  [1]")
@click.option("--diameter", type=POSITIVE, default=200.0, help="Of the circles drawn, A.  [200]")
@click.option("--pixel-size", type=PIXEL_SIZE, help="Of the micrographs, A.  [the header's]")
def coordinates(
    files: tuple[Path, ...],
    out: Path,
    micrographs: str,
    threshold: float | None,
    binning: int,
    diameter: float,
    pixel_size: float | None,
) -> None:
    """Gather coordinates into the table that input.coordinates takes, and draw those of one micrograph.

    FILE... are .star (RELION's autopick and manualpick, or its list of such files: centres), .box (EMAN, corners) or .cbox
    (crYOLO, corners). Where a file does not name its micrograph, the file's name does: mic_001_autopick.star, mic_001.box and
    mic_001.cbox belong to mic_001.mrc.
    """
    from nephila.import_proof import check_inside, draw_picks, read_headers
    from nephila.io.coordinates import coordinate_table, listed_coordinates, match_micrographs, read_coordinates
    from nephila.io.tables import write_table
    from nephila.project import find_micrographs

    names = find_micrographs(micrographs)
    parts, alone = [], []
    for path in files:
        for micrograph, file in (path.is_file() and listed_coordinates(path)) or [("", path)]:
            picks = read_coordinates(file)
            alone += [file] if not micrograph and picks.micrographs is None else []
            parts.append((micrograph or str(file), picks))
    matched = match_micrographs(alone, names)
    table = coordinate_table([(matched.get(name, name), picks) for name, picks in parts])
    by_file = {Path(name).name: name for name in names}
    unknown = [n for n in table["rlnMicrographName"].unique() if n not in names and Path(n).name not in by_file]
    if unknown:
        raise InputError(f"micrograph {unknown[0]} of the coordinates is not among the {len(names)} of {micrographs!r}")
    table["rlnMicrographName"] = [n if n in names else by_file[Path(n).name] for n in table["rlnMicrographName"]]
    if binning > 1:
        for axis in "XY":
            table[f"rlnCoordinate{axis}"] = table[f"rlnCoordinate{axis}"] * binning + (binning - 1) / 2
    count = len(table)
    if threshold is not None:
        if "rlnAutopickFigureOfMerit" not in table:
            raise InputError("--threshold: these coordinates have no score")
        table = table[table["rlnAutopickFigureOfMerit"] >= threshold]
    if not len(table):
        raise InputError(f"no picks are left of {count} in {len(files)} files")
    check_inside(table, read_headers(sorted(table["rlnMicrographName"].unique())))
    write_table(out, table, kind="coordinates", comment=f"Coordinates of {len(files)} files.")
    picture = out.with_suffix(".png")
    shown = draw_picks(table, picture, pixel_size, diameter)
    left_out = f", {count - len(table)} below the threshold left out" if len(table) < count else ""
    click.echo(
        f"{out}: {len(table)} picks on {table['rlnMicrographName'].nunique()} of {len(names)} micrographs{left_out}"
    )
    click.echo(f"{picture}: the picks on {shown}; look whether they sit on particles")
    click.echo(f"Next: in config.yaml, input.coordinates: {out}")


@import_command.command(short_help="Particles of cryoSPARC (.cs).")
@click.argument("file", type=FILE)
@click.argument("passthrough", nargs=-1, type=FILE)
@click.option("-o", "--out", required=True, type=FILE, help="STAR table to write, for input.particles.")
@click.option("--root", type=FOLDER, help="The cryoSPARC project's folder, from which the paths count.")
@click.option("--link", type=FOLDER, help="Folder for links to the stacks that end in .mrcs, as RELION wants them.")
@click.option(
    "--alignment-box", type=click.IntRange(2), help="Box in which the shifts were found, where the file does not say."
)
@click.option("--flip-y", is_flag=True, help="Coordinates for micrographs that lie upside down against cryoSPARC's.")
@click.option("--without-ctf", is_flag=True, help="Take particles without CTF; needs --optics.")
@click.option("--optics", metavar="KV,CS,AMPLITUDE", help="Optics where the file has no CTF, as in 300,2.7,0.1.")
@click.option("--allow-overfocus", is_flag=True, help="Take negative defoci, which otherwise stop it.")
def cryosparc(
    file: Path,
    passthrough: tuple[Path, ...],
    out: Path,
    root: Path | None,
    link: Path | None,
    **given: Any,
) -> None:
    """Make a RELION table of the particles in FILE and its PASSTHROUGH files, which are matched by uid.

    Poses, shifts (in A), half-sets, CTF, coordinates and optics groups come along. docs/exchange.md says how each field is
    taken.
    """
    from nephila.import_proof import draw_particles
    from nephila.io.cryosparc import CryosparcSettings, cryosparc_particles, link_stacks
    from nephila.optics_groups import write_particle_set

    optics = given.pop("optics")
    if optics is not None:
        try:
            given["optics"] = tuple(float(part) for part in optics.split(","))
        except ValueError:
            given["optics"] = ()
        if len(given["optics"]) != 3:
            raise InputError(f"--optics {optics}: give kV, Cs in mm and amplitude contrast, as in 300,2.7,0.1")
    particles = cryosparc_particles(file, passthrough, CryosparcSettings(**given))
    if link is not None:
        particles = link_stacks(particles, root or Path(), link)
    write_particle_set(out, particles, f"Particles of {file}.")
    for note in particles.notes:
        click.echo(f"note: {note}", err=True)
    groups = len(particles.optics)
    click.echo(f"{out}: {len(particles.particles)} particles in {groups} optics group{'s' if groups > 1 else ''}")
    folder = Path() if link is not None else root or Path()
    first = str(particles.particles["rlnImageName"].iloc[0]).partition("@")[2]
    if (folder / first).is_file():
        picture = out.with_suffix(".png")
        count = draw_particles(particles.particles, folder, picture, particles.optics[0].pixel_size or 1.0)
        click.echo(f"{picture}: {count} of the particles; look whether box and contrast are right")
        _check_ctf(particles.particles, folder, out.with_name(f"{out.stem}_ctf.png"), particles.optics[0])
    else:
        click.echo(f"no picture: stack {first} is not in {folder}; --root names the cryoSPARC project's folder")
    _check_picks(particles, root or Path(), out.with_name(f"{out.stem}_picks.png"))
    if not first.endswith(".mrcs"):
        click.echo("RELION reads stacks only where their names end in .mrcs: --link FOLDER makes such links")
    click.echo(f"Next: in config.yaml, input.particles: {out}")


@import_command.command(short_help="A project folder of SPIDER's procedures.")
@click.argument("folder", type=FOLDER)
@click.argument("project", type=FOLDER)
@click.option(
    "--start",
    type=click.Choice(["auto", "particles", "micrographs"]),
    default="auto",
    help="What to start from.  [auto]",
)
@click.option("--alignment", default="align_01", help="Alignment documents whose poses to take.  [align_01]")
def spider(folder: Path, project: Path, start: str, alignment: str) -> None:
    """Make the Nephila project PROJECT of SPIDER's project FOLDER, which stays as it is.

    From params come the settings; from sel_micrograph and def_sort the edits; from Alignment/data*** the particles, or from
    Micrographs and Particles/coords the micrographs and picks, and from def_sort or defocus their defoci; from reference_volume the
    reference.
    """
    from nephila.import_proof import draw_particles, draw_picks
    from nephila.io.tables import read_table
    from nephila.micrograph_input import raw_layout
    from nephila.optics_groups import read_particle_set
    from nephila.spider_project import import_spider

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    done = import_spider(folder, project, start=start, alignment=alignment)
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    settings = done.configuration["input"]
    picture = project / "spider" / "check.png"
    if "particles" in settings:
        table = read_table(project / settings["particles"], kind="particles")
        draw_particles(table, project, picture, settings["pixel_size"])
        done.files.append("spider/check.png")
        group = read_particle_set(project / settings["particles"]).optics[0]
        _check_ctf(table, project, project / "spider" / "check_ctf.png", group)
    elif "coordinates" in settings:
        table = read_table(project / settings["coordinates"], kind="coordinates")
        diameter = done.configuration["particle"]["diameter"]
        draw_picks(table, picture, settings["pixel_size"], diameter, raw_layout({"raw": None} | settings))
        done.files.append("spider/check.png")
    for name in done.files:
        click.echo(f"{project / name}")
    if "spider/check.png" in done.files:
        click.echo(f"Next: look at {picture}, then nephila run {project} -n")
    else:
        click.echo(f"no picture: there are neither particles nor picks to draw. Next: nephila run {project} -n")


def _check_picks(particles: ParticleSet, root: Path, picture: Path) -> None:
    """Draw the picks of one micrograph where micrographs are there; the circles are two thirds of the box wide."""
    from nephila.import_proof import check_inside, draw_picks, read_headers

    table, group = particles.particles, particles.optics[0]
    if not {"rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"} <= set(table.columns):
        return
    names = table["rlnMicrographName"].map(lambda name: str(root / str(name)))
    there = {name for name in names.unique() if Path(name).is_file()}
    if not there:
        click.echo(f"no picture of picks: the micrographs are not in {root} ({names.iloc[0]})")
        return
    shown = table.assign(rlnMicrographName=names)[names.isin(there)]
    check_inside(shown, read_headers(sorted(there)))
    width = 2 / 3 * (group.image_size or 100) * (group.pixel_size or 1.0)
    name = draw_picks(shown, picture, group.original_pixel_size, width)
    click.echo(f"{picture}: the picks on {name}; look whether they sit on particles (--flip-y turns rows over)")


def _check_ctf(table: Any, folder: Path, picture: Path, group: Any) -> None:
    """Draw the particles' power beside the table's CTF and say how well they agree."""
    from nephila.import_proof import draw_ctf

    check = draw_ctf(table, folder, picture, group)
    if check is None:
        return
    click.echo(
        f"{picture}: how the particles' power changes with defocus, and the table's CTF; correlation {check.correlation:.2f}"
    )
    if check.advice:
        click.echo(f"note: {check.advice}", err=True)
