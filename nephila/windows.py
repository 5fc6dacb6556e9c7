"""Windows of a batch of micrographs: cut, normalised, stacked, with the table that goes with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.extraction import ExtractedParticles, ExtractionSettings, extract_particles
from nephila.io.mrc import stack_writer
from nephila.job import Progress, logger
from nephila.micrograph_input import image_coordinates, read_input
from nephila.micrograph_repair import repair_micrograph
from nephila.noise_windows import NoiseSettings, find_noise_windows
from nephila.particle_images import image_name
from nephila.window_evidence import window_evidence

Float32 = npt.NDArray[np.float32]
OWN_DEFOCUS = ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
LEFT_OUT = ["rlnMicrographName", "nphParticleNumber", "rlnCoordinateX", "rlnCoordinateY", "nphReason"]
"""Columns of a table of particles that were left out."""
RADIUS_SHARE = 1.1
"""Radius of the region taken as particle, over the particle's own: the CTF spreads density."""


def extraction_settings(
    section: dict[str, Any], diameter: float, pixel_size: float, box: int, seed: int, new_box: int | None = None
) -> ExtractionSettings:
    """How windows are cut, from the section `particles`. The background begins 1.1 radii out, or where the box leaves some.

    box : px cut from the micrograph of pixel_size (A); new_box : px after Fourier cropping (None: not cropped)
    """
    histogram = section["normalise"] == "histogram"
    radius = min(RADIUS_SHARE * 0.5 * diameter / pixel_size, 0.47 * box)
    return ExtractionSettings(
        radius=None if histogram else radius,
        normalise="noise" if histogram else section["normalise"],
        ramp=section["remove_ramp"],
        dust_sigma=section["dust_sigma"],
        new_box=new_box,
        shift_to_centre=section["shift_to_centre"],
        dtype=section["dtype"],
        seed=seed,
    )


