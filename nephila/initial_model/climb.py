"""One try: from noise to a model, batch by batch, from coarse to fine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.alignment.grids import VARIANT_MATRICES, OrientationGrid, ShiftGrid
from nephila.geometry import rotation_vector_to_matrix
from nephila.initial_model.data import LOWEST_BAND, SmallParticles
from nephila.initial_model.expectation import Expectation, PoseGrid, expect
from nephila.initial_model.model import ForgettingSums
from nephila.initial_model.settings import BOX, InitialModelSettings
from nephila.job import logger
from nephila.masks import spherical_mask
from nephila.projection import FourierProjector
from nephila.symmetry import point_group_matrices

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

BATCH = 120
FIRST_BAND, SEARCH_BAND = 5, 8
"""Finest shells of the first and of the last batch."""
STEPS_DEG = (24.0, 18.0)
PRIOR = 0.05


@dataclass(frozen=True)
class Try:
    """A model [BOX, BOX, BOX], and the noise's power by shell, 0 to BOX // 2."""

    volume: Float32
    noise: Float64


def climb(
    particles: SmallParticles, settings: InitialModelSettings, number: int, step_done: Callable[[], None] = lambda: None
) -> Try:
    """A model from particles, starting from random orientations; `number` (from 1) seeds them; step_done is called each round."""
    rng = np.random.default_rng([settings.seed, 419, number])
    mask = model_mask(particles, settings)
    group = point_group_matrices(settings.symmetry)
    shells = particles.shells()
    noise = mean_power(particles)
    last = min(SEARCH_BAND, particles.band)
    sums = ForgettingSums(last)
    order = _batches(len(particles), rng)
    volume = random_start(particles.rows(next(order)), sums, settings, mask, noise[shells], rng)
    for step in range(settings.rounds):
        done = step / max(settings.rounds - 1, 1)
        band = int(round(FIRST_BAND + (last - FIRST_BAND) * done))
        grid = pose_grid(
            settings, particles.pixel_size, STEPS_DEG[0] + (STEPS_DEG[1] - STEPS_DEG[0]) * done, band, group, rng
        )
        batch = particles.rows(next(order))
        projector = FourierProjector.from_volume(volume, max_radius=band)
        found = expect(batch, projector, grid, band, noise[shells[: particles.count(band)]])
        share = max(0.15, (step + 1.0) ** -0.5)
        sums.add(found, grid.rotations, particles, share)
        volume = sums.volume(settings.symmetry, band, mask, PRIOR)
        noise = _updated(noise, found, shells, 0.3)
        logger.debug("try %d, batch %d: band %d, evidence %.2f, %.1f orientations", number, step + 1, band,
                     float(found.evidence.mean()), found.perplexity)  # fmt: skip
        step_done()
    return Try(volume, noise)


def mean_power(particles: SmallParticles) -> Float64:
    """Power of the particles by shell, 0 to BOX // 2, signal and all; shells that hold no samples have their neighbour's."""
    shells = particles.shells()
    number = np.bincount(shells)
    power = np.bincount(shells, (np.abs(particles.values) ** 2).mean(axis=0)) / np.maximum(number, 1)
    seen = np.flatnonzero(number)
    return np.interp(np.arange(BOX // 2 + 1), seen, power[seen])


def model_mask(particles: SmallParticles, settings: InitialModelSettings) -> Float32:
    """Sphere of the particle's diameter."""
    radius = min(0.5 * settings.diameter / particles.pixel_size, 0.42 * BOX)
    return spherical_mask(BOX, radius, 0.06 * BOX)


def pose_grid(
    settings: InitialModelSettings,
    pixel_size: float,
    step_deg: float,
    band: int,
    group: Float64,
    rng: np.random.Generator,
) -> PoseGrid:
    """A grid over all orientations and shifts, turned and moved at random within its step."""
    views = OrientationGrid.build(step_deg, step_deg, group)
    rotations = (VARIANT_MATRICES[:, None] @ views.matrices()[None]).reshape(-1, 3, 3)
    turn = rotation_vector_to_matrix(rng.normal(size=3) * 3.0)
    limit = settings.shift_range / pixel_size
    spacing = BOX / (3.5 * band)
    shifts = ShiftGrid.covering(limit, spacing).shifts + rng.uniform(-0.5, 0.5, 2) * min(spacing, 2 * limit)
    log_prior = (-0.5 * (shifts**2).sum(axis=1) / (0.6 * limit) ** 2).astype(np.float32)
    return PoseGrid(turn @ rotations, shifts, log_prior)


def random_start(
    batch: SmallParticles,
    sums: ForgettingSums,
    settings: InitialModelSettings,
    mask: Float32,
    noise: Float64,
    rng: np.random.Generator,
) -> Float32:
    """The particles backprojected in random orientations."""
    count = batch.count(LOWEST_BAND + 1)
    rotations = np.stack([random_rotation(rng) for _ in range(len(batch))])
    weights = (1.0 / noise[:count]).astype(np.float32)
    factors = batch.factors[:, :count]
    found = Expectation(
        batch.values[:, :count] * factors * weights, factors**2 * weights, noise[:count], np.zeros(len(batch)), 1.0
    )
    sums.add(found, rotations, batch, 1.0)
    return sums.volume(settings.symmetry, LOWEST_BAND + 1, mask, PRIOR)


def random_rotation(rng: np.random.Generator) -> Float64:
    """A rotation matrix, all equally likely."""
    q = rng.normal(size=4)
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _batches(count: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Batches of rows, all particles once before any comes again."""
    size = min(BATCH, count)
    while True:
        order = rng.permutation(count)
        for first in range(0, count - size + 1, size):
            yield np.sort(order[first : first + size])


def _updated(noise: Float64, found: Expectation, shells: npt.NDArray[np.int64], share: float) -> Float64:
    """The noise by shell, moved towards what the model leaves."""
    count = len(found.residual)
    number = np.bincount(shells[:count], minlength=len(noise))
    seen = np.bincount(shells[:count], found.residual, minlength=len(noise)) / np.maximum(number, 1)
    return np.where(number > 0, noise + share * (np.maximum(seen, 1e-3 * noise) - noise), noise)
