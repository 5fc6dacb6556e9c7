"""Picking by local correlation with projections of a reference (Roseman, Ultramicroscopy 94, 225, 2003)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nephila.ctf import Optics, ctf_2d
from nephila.errors import InputError
from nephila.kernels.peaks import suppress_neighbours
from nephila.picking.contaminants import CORE, LARGE, local_statistics, mark_contaminants, mark_large
from nephila.picking.fine_scoring import FineScores, score_finely, score_windows
from nephila.picking.peaks import Picks, edge_maxima, local_maxima, sub_pixel_offset
from nephila.picking.prepare import BinnedMicrograph, MicrographBinner, check_micrograph
from nephila.picking.settings import TemplateSettings
from nephila.picking.templates import MaskedTemplates, TemplateLevel, TemplateSet, apply_ctf
from nephila.picking.texture import texture_response
from nephila.picking.tiles import TiledCorrelation

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

_BLOCK = 2048
_COMPONENTS = 100
# Signal-to-noise ratio of the particles that the search is tuned to find: those on the verge of being found
_MARGINAL = 7.0


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
    data = check_micrograph(image, pixel_size, templates.diameter)
    if defocus is not None and optics is None:
        raise InputError("templates with a CTF need the optics (voltage, Cs, amplitude contrast)")
    binner = MicrographBinner(data, pixel_size, options.peaks.outlier_sigma)
    coarse = _binned_to(binner, templates.coarse, pixel_size)
    masked = _masked(templates.coarse, defocus, optics, templates.diameter, options)
    mean, deviation = local_statistics(coarse.image, CORE * 0.5 * templates.diameter / coarse.pixel_size)
    dirt = mark_contaminants(mean, deviation, options.peaks.contaminant_sigma)
    large = mark_large(coarse.image, templates.diameter / coarse.pixel_size, options.peaks.contaminant_sigma)
    dirt |= large
    # Few components cost little, and tell less of where a particle may be
    share = min(max(options.searched * _COMPONENTS / len(masked.stamps), options.searched), 0.5)
    score = correlate_locally(coarse.image, masked, share, dirt)
    texture = _texture(binner, templates, defocus, optics, options)
    if texture is not None:
        score[score > -1] += (deviation_of_noise(masked) * _sampled(texture, coarse))[score > -1]
    spacing, edge, at_most = _limits(data.shape, pixel_size, templates.diameter, coarse, options)
    fine = _fine_search(binner, templates, defocus, optics, options, texture)
    search = _Search(coarse, templates.coarse, masked, score, fine, mean, deviation, dirt, large)
    near = options.peaks.min_distance * templates.diameter
    starts = (
        local_maxima(score, spacing, edge, at_most)
        if fine is None
        else best_pixels(score, edge, options.rescored, spacing, dirt)
    )
    margin = options.peaks.edge * templates.diameter / pixel_size
    # a particle at the margin may be found a few pixels nearer to the edge than its coarse maximum
    inner = _on_the_image(_scored(search, *starts, near), data.shape, 0.0)
    order = np.argsort(-inner.score, kind="stable")
    inner = inner.at(order[suppress_neighbours(inner.y[order], inner.x[order], near / pixel_size, at_most)])
    # -1 stands where nothing was searched
    border = edge_maxima(np.where(score > -1, score, -np.inf).astype(np.float32), spacing, edge)
    outer = _on_the_image(_scored(search, *border, near), data.shape, margin)
    outer = outer.at(np.flatnonzero(outer.at_edge))  # what climbed away from the edge was found from inside, too
    both = inner.followed_by(outer.at(np.argsort(-outer.score, kind="stable")))
    both = both.at(suppress_neighbours(both.y, both.x, near / pixel_size, len(both)))
    return both.at(np.argsort(both.at_edge, kind="stable"))


@dataclass(frozen=True)
class _Fine:
    """What candidates are scored by in the fine search; extra is added to their scores."""

    binned: BinnedMicrograph
    level: TemplateLevel
    masked: MaskedTemplates
    extra: Float32 | None


@dataclass(frozen=True)
class _Search:
    """A micrograph's coarse search, what the fine one needs (None: there is none), and the marks of contaminants."""

    coarse: BinnedMicrograph
    level: TemplateLevel
    masked: MaskedTemplates
    score: Float32
    fine: _Fine | None
    mean: Float32
    deviation: Float32
    dirt: npt.NDArray[np.bool_]
    large: npt.NDArray[np.bool_]


def _fine_search(
    binner: MicrographBinner,
    templates: TemplateSet,
    defocus: tuple[float, float, float] | None,
    optics: Optics | None,
    options: TemplateSettings,
    texture: tuple[Float32, BinnedMicrograph] | None,
) -> _Fine | None:
    level = templates.fine if options.refine else None
    if level is None:
        return None
    binned = _binned_to(binner, level, binner.pixel_size)
    masked = _masked(level, defocus, optics, templates.diameter, options)
    extra = None if texture is None else deviation_of_noise(masked) * _sampled(texture, binned)
    return _Fine(binned, level, masked, extra)


