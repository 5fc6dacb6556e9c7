"""Marking what is too strong or too large to be a particle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage

Float32 = npt.NDArray[np.float32]

CORE = 0.5
"""Radius of the area that is looked at, in particle radii: dirt beside a particle does not spoil it, dirt on it does."""
_FACTOR = 3.0
_BLOCKS = 4  # per diameter, for what is larger than particles
_SURFACE_ROUNDS = 6
_DRAWS = 200
LARGE = 2
"""Mark of candidates on carbon and on contaminants larger than particles; 1 for others."""


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


def mark_large(image: Float32, diameter: float, sigma: float) -> npt.NDArray[np.bool_]:
    """Pixels on carbon and on contaminants wider than particles, told by their mean over a square of the particle's size.

    Unlike `mark_contaminants` this holds where much of the area is covered, up to a third of it: the ice's own mean is a smooth
    surface fitted to what is not off, and what stands out of it by a whole standard deviation of the pixels over more than a
    particle's width is marked. Particles hardly change the mean over their size, since the CTF takes it away.

    Parameters
    ----------
    image : [ny, nx]; diameter : px; sigma : least deviation, robust standard deviations of the mean

    Returns
    -------
    bool [ny, nx]
    """
    block = max(round(diameter / _BLOCKS), 1)
    ny, nx = image.shape[0] // block, image.shape[1] // block
    if min(ny, nx) < 2 * _BLOCKS:
        return np.zeros(image.shape, dtype=bool)
    parts = image[: ny * block, : nx * block].reshape(ny, block, nx, block)
    smooth, squares = (
        scipy.ndimage.uniform_filter((parts**power).mean(axis=(1, 3), dtype=np.float64), _BLOCKS, mode="nearest")
        for power in (1, 2)
    )
    typical = float(np.median(np.sqrt(np.maximum(squares - smooth**2, 0))))
    off = _off_surface(smooth)
    spread = 1.4826 * float(np.median(np.abs(off)))
    marked = np.abs(off) > max(sigma * spread, typical)
    axis = np.arange(_BLOCKS + 1) - _BLOCKS / 2
    disk = axis[:, None] ** 2 + axis[None, :] ** 2 <= (0.5 * _BLOCKS + 0.5) ** 2
    # beyond the border as within it
    wide = np.pad(marked, _BLOCKS, mode="edge")
    marked = scipy.ndimage.binary_opening(wide, disk)[_BLOCKS:-_BLOCKS, _BLOCKS:-_BLOCKS]
    rows, columns = (np.minimum(np.arange(n) // block, m - 1) for n, m in zip(image.shape, (ny, nx), strict=True))
    return np.asarray(marked[np.ix_(rows, columns)])


def _off_surface(smooth: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A map less the second-order surface through most of it; what is off may be a third of the area."""
    y, x = np.mgrid[-1 : 1 : smooth.shape[0] * 1j, -1 : 1 : smooth.shape[1] * 1j]
    surface = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1).reshape(-1, 6)
    values = smooth.ravel()
    # the plane of few points that fits the median point best: some of the draws meet nothing foreign
    draws = np.random.default_rng(0).integers(0, len(values), (_DRAWS, 6))
    planes = [np.linalg.lstsq(surface[draw, :3], values[draw], rcond=None)[0] for draw in draws]
    thin = slice(None, None, max(len(values) // 1000, 1))
    typical = np.median(np.abs(values[thin, None] - surface[thin, :3] @ np.stack(planes, axis=1)), axis=0)
    off = values - surface[:, :3] @ planes[int(typical.argmin())]
    for _ in range(_SURFACE_ROUNDS):
        keep = np.abs(off) <= 3 * 1.4826 * np.median(np.abs(off)) + 1e-12
        off = values - surface @ np.linalg.lstsq(surface[keep], values[keep], rcond=None)[0]
    return np.asarray(off.reshape(smooth.shape))


def _far(values: Float32, sigma: float, least: float) -> npt.NDArray[np.bool_]:
    step = max(min(values.shape) // 200, 1)
    sample = values[::step, ::step]
    low, middle, high = np.percentile(sample, [25, 50, 75])
    far = np.percentile(np.abs(sample - middle), 90)
    scale = max((high - low) / 1.349, far / 2.0, 1e-20)
    return np.asarray(np.abs(values - np.float32(middle)) > max(sigma * scale, least))