def extract_batch(
    coordinates: pd.DataFrame,
    names: Sequence[str],
    box: int,
    input_settings: dict[str, Any],
    settings: ExtractionSettings,
    noise: Float32 | None,
    stack: str | os.PathLike[str],
    diameter: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut the windows of a batch into `stack`.

    `noise` [box, box] is the background that histograms are matched to, brought to mean 0 and deviation 1 first. Micrographs are
    mended first (`repair_micrograph`); one that cannot be read gives no windows.

    Returns
    -------
    kept : particles with rlnImageName, rlnOriginX/YAngst (the sub-pixel rest), the statistics of their background and the
        evidence for a particle of this diameter (A); defoci of their own, where the coordinates have some
    left_out : those without a window, with nphReason
    """
    tables, images, left_out = [], [], []
    cut_pixel_size = input_settings["pixel_size"] * input_settings["decimate"]
    side = settings.new_box or box
    pixel_size = cut_pixel_size * box / side
    progress = Progress(len(names), "micrographs cut")
    if noise is not None:
        noise = (noise - noise.mean()) / max(float(noise.std()), 1e-20)
    for name in names:
        mine = coordinates[coordinates["rlnMicrographName"] == name].reset_index(drop=True)
        progress.step()
        if not len(mine):
            continue
        try:
            micrograph = read_input(name, input_settings)
        except InputError as error:
            logger.warning("%s: its %d picks are left out", error, len(mine))
            left_out.append(mine[LEFT_OUT[:-1]].assign(nphReason=f"its micrograph cannot be read: {error}"))
            continue
        places = image_coordinates(mine[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(), input_settings)
        try:
            cut = extract_particles(_mended(name, micrograph.image), places, box, cut_pixel_size, settings, noise)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        _report(name, cut)
        left_out.append(mine.loc[~cut.kept, LEFT_OUT[:-1]].assign(nphReason=cut.reasons[~cut.kept]))
        evidence = window_evidence(cut.images, cut.pixel_size, diameter)
        tables.append(_window_table(mine, cut).assign(nphEvidence=np.round(evidence, 4)))
        images.append(cut.images)
    table = (
        pd.concat(tables, ignore_index=True)
        if tables
        else _window_table(coordinates.iloc[:0], None).assign(nphEvidence=0.0)
    )
    with stack_writer(stack, (len(table), side, side), pixel_size, settings.dtype) as memory:
        first = 0
        for part in images:
            memory[first : first + len(part)] = part
            first += len(part)
    dropped = [part for part in left_out if len(part)]
    return (
        table.assign(rlnImageName=[image_name(i, stack) for i in range(len(table))]),
        pd.concat(dropped, ignore_index=True) if dropped else pd.DataFrame(columns=LEFT_OUT),
    )


def _mended(name: str, image: Float32) -> Float32:
    """The micrograph without its detector's faults; as it is, with a line in the log, where it cannot be mended."""
    if not np.isfinite(image).all():
        return image
    mended = repair_micrograph(image)
    if mended.problem is not None:
        logger.warning("%s: %s: windows are cut as it is", name, mended.problem)
        return image
    if mended.image is not image:
        logger.info(
            "%s: %.2g %% of the pixels replaced, %d rows and columns freed of stripes",
            name,
            100 * mended.replaced,
            mended.striped,
        )
    return mended.image


def _report(name: str, cut: ExtractedParticles) -> None:
    for reason in sorted(set(cut.reasons) - {"none"}):
        logger.info("%s: %d left out: %s", name, int((cut.reasons == reason).sum()), reason)


def _window_table(rows: pd.DataFrame, cut: ExtractedParticles | None) -> pd.DataFrame:
    keep = ["rlnMicrographName", "nphParticleNumber", "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"]
    if set(OWN_DEFOCUS) <= set(rows.columns):
        keep += OWN_DEFOCUS
    values: dict[str, Any] = {
        "rlnOpticsGroup": 1,
        "rlnOriginXAngst": 0.0,
        "rlnOriginYAngst": 0.0,
        "nphBackgroundMean": 0.0,
        "nphBackgroundDeviation": 0.0,
        "nphMinimum": 0.0,
        "nphMaximum": 0.0,
    }
    if cut is None:
        return rows[keep].assign(**values)
    values |= {
        "rlnOriginXAngst": np.round(cut.origin_x, 4),
        "rlnOriginYAngst": np.round(cut.origin_y, 4),
        "nphBackgroundMean": cut.background_mean,
        "nphBackgroundDeviation": cut.background_std,
        "nphMinimum": cut.minimum,
        "nphMaximum": cut.maximum,
    }
    return rows.loc[cut.kept, keep].reset_index(drop=True).assign(**values)


def choose_noise(
    names: Sequence[str], box: int, input_settings: dict[str, Any], candidate: int
) -> tuple[Float32, pd.DataFrame]:
    """Noise windows of several micrographs, the most even illumination first.

    Returns
    -------
    windows [m, box, box] and their table (rlnMicrographName, corner, deviation, variance of the quadrants' means)

    Raises
    ------
    InputError
        No micrograph can be read, or fewer windows than `candidate` (from 1).
    """
    windows, rows = [], []
    for name in names:
        try:
            micrograph = read_input(name, input_settings)
        except InputError as error:
            logger.warning("%s", error)
            continue
        found = find_noise_windows(_mended(name, micrograph.image), box, NoiseSettings())
        windows.append(found.windows)
        rows.append(
            pd.DataFrame(
                {
                    "rlnMicrographName": name,
                    "nphCornerX": found.x,
                    "nphCornerY": found.y,
                    "nphDeviation": found.deviation,
                    "nphQuadrantVariance": found.quadrant_variance,
                }
            )
        )
    if not rows:
        raise InputError(f"none of the micrographs {', '.join(names)} can be read for a noise window")
    table = pd.concat(rows, ignore_index=True)
    quietest = table.sort_values("nphDeviation", kind="stable").head(NoiseSettings().candidates)
    order = quietest.sort_values("nphQuadrantVariance", kind="stable").index.to_numpy()
    if candidate > len(order):
        raise InputError(f"particles.noise_candidate: {candidate} is asked for, there are {len(order)} noise windows")
    return np.concatenate(windows)[order], table.loc[order].reset_index(drop=True)
