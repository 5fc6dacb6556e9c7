"""Projections of the reference as a defocus group sees them: times the group's CTF (SPIDER's refproj with CTF)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.fourier import centred_irfft2, centred_rfft2
from nephila.particle_sums import ctf_planes

Float32 = npt.NDArray[np.float32]


def with_group_ctf(projections: npt.ArrayLike, particles: pd.DataFrame, pixel_size: float, optics: Optics) -> Float32:
    """Projections [views, n, n] times the CTF of a group, by which the first alignment compares its particles.

    particles : of the group, with its average defocus (nphGroupDefocusU, V, Angle); pixel_size : A

    Raises
    ------
    InputError
        The group has no particles, and so no defocus.
    """
    if not len(particles):
        raise InputError("the defocus group has no particles, and so no CTF to multiply projections by")
    images = np.asarray(projections, dtype=np.float32)
    plane = ctf_planes(particles.iloc[:1], images.shape[-1], pixel_size, optics, "group")
    # one at a time: fine steps make many views
    return np.stack([centred_irfft2(centred_rfft2(image[None]) * plane, images.shape[-1])[0] for image in images])
