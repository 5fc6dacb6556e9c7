"""The particles of an initial model: few, small, and as samples of their transforms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.alignment import ParticleCtfs
from nephila.alignment.samples import SampleSet
from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.fourier import centred_rfft2, fourier_resize_image
from nephila.initial_model.settings import BOX, InitialModelSettings
from nephila.particle_images import ParticleImages
from nephila.particle_sums import GROUP_COLUMNS, PARTICLE_COLUMNS

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]

LEAST_PARTICLES = 50
HELD_OUT = 0.2
"""Share of the particles that no try is built from: the tries are ranked by them."""
LOWEST_BAND = 4
BLOCK = 256


@dataclass(frozen=True)
class SmallParticles:
    """Particles cropped to BOX px.

    images : float32 [m, BOX, BOX], on such a scale that the transforms' noise is about BOX^2 per sample
    ctfs : of the m particles; pixel_size : A; band : finest shell in use
    samples : of the half plane, sorted so that those of each band from LOWEST_BAND on come first
    values, factors : transforms about the centre / BOX (complex64) and CTFs (float32) at the samples, [m, s]
    """

    images: Float32
    ctfs: ParticleCtfs
    pixel_size: float
    band: int
    samples: SampleSet
    values: Complex64
    factors: Float32

    def __len__(self) -> int:
        return len(self.images)

    def count(self, band: int) -> int:
        """Number of samples up to a band."""
        return int(self.samples.counts[band - LOWEST_BAND])

    def shells(self) -> npt.NDArray[np.int64]:
        """Shell of each sample."""
        return np.rint(self.samples.radius).astype(np.int64)

    def rows(self, chosen: npt.NDArray[np.int64]) -> SmallParticles:
        """Some of the particles."""
        ctfs = ParticleCtfs(
            self.ctfs.defocus_u[chosen], self.ctfs.defocus_v[chosen], self.ctfs.angle_deg[chosen], self.ctfs.optics,
            self.pixel_size,
        )  # fmt: skip
        return SmallParticles(
            self.images[chosen], ctfs, self.pixel_size, self.band, self.samples, self.values[chosen],
            self.factors[chosen],
        )  # fmt: skip


def take_particles(
    table: pd.DataFrame, pixel_size: float, optics: Optics, settings: InitialModelSettings
) -> SmallParticles:
    """Draw particles of a table at random, at most `settings.particles`, and crop them.

    Raises
    ------
    InputError
        Fewer than 50 particles, or windows smaller than 32 px.
    """
    if len(table) < LEAST_PARTICLES:
        raise InputError(
            f"an initial model needs at least {LEAST_PARTICLES} particles, there are {len(table)}: give a starting volume "
            "(reference.volume)"
        )
    rng = np.random.default_rng([settings.seed, 401])
    chosen = np.sort(rng.permutation(len(table))[: settings.particles])
    part = table.iloc[chosen].reset_index(drop=True)
    stack = ParticleImages(part)
    if stack.n < BOX:
        raise InputError(f"windows of {stack.n} px are too small for an initial model; at least {BOX} px are needed")
    images = np.concatenate(
        [fourier_resize_image(stack[first : first + BLOCK], BOX) for first in range(0, len(part), BLOCK)]
    )
    columns = list(PARTICLE_COLUMNS if set(PARTICLE_COLUMNS) <= set(part) else GROUP_COLUMNS)
    defocus = part[columns].to_numpy(dtype=np.float64)
    return small_particles(images * np.float32(stack.n / BOX), defocus, pixel_size * stack.n / BOX, optics, settings)


def small_particles(
    images: Float32, defocus: Float64, pixel_size: float, optics: Optics, settings: InitialModelSettings
) -> SmallParticles:
    """Particles of BOX px images and defoci [m, 3] (U, V, angle)."""
    band = settings.band(BOX * pixel_size)
    samples = SampleSet.build(BOX, tuple(range(LOWEST_BAND, band + 1)))
    ctfs = ParticleCtfs(defocus[:, 0], defocus[:, 1], defocus[:, 2], optics, pixel_size)
    values = centred_rfft2(images).reshape(len(images), -1)[:, samples.targets] / np.float32(BOX)
    factors = ctfs.at(slice(None), BOX, samples.band.kx, samples.band.ky)
    return SmallParticles(images, ctfs, pixel_size, band, samples, np.ascontiguousarray(values), factors)


def split(count: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Particles to build from and those held out, drawn once for all tries."""
    order = np.random.default_rng([seed, 409]).permutation(count)
    held = max(1, round(HELD_OUT * count))
    return np.sort(order[held:]), np.sort(order[:held])
