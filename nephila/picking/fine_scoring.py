"""Scoring of candidates by many templates at fine sampling, and climbing to the best place and template."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.geometry import euler_matrix
from nephila.kernels.peaks import suppress_neighbours
from nephila.picking.peaks import sub_pixel_offset
from nephila.picking.templates import MaskedTemplates

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

_BLOCK = 1024
_CLIMBS = 4
# Nearer than this share of the picks' least distance only the better one at first sight is climbed from
_CLIMBING_SPACING = 0.4
_NEIGHBOURHOOD_DEG = 24.0
_SQUARE = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], dtype=np.int64)
_MIDDLE = 4


@dataclass(frozen=True)
class FineScores:
    """Candidates after climbing: y, x (px), score, template (index), and which of the starts each came from (taken)."""

    y: Float64
    x: Float64
    score: Float64
    template: Int
    taken: Int


class WindowScorer:
    """Scores places of one image by one set of templates."""

    def __init__(self, image: Float32, templates: MaskedTemplates) -> None:
        self.templates = templates
        reach = int(max(np.abs(templates.rows).max(), np.abs(templates.columns).max())) + 2
        # A floor under the local deviation, so that dead areas and the outside do not divide by nothing
        self._floor = 0.3 * typical_deviation(image, reach) + 1e-6
        self._shape, self._reach = image.shape, reach
        padded = np.pad(image, reach)
        self._pixels, self._stride = padded.ravel(), padded.shape[1]
        self._offset = templates.rows * self._stride + templates.columns

    def components(self, y: Int, x: Int) -> Float32:
        """Components [m, k] at pixels (y, x), over the local standard deviation. Outside, the image counts as 0."""
        y, x = (np.clip(v, -1, n) + self._reach for v, n in ((y, self._shape[0]), (x, self._shape[1])))
        start = y * self._stride + x
        out = np.empty((len(start), len(self.templates.stamps)), dtype=np.float32)
        for low in range(0, len(start), _BLOCK):
            windows = self._pixels[start[low : low + _BLOCK, None] + self._offset[None, :]]
            mean = windows @ self.templates.weight
            out[low : low + _BLOCK] = windows @ self.templates.stamps.T
            np.square(windows, out=windows)
            spread = np.sqrt(np.maximum(windows @ self.templates.weight - mean * mean, self._floor**2))
            out[low : low + _BLOCK] /= spread[:, None]
        return out

    def best(self, components: Float32) -> tuple[Float32, Int]:
        """Best score and template [m] of all."""
        score, best = np.empty(len(components), dtype=np.float32), np.empty(len(components), dtype=np.int64)
        for low in range(0, len(components), _BLOCK // 4):
            products = components[low : low + _BLOCK // 4] @ self.templates.coefficients.T
            top = products.argmax(axis=1)
            best[low : low + _BLOCK // 4], score[low : low + _BLOCK // 4] = top, products[np.arange(len(top)), top]
        return score, best


def typical_deviation(image: Float32, side: int) -> float:
    """Median of the standard deviations of squares of `side` px: what lies high or low as a whole does not count."""
    ny, nx = image.shape[0] // side, image.shape[1] // side
    if min(ny, nx) < 3:
        return float(np.median(np.abs(image))) / 0.6745
    parts = image[: ny * side, : nx * side].reshape(ny, side, nx, side)
    return float(np.median(parts.std(axis=(1, 3))))


def score_windows(image: Float32, templates: MaskedTemplates, y: Int, x: Int) -> tuple[Float32, Int]:
    """Best score [m] and template [m] at pixels (y, x) of `image` [ny, nx]."""
    scorer = WindowScorer(image, templates)
    return scorer.best(scorer.components(y, x))


def score_finely(
    image: Float32,
    templates: MaskedTemplates,
    angles: Float64,
    y: npt.NDArray[np.floating],
    x: npt.NDArray[np.floating],
    min_distance: float,
    extra: Float32 | None = None,
) -> FineScores:
    """Best place, score and template near (y, x): one look with all templates, then climbs over the 3 x 3 neighbours with
    templates of similar orientation, then a parabola on each axis.

    Parameters
    ----------
    angles : of the templates [m, 3], deg
    y, x : starts, px; min_distance : of picks, px
    extra : [ny, nx], added to the score where a candidate starts and where it ends; it does not pull candidates
    """
    row, column = np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)
    if not len(row):
        nothing = np.zeros(0, dtype=np.int64)
        return FineScores(np.zeros(0), np.zeros(0), np.zeros(0), nothing, nothing)
    scorer = WindowScorer(image, templates)
    first, template = scorer.best(scorer.components(row, column))
    if extra is not None:
        first = first + _at(extra, row, column)
    order = np.argsort(-first, kind="stable")
    taken = np.sort(
        order[
            suppress_neighbours(
                y[order].astype(np.float64),
                x[order].astype(np.float64),
                _CLIMBING_SPACING * float(min_distance),
                len(order),
            )
        ]
    )
    row, column, template = row[taken], column[taken], template[taken]
    near = _neighbourhoods(angles, template)
    score = np.zeros((len(row), len(_SQUARE)), dtype=np.float32)
    moving: Int = np.arange(len(row), dtype=np.int64)
    for climb in range(_CLIMBS):
        if not len(moving):
            break
        around = (row[moving, None] + _SQUARE[:, 0]).ravel(), (column[moving, None] + _SQUARE[:, 1]).ravel()
        components = scorer.components(*around).reshape(len(moving), len(_SQUARE), -1)
        still = np.zeros(len(moving), dtype=bool)
        for j, i in enumerate(moving):
            products = components[j] @ templates.coefficients[near[i]].T
            score[i] = products.max(axis=1)
            top = int(score[i].argmax())
            template[i] = near[i][int(products[top].argmax())]
            still[j] = top == _MIDDLE
            if not still[j] and climb < _CLIMBS - 1:
                row[i] += _SQUARE[top, 0]
                column[i] += _SQUARE[top, 1]
        moving = moving[~still]
    top = score.argmax(axis=1)
    centred = top == _MIDDLE
    dy = np.where(centred, sub_pixel_offset(score[:, 1], score[:, 4], score[:, 7]), _SQUARE[top, 0])
    dx = np.where(centred, sub_pixel_offset(score[:, 3], score[:, 4], score[:, 5]), _SQUARE[top, 1])
    value = score.max(axis=1).astype(np.float64)
    if extra is not None:
        value += _at(extra, row, column)
    return FineScores((row + dy).astype(np.float64), (column + dx).astype(np.float64), value, template, taken)


def _neighbourhoods(angles: Float64, templates: Int) -> list[Int]:
    """Indices of the templates within a rotation of `_NEIGHBOURHOOD_DEG` of each of `templates`."""
    matrices = euler_matrix(angles[:, 0], angles[:, 1], angles[:, 2]).reshape(-1, 9).astype(np.float32)
    least = np.float32(1 + 2 * np.cos(np.deg2rad(_NEIGHBOURHOOD_DEG)))
    unique, back = np.unique(templates, return_inverse=True)
    lists = [np.flatnonzero(matrices @ matrices[t] >= least) for t in unique]
    return [lists[i] for i in back]


def _at(values: Float32, row: Int, column: Int) -> Float32:
    return values[np.clip(row, 0, values.shape[0] - 1), np.clip(column, 0, values.shape[1] - 1)]
