"""Phases of aberrations and the magnification of an optics group, as RELION defines them (docs/conventions.md).

With a magnification matrix M, all of them count frequencies as M k.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial

import numpy as np
import numpy.typing as npt

from nephila.optics_groups import IDENTITY, Matrix2, OpticsGroup

Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]


def zernike(m: int, n: int, rho: npt.ArrayLike, phi: npt.ArrayLike) -> Float64:
    """Zernike polynomial Z(m, n), not normalised: R(|m|, n) cos(m phi), or sin for negative m; rho need not stay below 1."""
    radius = np.asarray(rho, dtype=np.float64)
    p = abs(m)
    radial = np.zeros_like(radius)
    for s in range((n - p) // 2 + 1):
        weight = (
            (-1) ** s * factorial(n - s) / (factorial(s) * factorial((n + p) // 2 - s) * factorial((n - p) // 2 - s))
        )
        radial = radial + weight * radius ** (n - 2 * s)
    angle = np.asarray(phi, dtype=np.float64)
    return radial * (np.cos(p * angle) if m >= 0 else np.sin(p * angle))


def even_term(index: int) -> tuple[int, int]:
    """(m, n) of an even coefficient, counted as RELION does: 0 is Z00, 2 is Z20, 6 is Z40."""
    order = int(np.sqrt(index))
    return 2 * (index - order * order - order), 2 * order


def odd_term(index: int) -> tuple[int, int]:
    """(m, n) of an odd coefficient, counted as RELION does: 0 and 1 are tilt of the image, 3 and 4 coma, 2 and 5 trefoil."""
    order = int((np.sqrt(1 + 4 * index) - 1) / 2)
    return 2 * (index - order * (order + 1)) - (2 * order + 1), 2 * order + 1


def tilt_scale(group: OpticsGroup) -> float:
    """2 pi Cs lambda^2, A^3 per mrad: a beam tilt t (mrad) turns the phase by -scale k^2 (k . t)."""
    return 2 * np.pi * group.cs_mm * 1e7 * group.wavelength**2 * 1e-3


def is_aberrated(group: OpticsGroup) -> bool:
    """Whether the group states any aberration or magnification that is not nothing."""
    return any(group.even_zernike) or has_odd(group) or group.magnification != IDENTITY


def has_odd(group: OpticsGroup) -> bool:
    """Whether the group states odd aberrations or a beam tilt."""
    return any(group.odd_zernike) or any(group.beam_tilt)


def magnified(matrix: Matrix2, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Float64, Float64]:
    """M k for frequencies (x, y)."""
    kx, ky = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return matrix[0] * kx + matrix[1] * ky, matrix[2] * kx + matrix[3] * ky


def magnified_rows(matrix: Matrix2, rotations: npt.ArrayLike) -> Float64:
    """Rotation matrices [m, 3, 3] with rows A'[0], A'[1] such that `kx A'[0] + ky A'[1]` is the frequency M k in the reference."""
    rows = np.array(rotations, dtype=np.float64)
    first, second = rows[:, 0].copy(), rows[:, 1].copy()
    rows[:, 0], rows[:, 1] = matrix[0] * first + matrix[2] * second, matrix[1] * first + matrix[3] * second
    return rows


def largest_stretch(matrix: Matrix2) -> float:
    """Largest |M k| / |k|."""
    return float(np.linalg.norm(np.array(matrix).reshape(2, 2), 2))


def zernike_basis(count: int, x: npt.ArrayLike, y: npt.ArrayLike, *, even: bool) -> Float64:
    """The first `count` even or odd polynomials [count, ...] at frequencies (x, y), 1/A, as RELION counts them."""
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    return np.stack([zernike(*(even_term(i) if even else odd_term(i)), radius, angle) for i in range(count)])


def even_phase(group: OpticsGroup, x: npt.ArrayLike, y: npt.ArrayLike) -> Float64:
    """What the group's even coefficients add to gamma, radians, at frequencies (x, y) = M k, 1/A."""
    return _weighted(group.even_zernike, x, y, even=True)


def odd_phase(group: OpticsGroup, x: npt.ArrayLike, y: npt.ArrayLike) -> Float64:
    """Phase of the group's odd coefficients and beam tilt at (x, y) = M k, 1/A: images are multiplied by exp(i phase)."""
    kx, ky = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    tilted = tilt_scale(group) * (kx**2 + ky**2) * (group.beam_tilt[0] * kx + group.beam_tilt[1] * ky)
    phase: Float64 = _weighted(group.odd_zernike, kx, ky, even=False) - tilted
    return phase


def odd_correction(group: OpticsGroup, n: int, pixel_size: float) -> Complex64:
    """What takes the odd aberrations off images of side n: exp(-i phase), complex64 [n, n // 2 + 1], layout of rfft2."""
    ky, kx = np.meshgrid(np.fft.fftfreq(n, pixel_size), np.arange(n // 2 + 1) / (n * pixel_size), indexing="ij")
    phase = odd_phase(group, *magnified(group.magnification, kx, ky))
    return np.exp(-1j * phase).astype(np.complex64)


def _weighted(coefficients: Sequence[float], x: npt.ArrayLike, y: npt.ArrayLike, *, even: bool) -> Float64:
    if not any(coefficients):
        return np.zeros(np.broadcast(x, y).shape)
    return np.tensordot(np.array(coefficients), zernike_basis(len(coefficients), x, y, even=even), axes=1)
