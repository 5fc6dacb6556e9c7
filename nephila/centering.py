"""Centre of gravity by phases, as far as a point group leaves it free, and shifts by phases."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fourier import irfftn, rfftn
from nephila.symmetry import centre_is_fixed

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def centre_of_gravity(volume: npt.ArrayLike, symmetry: str = "C1") -> Float64:
    """Where the density's centre lies, from the phase of the first Fourier coefficient along each axis (SPIDER's CG
    PH).

    A constant background does not move it, nor does the box's border. Exact for an object that is symmetric about its
    centre.

    Args:
        volume: [n, n, n], protein bright.
        symmetry: coordinates that the point group fixes are 0.

    Returns:
        float64 (x, y, z) in px from the centre n // 2, each within +-n / 2. 0 along an axis without contrast.
    """
    data = np.asarray(volume, dtype=np.float64)
    if data.ndim != 3 or len(set(data.shape)) != 1 or not np.isfinite(data).all():
        raise InputError(f"a cubic volume of finite values is needed, this one has the shape {data.shape}")
    n = data.shape[0]
    wave = np.exp(-2j * np.pi * (np.arange(n) - n // 2) / n)
    centre = np.zeros(3)
    for index, fixed in enumerate(centre_is_fixed(symmetry)):
        axis = 2 - index
        profile = data.sum(axis=tuple(a for a in range(3) if a != axis))
        coefficient = np.sum(profile * wave)
        if not fixed and abs(coefficient) > 1e-9 * np.abs(profile).sum():
            centre[index] = -np.angle(coefficient) * n / (2.0 * np.pi)
    return centre


def shift_volume(volume: npt.ArrayLike, shift_px: npt.ArrayLike, threads: int = 1) -> Float32:
    """Move a volume by (x, y, z) px towards larger indices, by phases (cyclic, exact for what is band-limited)."""
    data = np.asarray(volume, dtype=np.float32)
    x, y, z = np.asarray(shift_px, dtype=np.float64)
    transform = rfftn(data, threads)
    for axis, shift in ((0, z), (1, y), (2, x)):
        n = data.shape[axis]
        k = np.arange(n // 2 + 1) if axis == 2 else np.fft.fftfreq(n, 1.0 / n)
        phase = np.exp(-2j * np.pi * k * shift / n)
        if n % 2 == 0:
            # Nyquist's coefficient stays real: half of it moves each way
            phase[n // 2] = np.cos(np.pi * shift)
        transform *= phase.astype(np.complex64).reshape([-1 if a == axis else 1 for a in range(3)])
    return irfftn(transform, data.shape[2], threads)


def centre_volume(volume: npt.ArrayLike, symmetry: str = "C1", threads: int = 1) -> tuple[Float32, Float64]:
    """Move the centre of gravity to n // 2, as far as the point group leaves it free.

    Returns:
        (moved volume float32 [n, n, n], the shift (x, y, z) that was applied, px). Particles keep agreeing with the
        volume when their origins are changed by the projected shift.
    """
    shift = -centre_of_gravity(volume, symmetry)
    if not np.any(shift):
        return np.asarray(volume, dtype=np.float32).copy(), shift
    return shift_volume(volume, shift, threads), shift
