"""From a try's rough model to one in which every particle has its best pose, and how well that explains others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nephila.alignment import AlignmentResult, AlignmentSettings, align_exhaustively
from nephila.backprojection import Backprojector
from nephila.finishing import finish
from nephila.fourier import centred_rfft2
from nephila.fsc import fourier_shell_correlation
from nephila.initial_model.climb import Try, model_mask
from nephila.initial_model.data import SmallParticles
from nephila.initial_model.settings import BOX, InitialModelSettings
from nephila.merging import add_sums, signal_to_noise_from_fsc
from nephila.partial_sum import PartialSum
from nephila.projection import FourierProjector
from nephila.refinement.noise import NoiseSum, measure_noise
from nephila.symmetry import point_group_matrices

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

ROUNDS = (4, 10)
"""Fewest and most."""
LEAST_GAIN = 0.01
"""Share by which a further round has to raise the power that the model explains."""
STEP_DEG = 15.0
COARSE_BAND = 8
CANDIDATES = 8
MARGINAL = 6
LEAST_PROBABILITY = 0.02
BLOCK = 2048


@dataclass(frozen=True)
class Polished:
    """A model [BOX, BOX, BOX], the noise's power by shell, and the FSC of maps of every other particle."""

    volume: Float32
    noise: Float64
    fsc: Float64


def polish(rough: Try, particles: SmallParticles, settings: InitialModelSettings) -> Polished:
    """Align all particles exhaustively and reconstruct, a few times, to the finest shell."""
    mask = model_mask(particles, settings)
    state = Polished(rough.volume, rough.noise, np.zeros(BOX // 2 + 1))
    first, fewest = min(COARSE_BAND, particles.band), ROUNDS[0]
    before = 0.0
    for step in range(ROUNDS[1]):
        band = round(first + (particles.band - first) * min(step / (fewest - 1), 1.0))
        found = align(state.volume, state.noise, particles, band, settings)
        explained = float(explained_power(found, particles, np.ones(BOX // 2 + 1), particles.band).mean())
        state = _reconstruct(found, state, particles, band, mask, settings.symmetry)
        if step >= fewest and explained < (1 + LEAST_GAIN) * before:
            break
        before = explained
    return state


def align(
    volume: Float32, noise: Float64, particles: SmallParticles, band: int, settings: InitialModelSettings
) -> AlignmentResult:
    """Poses of the particles against a model, up to a band."""
    options = AlignmentSettings(
        angular_step_deg=STEP_DEG,
        in_plane_step_deg=STEP_DEG,
        shift_range_px=settings.shift_range / particles.pixel_size,
        coarse_band=min(COARSE_BAND, band),
        candidates=CANDIDATES,
        final_band=band,
        symmetry=point_group_matrices(settings.symmetry),
        marginal=MARGINAL,
    )
    projector = FourierProjector.from_volume(volume, max_radius=band)
    weights = 1.0 / (noise * BOX**2)
    return align_exhaustively(particles.images, projector, particles.ctfs, options, weights_by_shell=weights)


def explained_power(found: AlignmentResult, particles: SmallParticles, noise: Float64, band: int) -> Float64:
    """Log likelihood of each particle in its best pose, over that of noise alone."""
    count = particles.count(band)
    weights = 1.0 / np.interp(particles.samples.radius[:count], np.arange(len(noise)), noise)
    power = (np.abs(particles.values[:, :count]) ** 2) @ weights
    return np.where(found.correlation > 0, found.correlation, 0.0) ** 2 * power


def _reconstruct(
    found: AlignmentResult, state: Polished, particles: SmallParticles, band: int, mask: Float32, symmetry: str
) -> Polished:
    """The map of the particles in their likely poses, filtered by the FSC of its halves, and the noise against the last map."""
    assert found.candidates is not None and found.candidate_weights is not None
    transforms, planes = centred_rfft2(particles.images), particles.ctfs.planes(slice(None), BOX)
    number, k = found.candidate_weights.shape
    matrices = found.candidates.matrices.reshape(number, k, 3, 3)
    shifts = found.candidates.shifts.reshape(number, k, 2)
    likely = np.where(found.candidate_weights >= LEAST_PROBABILITY, found.candidate_weights, 0.0)
    sums: list[PartialSum] = []
    for half in (0, 1):
        projector = Backprojector(BOX, max_radius=band)
        rows, which = np.nonzero(likely * (np.arange(number) % 2 == half)[:, None])
        for start in range(0, len(rows), BLOCK):
            row, pose = rows[start : start + BLOCK], which[start : start + BLOCK]
            projector.insert(
                transforms[row], matrices[row, pose], planes[row], likely[row, pose], None, shifts[row, pose]
            )
        sums.append(projector.partial_sum())
    first, second = (finish(part, symmetry, max_radius=band) * mask for part in sums)
    fsc = fourier_shell_correlation(first, second)
    volume = finish(add_sums(sums), symmetry, snr=signal_to_noise_from_fsc(fsc), max_radius=band) * mask
    total = NoiseSum.empty(BOX)
    slices = FourierProjector.from_volume(state.volume, max_radius=band).slices(found.poses.matrices)
    total.add(measure_noise(transforms, slices, planes, found.poses.shifts, band))
    shells = np.arange(BOX // 2 + 1)
    return replace(
        state,
        volume=volume,
        noise=np.where(shells <= band, np.maximum(total.noise, 1e-3 * state.noise), state.noise),
        fsc=fsc,
    )
