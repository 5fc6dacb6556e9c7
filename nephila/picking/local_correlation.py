"""Picking by local correlation with projections of a reference (Roseman, Ultramicroscopy 94, 225, 2003)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

from nephila.ctf import Optics, ctf_2d
from nephila.errors import InputError
from nephila.fourier import irfft2, rfft2
from nephila.kernels.peaks import suppress_neighbours
from nephila.picking.contaminants import mark_contaminants
from nephila.picking.peaks import Picks, local_maxima, sub_pixel_offset
from nephila.picking.prepare import BinnedMicrograph, MicrographBinner, check_micrograph
from nephila.picking.settings import TemplateSettings
from nephila.picking.templates import MaskedTemplates, TemplateLevel, TemplateSet, apply_ctf

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

_BLOCK = 2048
# Candidates of the coarse search may lie this much nearer to one another than picks: the fine search decides between
# them
_COARSE_SPACING = 0.4
_CLIMBS = 4
_CLIMBING_SPACING = 0.6
_CROSS = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)], dtype=np.int64)


def pick_by_templates(
    image: npt.ArrayLike,
    pixel_size: float,
    templates: TemplateSet,
    defocus: tuple[float, float, float] | None,
    optics: Optics | None,
    settings: TemplateSettings | None = None,
) -> Picks:
    """Candidates of one micrograph, scored by their best local correlation coefficient with the templates.

    Parameters
    ----------
    image : [ny, nx], protein bright
    pixel_size : A
    defocus : defocus_u, defocus_v (A, underfocus positive) and angle (deg) of the micrograph; None: no CTF on the
    templates
    optics : of the micrograph; needed with `defocus`
    settings : those of the templates where not given

    Returns
    -------
    Picks, best first, as many as fit into the area: which of them are particles is decided over all micrographs
    (`choose_picks`). Scores lie in -1 to 1.

    Raises
    ------
    InputError : image constant, not finite, not 2D or too small; particle too small for the pixel size
    """
    options = settings or templates.settings
    diameter = templates.diameter
    data = check_micrograph(image, pixel_size, diameter)
    if defocus is not None and optics is None:
        raise InputError("templates with a CTF need the optics (voltage, Cs, amplitude contrast)")
    binner = MicrographBinner(data, pixel_size, options.peaks.outlier_sigma)
    coarse = _binned_to(binner, templates.coarse, pixel_size)
    masked = _masked(templates.coarse, coarse, defocus, optics, diameter, options)
    score, mean, spread = correlate_locally(coarse.image, masked)
    spacing, edge, at_most = _limits(data.shape, pixel_size, diameter, coarse, options)
    fine_level = templates.fine if options.refine else None
    shrink = 1.0 if fine_level is None else _COARSE_SPACING
    rows, columns = local_maxima(score, spacing * shrink, edge, at_most)
    dirt = mark_contaminants(mean, spread, diameter / coarse.pixel_size, options.peaks.contaminant_sigma)
    flagged = dirt[rows, columns]
    typical = max(float(np.median(spread)), 1e-20)
    local_mean = (mean[rows, columns] / typical).astype(np.float64)
    local_std = (spread[rows, columns] / typical).astype(np.float64)
    if fine_level is None:
        y, x = _refined_position(score, rows, columns)
        value = score[rows, columns].astype(np.float64)
        best = _best_templates(coarse.image, masked, rows, columns)
        angles, binned = templates.coarse.angles, coarse
    else:
        binned = _binned_to(binner, fine_level, pixel_size)
        near = options.peaks.min_distance * diameter / binned.pixel_size
        fine = _masked(fine_level, binned, defocus, optics, diameter, options)
        start_y = (rows * (coarse.scale_y / binned.scale_y)).astype(np.float64)
        start_x = (columns * (coarse.scale_x / binned.scale_x)).astype(np.float64)
        y, x, value, best, likely = _score_finely(binned.image, fine, start_y, start_x, _CLIMBING_SPACING * near)
        flagged, local_mean, local_std = flagged[likely], local_mean[likely], local_std[likely]
        angles = fine_level.angles
    order = np.argsort(-value, kind="stable")
    y, x = y * binned.scale_y, x * binned.scale_x
    limit = options.peaks.min_distance * diameter / pixel_size
    kept = order[suppress_neighbours(y[order], x[order], float(limit), at_most)]
    return Picks(
        x=x[kept],
        y=y[kept],
        score=value[kept],
        local_mean=local_mean[kept],
        local_std=local_std[kept],
        scale=np.ones(len(kept)),
        rot=angles[best[kept], 0],
        tilt=angles[best[kept], 1],
        psi=angles[best[kept], 2],
        contaminated=flagged[kept],
    )


def _binned_to(binner: MicrographBinner, level: TemplateLevel, pixel_size: float) -> BinnedMicrograph:
    binned = binner.binned(level.pixel_size)
    if abs(binned.pixel_size / level.pixel_size - 1) > 0.03:
        raise InputError(
            f"templates of {level.pixel_size:.3f} A/px cannot be matched by the micrograph's {pixel_size:.3f} A/px: "
            "make them with a larger resolution_limit or fewer pixels per diameter"
        )
    return binned


def _masked(
    level: TemplateLevel,
    binned: BinnedMicrograph,
    defocus: tuple[float, float, float] | None,
    optics: Optics | None,
    diameter: float,
    settings: TemplateSettings,
) -> MaskedTemplates:
    if defocus is None or optics is None:
        ctf = np.ones((level.box, level.box // 2 + 1), dtype=np.float32)
    else:
        ctf = ctf_2d(level.box, level.pixel_size, *defocus, optics)
    return apply_ctf(level, ctf, diameter, settings)


def _limits(
    shape: tuple[int, ...], pixel_size: float, diameter: float, binned: BinnedMicrograph, settings: TemplateSettings
) -> tuple[float, tuple[float, float], int]:
    """Least distance and edge (y, x) in binned px, and the most candidates."""
    peaks = settings.peaks
    side = diameter / pixel_size
    at_most = max(int(peaks.max_filling * shape[0] * shape[1] / side**2), 1)
    edge = (peaks.edge * side / binned.scale_y, peaks.edge * side / binned.scale_x)
    return peaks.min_distance * diameter / binned.pixel_size, edge, at_most


def correlate_locally(image: Float32, templates: MaskedTemplates) -> tuple[Float32, Float32, Float32]:
    """Best local correlation coefficient over the templates at each pixel of `image` [ny, nx].

    Outside, the image continues with its median (0 after preparation).

    Returns
    -------
    score, mean, spread : float32 [ny, nx]; the latter two are the weighted mean and standard deviation under the mask
    """
    ny, nx = image.shape
    reach = int(max(np.abs(templates.rows).max(), np.abs(templates.columns).max()))
    py, px = (int(scipy.fft.next_fast_len(n + reach, real=True)) for n in (ny, nx))
    padded = np.zeros((py, px), dtype=np.float32)
    padded[:ny, :nx] = image
    transform = rfft2(padded)
    stamp = np.zeros((py, px), dtype=np.float32)

    def correlation(values: Float32, with_transform: npt.NDArray[np.complex64]) -> Float32:
        stamp[templates.rows, templates.columns] = values
        return irfft2(with_transform * np.conj(rfft2(stamp)), px)[:ny, :nx]

    mean = correlation(templates.weight, transform)
    square = correlation(templates.weight, rfft2(padded * padded))
    spread: Float32 = np.sqrt(np.maximum(square - mean * mean, 0)).astype(np.float32)
    # A floor, so that dead areas and the outside do not divide by nothing
    floor = max(0.3 * float(np.median(spread)), 1e-20)
    basis = np.empty((len(templates.images), ny * nx), dtype=np.float32)
    for k, values in enumerate(templates.images):
        basis[k] = correlation(values, transform).ravel()
    best = np.empty(ny * nx, dtype=np.float32)
    for start in range(0, ny * nx, _BLOCK):
        block = np.ascontiguousarray(basis[:, start : start + _BLOCK].T)
        best[start : start + _BLOCK] = (block @ templates.coefficients.T).max(axis=1)
    score = best.reshape(ny, nx) / np.maximum(spread, floor)
    return score.astype(np.float32), mean, spread


def _windows(image: Float32, templates: MaskedTemplates, y: Int, x: Int) -> Float32:
    """Pixels under the mask about (y, x) [m, p]; 0 outside the image."""
    reach = int(max(np.abs(templates.rows).max(), np.abs(templates.columns).max())) + 2
    padded = np.pad(image, reach)
    y, x = (np.clip(v, -1, n) + reach for v, n in ((y, image.shape[0]), (x, image.shape[1])))
    start = y * padded.shape[1] + x
    offset = templates.rows * padded.shape[1] + templates.columns
    return padded.ravel()[start[:, None] + offset[None, :]]


def _score_windows(image: Float32, templates: MaskedTemplates, y: Int, x: Int, floor: float) -> tuple[Float32, Int]:
    """Best score [m] and template [m] at pixels (y, x)."""
    score, best = np.empty(len(y), dtype=np.float32), np.empty(len(y), dtype=np.int64)
    for start in range(0, len(y), _BLOCK):
        part = slice(start, start + _BLOCK)
        windows = _windows(image, templates, y[part], x[part])
        mean = windows @ templates.weight
        spread = np.sqrt(np.maximum((windows * windows) @ templates.weight - mean * mean, floor * floor))
        products = (windows @ templates.images.T) @ templates.coefficients.T
        best[part] = products.argmax(axis=1)
        score[part] = products[np.arange(len(products)), best[part]] / spread
    return score, best


def _best_templates(image: Float32, templates: MaskedTemplates, y: Int, x: Int) -> Int:
    return _score_windows(image, templates, y, x, 1e-6)[1]


def _score_finely(
    image: Float32, templates: MaskedTemplates, y: Float64, x: Float64, spacing: float
) -> tuple[Float64, Float64, Float64, Int, Int]:
    """Best position, score and template near (y, x): climbs on crosses of five pixels, then a parabola on each
    axis."""
    row, column = np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)
    floor = 0.3 * float(np.median(np.abs(image))) / 0.6745 + 1e-6
    if not len(row):
        nothing = np.zeros(0, dtype=np.int64)
        return y, x, np.zeros(0), nothing, nothing
    # One look at each; only the best of those that are much nearer than picks may be is worth climbing
    first = _score_windows(image, templates, row, column, floor)[0]
    order = np.argsort(-first, kind="stable")
    taken = suppress_neighbours(y[order], x[order], float(spacing), len(order))
    likely = np.sort(order[taken])
    row, column = row[likely], column[likely]
    score, best = np.zeros((len(row), 5), dtype=np.float32), np.zeros((len(row), 5), dtype=np.int64)
    moving: Int = np.arange(len(row), dtype=np.int64)
    for climb in range(_CLIMBS):
        around_y = (row[moving, None] + _CROSS[:, 0]).ravel()
        around_x = (column[moving, None] + _CROSS[:, 1]).ravel()
        around, template = _score_windows(image, templates, around_y, around_x, floor)
        score[moving], best[moving] = around.reshape(-1, 5), template.reshape(-1, 5)
        top = score[moving].argmax(axis=1)
        moving, top = moving[top != 0], top[top != 0]
        if climb < _CLIMBS - 1:
            row[moving] += _CROSS[top, 0]
            column[moving] += _CROSS[top, 1]
    top = score.argmax(axis=1)
    still = top == 0
    dy = np.where(still, sub_pixel_offset(score[:, 1], score[:, 0], score[:, 2]), _CROSS[top, 0])
    dx = np.where(still, sub_pixel_offset(score[:, 3], score[:, 0], score[:, 4]), _CROSS[top, 1])
    at = np.arange(len(row))
    value = score[at, top].astype(np.float64)
    return (row + dy).astype(np.float64), (column + dx).astype(np.float64), value, best[at, top], likely


def _refined_position(score: Float32, rows: Int, columns: Int) -> tuple[Float64, Float64]:
    y = rows + sub_pixel_offset(score[rows - 1, columns], score[rows, columns], score[rows + 1, columns])
    x = columns + sub_pixel_offset(score[rows, columns - 1], score[rows, columns], score[rows, columns + 1])
    return y, x
