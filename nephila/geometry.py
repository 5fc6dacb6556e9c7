"""Rotations, directions and their distances, in the convention of RELION and the 3DEM standard (ZYZ).

`A = Rz(psi) Ry(tilt) Rz(rot)` takes reference coordinates (x, y, z) to image coordinates; its rows are the image's x axis,
y axis and the direction of view, in reference coordinates. docs/conventions.md states the whole.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError

Float = npt.NDArray[np.float64]


def euler_matrix(rot: npt.ArrayLike, tilt: npt.ArrayLike, psi: npt.ArrayLike) -> Float:
    """Matrices A of Euler angles in degrees (broadcast against each other).

    Returns
    -------
    float64 [..., 3, 3]; `r_image = A r_reference`, the same numbers as RELION's.
    """
    a, b, g = np.broadcast_arrays(*(np.deg2rad(np.asarray(x, dtype=np.float64)) for x in (rot, tilt, psi)))
    ca, sa, cb, sb, cg, sg = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(g), np.sin(g)
    rows = [
        [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
        [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
        [sb * ca, sb * sa, cb],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_euler(matrix: npt.ArrayLike) -> tuple[Float, Float, Float]:
    """Euler angles (rot, tilt, psi) in degrees of matrices [..., 3, 3]; tilt in [0, 180], rot and psi in (-180, 180].

    Where tilt is 0 or 180 only rot + psi (or rot - psi) is defined: rot is then 0.
    """
    m = np.asarray(matrix, dtype=np.float64)
    sin_tilt = np.hypot(m[..., 2, 0], m[..., 2, 1])
    tilt = np.arctan2(sin_tilt, m[..., 2, 2])
    pole = sin_tilt < 1e-9
    rot = np.where(pole, 0.0, np.arctan2(m[..., 2, 1], m[..., 2, 0]))
    psi = np.where(
        pole,
        np.where(m[..., 2, 2] > 0, np.arctan2(m[..., 0, 1], m[..., 0, 0]), np.arctan2(m[..., 1, 0], m[..., 1, 1])),
        np.arctan2(m[..., 1, 2], -m[..., 0, 2]),
    )
    rot, tilt, psi = (np.rad2deg(x) for x in (rot, tilt, psi))
    return np.where(rot <= -180, rot + 360, rot), tilt, np.where(psi <= -180, psi + 360, psi)


def view_direction(rot: npt.ArrayLike, tilt: npt.ArrayLike) -> Float:
    """Unit vectors of view [..., 3] in reference coordinates: the third row of A."""
    a, b = np.deg2rad(np.asarray(rot, dtype=np.float64)), np.deg2rad(np.asarray(tilt, dtype=np.float64))
    return np.stack(np.broadcast_arrays(np.sin(b) * np.cos(a), np.sin(b) * np.sin(a), np.cos(b)), axis=-1)


def rotation_vector_to_matrix(vector: npt.ArrayLike) -> Float:
    """Matrices [..., 3, 3] of rotations about `vector` [..., 3] by its length in radians (Rodrigues' formula)."""
    v = np.asarray(vector, dtype=np.float64)
    angle = np.linalg.norm(v, axis=-1)[..., None, None]
    zero = np.zeros_like(v[..., 0])
    k = np.stack(
        [
            np.stack([zero, -v[..., 2], v[..., 1]], axis=-1),
            np.stack([v[..., 2], zero, -v[..., 0]], axis=-1),
            np.stack([-v[..., 1], v[..., 0], zero], axis=-1),
        ],
        axis=-2,
    )
    # np.sinc keeps both coefficients finite at angle 0
    return np.eye(3) + np.sinc(angle / np.pi) * k + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (k @ k)


def rotation_angle(matrix: npt.ArrayLike) -> Float:
    """Angle in degrees of rotation matrices [..., 3, 3], accurate for small angles too."""
    m = np.asarray(matrix, dtype=np.float64)
    sine = 0.5 * np.sqrt(
        (m[..., 2, 1] - m[..., 1, 2]) ** 2 + (m[..., 0, 2] - m[..., 2, 0]) ** 2 + (m[..., 1, 0] - m[..., 0, 1]) ** 2
    )
    cosine = 0.5 * (np.trace(m, axis1=-2, axis2=-1) - 1)
    return np.rad2deg(np.arctan2(sine, cosine))


def angular_distance(a: npt.ArrayLike, b: npt.ArrayLike, symmetry: npt.ArrayLike | None = None) -> Float:
    """Full rotation between orientations in degrees, the least over the symmetry's equivalents.

    Parameters
    ----------
    a, b : [..., 3, 3], matrices of `euler_matrix`
    symmetry : [s, 3, 3], optional; rotations that leave the reference unchanged, so that A and A S are the same pose
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if symmetry is None:
        return rotation_angle(x @ np.swapaxes(y, -1, -2))
    angles = [rotation_angle(x @ s @ np.swapaxes(y, -1, -2)) for s in np.asarray(symmetry, dtype=np.float64)]
    return np.min(angles, axis=0)


def quasi_even_directions(step: float, theta_max: float = 90.0) -> Float:
    """Directions (rot, tilt) spaced by about `step` degrees, as SPIDER's `VO EA` lays them out.

    Tilt runs from 0 to `theta_max` in steps of `step`, rot in steps of `step / sin(tilt)`. On the equator the second half is
    left out: mirrors of the first. 15 degrees give the 83 directions at which SPIDER projects. SPIDER's own list holds one more
    at its end, rot 179.95 on the equator, which is the mirror of rot 0.

    Returns
    -------
    float64 [m, 2], degrees
    """
    if not 0 < step <= 90:
        raise InputError(f"angular step {step} degrees: must lie in (0, 90]")
    rows: list[tuple[float, float]] = []
    for tilt in np.arange(int(theta_max / step + 1e-6) + 1) * step:
        number = max(int(359.9 * np.sin(np.deg2rad(tilt)) / step) - 1, 1)
        rot = np.arange(number) * (359.9 / number)
        if abs(tilt - 90.0) < 0.1 and theta_max <= 90.1:
            rot = rot[rot < 179.9]
        rows += [(float(r), float(tilt)) for r in rot]
    return np.array(rows)
