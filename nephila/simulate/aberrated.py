"""Particles of an object of points with every aberration that an optics group can state, exact at every frequency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.aberrations import even_term, odd_term, tilt_scale, zernike
from nephila.ctf import Optics
from nephila.fourier import centred_irfft2
from nephila.geometry import euler_matrix
from nephila.io.mrc import write_stack, write_volume
from nephila.optics_groups import IDENTITY, OpticsGroup, ParticleSet, write_particle_set
from nephila.optics_refinement.magnification import transform_defocus
from nephila.simulate.points import PointObject

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GroupTruth:
    """An optics group as the images have it.

    stated : as the table will say it, with nominal pixel size and without aberrations
    true_pixel_size : A; even, odd : radians; magnification : M, of true frequencies; beam_tilt : mrad
    """

    stated: OpticsGroup
    true_pixel_size: float
    even: tuple[float, ...] = ()
    odd: tuple[float, ...] = ()
    magnification: tuple[float, float, float, float] = IDENTITY
    beam_tilt: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Simulated:
    """Particles and the truth.

    particles : what a refinement would have found: true poses, defoci as they are fitted at the nominal pixel size and before any
        magnification is known
    images : float32 [m, n, n]
    """

    particles: ParticleSet
    images: Float32
    target: PointObject

    def write(self, folder: Path, map_pixel_size: float, map_true_pixel_size: float) -> None:
        """`particles.star`, `particles.mrcs` and `map.mrc`, whose header says `map_pixel_size`."""
        folder.mkdir(parents=True, exist_ok=True)
        n = self.images.shape[1]
        stated = self.particles.optics[0].pixel_size or map_pixel_size
        write_stack(folder / "particles.mrcs", self.images, stated)
        write_volume(folder / "map.mrc", self.target.volume(n, map_true_pixel_size), map_pixel_size)
        write_particle_set(folder / "particles.star", self.particles)


def simulate_aberrated(
    groups: Sequence[GroupTruth],
    particles: int,
    snr: float,
    *,
    box: int = 96,
    defocus: tuple[float, float] = (8000.0, 16000.0),
    b_factor: float = 20.0,
    micrographs: int = 4,
    seed: int = 0,
) -> Simulated:
    """Particles in turn of each group, with white noise.

    snr : variance of the images without noise over that of the noise, over the whole box
    """
    rng = np.random.default_rng([seed, 227])
    target = PointObject.random(0.28 * box * groups[0].true_pixel_size, 250, b_factor, seed=seed)
    angles = np.stack(
        [
            rng.uniform(-180, 180, particles),
            np.degrees(np.arccos(rng.uniform(-1, 1, particles))),
            rng.uniform(-180, 180, particles),
        ],
        axis=1,
    ).round(5)
    mean, half = rng.uniform(*defocus, particles), 0.5 * rng.uniform(100, 500, particles)
    direction, origin_px = rng.uniform(0, 180, particles), rng.uniform(-3, 3, (particles, 2))
    number = np.arange(particles) % len(groups)
    images = np.empty((particles, box, box), dtype=np.float32)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(particles)],
            "rlnMicrographName": [f"mic{i % micrographs + 1}_{number[i] + 1}.mrc" for i in range(particles)],
            "rlnAngleRot": angles[:, 0],
            "rlnAngleTilt": angles[:, 1],
            "rlnAnglePsi": angles[:, 2],
            "rlnOpticsGroup": [groups[int(i)].stated.number for i in number],
            "rlnRandomSubset": 1 + np.arange(particles) // len(groups) % 2,
        }
    )
    matrices = euler_matrix(*angles.T)
    nominal: Float64 = np.array([groups[int(i)].stated.pixel_size or 0.0 for i in number])
    ratio2 = (nominal / np.array([groups[int(i)].true_pixel_size for i in number])) ** 2
    table["rlnOriginXAngst"], table["rlnOriginYAngst"] = (origin_px * nominal[:, None]).T
    table["rlnDefocusU"], table["rlnDefocusV"] = (mean + half) * ratio2, (mean - half) * ratio2
    table["rlnDefocusAngle"] = direction
    for index, group in enumerate(groups):
        rows = np.flatnonzero(number == index)
        images[rows] = _images(
            group, target, box, matrices[rows], origin_px[rows], mean[rows], half[rows], direction[rows]
        )
        # a fit that knows no magnification finds M^T D M
        inverse = np.linalg.inv(np.array(group.magnification).reshape(2, 2))
        table = transform_defocus(table, rows, inverse)
    deviation = np.sqrt(images.var(axis=(1, 2)).mean() / snr).astype(np.float32)
    images += deviation * rng.standard_normal(images.shape, dtype=np.float32)
    stated = tuple(replace(group.stated, image_size=box) for group in groups)
    return Simulated(ParticleSet(stated, table, source="simulated"), images, target)


def _images(
    group: GroupTruth,
    target: PointObject,
    n: int,
    matrices: Float64,
    origin_px: Float64,
    mean: Float64,
    half: Float64,
    direction: Float64,
) -> Float32:
    """Images without noise float32 [m, n, n]."""
    stated, pixel = group.stated, group.true_pixel_size
    optics = Optics(stated.voltage_kv, stated.cs_mm, stated.amplitude_contrast)
    ky, kx = np.fft.fftfreq(n, pixel)[:, None], np.fft.rfftfreq(n, pixel)[None, :]
    m = np.array(group.magnification).reshape(2, 2)
    x, y = m[0, 0] * kx + m[0, 1] * ky, m[1, 0] * kx + m[1, 1] * ky
    radius, theta = np.hypot(x, y), np.arctan2(y, x)
    even = sum((c * zernike(*even_term(i), radius, theta) for i, c in enumerate(group.even)), np.zeros_like(radius))
    odd = sum((c * zernike(*odd_term(i), radius, theta) for i, c in enumerate(group.odd)), np.zeros_like(radius))
    odd = odd - tilt_scale(stated) * radius**2 * (group.beam_tilt[0] * x + group.beam_tilt[1] * y)
    fixed = optics.constant_phase - optics.k4_factor * radius**4 - even
    transforms = target.slices(matrices, n, pixel, m)
    for i, transform in enumerate(transforms):
        defocus = mean[i] + half[i] * np.cos(2 * (theta - np.deg2rad(direction[i])))
        shift = 2 * np.pi * pixel * (kx * origin_px[i, 0] + ky * origin_px[i, 1])
        transform *= np.sin(optics.k2_factor * defocus * radius**2 + fixed) * np.exp(1j * (odd + shift))
    return centred_irfft2(transforms, n)
