"""Micrographs of coloured noise with known CTF, as the tests of CTF estimation ask for them."""

from __future__ import annotations

import numpy as np

from nephila.ctf import Optics
from nephila.simulate import ring_noise


def noise_micrograph(
    shape,
    pixel_size,
    optics,
    defocus_u,
    defocus_v,
    angle_deg=0.0,
    *,
    at_20=0.15,
    at_5=0.0075,
    seed=0,
    drift=0.0,
    tilt=(0.0, 0.0),
) -> np.ndarray:
    """`ring_noise.noise_micrograph` with ring power over background from `at_20` A to `at_5` A."""
    noise = ring_noise.RingNoise(at_20, at_5, pixel_size)
    return ring_noise.noise_micrograph(noise, shape, optics, defocus_u, defocus_v, angle_deg, seed, drift, tilt)


STRONG = {"at_20": 0.5, "at_5": 0.06}
WEAK = {"at_20": 0.15, "at_5": 0.0075}
TITAN = Optics(300, 2.7, 0.1)
