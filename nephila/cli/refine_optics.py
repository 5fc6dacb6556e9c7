"""`nephila refine-optics`: defocus, aberrations and magnification against the map of a finished refinement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from nephila.cli.numbers import POSITIVE

if TYPE_CHECKING:
    from nephila.optics_refinement.refine import GroupFit, RefinedOptics

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("refine-optics", short_help="Refine defocus, aberrations and magnification against a map.")
@click.argument("source", metavar="PROJECT|STAR", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write.")
@click.option("--map", "whole", type=FILE, help="One map for all particles.")
@click.option("--half1", type=FILE, help="Half maps: particles of each half are held against the other one.")
@click.option("--half2", type=FILE, help="")
@click.option("--mask", type=FILE, help="Map of a mask, on the maps' grid.")
@click.option("--diameter", type=POSITIVE, help="A soft sphere instead, A; of a project its particle's diameter.")
@click.option("--trust-reference", is_flag=True, help="The maps were resampled to a pixel size near the particles'.")
@click.option(
    "--even", is_flag=True, help="Even aberrations to 4th order (Z00, Z20, Z40, 2-fold, 4-fold), by optics group."
)
@click.option("--odd", is_flag=True, help="Odd aberrations (beam tilt, trefoil), by optics group.")
@click.option("--magnification", is_flag=True, help="Anisotropic magnification, by optics group, iterated.")
@click.option(
    "--defocus", type=click.Choice(["none", "micrograph", "particle"]), default="none", show_default=True,
    help="Defocus of each micrograph or particle.",
)  # fmt: skip
@click.option("--astigmatism", is_flag=True, help="Astigmatism with the defocus, of the same unit.")
@click.option(
    "--reach", type=POSITIVE, default=2000.0, show_default=True, help="How far to look for a defocus, A either way."
)
@click.option("--coarsest", type=POSITIVE, default=20.0, show_default=True, help="Coarsest resolution that counts, A.")
@click.option("--finest", type=POSITIVE, help="Finest one, A; without it the half maps' resolution (FSC 0.143).")
@click.option(
    "--rounds", type=click.IntRange(1), default=2, show_default=True, help="How often all fits follow each other."
)
def refine_optics(
    source: Path,
    out: Path,
    whole: Path | None,
    half1: Path | None,
    half2: Path | None,
    mask: Path | None,
    diameter: float | None,
    trust_reference: bool,
    even: bool,
    odd: bool,
    magnification: bool,
    defocus: str,
    astigmatism: bool,
    reach: float,
    coarsest: float,
    finest: float | None,
    rounds: int,
) -> None:
    """Refine the optics of particles whose poses are known, and write OUT/particles.star (RELION 3.1), OUT/fits.star with standard
    errors, and pictures. The pixel size in the table stays what it is: `nephila pixelsize` tells the true one.
    """
    from nephila.errors import InputError
    from nephila.io.tables import write_blocks
    from nephila.optics_groups import write_particle_set
    from nephila.optics_refinement.inputs import read_start
    from nephila.optics_refinement.refine import OpticsSettings, fits_table
    from nephila.optics_refinement.refine import refine_optics as refine

    if (half1 is None) != (half2 is None) or (whole is not None and half1 is not None):
        raise InputError("give --map, or both --half1 and --half2")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; choose another folder")
    maps = tuple(path for path in (whole, half1, half2) if path is not None)
    start = read_start(source, maps, mask, diameter, trust=trust_reference)
    best = finest or start.resolution
    if best is None:
        raise InputError(
            "no resolution of half maps to go by: say --finest, the finest resolution in A that the map holds"
        )
    settings = OpticsSettings(
        best,
        coarsest,
        even,
        odd,
        magnification,
        cast(Literal["none", "micrograph", "particle"], defocus),
        astigmatism,
        reach,
        rounds,
    )
    result = refine(start.particles, start.references, settings, tell=click.echo)
    out.mkdir(parents=True, exist_ok=True)
    fits = fits_table(result)
    write_blocks(out / "fits.star", {"fits": fits})
    for fit in result.fits:
        _draw(fit, result, start.particles.particles, out)
    _restore_names(result, start.image_names)
    write_particle_set(out / "particles.star", result.particles, f"Optics refined, {coarsest:g} to {best:.3g} A")
    for name, term, value, error, unit in fits.to_numpy():
        spread = f" +- {error:.2g}" if error else ""
        click.echo(f"{name!s:16} {term!s:34} {value:12.6g}{spread} {unit!s}")
    click.echo(f"wrote {out}: particles.star, fits.star, pictures")


def _restore_names(result: RefinedOptics, names: list[str]) -> None:
    result.particles.particles["rlnImageName"] = names


def _draw(fit: GroupFit, result: RefinedOptics, before: object, out: Path) -> None:
    """Pictures of one group."""
    import numpy as np
    import pandas as pd

    from nephila.figures.optics import plot_defocus_changes, plot_displacements, plot_phases

    group, band = fit.group, fit.band
    assert isinstance(before, pd.DataFrame) and group.pixel_size is not None
    stem = f"group{group.number}"
    for name, aberration, odd in (("even", fit.even, False), ("odd", fit.odd, True)):
        if aberration is not None:
            plot_phases(
                band.picture(aberration.observed, odd=odd),
                band.picture(aberration.fitted, odd=odd),
                out / f"{stem}_{name}.png",
                pixel_size=group.pixel_size,
                title=f"{name.capitalize()} aberrations of {group.name}",
            )
    if fit.first_step is not None:
        plot_displacements(
            band.picture(fit.first_step.observed, odd=True),
            band.picture(fit.first_step.fitted, odd=True),
            out / f"{stem}_magnification.png",
            pixel_size=group.pixel_size,
            title=f"Magnification of {group.name}, first pass",
        )
    if fit.defocus is not None:
        rows = np.flatnonzero((before["rlnOpticsGroup"] == group.number).to_numpy())
        mean = 0.5 * (before["rlnDefocusU"] + before["rlnDefocusV"]).to_numpy(dtype=float)[rows]
        micrographs = pd.factorize(before["rlnMicrographName"].iloc[rows])[0].astype(np.int64)
        plot_defocus_changes(
            mean,
            fit.defocus.change,
            fit.defocus.error,
            micrographs,
            out / f"{stem}_defocus.png",
            title=f"Defoci of {group.name}",
        )
