"""`nephila postprocess`: mask, sharpen and filter the mean of two half maps, and set its pixel size right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nephila.cli.numbers import B_FACTOR, CS, NOT_NEGATIVE, NUMBER, PIXEL_SIZE, POSITIVE, VOLTAGE

if TYPE_CHECKING:
    from nephila.postprocessing import Postprocessed
    from nephila.refinement.final import Float32

LARGEST_CHANGE_BY_LABEL = 0.5
"""Of the pixel size, as a share; beyond it `--angpix` is a slip."""
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Mask, sharpen and filter the mean of two half maps.")
@click.argument("half1", type=FILE)
@click.argument("half2", type=FILE)
@click.option("--mask", type=FILE, help="Soft mask, values 0 to 1, in the half maps' box.")
@click.option("--auto-mask", is_flag=True, help="Make the mask from the map.")
@click.option("--mask-threshold", type=NUMBER, help="Density above which the map is particle, for --auto-mask.")
@click.option("--diameter", type=POSITIVE, help="Of the particle, A: --auto-mask takes nothing beyond it.")
@click.option("--b-factor", type=B_FACTOR, help="B factor to apply, A^2; negative sharpens.")
@click.option("--auto", "automatic", is_flag=True, help="Fit the B factor (Guinier plot) instead.")
@click.option(
    "--fit-range",
    nargs=2,
    type=POSITIVE,
    help="Limits of that fit, A; without it 10 A to the resolution.",
    metavar="A B",
)
@click.option("--mtf", type=FILE, help="STAR file of the detector's MTF; amplitudes are divided by it.")
@click.option(
    "--mtf-angpix",
    type=PIXEL_SIZE,
    help="Detector pixel size, A, as the particles' table has it; without it the maps'.",
)
@click.option("--lowpass", type=NOT_NEGATIVE, help="A; without it the resolution at FSC 0.143; 0 for none.")
@click.option(
    "--angpix", type=PIXEL_SIZE, help="True pixel size, A: writes it into header and tables, nothing is resampled."
)
@click.option("--voltage", type=VOLTAGE, default=300.0, show_default=True, help="kV, to judge --angpix by.")
@click.option("--cs", type=CS, default=2.7, show_default=True, help="Spherical aberration, mm, to judge --angpix by.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the random phases.")
@click.option(
    "-o", "--out", default="postprocess", show_default=True, type=click.Path(path_type=Path),
    help="Beginning of the names: OUT.mrc, OUT_masked.mrc, OUT_mask.mrc, OUT.star, OUT_fsc.png.",
)  # fmt: skip
def postprocess(
    half1: Path,
    half2: Path,
    mask: Path | None,
    auto_mask: bool,
    mask_threshold: float | None,
    diameter: float | None,
    b_factor: float | None,
    automatic: bool,
    fit_range: tuple[float, float] | None,
    mtf: Path | None,
    mtf_angpix: float | None,
    lowpass: float | None,
    angpix: float | None,
    voltage: float,
    cs: float,
    seed: int,
    out: Path,
) -> None:
    """FSC inside a mask (corrected by random phases), MTF, B factor and low-pass of the mean of HALF1 and HALF2.

    With --angpix the map, the resolution axis and the B factor are on the scale of that pixel size. Such a map carries a mark
    in its header and is refused as a reference: particles still have the pixel size that their table states.
    """
    from nephila.ctf import Optics
    from nephila.errors import InputError
    from nephila.postprocessing import PostprocessSettings, read_mtf
    from nephila.postprocessing import postprocess as compute
    from nephila.relabelling import relabelling_mark, relabelling_warnings

    for wrong, text in (
        (b_factor is not None and automatic, "--b-factor and --auto: give one of them"),
        (mask is not None and auto_mask, "--mask and --auto-mask: give one of them"),
        (fit_range is not None and not automatic, "--fit-range belongs to --auto"),
        (mtf_angpix is not None and mtf is None, "--mtf-angpix belongs to --mtf, which is not given"),
        (mask_threshold is not None and not auto_mask, "--mask-threshold belongs to --auto-mask, which is not given"),
        (diameter is not None and not auto_mask, "--diameter belongs to --auto-mask, which is not given"),
    ):
        if wrong:
            raise InputError(text)
    halves, stated = _read_halves(half1, half2)
    pixel_size = angpix or stated
    if abs(pixel_size / stated - 1) > LARGEST_CHANGE_BY_LABEL:
        raise InputError(
            f"--angpix {pixel_size:g}: the half maps have {stated:g} A; so large an error is no matter of calibration, and defoci "
            "fitted with it mean nothing. Process the images again with the right pixel size"
        )
    n = len(halves[0])
    window = _mask(mask, auto_mask, halves, stated, mask_threshold, diameter)
    transfer = None if mtf is None else read_mtf(mtf, n, stated, mtf_angpix or stated)
    start, end = (max(fit_range), min(fit_range)) if fit_range else (PostprocessSettings.guinier_start, None)
    settings = PostprocessSettings(b_factor, automatic, start, end, lowpass, seed)
    result = compute(*halves, pixel_size, window, transfer, settings)
    if window is not None and result.curves.mask_makes_resolution(window):
        click.echo("warning: the mask itself correlates the half maps; give it a softer or wider edge", err=True)
    for warning in relabelling_warnings(stated, pixel_size, result.resolution or 999.0, Optics(voltage, cs, 0.1)):
        click.echo(f"warning: {warning}", err=True)
    label = relabelling_mark(stated, pixel_size) if pixel_size != stated else ""
    own_mask = window if auto_mask else None
    _write(result, out, pixel_size, label, own_mask, f"{half1} and {half2}")
    click.echo(f"resolution {_angstrom(result.resolution)} at FSC 0.143, {_angstrom(result.resolution_half)} at 0.5")
    if result.b_factor:
        fitted = "" if result.guinier_correlation is None else f", fit's correlation {result.guinier_correlation:.3f}"
        click.echo(f"B factor {result.b_factor:.1f} A^2{fitted}")
    if label:
        click.echo(f"pixel size {label}")


def _read_halves(half1: Path, half2: Path) -> tuple[tuple[Float32, Float32], float]:
    from nephila.errors import InputError
    from nephila.io.mrc import read_volume
    from nephila.relabelling import stated_before

    (first, pixel_size), (second, other) = read_volume(half1), read_volume(half2)
    if first.shape != second.shape or abs(other / pixel_size - 1) > 1e-4:
        raise InputError(
            f"{half1} has {len(first)} px of {pixel_size:g} A, {half2} {len(second)} px of {other:g} A; give halves of one map"
        )
    for path in (half1, half2):
        if stated_before(path) is not None:
            raise InputError(f"{path}: was relabelled already; give the half map as the refinement wrote it")
    return (first, second), pixel_size


def _mask(
    path: Path | None,
    automatic: bool,
    halves: tuple[Float32, Float32],
    pixel_size: float,
    threshold: float | None,
    diameter: float | None,
) -> Float32 | None:
    import numpy as np

    from nephila.errors import InputError
    from nephila.io.mrc import read_image
    from nephila.masks import AutomaticMaskSettings, automatic_mask

    if automatic:
        settings = AutomaticMaskSettings(threshold=threshold)
        return automatic_mask(0.5 * (halves[0] + halves[1]), pixel_size, diameter, settings)
    if path is None:
        return None
    mask, stated = read_image(path)
    if mask.shape != halves[0].shape or (stated and abs(stated / pixel_size - 1) > 0.01):
        raise InputError(
            f"{path}: {' x '.join(map(str, mask.shape))} px of {stated:g} A, the half maps have {len(halves[0])} px of "
            f"{pixel_size:g} A; make the mask from a map of this refinement"
        )
    if mask.min() < -1e-3 or mask.max() > 1.001:
        raise InputError(f"{path}: values from {mask.min():.3g} to {mask.max():.3g}; a mask lies between 0 and 1")
    return np.clip(mask, 0, 1)


def _write(result: Postprocessed, out: Path, pixel_size: float, label: str, mask: Float32 | None, source: str) -> None:
    from nephila.figures.curves import plot_fsc
    from nephila.io.mrc import write_volume
    from nephila.io.tables import write_blocks
    from nephila.postprocessing import postprocess_blocks

    out.parent.mkdir(parents=True, exist_ok=True)
    n = len(result.volume)
    write_volume(f"{out}.mrc", result.volume, pixel_size, label)
    if result.masked is not None:
        write_volume(f"{out}_masked.mrc", result.masked, pixel_size, label)
    if mask is not None:
        write_volume(f"{out}_mask.mrc", mask, pixel_size, label)
    write_blocks(f"{out}.star", postprocess_blocks(result, n, pixel_size), f"Postprocessed from {source}.")
    curves = {"unmasked": result.curves.unmasked}
    if result.masked is not None:
        curves = {
            "corrected": result.curves.corrected,
            "masked": result.curves.masked,
            "randomised": result.curves.randomised,
        } | curves
    plot_fsc(curves, f"{out}_fsc.png", pixel_size=pixel_size, box=n)


def _angstrom(resolution: float | None) -> str:
    return "none" if resolution is None else f"{resolution:.2f} A"
