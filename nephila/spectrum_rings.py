"""Rings of an average power spectrum as an image, without a fit of background and envelope: what is left of the spectra when
the fits are done (`pw_avg`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d, map_coordinates

from nephila.ctf import Optics, ctf_2d

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Fit = tuple[float, float, float]
"""Defocus U and V (A), angle (degrees)."""

BLANK = 0.06
"""Share of the radius around the origin that is not shown: no rings there."""


def polar_rings(power: npt.ArrayLike, pixel_size: float, resolution: float) -> tuple[Float64, int]:
    """log power by direction and radius, averaged along arcs, freed of its background and scaled to unit deviation at each radius.

    power: [n, n], origin at n // 2; pixel_size: A; resolution: A, the finest that is wanted. Returns [90, radii] (every 2 degrees,
    theta = atan2(ky, kx); radius index = radius in Fourier pixels) and the last radius that counts.
    """
    image = np.asarray(power)
    n = image.shape[0]
    half = int(np.clip(round(n * pixel_size / resolution), 8, n // 2 - 1))
    centre = n // 2
    angles = np.deg2rad(np.arange(0.0, 180.0, 2.0))[:, None]
    radii = np.arange(half + 2)
    logarithm = np.log(np.maximum(image, 1e-30))
    polar = map_coordinates(
        logarithm, [centre + radii * np.sin(angles), centre + radii * np.cos(angles)], order=1, mode="nearest"
    )
    width = max(2.0, half / 14)
    polar = gaussian_filter1d(gaussian_filter1d(polar, 2.0, axis=0, mode="wrap"), max(0.7, half / 160), axis=1)
    polar -= gaussian_filter1d(polar.mean(axis=0), width)
    polar /= np.sqrt(gaussian_filter1d((polar**2).mean(axis=0), width) + 1e-12)
    return np.asarray(polar, dtype=np.float64), half


def halves_of_power(
    power: npt.ArrayLike, pixel_size: float, resolution: float, fit: Fit | None, optics: Optics, side: int
) -> Float32:
    """Picture [side, side] of a spectrum: measured (`polar_rings`), the right half CTF^2 of a fit where there is one.

    Unit deviation; low frequencies, and those beyond the resolution (A), are 0.
    """
    polar, half = polar_rings(power, pixel_size, resolution)
    n = np.shape(power)[0]
    y, x = (np.mgrid[0:side, 0:side] - (side - 1) / 2) * (2 * half / (side - 1))
    radius = np.hypot(y, x)
    turn = np.mod(np.arctan2(y, x), np.pi) / np.pi * len(polar)
    inside = np.minimum(radius, half + 1)
    picture = map_coordinates(np.vstack([polar, polar[:1]]), [turn, inside], order=1, mode="nearest")
    if fit is not None:
        right = np.fft.fftshift(ctf_2d(n, pixel_size, *fit, optics), axes=0)
        places = [n // 2 + y, np.maximum(x, 0)]
        picture = np.where(x > 0, 3.0 * (map_coordinates(right, places, order=1, mode="nearest") ** 2 - 0.5), picture)
    picture[(radius < BLANK * half) | (radius > half)] = 0
    return picture.astype(np.float32)
