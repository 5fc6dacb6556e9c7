"""Masks with soft edges, and the size of what a volume holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fourier import lowpass

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


MASK_RESOLUTION = 15.0
NOISE_DEVIATIONS = 5.0


@dataclass(frozen=True)
class AutomaticMaskSettings:
    """How an automatic mask is made.

    Attributes:
        resolution: low-pass before the threshold, A.
        threshold: density above which is particle; None: from the volume (see `density_threshold`).
        extend: how far the binary mask grows, A.
        edge: width of the soft edge around that, A.
        largest_only: keep the largest connected piece and pieces of at least a tenth of it.
    """

    resolution: float = 15.0
    threshold: float | None = None
    extend: float = 6.0
    edge: float = 12.0
    largest_only: bool = True


def radius_from_centre(n: int) -> Float32:
    """Distance in px of each voxel [n, n, n] from the centre n // 2."""
    place = (np.arange(n) - n // 2).astype(np.float32) ** 2
    return np.sqrt(place[:, None, None] + place[None, :, None] + place[None, None, :])


def soft_edge(distance: npt.ArrayLike, edge: float) -> Float32:
    """Raised cosine: 1 at distance <= 0, 0 from `edge` on (same unit); a step where the edge is 0."""
    outside = np.asarray(distance, dtype=np.float32)
    if edge <= 0:
        return (outside <= 0).astype(np.float32)
    return (0.5 + 0.5 * np.cos(np.pi * np.clip(outside / np.float32(edge), 0.0, 1.0))).astype(np.float32)


def spherical_mask(n: int, radius: float, edge: float = 3.0) -> Float32:
    """Sphere about the centre n // 2: 1 within `radius` px, falling to 0 over `edge` px."""
    if n < 1 or not radius > 0 or edge < 0:
        raise InputError(
            f"sphere of radius {radius} px and edge {edge} px in a box of {n} px: the radius must be positive, "
            "the edge not negative"
        )
    return soft_edge(radius_from_centre(n) - np.float32(radius), edge)


def automatic_mask(
    volume: npt.ArrayLike,
    pixel_size: float,
    diameter: float | None = None,
    settings: AutomaticMaskSettings | None = None,
) -> Float32:
    """Soft mask around the particle: low-pass, threshold, largest piece without holes, grown, with a cosine edge.

    Args:
        volume: [n, n, n], protein bright.
        pixel_size: A.
        diameter: of the particle, A: nothing beyond this sphere is taken, and the noise is measured there.
        settings: see `AutomaticMaskSettings`.

    Returns:
        float32 [n, n, n] from 0 to 1.

    Raises:
        InputError: no voxel is above the threshold.
    """
    from scipy import ndimage

    chosen = settings or AutomaticMaskSettings()
    data = _check(volume)
    n = data.shape[0]
    radius = radius_from_centre(n)
    reach = min(0.5 * diameter / pixel_size if diameter else 0.45 * n, n / 2 - 1)
    smooth = lowpass(data, pixel_size, max(chosen.resolution, 2.0 * pixel_size))
    threshold = density_threshold(smooth, reach) if chosen.threshold is None else chosen.threshold
    binary = (smooth > threshold) & (radius <= reach)
    if not binary.any():
        raise InputError(f"mask: no density is above {threshold:.4g}; give a lower threshold or a mask file")
    if chosen.largest_only:
        binary = _largest_pieces(binary)
    binary = ndimage.binary_fill_holes(binary)
    distance = ndimage.distance_transform_edt(~binary) * pixel_size
    return soft_edge(distance - chosen.extend, chosen.edge)


def half_map_mask(
    half1: npt.ArrayLike,
    half2: npt.ArrayLike,
    pixel_size: float,
    diameter: float,
    sphere: float,
    edge: float = 12.0,
) -> Float32 | None:
    """Soft mask around the density that both half maps show at low resolution; None where there is nothing above their noise.

    The mean of the halves is low-passed so far that the mask knows nothing of the details in which the halves are to be
    independent. The noise is that of the halves' difference; density counts from NOISE_DEVIATIONS of it on, and from a
    tenth of the way from the solvent to the brightest thousandth.

    Args:
        half1, half2: [n, n, n], without filter.
        diameter: of the particle, A: sets the low-pass, an eighth of it, at least MASK_RESOLUTION and five pixels.
        sphere: diameter beyond which nothing is taken, A.
        edge: width of the soft edge, A; at least three pixels.
    """
    first, second = _check(half1), _check(half2)
    resolution = max(diameter / 8, MASK_RESOLUTION, 5 * pixel_size)
    mean = lowpass(0.5 * (first + second), pixel_size, resolution)
    noise = lowpass(0.5 * (first - second), pixel_size, resolution)
    radius = radius_from_centre(len(first))
    reach = min(0.5 * sphere / pixel_size, len(first) / 2 - 1)
    inside = radius <= reach
    solvent = float(np.median(mean[(radius > reach) & (radius < len(first) / 2)]))
    peak = float(np.quantile(mean[inside], 0.999))
    threshold = solvent + max(NOISE_DEVIATIONS * float(noise[inside].std()), 0.1 * (peak - solvent))
    if not ((mean > threshold) & inside).any():
        return None
    settings = AutomaticMaskSettings(resolution, threshold, extend=0.4 * resolution, edge=max(edge, 3 * pixel_size))
    return automatic_mask(mean, pixel_size, 2 * reach * pixel_size, settings)


def density_threshold(volume: npt.ArrayLike, reach_px: float) -> float:
    """Density that parts the particle from the solvent.

    The larger of: 5 standard deviations (from the median's absolute deviation, hence robust) above the solvent outside
    `reach_px`; and a tenth of the way from the solvent to the brightest thousandth.
    """
    data = _check(volume)
    radius = radius_from_centre(data.shape[0])
    outside = data[(radius > reach_px) & (radius < data.shape[0] / 2)]
    if outside.size < 50:
        outside = data[radius >= 0.9 * min(reach_px, data.shape[0] / 2)]
    background = float(np.median(outside))
    spread = 1.4826 * float(np.median(np.abs(outside - background)))
    peak = float(np.quantile(data[radius <= reach_px], 0.999))
    return max(background + 5.0 * spread, background + 0.1 * (peak - background))


def _largest_pieces(binary: Bool) -> Bool:
    from scipy import ndimage

    labels, count = ndimage.label(binary)
    if count <= 1:
        return binary
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= 0.1 * sizes.max())[labels])


