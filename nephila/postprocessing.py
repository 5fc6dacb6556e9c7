"""After the refinement: FSC inside a mask, the detector's MTF, B factor, FSC weighting and low-pass of the mean of two half
maps.

The order is that of Rosenthal & Henderson (2003, J. Mol. Biol. 333, 721) and of RELION's postprocessing: MTF, weighting by
C_ref = sqrt(2 FSC / (1 + FSC)), Guinier fit of what that gives, B factor, low-pass.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.fourier import filter_shells
from nephila.fsc import (
    MaskedFsc,
    fourier_shell_correlation,
    fsc_table,
    masked_fsc,
    reference_correlation,
    resolution_at,
)
from nephila.io.tables import read_blocks
from nephila.sharpening import estimate_b_factor, rotational_amplitude

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

GUINIER_START = 10.0
LEAST_MTF = 0.02
"""Divisions by less are cut off there: a detector passes no more than noise."""
LOWPASS_WIDTH = 2.0


@dataclass(frozen=True)
class PostprocessSettings:
    """How maps are sharpened and filtered.

    Attributes
    ----------
    b_factor : A^2 applied as exp(-B k^2 / 4), negative sharpens; None: from the Guinier fit with `automatic`, else none
    automatic : fit the B factor
    guinier_start, guinier_end : A, limits of the fit; end None: the resolution
    low_pass : A; None: the resolution at FSC 0.143; 0: none
    seed : of the random phases
    """

    b_factor: float | None = None
    automatic: bool = False
    guinier_start: float = GUINIER_START
    guinier_end: float | None = None
    low_pass: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Postprocessed:
    """What `postprocess` gives.

    volume, masked : [n, n, n]; curves : FSCs; resolution, resolution_half : A at 0.143 and 0.5, None: nothing is resolved

    b_factor : A^2 that was applied (0: none); guinier_correlation : of the fit, None without one; guinier : table
    """

    volume: Float32
    masked: Float32 | None
    curves: MaskedFsc
    resolution: float | None
    resolution_half: float | None
    b_factor: float
    guinier_correlation: float | None
    guinier: pd.DataFrame


def postprocess(
    half1: Float32,
    half2: Float32,
    pixel_size: float,
    mask: Float32 | None = None,
    mtf: npt.ArrayLike | None = None,
    settings: PostprocessSettings | None = None,
    threads: int = 1,
) -> Postprocessed:
    """Sharpen and filter the mean of two half maps.

    Parameters
    ----------
    half1, half2 : [n, n, n], unfiltered
    pixel_size : A; everything is on this scale
    mask : [n, n, n], 0 to 1, soft; None: the FSC is measured without one
    mtf : [n // 2 + 1], the detector's modulation transfer by shell; amplitudes are divided by it

    Raises
    ------
    InputError
        Shapes that do not fit; a Guinier fit with fewer than 3 shells; nothing resolved where a B factor is to be fitted.
    """
    choice = settings or PostprocessSettings()
    curves = _curves(half1, half2, mask, choice.seed, threads)
    n = len(half1)
    resolution = resolution_at(curves.corrected, 0.143, n, pixel_size)
    if choice.automatic and resolution is None:
        raise InputError("nothing is resolved (FSC below 0.143 from the first shell): no B factor can be fitted")
    mean = 0.5 * (half1 + half2)
    factor = np.ones(n // 2 + 1)
    tables = {"rlnLogAmplitudesOriginal": factor}
    if mtf is not None:
        factor = factor / np.maximum(_check_mtf(mtf, n), LEAST_MTF)
        tables["rlnLogAmplitudesMTFCorrected"] = factor
    weight = _weights(curves.corrected)
    tables["rlnLogAmplitudesWeighted"] = factor * weight
    b_factor, correlation = choice.b_factor or 0.0, None
    if choice.automatic:
        found, correlation = estimate_b_factor(
            filter_shells(mean, factor) if mtf is not None else mean,
            pixel_size,
            choice.guinier_end or float(resolution or 0.0),
            choice.guinier_start,
            weight**2 / np.maximum(2.0 - weight**2, 1e-12),
        )
        b_factor = -found
    frequency = np.arange(n // 2 + 1) / (n * pixel_size)
    factor = factor * weight * np.exp(-0.25 * b_factor * frequency**2)
    tables["rlnLogAmplitudesSharpened"] = factor
    limit = resolution if choice.low_pass is None else choice.low_pass
    if limit:
        factor = factor * _low_pass(n, pixel_size, max(limit, 2 * pixel_size))
    volume = filter_shells(mean, np.append(factor, 0.0))  # nothing in the corners of the transform
    return Postprocessed(
        volume,
        None if mask is None else volume * mask,
        curves,
        resolution,
        resolution_at(curves.corrected, 0.5, n, pixel_size),
        float(b_factor),
        correlation,
        _guinier_table(mean, tables, pixel_size),
    )


def _curves(half1: Float32, half2: Float32, mask: Float32 | None, seed: int, threads: int) -> MaskedFsc:
    if mask is not None:
        return masked_fsc(half1, half2, mask, seed, threads=threads)
    plain = fourier_shell_correlation(half1, half2, threads)
    return MaskedFsc(plain, plain, np.zeros_like(plain), plain, len(plain) - 1)


def _weights(fsc: Float64) -> Float64:
    """C_ref by shell, up to where the FSC first falls to 0."""
    curve = np.clip(fsc, 0.0, 1.0)
    curve[0] = 1.0
    zero = np.flatnonzero(curve <= 0)
    if len(zero):
        curve[zero[0] :] = 0.0
    return reference_correlation(curve)


def _low_pass(n: int, pixel_size: float, limit: float) -> Float64:
    """Raised cosine about the shell of `limit` (A)."""
    distance = np.arange(n // 2 + 1) - n * pixel_size / limit
    fall = np.clip(distance / LOWPASS_WIDTH + 0.5, 0.0, 1.0)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * fall))


def _guinier_table(mean: Float32, factors: dict[str, Float64], pixel_size: float) -> pd.DataFrame:
    """RELION's block guinier: ln of the rotational average of amplitudes over 1 / d^2; -99 where there is nothing."""
    amplitude = rotational_amplitude(mean)
    n = len(mean)
    shells = np.arange(n // 2 + 1)
    columns: dict[str, Float64] = {"rlnResolutionSquared": ((shells / (n * pixel_size)) ** 2).round(8)}
    for name, factor in factors.items():
        values = amplitude * factor
        logarithm: Float64 = np.full(len(values), -99.0)
        np.log(values, out=logarithm, where=values > 0)
        columns[name] = logarithm.round(6)
    return pd.DataFrame(columns).iloc[1:]


def postprocess_blocks(result: Postprocessed, n: int, pixel_size: float) -> dict[str, pd.DataFrame]:
    """Blocks general, fsc and guinier as RELION's postprocess.star has them."""
    table = fsc_table(result.curves, n, pixel_size).drop(columns="rlnFourierShellCorrelation")
    general = pd.DataFrame(
        {
            "rlnFinalResolution": [round(result.resolution or 999.0, 6)],
            "rlnBfactorUsedForSharpening": [round(result.b_factor, 6)],
            "rlnRandomiseFrom": [round(n * pixel_size / max(result.curves.randomised_from, 1), 6)],
        }
    )
    if result.guinier_correlation is not None:
        general["rlnCorrelationFitGuinierPlot"] = [round(result.guinier_correlation, 6)]
    return {"general": general, "fsc": table, "guinier": result.guinier}


def read_mtf(path: str | os.PathLike[str], n: int, pixel_size: float, detector_pixel_size: float) -> Float64:
    """A detector's MTF by the shells of a map, from a STAR file with rlnResolutionInversePixel and rlnMtfValue.

    pixel_size, detector_pixel_size : A, both on the scale of the STAR files (before any relabelling, which changes both alike)

    Raises
    ------
    InputError
        A column is missing, frequencies do not rise, or values are not positive.
    """
    columns = ("rlnResolutionInversePixel", "rlnMtfValue")
    table = next((b for b in read_blocks(path).values() if set(columns) <= set(b.columns)), None)
    if table is None:
        raise InputError(f"{path}: no block with the columns _{columns[0]} and _{columns[1]}; is it an MTF file?")
    frequency, value = (pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float) for name in columns)
    bad = np.flatnonzero(~(np.isfinite(frequency) & (value > 0)) | (np.diff(frequency, prepend=-1.0) <= 0))
    if len(bad):
        raise InputError(
            f"{path}, row {bad[0] + 1}: _{columns[0]} {frequency[bad[0]]:g}, _{columns[1]} {value[bad[0]]:g}; frequencies must "
            "rise and values be positive"
        )
    shells = np.arange(n // 2 + 1) / (n * pixel_size) * detector_pixel_size
    return np.interp(shells, frequency, value)


def _check_mtf(mtf: npt.ArrayLike, n: int) -> Float64:
    values = np.asarray(mtf, dtype=np.float64)
    if values.shape != (n // 2 + 1,) or not (values > 0).all():
        raise InputError(f"the MTF needs {n // 2 + 1} positive values for a side of {n}, not {values.shape}")
    return values
