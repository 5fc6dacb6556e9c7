"""Is the object as symmetric as the refinement assumed? A comparison without symmetry, made from the refined poses.

Poses that were found against a symmetrised map say nothing about which of the equivalent poses is the right one. So each
particle chooses among its equivalents against a map without symmetry, which is built from such choices: it starts from random
ones and grows for a few rounds. What the map has beyond its own symmetrised form is noise for an object that has the point
group, and differs between the half-sets; an object that lacks it gives both halves the same asymmetry, up to an operation of
the group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.alignment.samples import SampleSet
from nephila.backprojection import Backprojector
from nephila.ctf import Optics
from nephila.finishing import finish
from nephila.fourier import centred_rfft2, filter_shells, half_weights, rfftn, shell_index_3d
from nephila.kernels.shells import shell_products
from nephila.particle_images import ParticleImages
from nephila.particle_sums import ctf_planes, pose_matrices, pose_shifts
from nephila.projection import FourierProjector
from nephila.refinement.merge import STABILISER, load_mask
from nephila.refinement.model import RefinementModel
from nephila.refinement.settings import IterationSettings
from nephila.rigid_fit import transform_volume
from nephila.symmetry import point_group_matrices, symmetrise_volume

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

MOST_PARTICLES = 1500
"""Of each half-set: enough to see an asymmetry, few enough to cost seconds."""
ROUNDS = 8
LARGEST_BAND = 16
FIRST_SHELL = 3
"""The shells before it hold too few values to say anything."""
SUSPICIOUS = 0.4
"""Correlation of the two halves' asymmetries from which the point group is doubted: a D7 ring that lacks two of its 14 subunits
reaches 0.8, a complete one 0.15 (1,000 particles, SNR 0.1)."""


@dataclass(frozen=True)
class SymmetryCheck:
    """agreement: mean FSC of the asymmetric parts of the two halves' maps over the first two thirds of the band, for the best
    operation of the group; share: power of the asymmetric part, noise included, over that of the map; resolution: A, that of the
    band."""

    agreement: float
    share: float
    resolution: float
    particles: int

    @property
    def doubtful(self) -> bool:
        """Whether the object seems to lack the symmetry."""
        return self.agreement > SUSPICIOUS


def check_symmetry(
    particles: pd.DataFrame, model: RefinementModel, settings: IterationSettings, optics: Optics, threads: int = 1
) -> SymmetryCheck:
    """Compare with a map without symmetry; `particles` in their refined poses, of both half-sets. Not for C1."""
    group = point_group_matrices(settings.symmetry)
    band = int(np.clip(_resolved_shell(model.fsc), 4, min(LARGEST_BAND, (settings.box - 1) // 2)))
    maps, used = [], 0
    for half in (1, 2):
        mine = particles[particles["rlnRandomSubset"] == half]
        step = max(1, -(-len(mine) // MOST_PARTICLES))
        mine = mine.iloc[::step].reset_index(drop=True)
        used += len(mine)
        maps.append(_map_without_symmetry(mine, group, band, model, settings, optics, half, threads))
    mask = load_mask(settings)
    symmetric = [symmetrise_volume(volume, group, threads=threads) for volume in maps]
    first, second = (_transform((volume - mean) * mask) for volume, mean in zip(maps, symmetric, strict=True))
    turned = [
        _transform((transform_volume(maps[1], operator, np.zeros(3), order=3) - symmetric[1]) * mask)
        for operator in group[1:]
    ]
    agreement = max(_mean_correlation(first, other, band) for other in [second, *turned])
    whole = sum(_power(_transform(mean * mask), band) for mean in symmetric)
    rest = _power(first, band) + _power(second, band)
    resolution = settings.box * settings.pixel_size / band
    return SymmetryCheck(round(agreement, 4), round(rest / max(whole + rest, 1e-30), 4), round(resolution, 3), used)


def _resolved_shell(fsc: Float64) -> int:
    """Last shell before the FSC first falls below 0.5."""
    low = np.flatnonzero(np.asarray(fsc)[1:] < 0.5)
    return int(low[0]) if len(low) else len(fsc) - 1


def _map_without_symmetry(
    table: pd.DataFrame,
    group: Float64,
    band: int,
    model: RefinementModel,
    settings: IterationSettings,
    optics: Optics,
    half: int,
    threads: int,
) -> Float32:
    """A half's map after ROUNDS of choosing; each particle is compared with the map of those of the other parity only, so that its
    own noise does not hold it where it is."""
    n = settings.box
    rotations = pose_matrices(table)[:, None] @ group
    samples = SampleSet.build(n, (band,))
    values, factors = _particles_at(samples, table, model, settings, optics)
    choice = np.random.default_rng([settings.seed, 311, half]).integers(0, len(group), len(table))
    parity = np.arange(len(table)) % 2
    mask = load_mask(settings)
    closing = np.clip((band + 2 - np.arange(n // 2 + 1)) / 2, 0, 1)
    frequencies = np.stack([samples.band.kx, samples.band.ky])
    for _ in range(ROUNDS):
        before = choice.copy()
        for fold in (0, 1):
            rows = np.flatnonzero(parity == fold)
            volume = _backproject(table.iloc[rows], rotations[rows, before[rows]], band, settings, optics, threads)
            projector = FourierProjector.from_volume(filter_shells(volume, closing) * mask, max_radius=band)
            others = np.flatnonzero(parity != fold)
            choice[others] = _best(projector, frequencies, values[others], factors[others], rotations[others])
        if (choice == before).all():
            break
    chosen = rotations[np.arange(len(table)), choice]
    return filter_shells(_backproject(table, chosen, band, settings, optics, threads), closing)


def _particles_at(
    samples: SampleSet, table: pd.DataFrame, model: RefinementModel, settings: IterationSettings, optics: Optics
) -> tuple[npt.NDArray[np.complex64], Float32]:
    """Centred, noise-weighted transforms times the CTF [m, s], and the CTFs' squares [m, s] with the same weights."""
    n, images = settings.box, ParticleImages(table)
    weights = samples.root_weights(1.0 / model.noise) ** 2
    shifts = pose_shifts(table, settings.pixel_size)
    values = np.empty((len(table), len(samples.targets)), dtype=np.complex64)
    factors = np.empty(values.shape, dtype=np.float32)
    for first in range(0, len(table), 256):
        rows = slice(first, min(first + 256, len(table)))
        transforms = centred_rfft2(images[rows]).reshape(rows.stop - first, -1)[:, samples.targets]
        planes = ctf_planes(table.iloc[rows], n, settings.pixel_size, optics, settings.ctf)
        ctf = planes.reshape(len(planes), -1)[:, samples.targets]
        phase = (samples.band.kx[None] * shifts[rows, :1] + samples.band.ky[None] * shifts[rows, 1:]) / n
        values[rows] = transforms * np.exp(-2j * np.pi * phase) * ctf * weights
        factors[rows] = ctf**2 * weights
    return values, factors


