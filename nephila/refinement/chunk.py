"""One chunk of one half in one iteration: align to the half's reference, measure the noise, backproject by group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.alignment import AlignmentResult, AlignmentSettings, Poses, align_exhaustively, align_locally
from nephila.backprojection import Backprojector
from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.fourier import centred_rfft2
from nephila.job import Progress, logger
from nephila.particle_images import ParticleImages
from nephila.particle_sums import (
    at_unit_amplitude,
    group_cuts,
    group_spectrum,
    kind_planes,
    particle_scales,
    particle_weights,
    pose_matrices,
    pose_shifts,
    scaled,
)
from nephila.plan import BLOCK, chunk_rows
from nephila.projection import FourierProjector
from nephila.refinement.levels import ERROR, FITTED, LEVEL, with_view_weights
from nephila.refinement.model import Decision, RefinementModel
from nephila.refinement.noise import NoiseSum, ParticleFit, fit_particles
from nephila.refinement.schedule import coarse_band, decision_of, grid_radius
from nephila.refinement.settings import IterationSettings
from nephila.refinement.sums import ChunkSums
from nephila.sampling import AMPLITUDE, ImageSampling, image_kinds, is_uniform, noise_and_amplitude
from nephila.symmetry import point_group_matrices

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

CANDIDATES = 6
MARGINAL = 6
LEAST_WEIGHT = 0.02
"""Candidates of less posterior probability are left out of the sums."""


def rows_of_chunk(particles: pd.DataFrame, half: int, chunk: int, chunks: int) -> pd.DataFrame:
    """Rows of one half that belong to a chunk (from 1) of `chunks`, in the table's order."""
    mine = particles[particles["rlnRandomSubset"] == half]
    first, end = chunk_rows(chunk, chunks, len(mine))
    return mine.iloc[first:end].reset_index(drop=True)


def refine_chunk(
    table: pd.DataFrame,
    reference: Float32,
    model: RefinementModel,
    settings: IterationSettings,
    optics: Optics,
    threads: int = 1,
) -> tuple[pd.DataFrame, ChunkSums]:
    """Align the particles of a chunk and add them up.

    Parameters
    ----------
    table : rows of one half, sorted by group, with last poses
    reference : the half's reference, float32 [n, n, n], filtered and masked
    model : what the last iteration left

    Returns
    -------
    The table with new poses and correlations, and the sums by group with the noise.

    Raises
    ------
    InputError
        The reference's side is not the project's box, or images are of another size.
    """
    if reference.shape[0] != settings.box:
        raise InputError(f"the reference has a side of {reference.shape[0]} px, the particles {settings.box}")
    if not len(table):
        return table, ChunkSums({}, NoiseSum.empty(settings.box) if is_uniform(table) else None)
    decision = decision_of(model, settings)
    projector = FourierProjector.from_volume(reference, max_radius=decision.band)
    table = model.entering(with_weights(table, model))
    logger.info("%s search, step %.1f degrees, band %d", decision.search, decision.angular_step_deg, decision.band)
    parts, total = [], ChunkSums({}, None)
    kinds = image_kinds(table, settings.box, settings.pixel_size, optics)
    for kind in kinds:
        mine, sampling = kind.of(table), kind.sampling
        own = projector.for_images(sampling.box, sampling.scale, sampling.magnification)
        images = sampling.images_of(mine)
        power, amplitude = noise_and_amplitude(sampling, model.noise, model.optics)
        result = align_table(mine, images, own, decision, power, settings, sampling, threads)
        aligned = with_poses(mine, result, sampling.pixel_size, decision.search == "exhaustive")
        aligned = with_view_weights(aligned, model.views)
        level = model.noise_levels(aligned)
        insertions = weighted_poses(aligned, result, sampling.pixel_size, level)
        sums, fit = sum_chunk(
            aligned, images, own, decision.band, power, settings, sampling, threads, insertions, amplitude,
            model.group_factors,
        )  # fmt: skip
        aligned = with_fits(aligned, fit, amplitude)
        if is_uniform(table):
            return aligned, sums
        total.groups.update(sums.groups)
        total.group_noise.update(sums.group_noise)
        assert sums.noise is not None
        total.optics[sampling.number] = sums.noise
        parts.append(aligned.assign(**{AMPLITUDE: result.amplitude}).set_axis(kind.rows))
    return pd.concat(parts).sort_index(ignore_index=False).reset_index(drop=True), total


