"""Signal and noise by shell of one map: what lies inside the sphere that holds the object, against what surrounds it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nephila.fourier import centred_rfftn, radial_average
from nephila.masks import spherical_mask

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_RADIUS = 0.475  # of the sphere, in boxes; the object is taken to lie within it
# Width of edges, in boxes: a spectrum falls by seven orders of magnitude, and a hard edge would carry its low
# frequencies into the high ones
_EDGE = 0.1
_RIM = 0.15


def powers_inside_and_outside(volume: Float32, threads: int = 1) -> tuple[Float64, Float64]:
    """Mean power per voxel of a map [n, n, n] within the sphere and around it, by shell 0 to n // 2."""
    n = volume.shape[0]
    edge = _EDGE * n
    inside = spherical_mask(n, _RADIUS * n - edge, edge)
    outside = 1.0 - spherical_mask(n, _RADIUS * n, edge)
    place = np.abs(np.arange(n) - n // 2)
    taper = np.sin(np.pi / 2 * np.clip((n / 2 - place) / (_RIM * n), 0.0, 1.0)).astype(np.float32) ** 2
    outside *= taper[:, None, None] * taper[None, :, None] * taper[None, None, :]
    first, second = (
        radial_average(np.abs(centred_rfftn(volume * window, threads)) ** 2, n) / float((window**2).mean())
        for window in (inside, outside)
    )
    return first, second


def signal_to_noise(inside: Float64, outside: Float64, least: float) -> Float64:
    """SNR by shell from these powers, at least `least` and at most 1e6."""
    ratio = (inside - outside) / np.maximum(outside, 1e-30)
    return np.clip(ratio, least, 1e6)
