"""Defocus that changes across a micrograph: the plane of a tilted specimen, from the tiles' own spectra.

Each tile's likelihood is tabulated against the defocus by which it differs from the micrograph's; a plane's likelihood is then the
sum of the tiles' at the offsets that it gives them. It is searched over all planes before it is refined, since a single tile is too
noisy to be fitted by itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from nephila.ctf import Optics
from nephila.defocus.model import RingData, RingFit, RingModel
from nephila.defocus.settings import DefocusPlane
from nephila.spectra import MicrographSpectrum

Float64 = npt.NDArray[np.float64]

_STEEPEST = 1.2  # A of defocus per A: 50 degrees
_LEAST_GAIN = 9.2  # drop of the deviance by two parameters; noise alone reaches it once in a hundred micrographs
_STEP = 0.5  # radians at the finest ring
_SLOPE_STEPS = 49


def fit_plane(spectrum: MicrographSpectrum, data: RingData, model: RingModel, fit: RingFit) -> DefocusPlane:
    """The plane through the micrograph's defocus at its middle that explains the tiles best, level where none does clearly.

    data, model, fit: of the micrograph as a whole. The slope is never steeper than 50 degrees in x or y.
    """
    y, x = (a.ravel() for a in np.meshgrid(spectrum.tile_y, spectrum.tile_x, indexing="ij"))
    centre = float(x.mean()), float(y.mean())
    level = DefocusPlane(0.0, 0.0, float("nan"), 0.0, *centre)
    if min(len(spectrum.tile_y), len(spectrum.tile_x)) < 3:
        return level
    place = np.column_stack([x - centre[0], y - centre[1]])
    offsets, table = _tile_deviances(spectrum, data, model, fit, _STEEPEST * float(np.abs(place).sum(axis=1).max()))
    curves = CubicSpline(offsets, table, axis=0)
    best = _search(curves, offsets, place)
    slope, covariance = _refine(curves, offsets, place, best)
    gain = _deviance(curves, offsets, np.zeros(len(place))) - _deviance(curves, offsets, place @ slope)
    error = float(np.sqrt(0.5 * np.trace(covariance)))
    if not gain > _LEAST_GAIN:
        return DefocusPlane(0.0, 0.0, error, max(gain, 0.0), *centre)
    return DefocusPlane(float(slope[0]), float(slope[1]), error, gain, *centre)


def blurred_rings(spectrum: MicrographSpectrum, data: RingData, plane: DefocusPlane, optics: Optics) -> Float64:
    """What averaging over tiles of a tilted specimen leaves of the rings in each bin, from 1 down (and below 0)."""
    offsets = _tile_offsets(spectrum, plane)
    radii, index = np.unique(data.radius, return_inverse=True)
    k2 = (radii / data.tile_length) ** 2
    return np.asarray(np.cos(2 * optics.k2_factor * offsets[:, None] * k2[None, :]).mean(axis=0)[index])


def _tile_offsets(spectrum: MicrographSpectrum, plane: DefocusPlane) -> Float64:
    y, x = np.meshgrid(spectrum.tile_y - plane.centre_y, spectrum.tile_x - plane.centre_x, indexing="ij")
    return np.asarray((plane.slope_x * x + plane.slope_y * y).ravel())


def tile_models(
    spectrum: MicrographSpectrum, data: RingData, model: RingModel, fit: RingFit, plane: DefocusPlane
) -> Float64:
    """Expected power of each tile's bins [tiles, bins] on this plane, in units of the level."""
    return np.stack([_tile_model(model, fit, offset) for offset in _tile_offsets(spectrum, plane)])


def _tile_model(model: RingModel, fit: RingFit, offset: float) -> Float64:
    """Power of each bin in a tile whose defocus differs from the micrograph's by `offset` (A)."""
    blur, model.blur = model.blur, 1.0
    ctf2, _ = model.rings(fit.defocus + offset, fit.a_cos, fit.a_sin, fit.phase)
    model.blur = blur
    return np.maximum(fit.background + fit.envelope * ctf2, 0.02)


def _tile_deviances(
    spectrum: MicrographSpectrum, data: RingData, model: RingModel, fit: RingFit, reach: float
) -> tuple[Float64, Float64]:
    """Offsets of defocus (A), and the deviance [offsets, tiles] of each tile when its defocus differs by so much."""
    step = _STEP / (model.optics.k2_factor * data.s_range[1] ** 2)
    reach = min(reach, max(fit.defocus - 500.0, step))
    count = int(np.ceil(reach / step))
    offsets = np.asarray(step * np.arange(-count, count + 1), dtype=np.float64)
    tiles = spectrum.sector_tiles[:, data.sector, data.radius] / data.level
    samples = data.samples / spectrum.tiles
    table = np.empty((len(offsets), spectrum.tiles))
    for row, offset in enumerate(offsets):
        expected = _tile_model(model, fit, offset)
        table[row] = 2 * (tiles @ (samples / expected)) + 2 * float(samples @ np.log(expected))
    return offsets, table


def _deviance(curves: CubicSpline, offsets: Float64, local: Float64, order: int = 0) -> float:
    return float(_by_tile(curves, offsets, local, order).sum())


def _by_tile(curves: CubicSpline, offsets: Float64, local: Float64, order: int = 0) -> Float64:
    """Deviance of each tile at its own offset, or a derivative."""
    inside = np.clip(local, offsets[0], offsets[-1])
    index = np.clip(np.searchsorted(offsets, inside, side="right") - 1, 0, len(offsets) - 2)
    distance = inside - offsets[index]
    tile = np.arange(len(local))
    c = curves.c[:, index, tile]
    if order == 0:
        return np.asarray(((c[0] * distance + c[1]) * distance + c[2]) * distance + c[3])
    if order == 1:
        return np.asarray((3 * c[0] * distance + 2 * c[1]) * distance + c[2])
    return np.asarray(6 * c[0] * distance + 2 * c[1])


def _search(curves: CubicSpline, offsets: Float64, place: Float64) -> Float64:
    """The best of a grid of slopes."""
    slopes = np.linspace(-_STEEPEST, _STEEPEST, _SLOPE_STEPS)
    found = [(_deviance(curves, offsets, place @ np.array([a, b])), a, b) for a in slopes for b in slopes]
    return np.array(min(found)[1:])


def _refine(curves: CubicSpline, offsets: Float64, place: Float64, slope: Float64) -> tuple[Float64, Float64]:
    """Slope at the nearest minimum by Newton's method, and its covariance [2, 2] from the curvature there."""
    value = _deviance(curves, offsets, place @ slope)
    bend = np.eye(2)
    for _ in range(12):
        local = place @ slope
        gradient = _by_tile(curves, offsets, local, 1) @ place
        bend = (place * _by_tile(curves, offsets, local, 2)[:, None]).T @ place
        bend = bend + np.eye(2) * max(0.0, 1e-3 * float(np.trace(bend)) - 2 * float(np.linalg.eigvalsh(bend)[0]))
        if not np.trace(bend) > 0:
            break
        step = np.linalg.solve(bend, gradient)
        size = float(np.abs(step).max())
        step *= min(1.0, 0.05 / max(size, 1e-12))
        trial = slope - step
        new = _deviance(curves, offsets, place @ trial)
        if new > value + 1e-9:
            break
        slope, value = trial, new
        if size < 1e-5:
            break
    information = 0.5 * bend
    if not np.linalg.eigvalsh(information)[0] > 0:
        return slope, np.full((2, 2), np.nan)
    return slope, np.asarray(np.linalg.inv(information), dtype=np.float64)