def _scored(search: _Search, rows: Int, columns: Int, near: float) -> Picks:
    """Candidates that start at pixels of the coarse search, `near` A being the picks' least distance; in no order."""
    coarse, fine = search.coarse, search.fine
    if fine is None:
        y, x = _refined_position(search.score, rows, columns)
        best = score_windows(coarse.image, search.masked, rows, columns)[1]
        found = FineScores(y, x, search.score[rows, columns].astype(np.float64), best, np.arange(len(rows)))
        binned, level = coarse, search.level
    else:
        binned, level = fine.binned, fine.level
        row, column = rows * (coarse.scale_y / binned.scale_y), columns * (coarse.scale_x / binned.scale_x)
        found = score_finely(binned.image, fine.masked, level.angles, row, column, near / binned.pixel_size, fine.extra)
    place = rows[found.taken], columns[found.taken]
    typical = max(float(np.median(search.deviation)), 1e-20)
    angles = level.angles[found.template]
    return Picks(
        x=found.x * binned.scale_x,
        y=found.y * binned.scale_y,
        score=found.score,
        local_mean=(search.mean[place] / typical).astype(np.float64),
        local_std=(search.deviation[place] / typical).astype(np.float64),
        scale=np.ones(len(found.y)),
        rot=angles[:, 0],
        tilt=angles[:, 1],
        psi=angles[:, 2],
        contaminated=np.where(search.large[place], LARGE, search.dirt[place].astype(np.int64)),
        at_edge=np.zeros(len(found.y), dtype=np.int64),
    )


def _on_the_image(picks: Picks, shape: tuple[int, ...], margin: float) -> Picks:
    """Those whose centres lie on the micrograph, marked where they ended within `margin` px of its edge."""
    y, x = picks.y, picks.x
    inside = np.minimum.reduce([y, x, shape[0] - 1 - y, shape[1] - 1 - x])
    return replace(picks, at_edge=(inside < margin - 0.5).astype(np.int64)).at(np.flatnonzero(inside >= 0))


def _texture(
    binner: MicrographBinner,
    templates: TemplateSet,
    defocus: tuple[float, float, float] | None,
    optics: Optics | None,
    settings: TemplateSettings,
) -> tuple[Float32, BinnedMicrograph] | None:
    """Response to the power of details that the reference does not hold, times its weight, and where it was taken; None
    where the reference holds them."""
    if settings.texture <= 0 or templates.finest < 1.2 * settings.texture_finest:
        return None
    binned = binner.binned(settings.texture_finest / 2.4)
    if binned.pixel_size > settings.texture_finest / 2:
        return None
    mean_defocus = None if defocus is None else 0.5 * (defocus[0] + defocus[1])
    band = templates.finest, settings.texture_finest
    response = texture_response(binned.image, binned.pixel_size, templates.diameter, band, mean_defocus, optics)
    return np.float32(settings.texture) * response, binned


def _sampled(texture: tuple[Float32, BinnedMicrograph], target: BinnedMicrograph) -> Float32:
    """A map at the nearest pixels to those of another binning."""
    values, source = texture
    rows, columns = (
        np.minimum(np.rint(np.arange(n) * (to / of)).astype(np.int64), last - 1)
        for n, to, of, last in zip(
            target.image.shape,
            (target.scale_y, target.scale_x),
            (source.scale_y, source.scale_x),
            values.shape,
            strict=True,
        )
    )
    return values[np.ix_(rows, columns)]