def _backproject(
    table: pd.DataFrame, rotations: Float64, band: int, settings: IterationSettings, optics: Optics, threads: int
) -> Float32:
    n, images = settings.box, ParticleImages(table)
    collector = Backprojector(n, max_radius=min(n // 2, band + 2))
    shifts = pose_shifts(table, settings.pixel_size)
    for first in range(0, len(table), 256):
        part = slice(first, min(first + 256, len(table)))
        planes = ctf_planes(table.iloc[part], n, settings.pixel_size, optics, settings.ctf)
        collector.insert(centred_rfft2(images[part]), rotations[part], planes, None, None, shifts[part], threads)
    return finish(collector.partial_sum(), "C1", STABILISER, threads=threads)


def _best(
    projector: FourierProjector,
    frequencies: Float32,
    values: npt.NDArray[np.complex64],
    factors: Float32,
    rotations: Float64,
) -> npt.NDArray[np.int64]:
    """Of each particle's rotations [m, k, 3, 3] the one whose slice matches best."""
    m, k = rotations.shape[:2]
    chosen = np.empty(m, dtype=np.int64)
    block = max(1, 4096 // k)
    for first in range(0, m, block):
        rows = slice(first, min(first + block, m))
        slices = projector.sample(rotations[rows].reshape(-1, 3, 3), frequencies).reshape(rows.stop - first, k, -1)
        match = np.einsum("mks,ms->mk", slices.conj(), values[rows]).real
        norm = np.einsum("mks,ms->mk", slices.real**2 + slices.imag**2, factors[rows])
        chosen[rows] = (match / np.sqrt(np.maximum(norm, 1e-30))).argmax(axis=1)
    return chosen


def _transform(volume: Float32) -> npt.NDArray[np.complex64]:
    return rfftn(volume.astype(np.float32))


def _mean_correlation(a: npt.NDArray[np.complex64], b: npt.NDArray[np.complex64], band: int) -> float:
    """Mean FSC from FIRST_SHELL over two thirds of the band, three shells at least."""
    n = a.shape[0]
    cross, power_a, power_b = shell_products(a, b, shell_index_3d(n), half_weights(n), n // 2 + 1)
    fsc = cross / np.sqrt(np.maximum(power_a * power_b, 1e-30))
    return float(fsc[FIRST_SHELL : max(FIRST_SHELL + 3, 2 * band // 3 + 1)].mean())


def _power(a: npt.NDArray[np.complex64], band: int) -> float:
    n = a.shape[0]
    return float(shell_products(a, a, shell_index_3d(n), half_weights(n), n // 2 + 1)[1][1 : band + 1].sum())
