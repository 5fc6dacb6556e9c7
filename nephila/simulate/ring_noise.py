"""Micrographs of coloured noise with known CTF: the true model of a power spectrum, and what it allows to know at best.

    P(k) = B(k) (1 + R(k) CTF^2(k)),    R falling as a Gaussian from 20 A to 5 A

An image is Gaussian noise of this spectrum, so that the Fisher information about the CTF is known exactly (Whittle 1953).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.ctf import Optics, ctf_2d
from nephila.fourier import irfft2, rfft2

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_TILT_STEP = 100.0  # A of defocus between images that a tilted one is blended of: 0.25 rad at 5 A
_STRONGEST = 50.0


@dataclass(frozen=True)
class RingNoise:
    """Spectra of a kind of micrograph.

    at_20, at_5: power of the rings over the background at 20 A and 5 A; pixel_size: A, of the background's slope.
    """

    at_20: float
    at_5: float
    pixel_size: float

    def background(self, k2: npt.ArrayLike) -> Float64:
        """B at k^2 (1/A^2): a detector's slope, and a rise below 80 A."""
        values = np.asarray(k2, dtype=np.float64)
        return 1 / (1 + 0.8 * values * self.pixel_size**2) + 3 * np.exp(-values / 0.012**2)

    def rings(self, k2: npt.ArrayLike) -> Float64:
        """R at k^2 (1/A^2)."""
        slope = np.log(self.at_20 / self.at_5) / (1 / 25 - 1 / 400)
        return np.minimum(self.at_5 * np.exp(-slope * (np.asarray(k2, dtype=np.float64) - 1 / 25)), _STRONGEST)


def noise_micrograph(
    noise: RingNoise,
    shape: tuple[int, int],
    optics: Optics,
    defocus_u: float,
    defocus_v: float,
    angle_deg: float = 0.0,
    seed: int = 0,
    drift: float = 0.0,
    tilt: tuple[float, float] = (0.0, 0.0),
    heights: npt.ArrayLike | None = None,
) -> Float32:
    """A micrograph [ny, nx] with this CTF (A, degrees).

    drift: A, uniform motion along x, which takes the rings away in that direction; tilt: change of defocus (A) per A along x and
    y, zero in the middle of the image; heights [ny, nx]: change of defocus (A) at each pixel besides.
    """
    rng = np.random.default_rng(seed)
    p = noise.pixel_size
    ky, kx = np.fft.fftfreq(shape[0], p)[:, None], np.fft.rfftfreq(shape[1], p)[None, :]
    k2 = kx**2 + ky**2
    white, object_ = (rfft2(rng.standard_normal(shape, dtype=np.float32)) for _ in range(2))
    base = np.sqrt(noise.background(k2))
    strength = base * np.sqrt(noise.rings(k2)) * np.sinc(drift * kx) * object_

    def part(offset: float) -> Float32:
        transfer = ctf_2d(shape, p, defocus_u + offset, defocus_v + offset, angle_deg, optics)
        return irfft2((strength * transfer).astype(np.complex64), shape[1])

    if not any(tilt) and heights is None:
        transfer = ctf_2d(shape, p, defocus_u, defocus_v, angle_deg, optics)
        return irfft2((base * white + strength * transfer).astype(np.complex64), shape[1])
    image = irfft2((base * white).astype(np.complex64), shape[1])
    y, x = (p * (np.arange(n) - (n - 1) / 2) for n in shape)
    local = (tilt[0] * x[None, :] + tilt[1] * y[:, None]) / _TILT_STEP
    if heights is not None:
        local = local + np.asarray(heights, dtype=np.float64) / _TILT_STEP
    for step in range(int(np.floor(local.min())), int(np.floor(local.max())) + 2):
        share = np.maximum(1 - np.abs(local - step), 0).astype(np.float32)
        if share.any():
            image += share * part(step * _TILT_STEP)
    return np.asarray(image)


def fisher_bound(
    noise: RingNoise, shape: tuple[int, int], optics: Optics, defocus_u: float, defocus_v: float, angle_deg: float
) -> Float64:
    """Least standard errors (A) that any unbiased fit can have, of the mean defocus and of half the astigmatism's two parts
    (cos 2 theta, sin 2 theta), when everything but these three is known.

    Each independent Fourier coefficient of the image tells about log P once: J = sum over half the Nyquist disc of
    grad log P grad log P^T.
    """
    p = noise.pixel_size
    area = shape[0] * shape[1] * p**2
    k = (np.arange(4000) + 0.5) / 4000 * 0.5 / p
    theta = (np.arange(90) + 0.5) / 90 * np.pi
    cos2, sin2 = np.cos(2 * theta), np.sin(2 * theta)
    turn = 2 * np.deg2rad(angle_deg)
    local = 0.5 * (defocus_u + defocus_v) + 0.5 * (defocus_u - defocus_v) * np.cos(2 * theta - turn)
    k2 = k[:, None] ** 2
    phase = optics.k2_factor * local * k2 - optics.k4_factor * k2**2 + optics.constant_phase
    rings = noise.rings(k2)
    slope = rings * np.sin(2 * phase) * optics.k2_factor * k2 / (1 + rings * np.sin(phase) ** 2)
    cells = area * k[:, None] * (k[1] - k[0]) * np.pi / len(theta)
    parts = np.stack([slope, slope * cos2, slope * sin2]).reshape(3, -1)
    information = (parts * np.broadcast_to(cells, slope.shape).ravel()) @ parts.T
    return np.asarray(np.sqrt(np.diag(np.linalg.inv(information))))
