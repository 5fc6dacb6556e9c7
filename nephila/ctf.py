"""The contrast transfer function, as RELION defines it: underfocus positive, protein bright, CTF(0) = +Q0.

    gamma = -pi lambda dz k^2 + (pi / 2) Cs lambda^3 k^4 - phase_shift - asin(Q0),    CTF = -sin(gamma)

with k in 1/A, dz in A, Cs and lambda in A. Scheres 2012, Rohou & Grigorieff 2015; checked against RELION's own images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def electron_wavelength(voltage_kv: float) -> float:
    """Relativistic wavelength in A of electrons accelerated by `voltage_kv` kilovolts."""
    volts = 1e3 * voltage_kv
    return float(12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts)))


@dataclass(frozen=True)
class Optics:
    """What the microscope contributes to the CTF.

    voltage_kv: acceleration voltage, kV; cs_mm: spherical aberration, mm (0 for a corrected microscope);
    amplitude_contrast: Q0, a fraction; phase_shift_deg: of a phase plate, degrees.
    """

    voltage_kv: float
    cs_mm: float
    amplitude_contrast: float
    phase_shift_deg: float = 0.0

    def __post_init__(self) -> None:
        if not 10 <= self.voltage_kv <= 3000:
            raise InputError(f"voltage {self.voltage_kv} kV: must lie in 10 to 3000 kV (is it given in V?)")
        if not -1 <= self.cs_mm <= 20:
            raise InputError(f"spherical aberration {self.cs_mm} mm: must lie in -1 to 20 mm (is it given in A or um?)")
        if not 0 <= self.amplitude_contrast < 1:
            raise InputError(f"amplitude contrast {self.amplitude_contrast}: must lie in [0, 1); 0.07 to 0.1 is usual")

    @property
    def wavelength(self) -> float:
        """Electron wavelength, A."""
        return electron_wavelength(self.voltage_kv)

    @property
    def k2_factor(self) -> float:
        """pi lambda: gamma's coefficient of -dz k^2."""
        return float(np.pi * self.wavelength)

    @property
    def k4_factor(self) -> float:
        """(pi / 2) Cs lambda^3: gamma's coefficient of k^4, A^4."""
        return float(0.5 * np.pi * self.cs_mm * 1e7 * self.wavelength**3)

    @property
    def constant_phase(self) -> float:
        """phase_shift + asin(Q0), radians."""
        return float(np.deg2rad(self.phase_shift_deg) + np.arcsin(self.amplitude_contrast))


def ctf_1d(k: npt.ArrayLike, defocus: npt.ArrayLike, optics: Optics, b_factor: float = 0.0) -> Float64:
    """CTF without astigmatism at spatial frequencies `k` (1/A) for `defocus` (A, underfocus positive); they broadcast.

    `b_factor` in A^2 multiplies by exp(-B k^2 / 4).
    """
    k2 = np.asarray(k, dtype=np.float64) ** 2
    minus_gamma = optics.k2_factor * np.asarray(defocus) * k2 - optics.k4_factor * k2**2 + optics.constant_phase
    return np.sin(minus_gamma) * np.exp(-0.25 * b_factor * k2)


@lru_cache(maxsize=8)
def _grid(ny: int, nx: int, pixel_size: float) -> tuple[Float64, Float64, Float64]:
    """k^2 (1/A^2), cos 2 theta and sin 2 theta on the half transform [ny, nx // 2 + 1]."""
    ky = np.fft.fftfreq(ny, pixel_size)[:, None]
    kx = np.fft.rfftfreq(nx, pixel_size)[None, :]
    k2 = kx**2 + ky**2
    safe = np.where(k2 == 0, 1.0, k2)
    return k2, (kx**2 - ky**2) / safe, 2 * kx * ky / safe


def ctf_2d(
    shape: int | tuple[int, int],
    pixel_size: float,
    defocus_u: npt.ArrayLike,
    defocus_v: npt.ArrayLike,
    angle_deg: npt.ArrayLike,
    optics: Optics,
    b_factor: float = 0.0,
) -> Float32:
    """CTF on the half transform of images of `shape` (ny, nx), or (n, n) where one number is given.

    Parameters
    ----------
    pixel_size : A
    defocus_u, defocus_v : A, underfocus positive; any broadcastable shape [...]
    angle_deg : angle of defocus_u from the x axis towards y (increasing row), degrees
    b_factor : A^2, envelope exp(-B k^2 / 4)

    Returns
    -------
    float32 [..., ny, nx // 2 + 1], origin at [0, 0]
    """
    ny, nx = (shape, shape) if isinstance(shape, int) else shape
    k2, cos2, sin2 = _grid(ny, nx, float(pixel_size))
    u, v, angle = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (defocus_u, defocus_v, angle_deg)))
    mean, half = 0.5 * (u + v)[..., None, None], 0.5 * (u - v)[..., None, None]
    two_angle = 2 * np.deg2rad(angle)[..., None, None]
    defocus = mean + half * (cos2 * np.cos(two_angle) + sin2 * np.sin(two_angle))
    minus_gamma = optics.k2_factor * defocus * k2 - optics.k4_factor * k2**2 + optics.constant_phase
    values = np.sin(minus_gamma)
    if b_factor:
        values *= np.exp(-0.25 * b_factor * k2)
    return values.astype(np.float32)


def phase_error_limit(defocus_error: float, optics: Optics) -> float:
    """Resolution in A at which a defocus error (A) has shifted the CTF's phase by 90 degrees: d = sqrt(2 lambda dz)."""
    return float(np.sqrt(2 * optics.wavelength * abs(defocus_error)))
