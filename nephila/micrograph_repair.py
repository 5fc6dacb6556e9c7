"""Mending what a detector or a scanner did to a micrograph: dead lines, hot pixels, stripes of gain.

CTF estimation, picking and the cutting of windows mend in the same way, before anything else. A micrograph without such faults
stays as it is, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

CONSTANT = "the micrograph is constant"
MOSTLY_DEAD = "more than half of the micrograph is dead or saturated"
_SAMPLES = 256  # per side, from which level and deviation are taken
_HOT_SIGMA = 8.0
_HOT_RANGE = 3.0  # and over the range of the middle six of the eight neighbours: dirt and edges vary by themselves
_DEAD, _WILD = 0.05, 20.0  # a line's deviation over the others'
_BLOCKS = 16  # pieces of a line that have to agree on its offset
_EXCESS = 2.5  # variance of the lines' offsets over that expected from the scatter between pieces
_SINGLE_SIGMA = 8.0
_SOME_SIGMA = 5.0
_TREND = 8  # offsets are taken against the median of this share (1/n) of the lines
_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]


@dataclass(frozen=True)
class RepairedMicrograph:
    """A mended micrograph.

    image: float32 [ny, nx], in the units given; the same array where nothing was to mend
    replaced: share of the pixels that were replaced (dead lines and hot pixels)
    striped: rows and columns whose offset was taken away
    problem: why the micrograph cannot be mended, or None
    """

    image: Float32
    replaced: float = 0.0
    striped: int = 0
    problem: str | None = None


def level_and_spread(image: Float32) -> tuple[float, float]:
    """Median and standard deviation (half the span of the middle 68 %) from a sample of the pixels; 0 where nothing varies."""
    sample = image[:: max(1, image.shape[0] // _SAMPLES), :: max(1, image.shape[1] // _SAMPLES)]
    centre = float(np.median(sample))
    low, high = np.percentile(sample, [15.87, 84.13])
    spread = 0.5 * float(high - low)
    if spread <= 1e-6 * max(1.0, abs(centre)):
        spread = float(image.std(dtype=np.float64))
    return centre, spread if spread > 1e-6 * max(1.0, abs(centre)) else 0.0


def repair_micrograph(image: Float32) -> RepairedMicrograph:
    """Mend a micrograph [ny, nx]; the array given is never changed.

    Dead lines (without contrast, or far off in level) become copies of their neighbours. Lines whose level differs from that
    of the lines around in all their parts, as those of a wrong gain do, lose this offset. Hot pixels, far from the median of
    their eight neighbours, become that median; areas that are dark or bright stay as they are.
    """
    centre, spread = level_and_spread(image)
    if spread == 0:
        return RepairedMicrograph(image, 1.0, 0, CONSTANT)
    out, replaced = image, 0.0
    for axis in (0, 1):
        dead = _dead_lines(out, axis, centre, spread)
        replaced += float(dead.mean())
        if dead.any() and not dead.all():
            out = _copy_neighbours(out, dead, axis)
    striped = 0
    for axis in (0, 1):
        offsets = stripe_offsets(out if axis == 0 else out.T)
        if offsets is not None:
            out = out - (offsets[None, :] if axis == 0 else offsets[:, None])
            striped += int(np.count_nonzero(offsets))
    if striped:
        centre, spread = level_and_spread(out)
    out, hot = _replace_hot(out, centre, spread)
    replaced += hot
    problem = MOSTLY_DEAD if replaced > 0.5 else None
    return RepairedMicrograph(out, float(min(replaced, 1.0)), striped, problem)


def _dead_lines(image: Float32, axis: int, centre: float, spread: float) -> Bool:
    """Columns (axis 0) or rows (axis 1) without contrast, or far away from the others in level or contrast."""
    step = max(1, image.shape[axis] // _SAMPLES)
    thinned = (image[::step] if axis == 0 else image[:, ::step]) - np.float32(centre)
    thinned[np.abs(thinned) > np.float32(_HOT_SIGMA * spread)] = 0  # no single pixel, nor a line across, decides
    mean, std = thinned.mean(axis=axis), thinned.std(axis=axis)
    typical = np.median(std[std > 1e-6 * std.max()]) if std.any() else 0.0
    off = np.abs(mean - np.median(mean))
    return np.asarray((std < _DEAD * typical) | (std > _WILD * typical) | (off > 8 * typical + 20 * np.median(off)))


def _copy_neighbours(image: Float32, dead: Bool, axis: int) -> Float32:
    out = image.copy()
    good, bad = np.flatnonzero(~dead), np.flatnonzero(dead)
    source = good[np.clip(np.searchsorted(good, bad), 0, len(good) - 1)]
    if axis == 0:
        out[:, bad] = out[:, source]
    else:
        out[bad] = out[source]
    return out


def stripe_offsets(image: Float32) -> Float32 | None:
    """Offsets [nx] of the columns of `image` [ny, nx] from those around, None where they are no more than noise.

    The mean of each of `_BLOCKS` pieces of a column scatters by noise and by what the micrograph shows. Where the differences
    between neighbouring columns agree over the pieces far better than this scatter allows, they are the detector's. An edge
    that crosses the columns shows in few pieces of each, and does not count.
    """
    ny, nx = image.shape
    blocks = min(_BLOCKS, ny // 8)
    if blocks < 4 or nx < 32:
        return None
    rows = ny // blocks
    means = np.ascontiguousarray(image[: rows * blocks].reshape(blocks, rows, nx).mean(axis=1), dtype=np.float64)
    steps = np.diff(means, axis=1)
    agreed = np.median(steps, axis=0)
    scatter = 1.4826 * float(np.median(np.abs(steps - agreed)))
    error = 1.2533 * scatter / np.sqrt(blocks)
    if error <= 0:
        return None
    everywhere = (1.4826 * float(np.median(np.abs(agreed))) / error) ** 2 > _EXCESS
    if not everywhere and np.abs(agreed).max() <= _SINGLE_SIGMA * error:
        return None
    offsets = np.median(means - _trend(means), axis=0)
    if not everywhere:
        offsets[np.abs(offsets) < _SOME_SIGMA * error] = 0
    return offsets.astype(np.float32)


def _trend(means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Running medians of rows [blocks, nx]: they follow gradients and edges of areas, not single columns."""
    from scipy.ndimage import median_filter

    half = max(7, means.shape[1] // _TREND // 2)
    padded = np.concatenate([_beyond(means, half), means, _beyond(means[:, ::-1], half)[:, ::-1]], axis=1)
    rows = [median_filter(row, 2 * half + 1, mode="nearest")[half:-half] for row in padded]
    return np.stack(rows)


def _beyond(means: npt.NDArray[np.float64], half: int) -> npt.NDArray[np.float64]:
    """What stands left of the first columns: the line through the medians of their two nearest groups."""
    near, next_one = (np.median(means[:, i * half : (i + 1) * half], axis=1, keepdims=True) for i in (0, 1))
    place = (np.arange(-half, 0) - 0.5 * (half - 1)) / half
    return np.asarray(near + (next_one - near) * place)


def _replace_hot(image: Float32, centre: float, spread: float) -> tuple[Float32, float]:
    """The image with hot pixels replaced, and their share."""
    limit = np.float32(_HOT_SIGMA * spread)
    rows, columns = np.nonzero((image > np.float32(centre) + limit) | (image < np.float32(centre) - limit))
    if not len(rows):
        return image, 0.0
    ny, nx = image.shape
    around = np.stack(
        [image[np.clip(rows + dy, 0, ny - 1), np.clip(columns + dx, 0, nx - 1)] for dy, dx in _NEIGHBOURS]
    )
    middle = np.median(around, axis=0).astype(np.float32)
    ordered = np.sort(around, axis=0)
    off = np.abs(image[rows, columns] - middle)
    hot = (off > limit) & (off > _HOT_RANGE * (ordered[6] - ordered[1]))
    if not hot.any():
        return image, 0.0
    out = image.copy()
    out[rows[hot], columns[hot]] = middle[hot]
    return out, float(hot.sum() / image.size)