def align_table(
    table: pd.DataFrame,
    images: ParticleImages,
    projector: FourierProjector,
    decision: Decision,
    noise: npt.NDArray[np.float64],
    settings: IterationSettings,
    sampling: ImageSampling,
    threads: int,
) -> AlignmentResult:
    """Poses of a table's particles against a reference, searched as `decision` says (its band on the reference's grid).

    projector : on the images' grid; `noise`: power per pixel by the images' shells. The transforms of n x n pixels of variance
    1 have the power n^2: weighted so, a match squared is a log likelihood.
    """
    pixel_size, band = sampling.pixel_size, sampling.band(decision.band)

    def planes(first: int, last: int) -> Float32:
        return kind_planes(table.iloc[first:last], sampling, settings.ctf)

    exhaustive = decision.search == "exhaustive"
    compared = coarse_band(decision.angular_step_deg)
    if settings.search == "grid" and not exhaustive:
        compared = max(compared, local_grid_band(decision.angular_step_deg))
    options = AlignmentSettings(
        search=settings.search,
        angular_step_deg=decision.angular_step_deg,
        in_plane_step_deg=decision.angular_step_deg,
        shift_range_px=decision.shift_range / pixel_size,
        shift_step_px=settings.shift_step / pixel_size if settings.shift_step else None,
        coarse_band=min(sampling.band(compared), band),
        candidates=CANDIDATES,
        final_band=band,
        range_deg=None if exhaustive else decision.search_range_deg,
        start_step_deg=decision.angular_step_deg if settings.schedule == "lists" else None,
        symmetry=point_group_matrices(settings.symmetry),
        marginal=MARGINAL if exhaustive and settings.search == "continuous" else 0,
    )
    shifts = pose_shifts(table, pixel_size)
    prior = Poses(*(table[name].to_numpy() for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")), *shifts.T)
    counter = Progress(len(table), "aligned")
    common: dict[str, Any] = {
        "weights_by_shell": 1.0 / (noise * sampling.box**2),
        "threads": threads,
        "progress": lambda done: counter.step(done - counter.done),
    }
    if exhaustive:
        return align_exhaustively(images, projector, planes, options, prior, **common)
    return align_locally(images, projector, planes, prior, options, **common)


def local_grid_band(step_deg: float) -> int:
    """Finest shell of a local search that stays on the grid: as far as its step resolves, and its memory stays small."""
    return int(np.clip(100 / step_deg, 8, 32))


def with_poses(
    table: pd.DataFrame, result: AlignmentResult, pixel_size: float, everywhere: bool = False
) -> pd.DataFrame:
    """The table with the poses of an alignment: angles in degrees, origins in A, rounded to what the STAR file keeps.

    everywhere: whether all poses were searched, so that there are runners-up (0 where a particle has none); otherwise those of
    the last such search stay.
    """
    columns: dict[str, Any] = {
        "rlnAngleRot": np.round(result.poses.rot, 4),
        "rlnAngleTilt": np.round(result.poses.tilt, 4),
        "rlnAnglePsi": np.round(result.poses.psi, 4),
        "rlnOriginXAngst": np.round(result.poses.shift_x * pixel_size, 4),
        "rlnOriginYAngst": np.round(result.poses.shift_y * pixel_size, 4),
        "nphCorrelation": np.round(result.correlation, 6),
    }
    # by the search and not by what was found: a chunk may hold a single particle, which has none
    if everywhere:
        columns["nphRunnerUp"] = np.round(np.nan_to_num(result.runner_up), 6)
    return table.assign(**columns)


def with_weights(table: pd.DataFrame, model: RefinementModel) -> pd.DataFrame:
    """The table with nphWeight: how likely each pose of the last exhaustive search is right; kept while local passes follow."""
    if "nphWeight" in table and model.row.search not in ("start", "exhaustive"):
        return table
    weights = model.certainty.weights(table["nphCorrelation"].to_numpy(), model.noise_levels(table))
    return table.assign(nphWeight=np.round(weights, 5))


@dataclass(frozen=True)
class WeightedPoses:
    """Poses in which particles enter the sums: matrices [m, k, 3, 3], shifts [m, k, 2] in px, weights [m, k] that add up to 1."""

    matrices: npt.NDArray[np.float64]
    shifts: npt.NDArray[np.float64]
    weights: Float32

    @classmethod
    def single(cls, table: pd.DataFrame, pixel_size: float) -> WeightedPoses:
        """The table's poses alone."""
        weights = np.ones((len(table), 1), dtype=np.float32)
        return cls(pose_matrices(table)[:, None], pose_shifts(table, pixel_size)[:, None], weights)


def with_fits(table: pd.DataFrame, fit: ParticleFit, amplitude: float) -> pd.DataFrame:
    """The table with what the references left of each particle; `amplitude` is that of projections in images of this kind."""
    values = {LEVEL: fit.level, FITTED: fit.amplitude / amplitude, ERROR: fit.error / amplitude}
    return table.assign(**{name: np.round(value, 5) for name, value in values.items()})


def weighted_poses(
    table: pd.DataFrame, result: AlignmentResult, pixel_size: float, level: Float64 | None = None
) -> WeightedPoses:
    """The candidates of an alignment by their posterior probability, or the table's poses where it kept only the best.

    level : noise power of each particle over what the alignment took it for; likelihoods are that much flatter
    A particle of which several poses are nearly as likely then blurs itself instead of adding a wrong view with full weight.
    """
    best = WeightedPoses.single(table, pixel_size)
    if result.candidates is None or result.candidate_weights is None:
        return best
    posterior = result.candidate_weights
    if level is not None and (level != 1.0).any():
        posterior = posterior ** (1.0 / level[:, None])
        posterior = posterior / np.maximum(posterior.sum(axis=1, keepdims=True), 1e-300)
    weights = np.where(posterior >= LEAST_WEIGHT, posterior, 0.0)
    weights[:, 0] = np.where(weights.sum(axis=1) > 0, weights[:, 0], 1.0)
    weights /= weights.sum(axis=1, keepdims=True)
    m, k = weights.shape
    matrices = result.candidates.matrices.reshape(m, k, 3, 3)
    shifts = result.candidates.shifts.reshape(m, k, 2)
    matrices[:, 0], shifts[:, 0] = best.matrices[:, 0], best.shifts[:, 0]
    return WeightedPoses(matrices, shifts, weights.astype(np.float32))


def sum_chunk(
    table: pd.DataFrame,
    images: ParticleImages,
    projector: FourierProjector,
    band: int,
    noise: npt.NDArray[np.float64],
    settings: IterationSettings,
    sampling: ImageSampling,
    threads: int,
    insertions: WeightedPoses | None = None,
    amplitude: float = 1.0,
    factors: Mapping[int, Float64] | None = None,
) -> tuple[ChunkSums, ParticleFit]:
    """Noise against the reference in the table's poses, and gridded sums by defocus group in weighted ones (none: the table's).

    projector, noise : on the images' grid; band : on the reference's; amplitude : of projections in the images; factors : noise of
    defocus groups over `noise`
    """
    n, pixel_size = sampling.box, sampling.pixel_size
    poses = insertions or WeightedPoses.single(table, pixel_size)
    radius, own_band = grid_radius(band, settings.box), sampling.band(band)
    matrices, shifts = pose_matrices(table), pose_shifts(table, pixel_size)
    groups = table["nphDefocusGroup"].to_numpy(dtype=np.int64)
    certain, scales = particle_weights(table), particle_scales(table)
    total, fits = ChunkSums({}, NoiseSum.empty(n)), []
    backprojectors: dict[int, Backprojector] = {}
    progress = Progress(len(table), "backprojected")
    for first in range(0, len(table), BLOCK):
        end = min(first + BLOCK, len(table))
        for a, b in group_cuts(groups, first, end):
            group = int(groups[a])
            transforms = centred_rfft2(images[a:b])
            planes = kind_planes(table.iloc[a:b], sampling, settings.ctf)
            slices = projector.slices(matrices[a:b], own_band)
            # factors are relative to this spectrum, so that it is the one to measure against
            left, fit = fit_particles(transforms, slices, planes, shifts[a:b], own_band, noise)
            fits.append(fit)
            total.group_noise.setdefault(group, NoiseSum.empty(n)).add(left)
            planes = scaled(planes, amplitude)
            if group not in backprojectors:
                backprojectors[group] = Backprojector(
                    settings.box, max_radius=radius, image_side=n, image_scale=sampling.scale,
                    image_magnification=sampling.magnification,
                )  # fmt: skip
            rows, which = np.nonzero(poses.weights[a:b])
            likely = poses.weights[a + rows, which] * certain[a + rows]
            spectra, likely = at_unit_amplitude(transforms[rows], likely, scales[a + rows])
            backprojectors[group].insert(
                spectra,
                poses.matrices[a + rows, which],
                planes if len(planes) == 1 else planes[rows],
                likely,
                sampling.noise_weights(group_spectrum(noise, factors or {}, group)),
                poses.shifts[a + rows, which],
                threads,
            )
        progress.step(end - first)
    assert total.noise is not None
    for part in total.group_noise.values():
        total.noise.add(part)
    total.groups.update({number: b.partial_sum() for number, b in backprojectors.items()})
    return total, ParticleFit.join(fits)
