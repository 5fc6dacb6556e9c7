"""The one place where Fourier transforms are made, and what is done with them shell by shell.

All go through FFTW by way of pyfftw: images one by one, volumes section by section and then along z. Plans are those of the wisdom
file that NEPHILA_FFT_WISDOM names (`nephila.fft_wisdom`), else estimated, and never measured here: timing would choose other plans,
and other last bits, from run to run. float32 in, complex64 out.

Layouts: half transforms are numpy's (origin at [0, 0], last axis n // 2 + 1). "Centred" transforms have the image's centre
n // 2 moved to index 0 first, so that a centred object has no phase ramp.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fft_wisdom import column_plan, image_plan
from nephila.fft_wisdom import load as load_wisdom

Float32 = npt.NDArray[np.float32]
Complex64 = npt.NDArray[np.complex64]


def rfft2(images: npt.ArrayLike) -> Complex64:
    """Half transforms [..., ny, nx // 2 + 1] of real images [..., ny, nx]."""
    data = np.asarray(images, dtype=np.float32)
    stack = data.reshape(-1, *data.shape[-2:])
    out = np.empty((*stack.shape[:-1], stack.shape[-1] // 2 + 1), dtype=np.complex64)
    if stack.size:
        plan = _plan(stack.shape[-2], stack.shape[-1], forward=True)
        for i in range(len(stack)):
            plan.input_array[:] = stack[i]
            plan.execute()
            out[i] = plan.output_array
    return out.reshape(*data.shape[:-1], -1) if stack.size else out.reshape(*data.shape[:-1], out.shape[-1])


def irfft2(transforms: npt.ArrayLike, nx: int, out: Float32 | None = None) -> Float32:
    """Real images [..., ny, nx] of half transforms [..., ny, nx // 2 + 1]; the inverse of `rfft2`.

    out : where to put them, contiguous float32; new memory costs a large stack a tenth of the time
    """
    data = np.asarray(transforms, dtype=np.complex64)
    if data.shape[-1] != nx // 2 + 1:
        raise InputError(f"a half transform of {data.shape[-1]} columns does not belong to images of {nx} columns")
    stack = data.reshape(-1, *data.shape[-2:])
    images = np.empty((*data.shape[:-1], nx), dtype=np.float32) if out is None else out
    target = images.reshape(*stack.shape[:-1], nx)
    if stack.size:
        plan = _plan(stack.shape[-2], nx, forward=False)
        scale = np.float32(1.0 / (stack.shape[-2] * nx))
        for i in range(len(stack)):
            plan.input_array[:] = stack[i]
            plan.execute()
            np.multiply(plan.output_array, scale, out=target[i])
    return images


_plans = threading.local()
_planning = threading.Lock()


def _plan(ny: int, nx: int, forward: bool) -> Any:
    """A plan for one image, kept per thread (a plan owns its buffers)."""
    cache = _plans.__dict__.setdefault("cache", {})
    key = (ny, nx, forward)
    if key not in cache:
        cache[key] = _new_plan(ny, nx, forward)
    return cache[key]


def _new_plan(ny: int, nx: int, forward: bool) -> Any:
    with _planning:  # FFTW's planner is not safe for threads
        if _wisdom_is_there():
            try:
                return image_plan(ny, nx, forward, ("FFTW_MEASURE", "FFTW_WISDOM_ONLY"))
            except RuntimeError:  # this side was not planned
                pass
        return image_plan(ny, nx, forward, ("FFTW_ESTIMATE",))


@lru_cache(maxsize=1)
def _wisdom_is_there() -> bool:
    return load_wisdom()


def rfftn(volume: npt.ArrayLike, threads: int = 1) -> Complex64:
    """Half transform [nz, ny, nx // 2 + 1] of a real volume [nz, ny, nx]. The same bytes for any number of threads."""
    data = np.asarray(volume, dtype=np.float32)
    half = np.empty((*data.shape[:-1], data.shape[-1] // 2 + 1), dtype=np.complex64)

    def sections(part: slice) -> None:
        half[part] = rfft2(data[part])

    _in_parts(sections, len(half), threads)
    _transform_along_z(half, half, threads)
    return half


def irfftn(transform: npt.ArrayLike, nx: int, threads: int = 1) -> Float32:
    """Real volume [nz, ny, nx] of a half transform [nz, ny, nx // 2 + 1]; the inverse of `rfftn`."""
    data = np.asarray(transform, dtype=np.complex64)
    half = np.empty_like(data)
    _transform_along_z(data, half, threads, forward=False)
    volume = np.empty((*half.shape[:-1], nx), dtype=np.float32)

    def sections(part: slice) -> None:
        irfft2(half[part], nx, out=volume[part])

    _in_parts(sections, len(half), threads)
    return volume


def padded_rfftn(volume: npt.ArrayLike, side: int, threads: int = 1) -> Complex64:
    """Half transform [side, side, side // 2 + 1] of a volume [n, n, n] padded with zeros, about the volume's centre n // 2.

    What is zero is not transformed and needs no memory.
    """
    data = np.asarray(volume, dtype=np.float32)
    n = len(data)
    if side <= n:
        raise InputError(f"a volume of side {n} cannot be padded to {side}")
    middle, end = n // 2, side - n // 2
    half = np.empty((n, side, side // 2 + 1), dtype=np.complex64)

    def sections(part: slice) -> None:
        plan = _plan(side, side, forward=True)
        field = plan.input_array
        field[:] = 0.0
        for z in range(part.start, part.stop):
            field[: n - middle, : n - middle], field[: n - middle, end:] = (
                data[z, middle:, middle:],
                data[z, middle:, :middle],
            )
            field[end:, : n - middle], field[end:, end:] = data[z, :middle, middle:], data[z, :middle, :middle]
            plan.execute()
            half[z] = plan.output_array

    _in_parts(sections, n, threads)
    whole = np.empty((side, *half.shape[1:]), dtype=np.complex64)
    _transform_along_z(half, whole, threads)
    return whole


def cropped_irfftn(transform: npt.ArrayLike, n: int, threads: int = 1) -> Float32:
    """The middle [n, n, n] of the volume of a half transform [side, side, side // 2 + 1], side even; centre at n // 2.

    The inverse of `padded_rfftn`; what is cut off is not made.
    """
    data = np.asarray(transform, dtype=np.complex64)
    side = len(data)
    if n >= side:
        raise InputError(f"a volume of side {side} cannot be cropped to {n}")
    middle, end = n // 2, side - n // 2
    half = np.empty((n, *data.shape[1:]), dtype=np.complex64)
    _transform_along_z(data, half, threads, forward=False)
    volume = np.empty((n, n, n), dtype=np.float32)
    scale = np.float32(1.0 / side**2)

    def sections(part: slice) -> None:
        plan = _plan(side, side, forward=False)
        for z in range(part.start, part.stop):
            plan.input_array[:] = half[z]
            plan.execute()
            field, out = plan.output_array, volume[z]
            out[middle:, middle:], out[middle:, :middle] = field[: n - middle, : n - middle], field[: n - middle, end:]
            out[:middle, middle:], out[:middle, :middle] = field[end:, : n - middle], field[end:, end:]
            out *= scale

    _in_parts(sections, n, threads)
    return volume


def _transform_along_z(source: Complex64, target: Complex64, threads: int, forward: bool = True) -> None:
    """Transform along the first axis, from [z, ny, m] to [z', ny, m]; backward with the factor 1 / z.

    The shorter one of two that differ in length holds the middle of the longer one, whose centre is at index 0. One y after
    the other, as columns of a small array that stays in the cache: FFTW's own plan for a volume strides through all of it,
    two to eight times slower at 256 and 512.
    """
    length = max(len(source), len(target))
    scale = np.float32(1.0 if forward else 1.0 / length)
    from_rows, to_rows = (_middle_rows(len(array), length) for array in (source, target))

    def columns(part: slice) -> None:
        with _planning:
            _wisdom_is_there()  # read before any plan, which may hold parts of it
            plan = column_plan(length, source.shape[2], forward)
        buffer = plan.input_array
        for y in range(part.start, part.stop):
            if len(source) < length:
                buffer[:] = 0.0
            for inside, outside in from_rows:
                np.multiply(source[inside, y], scale, out=buffer[outside])
            plan.execute()
            for inside, outside in to_rows:
                target[inside, y] = buffer[outside]

    _in_parts(columns, source.shape[1], threads)


def _middle_rows(n: int, length: int) -> list[tuple[slice, slice]]:
    """Where the rows of an array of `n` stand in one of `length` that has the other's centre n // 2 at index 0."""
    if n == length:
        return [(slice(None), slice(None))]
    middle = n // 2
    return [(slice(middle, n), slice(0, n - middle)), (slice(0, middle), slice(length - middle, length))]


def _in_parts(work: Callable[[slice], None], length: int, threads: int) -> None:
    """Do `work` on slices that together are 0 to `length`, one for each thread."""
    edges = np.linspace(0, length, max(1, min(threads, length)) + 1).astype(int)
    parts = [slice(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    if len(parts) == 1:
        work(parts[0])
        return
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(work, parts))


def centred_rfft2(images: npt.ArrayLike) -> Complex64:
    """Half transforms of images [..., ny, nx] about their centre (ny // 2, nx // 2)."""
    data = np.asarray(images, dtype=np.float32)
    ny, nx = data.shape[-2:]
    stack = data.reshape(-1, ny, nx)
    out = np.empty((len(stack), ny, nx // 2 + 1), dtype=np.complex64)
    if stack.size:
        plan = _plan(ny, nx, forward=True)
        for image, transform in zip(stack, out, strict=True):
            for centred, plain in _quadrants(ny, nx):
                plan.input_array[centred] = image[plain]
            plan.execute()
            transform[:] = plan.output_array
    return out.reshape(*data.shape[:-1], nx // 2 + 1)


def centred_irfft2(transforms: npt.ArrayLike, nx: int) -> Float32:
    """Images [..., ny, nx] of centred half transforms; the inverse of `centred_rfft2`."""
    return np.ascontiguousarray(np.fft.fftshift(irfft2(transforms, nx), axes=(-2, -1)))


@lru_cache(maxsize=16)
def _quadrants(ny: int, nx: int) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Where an image's quadrants stand once its centre (ny // 2, nx // 2) is at [0, 0], and where before."""

    def parts(n: int) -> list[tuple[slice, slice]]:
        middle = n // 2
        return [(slice(0, n - middle), slice(middle, n)), (slice(n - middle, n), slice(0, middle))]

    return [((row, column), (y, x)) for row, y in parts(ny) for column, x in parts(nx)]


def centred_rfftn(volume: npt.ArrayLike, threads: int = 1) -> Complex64:
    """Half transform of a volume about its centre voxel (n // 2 on each axis)."""
    return rfftn(np.fft.ifftshift(np.asarray(volume, dtype=np.float32)), threads)


def centred_irfftn(transform: npt.ArrayLike, nx: int, threads: int = 1) -> Float32:
    """Volume of a centred half transform; the inverse of `centred_rfftn`."""
    return np.ascontiguousarray(np.fft.fftshift(irfftn(transform, nx, threads)))


@lru_cache(maxsize=16)
def frequency_radius_2d(n: int) -> Float32:
    """|k| in Fourier pixels on the half transform of an image of side n: [n, n // 2 + 1]."""
    ky, kx = np.fft.fftfreq(n, 1 / n)[:, None], np.arange(n // 2 + 1)[None, :]
    return _frozen(np.sqrt(kx**2 + ky**2).astype(np.float32))


@lru_cache(maxsize=4)
def frequency_radius_3d(n: int) -> Float32:
    """|k| in Fourier pixels on the half transform of a volume of side n: [n, n, n // 2 + 1]."""
    k = np.fft.fftfreq(n, 1 / n)
    kx = np.arange(n // 2 + 1)
    return _frozen(np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + kx[None, None, :] ** 2).astype(np.float32))


def _frozen(array: Any) -> Any:
    array.setflags(write=False)
    return array


@lru_cache(maxsize=16)
def shell_index_2d(n: int) -> npt.NDArray[np.int32]:
    """Shell round(|k|) of each sample of the half transform of an image of side n."""
    return _frozen(np.rint(frequency_radius_2d(n)).astype(np.int32))  # type: ignore[no-any-return]


@lru_cache(maxsize=4)
def shell_index_3d(n: int) -> npt.NDArray[np.int32]:
    """Shell round(|k|) of each sample of the half transform of a volume of side n."""
    return _frozen(np.rint(frequency_radius_3d(n)).astype(np.int32))  # type: ignore[no-any-return]


@lru_cache(maxsize=16)
def half_weights(nx: int) -> Float32:
    """How often each column of a half transform stands in the whole one: 1 for kx = 0 (and nx / 2 where nx is even), else 2."""
    weights = np.full(nx // 2 + 1, 2.0, dtype=np.float32)
    weights[0] = 1
    if nx % 2 == 0:
        weights[-1] = 1
    return _frozen(weights)  # type: ignore[no-any-return]


def radial_average(values: npt.ArrayLike, n: int) -> npt.NDArray[np.float64]:
    """Average of real values on a half transform ([n, n // 2 + 1] or [n, n, n // 2 + 1]) over shells 0 to n // 2.

    Samples count as often as they stand in the whole transform; corners beyond n // 2 are left out.
    """
    data = np.asarray(values)
    shells = shell_index_2d(n) if data.ndim == 2 else shell_index_3d(n)
    if data.shape != shells.shape:
        raise InputError(f"values of shape {data.shape} are not a half transform of side {n}")
    weights = np.broadcast_to(half_weights(n), data.shape).ravel()
    length = n // 2 + 1
    index = shells.ravel()
    total = np.bincount(index, weights=data.ravel() * weights, minlength=length)[:length]
    count = np.bincount(index, weights=weights, minlength=length)[:length]
    return total / np.maximum(count, 1)


def shift_phases(n: int, shift_x: npt.ArrayLike, shift_y: npt.ArrayLike) -> Complex64:
    """Phases exp(-2 pi i k.s / n) that move images of side n by (shift_x, shift_y) pixels towards larger indices.

    Shapes [...] of the shifts broadcast; the result is complex64 [..., n, n // 2 + 1].
    """
    ky = np.fft.fftfreq(n)[:, None]
    kx = np.arange(n // 2 + 1)[None, :] / n
    sx, sy = (np.asarray(s, dtype=np.float64)[..., None, None] for s in (shift_x, shift_y))
    return np.exp(-2j * np.pi * (kx * sx + ky * sy)).astype(np.complex64)


def fourier_resize_image(images: npt.ArrayLike, new_n: int) -> Float32:
    """Resample square images [..., n, n] to side `new_n` by cropping or padding their centred transforms.

    The centre (n // 2) stays the centre and values keep their scale; the pixel size becomes pixel_size * n / new_n exactly.
    """
    data = np.asarray(images, dtype=np.float32)
    n = data.shape[-1]
    if data.shape[-2] != n:
        raise InputError(f"square images are needed, not {data.shape[-2:]}")
    if new_n == n:
        return data.copy()
    full = centred_rfft2(data)
    small = min(n, new_n)
    keep = (small - 1) // 2  # without the Nyquist row, whose sign is undefined once the side changes
    out = np.zeros((*data.shape[:-2], new_n, new_n // 2 + 1), dtype=np.complex64)
    rows = np.r_[0 : keep + 1, -keep:0] if keep else np.array([0])
    out[..., rows[:, None], np.arange(keep + 1)] = full[..., rows[:, None], np.arange(keep + 1)]
    return centred_irfft2(out * np.float32((new_n / n) ** 2), new_n)


def _half_transform(data: Float32) -> tuple[Complex64, Float32]:
    n = data.shape[-1] if data.ndim else 0
    if data.ndim not in (2, 3) or data.shape != (n,) * data.ndim:
        raise InputError(f"a square image or cubic volume is needed, not an array of shape {data.shape}")
    if data.ndim == 2:
        return rfft2(data), frequency_radius_2d(n)
    return rfftn(data), frequency_radius_3d(n)


def filter_shells(data: npt.ArrayLike, weights: npt.ArrayLike) -> Float32:
    """Multiply the transform of a square image or cubic volume by weights at shells 0, 1, 2 ... (interpolated; last beyond)."""
    array = np.asarray(data, dtype=np.float32)
    transform, radius = _half_transform(array)
    curve = np.asarray(weights, dtype=np.float64)
    transform *= np.interp(radius, np.arange(len(curve)), curve).astype(np.float32)
    return irfft2(transform, array.shape[-1]) if array.ndim == 2 else irfftn(transform, array.shape[-1])


def lowpass(data: npt.ArrayLike, pixel_size: float, resolution: float, width_shells: float = 3.0) -> Float32:
    """Low-pass a square image or cubic volume at `resolution` (A) with a raised-cosine edge of `width_shells` shells."""
    array = np.asarray(data, dtype=np.float32)
    n = array.shape[-1]
    if not (pixel_size > 0 and resolution > 0):
        raise InputError(f"low-pass at resolution {resolution} A with pixel size {pixel_size} A: both must be positive")
    cutoff = n * pixel_size / resolution
    shells = np.arange(n, dtype=np.float64)
    ramp = np.clip((shells - (cutoff - width_shells / 2)) / max(width_shells, 1e-6), 0, 1)
    return filter_shells(array, 0.5 + 0.5 * np.cos(np.pi * ramp))


def butterworth(data: npt.ArrayLike, pass_band: float, stop_band: float) -> Float32:
    """Low-pass a square image or cubic volume by `butterworth_weights`."""
    array = np.asarray(data, dtype=np.float32)
    return filter_shells(array, butterworth_weights(array.shape[-1], pass_band, stop_band))


def butterworth_weights(n: int, pass_band: float, stop_band: float) -> npt.NDArray[np.float64]:
    """SPIDER's Butterworth low-pass (FQ, option 7) by shell 0 to n - 1: 0.8 at about `pass_band`, 0.1 at `stop_band` (fractions of
    sampling).

    order = 2 log10(0.882 / sqrt(10.624^2 - 1)) / log10(pass / stop), radius = pass / 0.882^(2 / order),
    weight = 1 / sqrt(1 + (f / radius)^order).
    """
    if not 0 < pass_band < stop_band:
        raise InputError(
            f"Butterworth bands {pass_band} and {stop_band}: the pass band must be positive and below the stop band"
        )
    epsilon, attenuation = 0.882, 10.624
    order = 2 * np.log10(epsilon / np.sqrt(attenuation**2 - 1)) / np.log10(pass_band / stop_band)
    radius = pass_band / epsilon ** (2 / order)
    weights: npt.NDArray[np.float64] = 1 / np.sqrt(1 + (np.arange(n) / n / radius) ** order)
    return weights
