"""Alignment documents of SPIDER as poses of RELION, and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.geometry import euler_matrix, matrix_to_euler

Float64 = npt.NDArray[np.float64]


def relion_poses(document: pd.DataFrame, pixel_size: float, source: str) -> pd.DataFrame:
    """RELION's angles (degrees) and origins (A) from an alignment document of AP SH, AP SHC or AP REF.

    Columns 1 to 3 are psi, theta, phi of the reference, 6 the in-plane angle, 7 and 8 the shifts of SPIDER's RT SQ, which turns
    the image by the angle and then shifts it: rot = phi, tilt = theta, psi = psi - angle, origin = pixel size x Rot(angle) shift.
    A mirrored match has theta turned by 180 degrees; where only the number of the reference (column 4) is negative, that is
    done here. One row per document line, index its key.

    InputError where columns are missing or hold no number.
    """
    if document.shape[1] < 8:
        raise InputError(
            f"{source}: {document.shape[1]} columns; an alignment document has psi, theta, phi, reference, …, x, y"
        )
    values = document.iloc[:, :8].to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise InputError(f"{source}: key {document.index[bad[0]]}: a column holds no number")
    psi, theta, phi, reference, _, angle, x, y = values.T
    turned = (reference < 0) & (np.abs(theta) <= 90)
    theta = np.where(turned, theta + 180, theta)
    psi = np.where(turned, -psi, psi)
    rot, tilt, in_plane = matrix_to_euler(euler_matrix(phi, theta, psi - angle))
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    poses = pd.DataFrame(
        {
            "rlnAngleRot": rot,
            "rlnAngleTilt": tilt,
            "rlnAnglePsi": in_plane,
            "rlnOriginXAngst": pixel_size * (c * x - s * y),
            "rlnOriginYAngst": pixel_size * (s * x + c * y),
        },
        index=document.index,
    )
    return poses


def spider_alignment(rot: npt.ArrayLike, tilt: npt.ArrayLike, psi: npt.ArrayLike, origin: npt.ArrayLike) -> Float64:
    """The inverse of `relion_poses`: psi, theta, phi, in-plane angle, x and y shift (px) as columns [n, 6].

    origin : [n, 2], px. psi of the reference is 0, as SPIDER's reference angles have it.
    """
    rot, tilt, psi = (np.atleast_1d(np.asarray(a, dtype=np.float64)) for a in (rot, tilt, psi))
    shift = np.atleast_2d(np.asarray(origin, dtype=np.float64))
    angle = np.mod(-psi, 360.0)
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    x, y = c * shift[:, 0] + s * shift[:, 1], -s * shift[:, 0] + c * shift[:, 1]
    return np.column_stack([np.zeros_like(rot), tilt, rot, angle, x, y])
