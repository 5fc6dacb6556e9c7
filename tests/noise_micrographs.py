"""Micrographs of coloured noise with known CTF, for tests of CTF estimation."""

from __future__ import annotations

import numpy as np

from nephila.ctf import Optics, ctf_2d
from nephila.fourier import irfft2, rfft2


def noise_micrograph(
    shape, pixel_size, optics, defocus_u, defocus_v, angle_deg=0.0, *, at_20=0.15, at_5=0.0075, seed=0, drift=0.0
) -> np.ndarray:
    """White noise with a sloping background, plus noise times the CTF; ring power over background falls from `at_20` A to `at_5` A.

    drift: A, uniform motion along x, which takes the rings away in that direction.
    """
    rng = np.random.default_rng(seed)
    ky, kx = np.fft.fftfreq(shape[0], pixel_size)[:, None], np.fft.rfftfreq(shape[1], pixel_size)[None, :]
    k2 = kx**2 + ky**2
    background = 1 / (1 + 0.8 * k2 * pixel_size**2) + 3 * np.exp(-k2 / 0.012**2)
    slope = np.log(at_20 / at_5) / (1 / 25 - 1 / 400)
    rings = np.minimum(at_5 * np.exp(-slope * (k2 - 1 / 25)), 50.0)
    transfer = ctf_2d(shape, pixel_size, defocus_u, defocus_v, angle_deg, optics) * np.sinc(drift * kx)
    noise, object_ = (rfft2(rng.standard_normal(shape, dtype=np.float32)) for _ in range(2))
    return irfft2(np.sqrt(background) * (noise + np.sqrt(rings) * transfer * object_), shape[1])


STRONG = {"at_20": 0.5, "at_5": 0.06}
WEAK = {"at_20": 0.15, "at_5": 0.0075}
TITAN = Optics(300, 2.7, 0.1)
