"""A micrograph made ready for picking: mended, outliers clipped, plane removed, binned by Fourier cropping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fast_sides import fast_side
from nephila.fourier import irfft2, rfft2
from nephila.micrograph_repair import repair_micrograph

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BinnedMicrograph:
    """A binned micrograph.

    image : float32 [ny, nx], mean 0 and standard deviation 1 (of the middle of its values)
    scale_y, scale_x : px of the micrograph as given per px of this one; index i here is index i * scale there
    pixel_size : A, the mean of both axes
    """

    image: Float32
    scale_y: float
    scale_x: float
    pixel_size: float


def check_micrograph(image: npt.ArrayLike, pixel_size: float, diameter: float) -> Float32:
    """The micrograph as a contiguous float32 array, mended (`repair_micrograph`); InputError where it cannot be picked."""
    data = np.ascontiguousarray(image, dtype=np.float32)
    if data.ndim != 2:
        raise InputError(f"a micrograph needs two dimensions, this one has the shape {data.shape}")
    if not np.isfinite(pixel_size) or pixel_size <= 0:
        raise InputError(f"pixel size {pixel_size} A: must be positive")
    if not np.isfinite(diameter) or diameter <= 0:
        raise InputError(f"particle diameter {diameter} A: must be positive")
    if diameter < 6 * pixel_size:
        raise InputError(
            f"particle diameter {diameter:g} A is {diameter / pixel_size:.1f} px of {pixel_size:g} A: "
            "picking needs at least 6 px"
        )
    side = min(data.shape) * pixel_size
    if side < 2 * diameter:
        raise InputError(
            f"micrograph of {data.shape[1]} x {data.shape[0]} px ({side:.0f} A) is smaller than "
            f"two particle diameters of {diameter:g} A"
        )
    if not np.isfinite(data.sum(dtype=np.float64)):
        count = int(np.count_nonzero(~np.isfinite(data)))
        raise InputError(f"{count} of {data.size} pixels are NaN or infinite: repair the micrograph or leave it out")
    mended = repair_micrograph(data)
    if mended.problem is not None:
        raise InputError(f"{mended.problem} ({int(data.size * mended.replaced)} of {data.size} px): leave it out")
    return mended.image


def centre_and_spread(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Median and robust standard deviation (from the quartiles)."""
    low, middle, high = np.percentile(values, [25.0, 50.0, 75.0])
    return float(middle), float((high - low) / 1.349)


def clip_outliers(image: Float32, sigma: float) -> Float32:
    """Copy with values beyond `sigma` robust standard deviations of the median clipped; InputError where nothing
    varies."""
    step = max(min(image.shape) // 256, 1)
    middle, spread = centre_and_spread(image[::step, ::step])
    if spread <= 0:
        spread = float(image.std(dtype=np.float64))
    if spread <= 1e-6 * max(abs(middle), 1e-30):
        raise InputError(f"the micrograph is constant (all values near {middle:g}): leave it out")
    return np.clip(image, middle - sigma * spread, middle + sigma * spread)


def remove_plane(image: Float32, block: int = 16) -> Float32:
    """Image less the plane that fits the means of its blocks of `block` px best."""
    ny, nx = (image.shape[0] // block) * block, (image.shape[1] // block) * block
    if ny < 3 * block or nx < 3 * block:
        return image - image.mean(dtype=np.float64).astype(np.float32)
    means = image[:ny, :nx].reshape(ny // block, block, nx // block, block).mean(axis=(1, 3), dtype=np.float32)
    y = (np.arange(means.shape[0]) + 0.5) * block - 0.5
    x = (np.arange(means.shape[1]) + 0.5) * block - 0.5
    yc, xc = y - y.mean(), x - x.mean()
    mean = means.mean(dtype=np.float64)
    slope_y = float((means.mean(axis=1, dtype=np.float64) * yc).sum() / (yc**2).sum())
    slope_x = float((means.mean(axis=0, dtype=np.float64) * xc).sum() / (xc**2).sum())
    rows = (slope_y * (np.arange(image.shape[0]) - y.mean()) + mean).astype(np.float32)
    columns = (slope_x * (np.arange(image.shape[1]) - x.mean())).astype(np.float32)
    out = image - rows[:, None]
    out -= columns[None, :]
    return out


def fourier_crop_image(
    transform: npt.NDArray[np.complex64], shape: tuple[int, int], new_shape: tuple[int, int]
) -> Float32:
    """Image of `new_shape` from the half transform of one of `shape`, both (ny, nx), none larger; pixel (0, 0) stays
    put."""
    ky, kx = ((n - 1) // 2 for n in new_shape)
    out = np.zeros((new_shape[0], new_shape[1] // 2 + 1), dtype=np.complex64)
    out[: ky + 1, : kx + 1] = transform[: ky + 1, : kx + 1]
    if ky:
        out[-ky:, : kx + 1] = transform[-ky:, : kx + 1]
    out *= np.float32(new_shape[0] * new_shape[1] / (shape[0] * shape[1]))
    return irfft2(out, new_shape[1])


class MicrographBinner:
    """Bins one micrograph to several pixel sizes from one transform."""

    def __init__(self, image: Float32, pixel_size: float, outlier_sigma: float) -> None:
        self.shape = (int(image.shape[0]), int(image.shape[1]))
        self.pixel_size = pixel_size
        flat = remove_plane(clip_outliers(image, outlier_sigma))
        # Odd sizes with large prime factors cost a slow transform; mirror-free padding by zeros (the mean) avoids it
        padded = tuple(fast_side(n) for n in self.shape)
        self._grid = (int(padded[0]), int(padded[1]))
        if self._grid != self.shape:
            whole = np.zeros(self._grid, dtype=np.float32)
            whole[: self.shape[0], : self.shape[1]] = flat
            flat = whole
        self._transform = rfft2(flat)

    def binned(self, target_pixel_size: float) -> BinnedMicrograph:
        """The micrograph at about `target_pixel_size` (A), never finer than it was given."""
        factor = max(target_pixel_size / self.pixel_size, 1.0)
        new = tuple(max(round(n / factor / 2) * 2, 4) if factor > 1 else n for n in self._grid)
        grid = (min(int(new[0]), self._grid[0]), min(int(new[1]), self._grid[1]))
        scale_y, scale_x = self._grid[0] / grid[0], self._grid[1] / grid[1]
        image = fourier_crop_image(self._transform, self._grid, grid)
        rows, columns = int((self.shape[0] - 1) / scale_y) + 1, int((self.shape[1] - 1) / scale_x) + 1
        image = np.ascontiguousarray(image[:rows, :columns])
        step = max(min(image.shape) // 256, 1)
        middle, spread = centre_and_spread(image[::step, ::step])
        image = (image - np.float32(middle)) / np.float32(max(spread, 1e-20))
        return BinnedMicrograph(image, scale_y, scale_x, self.pixel_size * 0.5 * (scale_y + scale_x))