def deviation_of_noise(templates: MaskedTemplates) -> np.float32:
    """Standard deviation of one template's local correlation with noise."""
    return np.float32(np.sqrt(np.mean(np.sum(templates.coefficients.astype(np.float64) ** 2, axis=1))))


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
    defocus: tuple[float, float, float] | None,
    optics: Optics | None,
    diameter: float,
    settings: TemplateSettings,
) -> MaskedTemplates:
    if defocus is None or optics is None:
        ctf = np.ones((level.box, level.box // 2 + 1), dtype=np.float32)
    else:
        ctf = ctf_2d(level.box, level.pixel_size, *defocus, optics)
    return apply_ctf(level, ctf, diameter, settings, settings.energy)


def _limits(
    shape: tuple[int, ...], pixel_size: float, diameter: float, binned: BinnedMicrograph, settings: TemplateSettings
) -> tuple[float, tuple[float, float], int]:
    """Least distance and edge (y, x) in binned px, and the most candidates."""
    peaks = settings.peaks
    side = diameter / pixel_size
    at_most = max(int(peaks.max_filling * shape[0] * shape[1] / side**2), 1)
    edge = (peaks.edge * side / binned.scale_y, peaks.edge * side / binned.scale_x)
    return peaks.min_distance * diameter / binned.pixel_size, edge, at_most


def local_moments(image: Float32, templates: MaskedTemplates) -> tuple[Float32, Float32]:
    """Weighted mean and standard deviation of `image` [ny, nx] under the mask about each pixel, float32 [ny, nx].

    Outside, the image continues with its median (0 after preparation).
    """
    mean, square = (
        _correlation(values, templates.rows, templates.columns, templates.weight) for values in (image, image * image)
    )
    return mean, np.sqrt(np.maximum(square - mean * mean, 0)).astype(np.float32)


def _correlation(image: Float32, rows: Int, columns: Int, stamp: Float32) -> Float32:
    out = np.empty(image.shape, dtype=np.float32)
    for y, x, values in TiledCorrelation(rows, columns, stamp[None]).tiles(image):
        out[y, x] = values[0]
    return out


def correlate_locally(
    image: Float32, templates: MaskedTemplates, share: float = 1.0, dirt: npt.NDArray[np.bool_] | None = None
) -> Float32:
    """Best local correlation coefficient over the templates at each pixel of `image` [ny, nx].

    Parameters
    ----------
    share : of each tile's pixels that is searched; the rest gets -1. Those are taken whose components hold the most of the
        power that particles would have there: the log likelihood ratio of templates in random orientation, as normal
        components, against noise
    dirt : pixels on contaminants; they do not count when the share is taken
    """
    spread = local_moments(image, templates)[1]
    inverse = 1 / np.maximum(spread, max(0.3 * float(np.median(spread)), 1e-20))
    expected = _MARGINAL**2 * templates.strength / max(float(templates.strength.sum()), 1e-30)
    gain = (expected / (1 + expected)).astype(np.float32)
    score = np.full(image.shape, -1, dtype=np.float32)
    for y, x, values in TiledCorrelation(templates.rows, templates.columns, templates.stamps).tiles(image):
        scale = inverse[y, x].ravel()
        components = values.reshape(len(values), -1)
        power = (gain @ (components * components)) * scale**2
        where = _highest(power, share, None if dirt is None else dirt[y, x].ravel())
        best = np.full(components.shape[1], -1, dtype=np.float32)
        for start in range(0, len(where), _BLOCK):
            part = where[start : start + _BLOCK]
            best[part] = (templates.coefficients @ components[:, part]).max(axis=0) * scale[part]
        score[y, x] = best.reshape(values.shape[1:])
    return score


def best_pixels(
    score: Float32, edge: tuple[float, float], share: float, spacing: float, dirt: npt.NDArray[np.bool_]
) -> tuple[Int, Int]:
    """Rows and columns of the share of pixels of highest score at least `edge` (y, x) px inside, `dirt` as in
    `correlate_locally`, and of the maxima `spacing` px apart, which tell what noise scores where particles take the share.
    """
    ny, nx = score.shape
    ey, ex = (max(int(np.ceil(e)), 1) for e in edge)
    if ny <= 2 * ey or nx <= 2 * ex:
        none = np.zeros(0, dtype=np.int64)
        return none, none
    inner = score[ey : ny - ey, ex : nx - ex].ravel()
    where = _highest(inner, share, dirt[ey : ny - ey, ex : nx - ex].ravel())
    chosen = np.zeros(score.shape, dtype=bool)
    chosen[ey : ny - ey, ex : nx - ex].flat[where] = True
    chosen[local_maxima(score, spacing, edge, score.size)] = True
    rows, columns = np.nonzero(chosen & (score > -1))
    return rows.astype(np.int64), columns.astype(np.int64)


def _highest(values: npt.NDArray[np.floating], share: float, dirt: npt.NDArray[np.bool_] | None) -> Int:
    """Indices of the given share of highest values; dirt is measured by the others, and does not take their place."""
    if share >= 1:
        return np.arange(len(values), dtype=np.int64)
    clean = np.arange(len(values)) if dirt is None else np.flatnonzero(~dirt)
    wanted = int(np.ceil(share * len(clean)))
    if not wanted:
        return np.zeros(0, dtype=np.int64)
    taken = clean[np.argpartition(-values[clean], wanted - 1)[:wanted]]
    if dirt is None:
        return taken
    dirty = np.flatnonzero(dirt & (values >= values[taken].min()))
    return np.concatenate([taken, dirty[: wanted // 4]])


def _refined_position(score: Float32, rows: Int, columns: Int) -> tuple[Float64, Float64]:
    y = rows + sub_pixel_offset(score[rows - 1, columns], score[rows, columns], score[rows + 1, columns])
    x = columns + sub_pixel_offset(score[rows, columns - 1], score[rows, columns], score[rows, columns + 1])
    return y, x
