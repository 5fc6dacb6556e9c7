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
    is shifted away (by phases) rather than recorded; seed: of the noise that replaces dust.
    """

    radius: float | None = None
    normalise: Literal["ring", "noise", "none"] = "ring"
    ramp: bool = True
    dust_sigma: float = 6.0
    invert: bool = False
    new_box: int | None = None
    shift_to_centre: bool = False
    dtype: Literal["float32", "float16"] = "float32"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, value, known in (
            ("normalise", self.normalise, ("ring", "noise", "none")),
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
    reasons[~inside] = TOO_CLOSE
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


def _cut(data: Float32, centres: npt.NDArray[np.int64], box: int) -> tuple[Float32, npt.NDArray[np.bool_]]:
    """Windows [m, box, box] about pixels (x, y), and whether each lies inside; 0 where it does not."""
    windows = np.zeros((len(centres), box, box), dtype=np.float32)
    x0, y0 = (centres - box // 2).T
    inside = (x0 >= 0) & (y0 >= 0) & (x0 + box <= data.shape[1]) & (y0 + box <= data.shape[0])
    for i in np.flatnonzero(inside):
        windows[i] = data[y0[i] : y0[i] + box, x0[i] : x0[i] + box]
    return windows, np.asarray(inside)


def _noise_window(noise: npt.ArrayLike | None, box: int, new_box: int | None) -> Float32:
    if noise is None:
        raise InputError(
            "normalising to noise needs a noise window: make one by find_noise_windows or normalise by 'ring'"
        )
    window = np.asarray(noise, dtype=np.float32)
    if window.shape != (box, box):
        raise InputError(f"the noise window has the shape {window.shape}, the box is {box}: make it with the same box")
    return fourier_resize_image(window, new_box) if new_box is not None and new_box != box else window


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
