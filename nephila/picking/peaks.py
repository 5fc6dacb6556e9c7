"""Picks and the maxima of score maps."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from nephila.kernels.peaks import suppress_neighbours

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def _empty() -> Float64:
    return np.zeros(0)


@dataclass(frozen=True)
class Picks:
    """Candidate particles of one micrograph, best first; those too close to its edge come last.

    x, y : centres, px of the micrograph as given, 0-based (0.0 is the centre of the first pixel), float64 [m]
    score : what the candidates are ranked by, the same scale for all micrographs of a run
    local_mean, local_std : of the image about the candidate, relative to the micrograph's median local standard
    deviation
    scale : diameter that fitted best, over the one given
    rot, tilt, psi : deg, of the best template; 0 where none was used
    contaminated : 1 where the candidate lies on a marked contaminant, 2 on carbon or one larger than particles
    at_edge : 1 where the centre is nearer to the micrograph's edge than picks may be
    """

    x: Float64 = field(default_factory=_empty)
    y: Float64 = field(default_factory=_empty)
    score: Float64 = field(default_factory=_empty)
    local_mean: Float64 = field(default_factory=_empty)
    local_std: Float64 = field(default_factory=_empty)
    scale: Float64 = field(default_factory=_empty)
    rot: Float64 = field(default_factory=_empty)
    tilt: Float64 = field(default_factory=_empty)
    psi: Float64 = field(default_factory=_empty)
    contaminated: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    at_edge: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.x)

    def at(self, index: npt.NDArray[np.int64]) -> Picks:
        """The picks of these indices, in this order."""
        return Picks(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def followed_by(self, others: Picks) -> Picks:
        """These picks, then others of the same micrograph."""
        return Picks(**{f.name: np.concatenate([getattr(self, f.name), getattr(others, f.name)]) for f in fields(self)})


def local_maxima(
    score: Float32, min_distance: float, edge: tuple[float, float], at_most: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the maxima of `score` [ny, nx] at least `min_distance` px apart, best first, at most
    `at_most`.

    A maximum is no lower than its eight neighbours and lies at least `edge` (y, x) px inside; of two that are too
    close the higher is taken, of two equal ones the first in reading order. Never on the outermost pixels.
    """
    ny, nx = score.shape
    ey, ex = (max(int(np.ceil(e)), 1) for e in edge)
    if ny <= 2 * ey or nx <= 2 * ex:
        none = np.zeros(0, dtype=np.int64)
        return none, none
    inner = score[ey : ny - ey, ex : nx - ex]
    top = np.isfinite(inner)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy or dx:
                top &= inner >= score[ey + dy : ny - ey + dy, ex + dx : nx - ex + dx]
    rows, columns = np.nonzero(top)
    order = np.argsort(-inner[rows, columns], kind="stable")
    rows, columns = rows[order] + ey, columns[order] + ex
    kept = suppress_neighbours(rows.astype(np.float64), columns.astype(np.float64), float(min_distance), int(at_most))
    return rows[kept], columns[kept]


def edge_maxima(
    score: Float32, min_distance: float, edge: tuple[float, float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the maxima that `local_maxima` leaves out for being nearer than `edge` (y, x) px to the edge, best
    first. Maxima further inside suppress them, not the other way round."""
    rows, columns = local_maxima(score, min_distance, (1, 1), score.size)
    (ny, nx), (ey, ex) = score.shape, (max(int(np.ceil(e)), 1) for e in edge)
    inside = (rows >= ey) & (rows < ny - ey) & (columns >= ex) & (columns < nx - ex)
    return rows[~inside], columns[~inside]


def sub_pixel_offset(before: npt.ArrayLike, centre: npt.ArrayLike, after: npt.ArrayLike) -> Float64:
    """Offset of a maximum from the middle of three samples by a parabola, within +-0.5; 0 where they do not form
    one."""
    a, b, c = (np.asarray(v, dtype=np.float64) for v in (before, centre, after))
    curvature = a - 2 * b + c
    safe = np.where(curvature < 0, curvature, -1.0)
    return np.clip(np.where(curvature < 0, 0.5 * (a - c) / safe, 0.0), -0.5, 0.5)
