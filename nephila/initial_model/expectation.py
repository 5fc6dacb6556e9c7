"""Where particles may lie: probabilities of all orientations and shifts of a grid, as two matrix products.

With slices F_r of the model, transforms X of the particles, their CTFs C, phases e_s of the shifts and the noise's power v, the
log likelihood is `sum over samples of (2 Re(F_r* C e_s X) - |C F_r|^2) / v`. What the particles say about each slice comes out of
the same products: `N_r = sum P(r, s) C e_s X / v` and `D_r = sum P(r) C^2 / v`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.initial_model.data import SmallParticles
from nephila.initial_model.settings import BOX
from nephila.projection import FourierProjector

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]


@dataclass(frozen=True)
class PoseGrid:
    """Rotations [r, 3, 3], shifts [s, 2] in px (sign of rlnOrigin) and the shifts' prior log probabilities [s]."""

    rotations: Float64
    shifts: Float64
    log_prior: Float32


@dataclass(frozen=True)
class Expectation:
    """Sums over a batch of particles.

    numerator : complex64 [r, q], N_r; denominator : float32 [r, q], D_r
    residual : float64 [q], power left by the model, mean over the batch
    evidence : float64 [b], log likelihood of each particle, all poses together, over that of noise alone
    perplexity : mean number of orientations that a particle may have, exp(entropy)
    """

    numerator: Complex64
    denominator: Float32
    residual: Float64
    evidence: Float64
    perplexity: float


def expect(
    particles: SmallParticles,
    projector: FourierProjector,
    grid: PoseGrid,
    band: int,
    noise: Float64,
    temperature: float = 1.0,
) -> Expectation:
    """Probabilities of the grid's poses for a batch of particles, and their sums.

    noise : power by sample [q] up to the band; temperature : by which log likelihoods are divided
    """
    count = particles.count(band)
    samples = particles.samples.band
    kx, ky = samples.kx[:count], samples.ky[:count]
    slices = projector.sample(grid.rotations, np.stack([kx, ky])) * np.float32(1.0 / BOX)
    factors = particles.factors[:, :count]
    weights = (1.0 / noise).astype(np.float32)
    angles = (np.outer(grid.shifts[:, 0], kx) + np.outer(grid.shifts[:, 1], ky)) * (-2 * np.pi / BOX)
    moved = (particles.values[:, :count] * factors * weights)[:, None] * np.exp(1j * angles).astype(np.complex64)
    number, shifts = len(particles), len(grid.shifts)
    data = _side_by_side(moved.reshape(number * shifts, count))
    power = factors**2 * weights
    references = _side_by_side(slices)
    squares = slices.real**2 + slices.imag**2
    logs = (references * np.float32(2.0 / temperature)) @ data.T
    cube = logs.reshape(len(slices), number, shifts)
    cube -= ((squares @ power.T) * np.float32(1.0 / temperature))[:, :, None]
    cube += grid.log_prior
    highest = cube.max(axis=(0, 2))
    cube -= highest[None, :, None]
    np.exp(logs, out=logs)
    totals = cube.sum(axis=(0, 2), dtype=np.float64)
    cube *= (1.0 / totals).astype(np.float32)[None, :, None]
    by_rotation = cube.sum(axis=2)
    packed = logs @ data
    numerator = packed[:, :count] + 1j * packed[:, count:]
    denominator = by_rotation @ power
    explained = 2 * (references * packed).sum(axis=0, dtype=np.float64).reshape(2, count).sum(axis=0)
    modelled = (squares * denominator).sum(axis=0, dtype=np.float64)
    measured = (particles.values[:, :count].real ** 2 + particles.values[:, :count].imag ** 2).mean(
        axis=0, dtype=np.float64
    )
    residual = measured - noise * (explained - modelled) / number
    entropy = -(by_rotation * np.log(np.maximum(by_rotation, 1e-20))).sum(axis=0, dtype=np.float64)
    return Expectation(
        numerator.astype(np.complex64), denominator, residual, highest + np.log(totals), float(np.exp(entropy).mean())
    )


def _side_by_side(values: Complex64) -> Float32:
    """Real and imaginary parts as float32 [m, 2 q]."""
    return np.concatenate([values.real, values.imag], axis=1)
