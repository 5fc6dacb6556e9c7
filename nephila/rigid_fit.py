"""Bringing one volume onto another by rotation and shift, before they are compared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fourier import centred_irfftn, centred_rfftn
from nephila.geometry import rotation_vector_to_matrix

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

FIT_BOX = 64


def transform_volume(volume: Float32, rotation: Float64, shift_px: Float64, order: int = 3) -> Float32:
    """Rotate a volume about its centre voxel, then shift it.

    Parameters
    ----------
    rotation : [3, 3], acts on (x, y, z): density at r goes to `rotation @ r + shift_px`
    shift_px : [3], (x, y, z)
    """
    from scipy.ndimage import affine_transform

    n = volume.shape[0]
    inverse = rotation.T[::-1, ::-1]  # the array's axes are (z, y, x)
    centre = np.full(3, n // 2, dtype=np.float64)
    offset = centre - inverse @ (centre + shift_px[::-1])
    out: Float32 = affine_transform(volume, inverse, offset=offset, order=order, mode="constant", cval=0.0).astype(
        np.float32
    )
    return out


def crop_transform(volume: Float32, new_n: int) -> Float32:
    """Resample a cubic volume to a smaller even side by cropping its transform; the centre voxel stays the centre."""
    n = volume.shape[0]
    if new_n >= n:
        return volume
    half = centred_rfftn(volume)
    keep = new_n // 2 - 1
    rows = np.r_[0 : keep + 1, -keep:0]
    out = np.zeros((new_n, new_n, new_n // 2 + 1), dtype=np.complex64)
    out[np.ix_(rows, rows, np.arange(keep + 1))] = half[np.ix_(rows, rows, np.arange(keep + 1))]
    return centred_irfftn(out * np.float32((new_n / n) ** 3), new_n)


def fit_volume(
    moving: Float32, target: Float32, mask: Float32 | None = None, max_angle_deg: float = 10.0
) -> tuple[Float64, Float64, float]:
    """Rotation and shift that bring `moving` onto `target`, near their present positions (least squares of the correlation).

    Parameters
    ----------
    mask : weights on the target, optional
    max_angle_deg : a larger rotation is not believed; the identity is returned then

    Returns
    -------
    rotation [3, 3] and shift (x, y, z) in px as `transform_volume` takes them, and the correlation reached
    """
    from scipy.optimize import minimize

    if moving.shape != target.shape:
        raise InputError(f"volumes of {moving.shape} and {target.shape} voxels cannot be fitted to each other")
    n = target.shape[0]
    side = min(n, FIT_BOX)
    small_moving, small_target = crop_transform(moving, side), crop_transform(target, side)
    weight = np.ones_like(small_target) if mask is None else np.clip(crop_transform(mask, side), 0, 1)
    goal = (small_target - np.average(small_target, weights=weight)) * weight

    def correlation(parameters: Float64) -> float:
        rotation = rotation_vector_to_matrix(np.deg2rad(parameters[:3]))
        moved = transform_volume(small_moving, rotation, parameters[3:], order=1) * weight
        norm = float(np.sqrt((moved**2).sum() * (goal**2).sum()))
        return float((moved * goal).sum()) / norm if norm > 0 else 0.0

    start = np.zeros(6)
    simplex = np.vstack([start, np.diag([2.0, 2.0, 2.0, 0.5, 0.5, 0.5])])
    found = minimize(
        lambda p: -correlation(p), start, method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 0.01, "fatol": 1e-6, "maxfev": 400},
    )  # fmt: skip
    best = found.x
    if -found.fun < correlation(start) or np.linalg.norm(best[:3]) > max_angle_deg:
        best = start
    return rotation_vector_to_matrix(np.deg2rad(best[:3])), best[3:] * n / side, correlation(best)
