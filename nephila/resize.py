"""SPIDER's resizevol: a volume from its own pixel size and box to the project's, without moving its centre."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

SAME = 1e-6  # pixel sizes whose ratio is this close to 1 are equal: no resampling


def resize_volume(
    volume: npt.ArrayLike, old_pixel_size: float, new_pixel_size: float, new_box: int
) -> tuple[Float32, float]:
    """Resample a cubic volume to another pixel size and box.

    Band-limited interpolation at any ratio: each new voxel is the value there of the trigonometric polynomial through
    the old ones, without what lies beyond the coarser of the two Nyquist frequencies. Values keep their scale. The
    centre, index n // 2 of the old box, becomes index new_box // 2, for odd and even boxes in any combination. Voxels
    outside the old box get the average over its border.

    Parameters
    ----------
    volume : [n, n, n]
    old_pixel_size, new_pixel_size : A
    new_box : px

    Returns
    -------
    volume : float32 [new_box, new_box, new_box]
    pixel_size : A, of the result: `new_pixel_size` exactly (or the old one where they differ by less than 1e-6)

    Raises
    ------
    InputError
        The volume is not cubic, not finite or smaller than 4; a pixel size or box is not positive.
    """
    data = np.asarray(volume, dtype=np.float32)
    if data.ndim != 3 or len(set(data.shape)) != 1 or data.shape[0] < 4:
        raise InputError(f"resize: a cubic volume of side 4 or more is needed, not one of shape {data.shape} (z, y, x)")
    for name, size in (("old", old_pixel_size), ("new", new_pixel_size)):
        if not 0 < size < np.inf:
            raise InputError(f"resize: the {name} pixel size is {size} A; it must be positive")
    if new_box < 1 or new_box != int(new_box):
        raise InputError(f"resize: a box of {new_box} px; give a whole number above 0")
    if not np.isfinite(data).all():
        raise InputError("resize: the volume holds NaN or infinite values")
    ratio = new_pixel_size / old_pixel_size
    if abs(ratio - 1) < SAME:
        return pad_or_window(data, new_box), float(old_pixel_size)
    border = border_average(data)
    inside, matrix = _interpolation(data.shape[0], ratio, new_box)
    out = data - border
    for axis in range(3):
        out = np.moveaxis(np.tensordot(matrix, out, axes=(1, axis)), 0, axis)
    whole = np.full((new_box,) * 3, border, dtype=np.float32)
    whole[inside, inside, inside] = out + border
    return whole, float(new_pixel_size)


def resize_images(images: npt.ArrayLike, old_pixel_size: float, new_pixel_size: float, new_box: int) -> Float32:
    """Images [m, n, n] at another pixel size (A) and box, as `resize_volume` does it; each border is continued by its average."""
    data = np.asarray(images, dtype=np.float32)
    if data.ndim != 3 or data.shape[1] != data.shape[2] or data.shape[1] < 4:
        raise InputError(f"resize: square images of side 4 or more are needed, not {data.shape}")
    inside, matrix = _interpolation(data.shape[1], new_pixel_size / old_pixel_size, new_box)
    rim = np.concatenate(
        [data[:, [0, -1], :].reshape(len(data), -1), data[:, 1:-1, [0, -1]].reshape(len(data), -1)], axis=1
    )
    border = rim.mean(axis=1, dtype=np.float64).astype(np.float32)[:, None, None]
    whole = np.broadcast_to(border, (len(data), new_box, new_box)).copy()
    whole[:, inside, inside] += np.einsum("ay,myx,bx->mab", matrix, data - border, matrix, optimize=True)
    return whole


def pad_or_window(volume: npt.ArrayLike, new_box: int) -> Float32:
    """Change the box of a cubic volume [n, n, n] without resampling: cut, or pad with the border's average.

    The centre n // 2 becomes new_box // 2.
    """
    data = np.asarray(volume, dtype=np.float32)
    n = data.shape[0]
    out = np.full((new_box,) * 3, border_average(data), dtype=np.float32)
    shift = new_box // 2 - n // 2
    to = slice(max(shift, 0), min(n + shift, new_box))
    start = slice(to.start - shift, to.stop - shift)
    out[to, to, to] = data[start, start, start]
    return out


def border_average(volume: Float32) -> float:
    """Mean over the voxels on the six faces of a volume."""
    total, count = float(volume.sum(dtype=np.float64)), volume.size
    core = volume[1:-1, 1:-1, 1:-1]
    return (total - float(core.sum(dtype=np.float64))) / (count - core.size)


def _interpolation(n: int, ratio: float, new_box: int) -> tuple[slice, Float32]:
    """New indices that lie in the old box, and the matrix [those, n] that interpolates them along one axis.

    The rows are Dirichlet kernels over a period of at least 2 n: the object is isolated, its copies stay out of reach.
    """
    place = (np.arange(new_box) - new_box // 2) * ratio + n // 2
    within = np.flatnonzero((place >= -0.5) & (place <= n - 0.5))
    inside = slice(int(within[0]), int(within[-1]) + 1)
    period = 2 * n
    highest = int(np.ceil(period / 2 / max(ratio, 1.0))) - 1  # strictly below the coarser Nyquist frequency
    distance = place[inside, None] - np.arange(n)[None, :]
    angle = np.pi * distance / period
    near = np.abs(np.sin(angle)) < 1e-9
    safe = np.where(near, 1.0, np.sin(angle))
    kernel = np.where(near, 2 * highest + 1.0, np.sin((2 * highest + 1) * angle) / safe) / period
    return inside, kernel.astype(np.float32)