def apply_mask(volume: npt.ArrayLike, mask: npt.ArrayLike, fill: float | None = None) -> Float32:
    """Volume inside the mask, outside it `fill`: the solvent's mean (weighted by 1 - mask) where it is None."""
    data, window = _check(volume), _check(mask)
    if data.shape != window.shape:
        raise InputError(f"volume {data.shape} and mask {window.shape} differ in shape")
    if fill is None:
        weight = float((1.0 - window).sum(dtype=np.float64))
        fill = float(((1.0 - window) * data).sum(dtype=np.float64)) / weight if weight > 0 else 0.0
    return (data * window + np.float32(fill) * (1.0 - window)).astype(np.float32)


def radius_of_gyration(volume: npt.ArrayLike, pixel_size: float, threshold: float | None = None) -> float:
    """sqrt(sum d r^2 / sum d) in A about the centre of mass, of the density above `threshold` (None:
    `density_threshold`)."""
    data = _check(volume)
    n = data.shape[0]
    level = density_threshold(data, 0.45 * n) if threshold is None else threshold
    mass = np.where(data > level, data, 0.0).astype(np.float64)
    total = mass.sum()
    if total <= 0:
        raise InputError(f"radius of gyration: no density above {level:.4g}")
    place = np.arange(n, dtype=np.float64)
    variance = 0.0
    for axis in range(3):
        profile = mass.sum(axis=tuple(a for a in range(3) if a != axis)) / total
        mean = float((profile * place).sum())
        variance += float((profile * (place - mean) ** 2).sum())
    return float(np.sqrt(variance)) * pixel_size


def particle_radius(
    volume: npt.ArrayLike, pixel_size: float, share: float = 0.99, threshold: float | None = None
) -> float:
    """Radius in A about the box's centre of the sphere that holds `share` of the density above the threshold."""
    data = _check(volume)
    n = data.shape[0]
    level = density_threshold(data, 0.45 * n) if threshold is None else threshold
    mass = np.where(data > level, data, 0.0).astype(np.float64)
    if mass.sum() <= 0:
        raise InputError(f"particle radius: no density above {level:.4g}")
    profile = np.bincount(np.rint(radius_from_centre(n)).astype(np.int64).ravel(), weights=mass.ravel())
    return float(np.searchsorted(np.cumsum(profile), share * profile.sum())) * pixel_size


def _check(volume: npt.ArrayLike) -> Float32:
    data = np.asarray(volume, dtype=np.float32)
    if data.ndim != 3 or len(set(data.shape)) != 1 or not np.isfinite(data).all():
        raise InputError(f"a cubic volume of finite values is needed, this one has the shape {data.shape}")
    return data
