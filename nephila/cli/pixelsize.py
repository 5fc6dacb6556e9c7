"""`nephila pixelsize`: the true pixel size, from Cs, from magnifications, or against a model; and the ledger of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nephila.cli.numbers import CS, NOT_NEGATIVE, POSITIVE

if TYPE_CHECKING:
    from nephila.pixel_size import Calibration

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(short_help="Find the true pixel size, and keep the ledger of pixel sizes.")
def pixelsize() -> None:
    """Find the true pixel size. Nothing here edits a table: its CTFs belong to the pixel size that it states."""


@pixelsize.command("cs", short_help="From the spherical aberration that the images show.")
@click.argument("table", metavar="STAR", type=FILE)
@click.option("--true-cs", type=CS, help="The microscope's Cs, mm; without it the table's.")
@click.option("--true-cs-error", type=NOT_NEGATIVE, default=0.0, show_default=True, help="Its standard error, mm.")
@click.option(
    "--voltage-error", type=NOT_NEGATIVE, default=0.0, show_default=True, help="Standard error of the voltage, percent."
)
@click.option(
    "--fits",
    type=FILE,
    help="fits.star of `nephila refine-optics`, for the error of Z40; found beside STAR without it.",
)
def from_cs(table: Path, true_cs: float | None, true_cs_error: float, voltage_error: float, fits: Path | None) -> None:
    """Pixel size of each optics group of STAR from Z40, the 7th number of _rlnEvenZernike."""
    from nephila.errors import InputError
    from nephila.ledger import check_cs
    from nephila.optics_groups import read_particle_set
    from nephila.pixel_size import Z20, Z40, apparent_cs, calibrate_from_cs, cs_per_radian, left_over_defocus

    particles = read_particle_set(table)
    if true_cs is not None:
        check_cs(particles, true_cs)
    errors = _z40_errors(fits or table.parent / "fits.star", required=fits is not None)
    done = 0
    for group in particles.optics:
        if len(group.even_zernike) <= Z40 or group.pixel_size is None:
            click.echo(f"{group.name}: no 4th order aberrations in the table (nephila refine-optics --even)")
            continue
        z40, z20 = group.even_zernike[Z40], group.even_zernike[Z20]
        cs = apparent_cs(group.cs_mm, z40, group.voltage_kv)
        spread = errors.get(group.name)
        found = calibrate_from_cs(
            group.pixel_size, cs, group.cs_mm if true_cs is None else true_cs, group.voltage_kv,
            apparent_error_mm=None if spread is None else spread * cs_per_radian(group.voltage_kv),
            true_error_mm=true_cs_error, voltage_error_percent=voltage_error,
        )  # fmt: skip
        click.echo(f"{group.name}: {found}; nominal {group.pixel_size:g}")
        click.echo(f"  defocus left over in Z20 and Z40: {left_over_defocus(z20, z40, group.voltage_kv):.1f} A")
        for caveat in found.caveats:
            click.echo(f"  {caveat}")
        done += 1
    if done == 0:
        raise InputError(
            f"{table}: no optics group has _rlnEvenZernike up to Z40; fit it first: nephila refine-optics --even"
        )


def _z40_errors(path: Path, required: bool) -> dict[str, float]:
    from nephila.io.tables import read_table

    if not required and not path.is_file():
        return {}
    fits = read_table(path, block="fits")
    rows = fits[fits["nphTerm"] == "Z40"]
    return {
        str(name): float(error) for name, error in zip(rows["rlnOpticsGroupName"], rows["nphValueError"], strict=True)
    }


@pixelsize.command("model", short_help="Of a map, against an atomic model or a map of known scale.")
@click.argument("volume", metavar="MAP", type=FILE)
@click.argument("model", metavar="MODEL", type=FILE)
@click.option("--finest", type=POSITIVE, help="Finest resolution that counts, A; without it 2.5 pixels.")
@click.option("--coarsest", type=POSITIVE, default=20.0, show_default=True, help="Coarsest one, A.")
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Picture of the correlation, .png or .svg."
)
def from_model(volume: Path, model: Path, finest: float | None, coarsest: float, out: Path | None) -> None:
    """True pixel size of MAP by the best correlation with MODEL over scale. MODEL is a PDB or mmCIF file docked into MAP, or a map
    (.mrc, .map) of the same object in the same orientation whose pixel size is known.
    """
    from nephila.figures.optics import plot_scale
    from nephila.io.mrc import read_volume
    from nephila.model_scale import fit_scale, model_from_atoms, model_from_map
    from nephila.relabelling import refuse_relabelled

    refuse_relabelled(volume)
    data, nominal = read_volume(volume)
    limit = finest or 2.5 * nominal
    is_map = model.suffix.lower() in (".mrc", ".map", ".ccp4")
    density = model_from_map(model, len(data))[0] if is_map else model_from_atoms(model, len(data), nominal, limit)
    found = fit_scale(data, nominal, density, limit, coarsest)
    click.echo(
        f"{volume}: {found.pixel_size:.5g} +- {found.error:.2g} A/px, nominal {nominal:g} (correlation {found.correlation:.3f})"
    )
    click.echo("  from the scale of the model: one that was refined against this very map has taken on its scale")
    if out is not None:
        plot_scale(found.trials, found.correlations, out, nominal=nominal, found=found.pixel_size)
        click.echo(f"wrote {out}")


@pixelsize.command("ledger", short_help="Nominal, effective and calibrated pixel size of every file.")
@click.argument("source", metavar="PROJECT|STAR", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--known", multiple=True, metavar="GROUP=A[+-E]",
    help="A known pixel size: of an optics group, or of the map (reference=A). May be repeated.",
)  # fmt: skip
@click.option(
    "--reference",
    type=FILE,
    help="Map that the particles were, or will be, refined against; without it the first group's.",
)
@click.option("--trust-reference", is_flag=True, help="It was resampled to a pixel size near the particles'.")
@click.option("--map", "maps", multiple=True, type=FILE, help="Further maps of that refinement. May be repeated.")
@click.option("--micrographs", type=FILE, help="micrographs_ctf.star, to compare pixel sizes with.")
@click.option("--true-cs", type=CS, help="The microscope's Cs, mm: a table with another is refused.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it as a STAR file.")
def ledger(
    source: Path,
    known: tuple[str, ...],
    reference: Path | None,
    trust_reference: bool,
    maps: tuple[Path, ...],
    micrographs: Path | None,
    true_cs: float | None,
    out: Path | None,
) -> None:
    """Say for each file of a refinement which pixel size it states, which it really has, and how that is known. STAR are its
    particles with their optics groups and magnifications; of a PROJECT those of its finished refinement, with its maps and masks,
    the reference that it was given, and maps of its box in its folder. Combinations that would go wrong are refused.
    """
    from nephila.io.mrc import read_volume
    from nephila.io.tables import read_blocks, write_blocks
    from nephila.ledger import build_ledger, check_cs, check_micrographs, check_reference, check_table
    from nephila.optics_groups import read_optics, read_particle_set

    results = source / "results" / "refinement"
    whole = source.is_dir() and reference is None and not maps
    if source.is_dir():
        reference = reference or results / "map.mrc"
    particles = read_particle_set(results / "particles.star" if source.is_dir() else source)
    calibrated = dict(_known(text) for text in known)
    notes = check_table(particles, source if source.is_dir() else source.parent)
    if true_cs is not None:
        check_cs(particles, true_cs)
    if micrographs is not None:
        check_micrographs(
            particles, read_optics(read_blocks(micrographs)["optics"], str(micrographs)), str(micrographs)
        )
    stated = None
    if reference is not None:
        stated = (str(reference), read_volume(reference)[1])
        check_reference(particles, *stated, calibrated, trust=trust_reference)
    if whole:
        from nephila.config import load_config
        from nephila.project_ledger import project_ledger

        config = load_config(source / "config.yaml")
        found = project_ledger(source, config.input.model_dump(), config.reference.model_dump(), calibrated)
    else:
        found = build_ledger(particles, calibrated, reference=stated, maps=maps)
    click.echo(f"{'nominal':>9} {'relative':>9} {'effective':>9} {'calibrated':>17}  what (file): how")
    for entry in found.entries:
        numbers = [
            f"{value:9.4f}" if value else f"{'-':>9}" for value in (entry.nominal, entry.relative, entry.effective)
        ]
        size = entry.calibrated
        text = "-" if entry.low is None else f"{size:.4f}" if size else f"{entry.low:.4f} to {entry.high:.4f}"
        click.echo(f"{' '.join(numbers)} {text:>17}  {entry.what} ({entry.file}): {entry.how}")
    for note in (*notes, *found.notes):
        click.echo(f"note: {note}", err=True)
    if out is not None:
        write_blocks(out, {"ledger": found.table()})
        click.echo(f"wrote {out}")


def _known(text: str) -> tuple[str, Calibration]:
    from nephila.errors import InputError
    from nephila.pixel_size import Calibration

    name, equals, value = text.partition("=")
    size, _, error = value.partition("+-")
    try:
        found = Calibration(float(size), float(error) if error else None, "given")
    except ValueError:
        found = Calibration(0.0, None, "")
    if not equals or not name or not 0.01 <= found.pixel_size <= 1000 or not 0 <= (found.error or 0.0) < 1000:
        raise InputError(f"--known {text}: expected GROUP=A or GROUP=A+-E, as in dataset1=0.98+-0.005")
    return name, found
