"""A window of pure background, as SPIDER's `noise` chooses it: its histogram is what particles are normalised to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NoiseSettings:
    """overlap: of neighbouring windows, a fraction; candidates: how many windows of lowest deviation are kept;
    index: which of them is taken, in the order of even illumination; region: side of the central area searched, px
    (0: all of it)."""

    overlap: float = 0.5
    candidates: int = 30
    index: int = 0
    region: int = 0


@dataclass(frozen=True)
class NoiseWindows:
    """Windows of background.

    chosen : float32 [box, box]; windows : float32 [m, box, box], in the order of rising variance of their quadrants'
    means
    x, y : corners (lowest indices) of the windows, px [m]; deviation : their standard deviations [m]
    quadrant_variance : variance of the means of their four quadrants [m]
    """

    chosen: Float32
    windows: Float32
    x: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    deviation: Float64
    quadrant_variance: Float64


def find_noise_windows(image: npt.ArrayLike, box: int, settings: NoiseSettings | None = None) -> NoiseWindows:
    """Windows of side `box` of a micrograph [ny, nx] that hold background alone.

    Of all windows of the central area those of lowest standard deviation are taken (no particles), and of these the
    one whose quadrants' means differ least comes first (no gradient, no particle in a corner).

    Raises
    ------
    InputError : image not 2D, not finite or smaller than the box; overlap outside [0, 1); index beyond the candidates
    """
    options = settings or NoiseSettings()
    data = np.asarray(image, dtype=np.float32)
    if data.ndim != 2:
        raise InputError(f"a micrograph needs two dimensions, this one has the shape {data.shape}")
    if box < 4 or min(data.shape) < box:
        raise InputError(
            f"noise windows of {box} px do not fit into a micrograph of {data.shape[1]} x {data.shape[0]} px"
        )
    if not np.isfinite(data).all():
        raise InputError("the micrograph holds NaN or infinite values: repair it or leave it out")
    if not 0 <= options.overlap < 1:
        raise InputError(f"overlap {options.overlap} of noise windows: must lie in [0, 1); 0.5 is usual")
    if options.candidates < 1:
        raise InputError(f"{options.candidates} candidates for the noise window: at least 1 is needed")
    step = max(round(box * (1 - options.overlap)), 1)
    y, x = (v.ravel() for v in np.meshgrid(*(_starts(n, box, step, options.region) for n in data.shape), indexing="ij"))
    deviation = np.array([data[a : a + box, b : b + box].std(dtype=np.float64) for a, b in zip(y, x, strict=True)])
    lowest = np.argsort(deviation, kind="stable")[: options.candidates]
    windows = np.stack([data[a : a + box, b : b + box] for a, b in zip(y[lowest], x[lowest], strict=True)])
    variance = quadrant_variance(windows)
    order = np.argsort(variance, kind="stable")
    if not 0 <= options.index < len(order):
        raise InputError(f"noise window {options.index}: there are only {len(order)} (0 to {len(order) - 1})")
    ranked = lowest[order]
    windows = np.ascontiguousarray(windows[order])
    return NoiseWindows(windows[options.index], windows, x[ranked], y[ranked], deviation[ranked], variance[order])


def _starts(length: int, box: int, step: int, region: int) -> npt.NDArray[np.int64]:
    """Corners along one axis, centred within the searched region."""
    side = length if region <= 0 else min(max(region, box), length)
    number = (side - box) // step + 1
    first = (length - ((number - 1) * step + box)) // 2
    return first + step * np.arange(number, dtype=np.int64)


def quadrant_variance(windows: npt.ArrayLike) -> Float64:
    """Variance of the means of the four quadrants of images [m, n, n]: [m]."""
    data = np.asarray(windows, dtype=np.float64)
    h, w = data.shape[-2] // 2, data.shape[-1] // 2
    parts = [
        data[..., a, b].mean(axis=(-2, -1))
        for a in (slice(0, h), slice(-h, None))
        for b in (slice(0, w), slice(-w, None))
    ]
    return np.stack(parts).var(axis=0)
