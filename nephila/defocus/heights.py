"""Defocus at each particle's place: what the tiles around it tell beyond the micrograph's plane, as far as their errors allow.

Every tile's rings ask for an offset of defocus, with a standard error. The specimen's height about its plane is taken as a smooth
random surface (Gaussian covariance, some spread and length), of which a tile sees the average under its taper; a particle's offset
is the expected height at its place given all tiles (kriging: weights by distance and by error). Spread and length are not known:
the answers of a grid of them, a level surface among them, are averaged by how likely they make the tiles' offsets, so that where
the tiles tell nothing the plane remains. Which of them are likely is learned from all micrographs together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.defocus.model import RingData, RingFit, RingModel
from nephila.defocus.settings import DefocusPlane, TileHeights
from nephila.spectra import MicrographSpectrum, taper_autocorrelation

Float64 = npt.NDArray[np.float64]

SPREADS = (0.0, 50.0, 100.0, 200.0, 400.0)
"""Standard deviations (A) of the height that are thought possible; 0: level."""
LENGTHS = (600.0, 1200.0, 2500.0, 5000.0)
"""Lengths (A) over which the height changes."""
COLUMNS = ("rlnMicrographName", "nphTileX", "nphTileY", "nphTileSide", "nphTileHeight", "nphTileHeightError")

_TAPER_WIDTH = 0.1412  # standard deviation of the squared taper (sin^4) over the tile's side
_ROUNDS = 4
_START = (200.0, 1500.0)  # spread and length while the rings' phases are followed
_LARGEST = 600.0  # A; of a step
_LEARNING_ROUNDS = 30
_PSEUDO = 2.0  # micrographs that the even prior of spreads and lengths counts for


def tile_heights(
    spectrum: MicrographSpectrum, data: RingData, model: RingModel, fit: RingFit, plane: DefocusPlane
) -> TileHeights:
    """Offset of defocus from the plane that each tile's rings ask for, to first order about a surface fitted to all.

    data, model, fit : of the micrograph as a whole
    """
    y, x = (a.ravel() for a in np.meshgrid(spectrum.tile_y, spectrum.tile_x, indexing="ij"))
    on_plane = plane.slope_x * (x - plane.centre_x) + plane.slope_y * (y - plane.centre_y)
    side = spectrum.tile_px * spectrum.pixel_size
    tiles = spectrum.sector_tiles[:, data.sector, data.radius] / data.level
    height, error = np.zeros(len(x)), np.full(len(x), np.inf)
    measured = height
    for _ in range(_ROUNDS):
        for tile in range(len(x)):
            step, error[tile] = _step(tiles[tile], data, model, fit, on_plane[tile] + height[tile], spectrum.tiles)
            height[tile] += step
        measured = height
        found = TileHeights(x, y, side, measured, error)
        height = _expected(found, np.column_stack([x, y]), *_START, of_tiles=True)
    return TileHeights(x, y, side, measured, error)


def _step(
    power: Float64, data: RingData, model: RingModel, fit: RingFit, offset: float, tiles: int
) -> tuple[float, float]:
    """Change of a tile's defocus (A) that its rings ask for, to first order, and its standard error."""
    blur, model.blur = model.blur, 1.0
    ctf2, slope = model.rings(fit.defocus + offset, fit.a_cos, fit.a_sin, fit.phase)
    model.blur = blur
    expected = np.maximum(fit.background + fit.envelope * ctf2, 0.02)
    pull = fit.envelope * slope * model.optics.k2_factor * data.k2 / expected**2 * (data.samples / tiles)
    information = float(pull @ (fit.envelope * slope * model.optics.k2_factor * data.k2))
    if not information > 1e-12:
        return 0.0, 1e6
    return float(np.clip(pull @ (power - expected) / information, -_LARGEST, _LARGEST)), information**-0.5


