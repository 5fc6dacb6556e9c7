"""Marking what is too strong or too large to be a particle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage

Float32 = npt.NDArray[np.float32]


def mark_contaminants(mean: Float32, spread: Float32, diameter: float, sigma: float) -> npt.NDArray[np.bool_]:
    """Pixels on contaminants (ice, carbon's edge, dirt; darker or brighter than particles) and within half a
    diameter of them.

    Parameters
    ----------
    mean, spread : float32 [ny, nx], local mean and standard deviation over an area of about the particle's
    diameter : of the particle, px of these maps
    sigma : robust standard deviations of each map from its median beyond which a pixel is marked; the scale is not
        less than half of the map's 98th percentile's, so that a field crowded with particles does not mark its own
        particles

    Returns
    -------
    bool [ny, nx]
    """
    marked = np.zeros(mean.shape, dtype=bool)
    step = max(min(mean.shape) // 200, 1)
    for values in (mean, spread):
        sample = values[::step, ::step]
        low, middle, high = np.percentile(sample, [25, 50, 75])
        far = np.percentile(np.abs(sample - middle), 90)
        scale = max((high - low) / 1.349, far / 2.0, 1e-20)
        marked |= np.abs(values - middle) > sigma * scale
    if not marked.any():
        return marked
    distance = scipy.ndimage.distance_transform_edt(~marked)
    return np.asarray(distance <= 0.25 * diameter)
