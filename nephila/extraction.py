"""Cutting particles out of a micrograph: centred windows without ramp and dust, normalised, inverted and binned on
request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fourier import butterworth, centred_irfft2, centred_rfft2, fourier_resize_image, shift_phases
from nephila.window_normalisation import Region, fit_to_noise, normalise_background, remove_dust, remove_ramps

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

TOO_CLOSE = "window reaches beyond the micrograph"


@dataclass(frozen=True)
class ExtractionSettings:
    """How particles are cut out.

    radius: of the particle, px of the micrograph; what lies outside is background (None: box / 2 - 2, as in SPIDER);
    normalise: "ring" (background mean 0 and standard deviation 1), "noise" (background's histogram matched linearly
    to that of a noise window) or "none"; ramp: whether a plane fitted to the background is removed; dust_sigma:
    pixels beyond this many standard deviations are replaced by noise (0: none); invert: contrast is turned around;
    new_box: side after binning by Fourier cropping (None: not binned); shift_to_centre: whether the sub-pixel rest
    is shifted away rather than recorded; edge: "refuse" windows that reach beyond the micrograph, or "pad" them with
    the mean of what there is; least_inside: the share of a padded window that must lie inside; seed: of the noise
    that replaces dust.
    """

    radius: float | None = None
    normalise: Literal["ring", "noise", "none"] = "ring"
    ramp: bool = True
    dust_sigma: float = 6.0
    invert: bool = False
    new_box: int | None = None
    shift_to_centre: bool = False
    edge: Literal["refuse", "pad"] = "refuse"
    least_inside: float = 0.7
    dtype: Literal["float32", "float16"] = "float32"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, value, known in (
            ("normalise", self.normalise, ("ring", "noise", "none")),
            ("edge", self.edge, ("refuse", "pad")),
            ("dtype", self.dtype, ("float32", "float16")),
        ):
            if value not in known:
                raise InputError(f"{name} {value!r}: must be one of {', '.join(known)}")
        if self.dust_sigma < 0:
            raise InputError(f"dust_sigma {self.dust_sigma}: must not be negative; 6 is usual, 0 leaves dust alone")


@dataclass(frozen=True)
class ExtractedParticles:
    """Windows of one micrograph.

    images : float32 or float16 [k, box, box], the kept ones in the order of the coordinates
    kept : bool [m]; reasons : text [m], "none" where kept
    origin_x, origin_y : A [k], rlnOriginXAngst/YAngst: the shift that brings the particle to the centre
    pixel_size : A, after binning, exact
    background_mean, background_std : before normalisation [k]; minimum, maximum : after it [k]
    """

    images: npt.NDArray[np.floating]
    kept: npt.NDArray[np.bool_]
    reasons: npt.NDArray[np.object_]
    origin_x: Float64
    origin_y: Float64
    pixel_size: float
    background_mean: Float64
    background_std: Float64
    minimum: Float64
    maximum: Float64


def extract_particles(
    image: npt.ArrayLike,
    coordinates: npt.ArrayLike,
    box: int,
    pixel_size: float,
    settings: ExtractionSettings | None = None,
    noise: npt.ArrayLike | None = None,
) -> ExtractedParticles:
    """Cut windows of side `box` about particles out of a micrograph.

    Parameters
    ----------
    image : [ny, nx]
    coordinates : [m, 2], x and y of the particles' centres, px, 0-based; the pixel next to it becomes index box // 2
    pixel_size : A
    noise : [box, box], background of `find_noise_windows`; needed for `normalise="noise"`

    Raises
    ------
    InputError : shapes or values that cannot be used; box larger than the micrograph; radius that leaves no
        background; a window that is constant cannot be normalised and is refused with a reason instead
    """
    options = settings or ExtractionSettings()
    data, centres = _checked(image, coordinates, box, pixel_size, options)
    region = Region.of(box, options.radius)
    nearest = np.floor(centres + 0.5).astype(np.int64)
    rest = centres - nearest
    windows, inside = _cut(data, nearest, box)
    reasons = np.full(len(centres), "none", dtype=object)
    if options.edge == "refuse":
        reasons[inside < 1] = TOO_CLOSE
    else:
        reasons[inside < options.least_inside] = TOO_CLOSE
    good = reasons == "none"
    deviation = windows.std(axis=(1, 2), dtype=np.float64)
    reasons[good & ~(deviation > 0)] = "constant window"
    kept = np.asarray(reasons == "none")
    windows, nearest, rest = windows[kept], nearest[kept], rest[kept]
    if options.ramp:
        windows = remove_ramps(windows, region)
    if options.dust_sigma > 0:
        windows = remove_dust(windows, region, options.dust_sigma, options.seed, nearest)
    if options.invert:
        windows = -windows
    origin = -rest
    if options.shift_to_centre and len(windows):
        phases = shift_phases(box, origin[:, 0], origin[:, 1])
        windows = centred_irfft2(centred_rfft2(windows) * phases, box)
        origin = np.zeros_like(origin)
    background = windows[:, region.background].astype(np.float64)
    mean, spread = background.mean(axis=1), background.std(axis=1)
    size, new_region = pixel_size, region
    if options.new_box is not None and options.new_box != box:
        windows = (
            fourier_resize_image(windows, options.new_box)
            if len(windows)
            else windows[:, : options.new_box, : options.new_box]
        )
        size = pixel_size * box / options.new_box
        new_region = Region.of(options.new_box, region.radius * options.new_box / box)
    if options.normalise == "ring":
        windows = normalise_background(windows, new_region)
    elif options.normalise == "noise":
        windows = fit_to_noise(windows, new_region, _noise_window(noise, box, options.new_box))
    _check_range(windows, options.dtype)
    low = windows.min(axis=(1, 2)).astype(np.float64)
    high = windows.max(axis=(1, 2)).astype(np.float64)
    return ExtractedParticles(
        np.ascontiguousarray(windows.astype(options.dtype)),
        kept,
        reasons,
        origin[:, 0] * pixel_size,
        origin[:, 1] * pixel_size,
        size,
        mean,
        spread,
        low,
        high,
    )


def _checked(
    image: npt.ArrayLike, coordinates: npt.ArrayLike, box: int, pixel_size: float, options: ExtractionSettings
) -> tuple[Float32, Float64]:
    data = np.asarray(image, dtype=np.float32)
    centres = np.asarray(coordinates, dtype=np.float64).reshape(-1, 2)
    if data.ndim != 2:
        raise InputError(f"a micrograph needs two dimensions, this one has the shape {data.shape}")
    if box < 8 or box > min(data.shape):
        raise InputError(f"box {box} px: must lie in 8 to the micrograph's smaller side, {min(data.shape)} px")
    if options.new_box is not None and not 8 <= options.new_box <= box:
        raise InputError(f"box {options.new_box} px after binning: must lie in 8 to the box, {box} px")
    if not np.isfinite(pixel_size) or pixel_size <= 0:
        raise InputError(f"pixel size {pixel_size} A: must be positive")
    if not np.isfinite(centres).all():
        raise InputError("a coordinate is NaN or infinite: correct the table of coordinates")
    if not np.isfinite(data).all():
        raise InputError("the micrograph holds NaN or infinite values: repair it or leave it out")
    return data, centres


def _check_range(windows: Float32, dtype: str) -> None:
    if dtype == "float16" and len(windows) and float(np.abs(windows).max()) > 65504:
        raise InputError(
            f"values up to {float(np.abs(windows).max()):g} do not fit into float16 (65504): normalise the windows by ring, or "
            "write float32"
        )


def _cut(data: Float32, centres: npt.NDArray[np.int64], box: int) -> tuple[Float32, Float64]:
    """Windows [m, box, box] about pixels (x, y), filled by the mean of their inner part, and the share that lies
    inside."""
    windows = np.zeros((len(centres), box, box), dtype=np.float32)
    share = np.zeros(len(centres))
    ny, nx = data.shape
    for i, (x, y) in enumerate(centres):
        y0, x0 = int(y) - box // 2, int(x) - box // 2
        a, b, c, d = max(y0, 0), min(y0 + box, ny), max(x0, 0), min(x0 + box, nx)
        if a >= b or c >= d:
            continue
        part = data[a:b, c:d]
        share[i] = part.size / box**2
        if share[i] < 1:
            windows[i] = part.mean(dtype=np.float64)
        windows[i, a - y0 : b - y0, c - x0 : d - x0] = part
    return windows, share


def _noise_window(noise: npt.ArrayLike | None, box: int, new_box: int | None) -> Float32:
    if noise is None:
        raise InputError(
            "normalising to noise needs a noise window: make one by find_noise_windows or normalise by 'ring'"
        )
    window = np.asarray(noise, dtype=np.float32)
    if window.shape != (box, box):
        raise InputError(f"the noise window has the shape {window.shape}, the box is {box}: make it with the same box")
    return fourier_resize_image(window, new_box) if new_box is not None and new_box != box else window


def centre_by_rotational_average(
    image: npt.ArrayLike, coordinates: npt.ArrayLike, box: int, rounds: int = 20, tolerance: float = 0.25
) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """Centre picks on their own rotational averages, as SPIDER's `pick` does (for picks by a blob).

    Each window is correlated with its rotational average, moved by the shift of the correlation's maximum, cut
    again, and so on until it stands still. A pick that would move by more than box / 4 from where it was stays there
    and is marked.

    Parameters
    ----------
    image : [ny, nx]; coordinates : [m, 2] (x, y), px; tolerance : px, a smaller move ends the rounds

    Returns
    -------
    coordinates [m, 2], and bool [m], True where the pick was centred
    """
    data, start = _checked(image, coordinates, box, 1.0, ExtractionSettings())
    centres, moving = start.copy(), np.ones(len(start), dtype=bool)
    axis = np.arange(box) - box // 2
    radius = np.hypot(axis[:, None], axis[None, :])
    ring = np.minimum(np.rint(radius).astype(np.int64), box // 2).ravel()
    # Less the mean beyond the box's inner circle, with a soft edge: neighbours in the corners would pull
    taper = 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - 0.35 * box) / (0.13 * box), 0, 1))
    counts = np.bincount(ring)
    lost = np.zeros(len(start), dtype=bool)
    for _ in range(rounds):
        active = np.nonzero(moving)[0]
        if not len(active):
            break
        nearest = np.floor(centres[active] + 0.5).astype(np.int64)
        windows = _cut(data, nearest, box)[0]
        windows = (windows - windows.mean(axis=(1, 2), keepdims=True)) * taper.astype(np.float32)
        for i, window in zip(active, windows, strict=True):
            average = (np.bincount(ring, window.ravel()) / counts)[ring].reshape(box, box).astype(np.float32)
            shift = _best_shift(window, average, box // 4)
            target = np.floor(centres[i] + 0.5) + shift
            if np.hypot(*(target - start[i])) > box / 4:
                lost[i], moving[i] = True, False
                centres[i] = start[i]
                continue
            moving[i] = bool(np.hypot(*shift) > max(tolerance, 0.5))
            centres[i] = target
    return centres, ~lost


def _best_shift(window: Float32, average: Float32, reach: int) -> Float64:
    """(x, y) of the maximum of the correlation of `window` with `average`, by a parabola, within +-reach px."""
    box = window.shape[0]
    correlation = centred_irfft2(centred_rfft2(window) * np.conj(centred_rfft2(average)), box)
    c, r = box // 2, max(min(reach, box // 2 - 2), 1)
    part = correlation[c - r : c + r + 1, c - r : c + r + 1]
    y, x = np.unravel_index(int(part.argmax()), part.shape)
    y, x = int(y) + c - r, int(x) + c - r
    offsets = []
    for low, mid, high in (
        (correlation[y, x - 1], correlation[y, x], correlation[y, x + 1]),
        (correlation[y - 1, x], correlation[y, x], correlation[y + 1, x]),
    ):
        curve = float(low - 2 * mid + high)
        offsets.append(float(np.clip(0.5 * (low - high) / curve, -0.5, 0.5)) if curve < 0 else 0.0)
    return np.array([x - c + offsets[0], y - c + offsets[1]])


def lowpass_windows(stack: npt.ArrayLike, defocus: float, high_defocus: float = 20000.0) -> Float32:
    """Low-pass windows for looking at them, as SPIDER's `pfilt`: Butterworth with bands that follow the defocus.

    Parameters
    ----------
    stack : [m, box, box]; defocus : A; from `high_defocus` on the bands are 0.05 and 0.3 of the sampling frequency,
        below 0.02 and 0.15

    Raises
    ------
    InputError : not a stack of square images
    """
    data = np.asarray(stack, dtype=np.float32)
    if data.ndim != 3 or data.shape[1] != data.shape[2]:
        raise InputError(f"a stack of square images is needed, not the shape {data.shape}")
    bands = (0.05, 0.3) if defocus >= high_defocus else (0.02, 0.15)
    return np.stack([butterworth(image, *bands) for image in data]) if len(data) else data.copy()