def expected_heights(tiles: Sequence[TileHeights], places: Sequence[Float64]) -> list[Float64]:
    """Expected height (A of defocus, from the plane) at places [m, 2] (x, y; A) of each micrograph, from its tiles.

    Spreads and lengths weigh by their likelihood in the micrograph and by how often the micrographs ask for them.
    """
    grid = [(0.0, 1.0)] + [(s, length) for s in SPREADS if s > 0 for length in LENGTHS]
    likelihood = np.array([[_log_likelihood(t, s, length) for s, length in grid] for t in tiles]).reshape(-1, len(grid))
    likelihood = np.exp(likelihood - likelihood.max(axis=1, keepdims=True)) if len(likelihood) else likelihood
    even = np.array([1.0] + [1.0 / (len(grid) - 1)] * (len(grid) - 1)) / 2
    prior = even
    for _ in range(_LEARNING_ROUNDS):
        shares = likelihood * prior
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
        prior = (shares.sum(axis=0) + _PSEUDO * even) / (len(shares) + _PSEUDO)
    out = []
    for t, place, weights in zip(tiles, places, likelihood, strict=True):
        share = weights * prior / max(float((weights * prior).sum()), 1e-300)
        height = np.zeros(len(place))
        for (s, length), part in zip(grid, share, strict=True):
            if s > 0 and part > 1e-3:
                height += part * _expected(t, np.asarray(place, dtype=np.float64), s, length)
        out.append(height)
    return out


def _distance2(a: Float64, b: Float64) -> Float64:
    return np.asarray(((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2))


def _covariance(tiles: TileHeights, spread: float, length: float) -> tuple[Float64, Float64]:
    """Covariance [tiles, tiles] of the tiles' measured heights: the surface's under their tapers, and their errors'."""
    place = np.column_stack([tiles.x, tiles.y])
    width = _TAPER_WIDTH * tiles.side
    seen = length**2 + 2 * width**2
    surface = spread**2 * length**2 / seen * np.exp(-0.5 * _distance2(place, place) / seen)
    lag = np.abs(place[:, None, :] - place[None, :, :]) / tiles.side
    shared = (taper_autocorrelation(lag[..., 0]) * taper_autocorrelation(lag[..., 1])) ** 2
    return surface, np.asarray(np.outer(tiles.error, tiles.error) * shared)


def _expected(tiles: TileHeights, place: Float64, spread: float, length: float, of_tiles: bool = False) -> Float64:
    """Expected height at places [m, 2]; `of_tiles`: its average under a tile's taper there."""
    surface, noise = _covariance(tiles, spread, length)
    seen = length**2 + (2 if of_tiles else 1) * (_TAPER_WIDTH * tiles.side) ** 2
    across = spread**2 * length**2 / seen * np.exp(-0.5 * _distance2(place, np.column_stack([tiles.x, tiles.y])) / seen)
    return np.asarray(across @ np.linalg.solve(surface + noise, tiles.height))


def _log_likelihood(tiles: TileHeights, spread: float, length: float) -> float:
    """Of the tiles' heights, but for a constant."""
    surface, noise = _covariance(tiles, spread, length)
    root = np.linalg.cholesky(surface + noise)
    white = np.linalg.solve(root, tiles.height)
    return float(-0.5 * white @ white - np.log(np.diag(root)).sum())


def height_table(names: Sequence[str], heights: Sequence[TileHeights | None]) -> pd.DataFrame:
    """A row per tile; micrographs without a fit have none."""
    parts = [
        pd.DataFrame(
            dict(zip(COLUMNS, (name, np.round(t.x, 1), np.round(t.y, 1), t.side, t.height, t.error), strict=True))
        )
        for name, t in zip(names, heights, strict=True)
        if t is not None
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def heights_of(table: pd.DataFrame) -> dict[str, TileHeights]:
    """Tiles by micrograph, from tables of `height_table`."""
    out = {}
    for name, part in table.groupby("rlnMicrographName", sort=False):
        x, y, side, height, error = (part[c].to_numpy(dtype=np.float64) for c in COLUMNS[1:])
        out[str(name)] = TileHeights(x, y, float(side[0]), height, error)
    return out
