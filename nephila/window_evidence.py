"""Whether windows hold a particle at all, told without a reference: density and details in their middle against their rim."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fourier import irfft2, rfft2
from nephila.picking.blob import blob_kernel
from nephila.picking.settings import BlobSettings
from nephila.picking.texture import disk_and_ring

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_BLOCK = 128
_NOISE_WINDOWS = 256
_RING = 2.0
_DISK = 0.71
_CAP = 5.0


def window_evidence(windows: npt.ArrayLike, pixel_size: float, diameter: float) -> Float64:
    """Evidence for a particle in the middle of each window [m], in standard deviations of what white noise gives.

    The sum of two responses: that of a difference of Gaussians of the particle's size, and that of the power of details
    (from 0.6 diameters to 18 A, or Nyquist) over the particle's disk less the ring around it. 0 for windows that are
    constant.

    Parameters
    ----------
    windows : [m, n, n], protein bright; pixel_size, diameter : A

    Raises
    ------
    InputError : not a stack of square images
    """
    data = np.asarray(windows)
    if data.ndim != 3 or data.shape[1] != data.shape[2]:
        raise InputError(f"a stack of square images is needed, not the shape {data.shape}")
    n, radius = data.shape[1], 0.5 * diameter / pixel_size
    noise = _noise_level(n, round(radius, 4), round(pixel_size, 6))
    out = np.zeros(len(data))
    for first in range(0, len(data), _BLOCK):
        found = _responses(np.asarray(data[first : first + _BLOCK], dtype=np.float32), radius, pixel_size)
        out[first : first + _BLOCK] = ((found - noise[0]) / noise[1]).sum(axis=1) / np.sqrt(2)
    return out


@lru_cache(maxsize=4)
def _noise_level(n: int, radius: float, pixel_size: float) -> tuple[Float64, Float64]:
    random = np.random.default_rng([n, 71])
    found = _responses(random.standard_normal((_NOISE_WINDOWS, n, n), dtype=np.float32), radius, pixel_size)
    return found.mean(axis=0), np.maximum(found.std(axis=0), 1e-12)


def _responses(windows: Float32, radius: float, pixel_size: float) -> Float64:
    """Responses of blob and texture [m, 2] of windows brought to mean 0 and deviation 1 outside the particle."""
    n = windows.shape[1]
    axis = np.arange(n) - n // 2
    outside = axis[:, None] ** 2 + axis[None, :] ** 2 > min(radius, 0.47 * n) ** 2
    rim = windows[:, outside].astype(np.float64)
    spread = rim.std(axis=1)
    flat = spread <= 0
    scaled = (windows - rim.mean(axis=1)[:, None, None]) / np.where(flat, 1.0, spread)[:, None, None]
    scaled[flat] = 0
    blob = blob_kernel((n, n), radius, BlobSettings()).ravel()
    k2 = np.fft.fftfreq(n, pixel_size)[:, None] ** 2 + np.fft.rfftfreq(n, pixel_size)[None, :] ** 2
    finest = max(BlobSettings().finest, 2.4 * pixel_size)
    band = (1 - np.exp(-k2 * (BlobSettings().coarsest * 2 * radius * pixel_size) ** 2)) * np.exp(
        -((k2 * finest**2) ** 2)
    )
    texture = irfft2(rfft2(scaled) * band.astype(np.float32), n)
    typical = np.median(np.abs(texture[:, outside]), axis=1) / 0.6745
    power = (
        np.minimum(texture**2, (_CAP * typical[:, None, None]) ** 2) / np.maximum(typical, 1e-20)[:, None, None] ** 2
    )
    disk = disk_and_ring((n, n), _DISK * radius, _RING).ravel()
    m = len(windows)
    return np.stack([scaled.reshape(m, -1) @ blob, power.reshape(m, -1) @ disk], axis=1).astype(np.float64)
