"""Marking what is too strong or too large to be a particle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage

Float32 = npt.NDArray[np.float32]

CORE = 0.5
"""Radius of the area that is looked at, in particle radii: dirt beside a particle does not spoil it, dirt on it does."""
_FACTOR = 3.0


def local_statistics(image: Float32, radius: float) -> tuple[Float32, Float32]:
    """Mean and standard deviation of `image` over squares of a disk's area of `radius` px."""
    side = max(round(radius * np.sqrt(np.pi)), 3)
    mean = scipy.ndimage.uniform_filter(image, side, mode="nearest")
    square = scipy.ndimage.uniform_filter(image * image, side, mode="nearest")
    return mean, np.sqrt(np.maximum(square - mean * mean, 0))


def mark_contaminants(mean: Float32, spread: Float32, sigma: float) -> npt.NDArray[np.bool_]:
    """Pixels on contaminants: ice, carbon's edge, dirt; darker or brighter than particles.

    Parameters
    ----------
    mean, spread : float32 [ny, nx], of `local_statistics` over the particle's core
    sigma : robust standard deviations of each map from its median beyond which a pixel is marked; the scale is not
        less than half of the map's 90th percentile's, so that a field crowded with particles does not mark its own
        particles. Besides, the mean has to be off by a whole standard deviation of the pixels, or the deviation by a
        factor of `_FACTOR`: where both maps are very even, even a particle stands out

    Returns
    -------
    bool [ny, nx]
    """
    step = max(min(mean.shape) // 200, 1)
    typical = float(np.median(spread[::step, ::step]))
    marked = _far(mean, sigma, typical)
    marked |= _far(spread, sigma, 0.0) & ((spread > _FACTOR * typical) | (spread * _FACTOR < typical))
    return marked


def _far(values: Float32, sigma: float, least: float) -> npt.NDArray[np.bool_]:
    step = max(min(values.shape) // 200, 1)
    sample = values[::step, ::step]
    low, middle, high = np.percentile(sample, [25, 50, 75])
    far = np.percentile(np.abs(sample - middle), 90)
    scale = max((high - low) / 1.349, far / 2.0, 1e-20)
    return np.asarray(np.abs(values - np.float32(middle)) > max(sigma * scale, least))
