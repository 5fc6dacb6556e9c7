"""The merge of an iteration: sums over chunks and groups become half volumes, their FSC, the next references and decision."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.centering import shift_volume
from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.finishing import finish
from nephila.fourier import filter_shells
from nephila.fsc import MaskedFsc, masked_fsc, resolution_at
from nephila.io.mrc import read_volume
from nephila.job import logger
from nephila.masks import apply_mask, half_map_mask, spherical_mask
from nephila.partial_sum import PartialSum
from nephila.particle_sums import pose_matrices, pose_shifts
from nephila.refinement.certainty import Certainty, measure_certainty
from nephila.refinement.claims import claimed_fsc
from nephila.refinement.groups import correlation_changes, group_fsc_table, with_mean_factors
from nephila.refinement.levels import Amplitudes, group_factors, micrograph_levels, noise_levels, view_factors
from nephila.refinement.model import IterationRow, RefinementModel
from nephila.refinement.noise import NoiseSum
from nephila.refinement.reference_filter import reference_filters
from nephila.refinement.schedule import alignment_band, compared_samples, decision_of, next_decision
from nephila.refinement.settings import IterationSettings
from nephila.refinement.sums import ChunkSums, whole
from nephila.sampling import OpticsState, image_kinds, measured_amplitudes
from nephila.symmetry import centre_is_fixed, point_group_matrices
from nephila.views import change_statistics, direction_changes

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

STABILISER = 0.01
"""Regulariser of unfiltered half volumes, in units of the mean CTF^2: keeps cells that every group's CTF leaves near zero quiet."""
MASK_WARNING = "the mask itself correlates the half maps: give it a softer or wider edge (refinement.mask.edge)"
LARGEST_OFFSET = 0.02
"""How far the map may be from where the particles' windows have it before it is moved back, in diameters (and at least 1 px)."""


@dataclass(frozen=True)
class Merged:
    """What the merge of an iteration gives: the halves' references, the merged filtered volume, and the model."""

    references: tuple[Float32, Float32]
    volume: Float32
    model: RefinementModel


def load_mask(settings: IterationSettings, halves: tuple[Float32, Float32] | None = None) -> Float32:
    """The mask around the object: the user's file, or one made from half maps where that is asked for, or a soft sphere.

    The sphere also stands in where the halves show nothing above their noise.

    Raises
    ------
    InputError
        The file's size or pixel size is not the project's, or its values leave [0, 1].
    """
    if settings.mask_file is None:
        if settings.mask_shape == "auto" and halves is not None:
            found = half_map_mask(
                *halves, settings.pixel_size, settings.diameter, settings.mask_diameter, settings.mask_edge
            )
            if found is not None:
                return found
        radius = min(0.5 * settings.mask_diameter / settings.pixel_size, settings.box // 2 - 1)
        return spherical_mask(settings.box, radius, settings.mask_edge / settings.pixel_size)
    mask, pixel_size = read_volume(settings.mask_file)
    if len(mask) != settings.box or abs(pixel_size / settings.pixel_size - 1) > 0.01:
        raise InputError(
            f"{settings.mask_file}: {len(mask)} px of {pixel_size:.4g} A, the project has "
            f"{settings.box} px of {settings.pixel_size:.4g} A; make the mask from a map of this project"
        )
    if mask.min() < -1e-3 or mask.max() > 1.001:
        raise InputError(
            f"{settings.mask_file}: values from {mask.min():.3g} to {mask.max():.3g}; a mask lies between 0 and 1"
        )
    return np.clip(mask, 0, 1)


def at_mask_size(settings: IterationSettings, mask: Float32) -> IterationSettings:
    """Settings whose mask diameter is that of a sphere that lets as much noise through as an automatic mask does."""
    if settings.mask_file is not None or settings.mask_shape != "auto":
        return settings
    diameter = (6 / np.pi * float((mask.astype(np.float64) ** 2).sum())) ** (1 / 3) * settings.pixel_size
    return replace(settings, mask_diameter=min(diameter, settings.mask_diameter))


def unfiltered_halves(
    first: PartialSum | None, second: PartialSum | None, settings: IterationSettings, threads: int
) -> tuple[Float32, Float32]:
    """Half volumes without a filter: the seed's constant SNR where it is set, otherwise hardly regularised."""
    if first is None or second is None or first.particles == 0 or second.particles == 0:
        raise InputError("a half-set has no particles; loosen the thresholds or add data")
    regulariser = 1.0 / settings.snr if settings.snr else STABILISER
    return (
        finish(first, settings.symmetry, regulariser, threads=threads),
        finish(second, settings.symmetry, regulariser, threads=threads),
    )


def merge_iteration(
    sums: tuple[ChunkSums, ChunkSums],
    particles: pd.DataFrame,
    before: pd.DataFrame,
    previous: RefinementModel,
    settings: IterationSettings,
    search: str,
    threads: int = 1,
) -> Merged:
    """Merge an iteration.

    Parameters
    ----------
    sums : of half 1 and half 2
    particles, before : tables after and before the alignment, the same rows in the same order
    previous : the model that the alignment followed
    search : how it searched
    """
    halves = unfiltered_halves(whole(sums[0].groups), whole(sums[1].groups), settings, threads)
    mask = load_mask(settings, halves)
    settings = at_mask_size(settings, mask)
    curves = masked_fsc(*halves, mask, settings.seed, threads=threads)
    optics = optics_states(sums, particles, previous, settings)
    noise = mean_noise(sums, previous.noise) if not optics else overall_noise(optics, particles, settings)
    row = summarise(particles, before, curves, previous, settings, search)
    band = alignment_band(curves.corrected, settings)
    if settings.schedule == "auto":
        converged, decision = next_decision(previous, row, curves.corrected, settings)
    else:
        converged, decision = row.share_moved == 0.0, replace(previous.next, band=band)
    row = replace(row, converged=converged, mask_suspect=curves.mask_makes_resolution(mask))
    groups = group_fsc_table(sums, particles, before, settings, step_of(previous, settings))
    factors = factors_of_groups(sums, particles, noise, optics)
    groups = with_mean_factors(groups, factors)
    levels = micrograph_levels(particles)
    certainty = previous.certainty
    if search == "exhaustive":
        level = noise_levels(particles, factors, levels, decision.band)
        certainty = certainty_of(particles, level, compared_samples(decision_of(previous, settings), settings))
    model = RefinementModel(
        row, decision, curves.corrected, curves.unmasked, noise, groups, certainty, optics,
        factors,
        levels,
        Amplitudes.measure(particles),
        view_factors(particles, settings.symmetry, settings.view_cap),
    )  # fmt: skip
    references, volume = next_references(halves, curves, mask, settings, frame_offset(particles, settings))
    log_iteration(row)
    return Merged(references, volume, model)


def certainty_of(particles: pd.DataFrame, level: npt.ArrayLike = 1.0, samples: float = 0.0) -> Certainty:
    """Right and wrong poses of an exhaustive search, from correlations and runners-up.

    level : of the particles' noise; samples : that were compared, 0 where the noise was not known
    """
    if "nphRunnerUp" not in particles:
        return Certainty()
    return measure_certainty(
        particles["nphCorrelation"].to_numpy(), particles["nphRunnerUp"].to_numpy(), level, samples
    )


def mean_noise(sums: tuple[ChunkSums, ChunkSums], fallback: Float64) -> Float64:
    """Noise power by shell over both halves, never zero; the last one where nothing was measured."""
    measured = [part.noise for part in sums if part.noise is not None and part.noise.particles]
    if not measured:
        return fallback
    total = sum(part.noise * part.particles for part in measured) / sum(part.particles for part in measured)
    noise = np.asarray(total, dtype=np.float64)
    noise[0] = noise[1]
    return np.maximum(noise, 1e-3 * noise.max())


def optics_states(
    sums: tuple[ChunkSums, ChunkSums], particles: pd.DataFrame, previous: RefinementModel, settings: IterationSettings
) -> dict[int, OpticsState]:
    """Noise and amplitude by optics group, where images are of several samplings; what was not measured stays as it was."""
    states = dict(previous.optics)
    amplitudes = measured_amplitudes(particles, settings.pixel_size)
    for number in sorted({*sums[0].optics, *sums[1].optics}):
        measured = [part.optics[number] for part in sums if number in part.optics and part.optics[number].particles]
        if not measured:
            continue
        pooled = sum(part.noise * part.particles for part in measured) / sum(part.particles for part in measured)
        noise = np.asarray(pooled, dtype=np.float64)
        noise[0] = noise[1]
        noise = np.maximum(noise, 1e-3 * noise.max())
        states[number] = OpticsState(noise, amplitudes.get(number, 1.0))
    return states


def factors_of_groups(
    sums: tuple[ChunkSums, ChunkSums], particles: pd.DataFrame, noise: Float64, states: dict[int, OpticsState]
) -> dict[int, Float64]:
    """Noise spectrum of each defocus group, both halves together, over that of all images of its kind."""
    pooled: dict[int, NoiseSum] = {}
    for part in sums:
        for number, own in part.group_noise.items():
            pooled.setdefault(number, NoiseSum.zero_like(own)).add(own)
    overall = dict.fromkeys(pooled, noise)
    if states:
        kinds = particles.groupby("nphDefocusGroup")["rlnOpticsGroup"].first()
        overall = {number: states[int(kinds[number])].noise for number in pooled}
    return group_factors(pooled, overall)


def overall_noise(states: dict[int, OpticsState], particles: pd.DataFrame, settings: IterationSettings) -> Float64:
    """Noise power by shell of the map: the mean over particles of what their optics groups have at that frequency."""
    plain = Optics(300.0, 0.0, 0.1)  # the CTF does not matter here
    total, count = np.zeros(settings.box // 2 + 1), 0
    for kind in image_kinds(particles, settings.box, settings.pixel_size, plain):
        state = states.get(kind.sampling.number)
        if state is not None:
            total += len(kind.rows) * kind.sampling.to_reference_shells(state.noise)
            count += len(kind.rows)
    return total / max(count, 1)


def step_of(previous: RefinementModel, settings: IterationSettings) -> float:
    """Angular step of an iteration's search, degrees."""
    return settings.angular_step_deg if settings.schedule == "lists" else previous.next.angular_step_deg


def summarise(
    particles: pd.DataFrame,
    before: pd.DataFrame,
    curves: MaskedFsc,
    previous: RefinementModel,
    settings: IterationSettings,
    search: str,
) -> IterationRow:
    """The iteration's line: resolution, moves, correlation."""
    n, pixel_size = settings.box, settings.pixel_size
    step = step_of(previous, settings)
    changes = direction_changes(before, particles, point_group_matrices(settings.symmetry))
    statistics, changed = change_statistics(changes, 1.5 * step), correlation_changes(changes)
    exhaustive = search == "exhaustive"
    # with changed settings the passes are counted anew, so that the schedule does not end before they have told
    counted = IterationRow() if settings.changed else previous.row
    claimed = claimed_fsc(curves.corrected, settings)
    return IterationRow(
        iteration=settings.iteration,
        search=search,
        particles=len(particles),
        resolution_0143=round(resolution_at(claimed, 0.143, n, pixel_size) or 0.0, 4),
        resolution_05=round(resolution_at(claimed, 0.5, n, pixel_size) or 0.0, 4),
        resolution_unmasked=round(
            resolution_at(claimed_fsc(curves.unmasked, settings), 0.143, n, pixel_size) or 0.0, 4
        ),
        angular_step_deg=step,
        moved_deg=round(float(changes["nphRotationChange"].median()), 4),
        moved_angst=round(float(changes["nphShiftChange"].median()), 4),
        share_moved=round(statistics.share_moved, 5),
        correlation=round(float(particles["nphCorrelation"].mean()), 6),
        share_correlation_up=changed["share_correlation_up"],
        exhaustive_passes=counted.exhaustive_passes + exhaustive,
        local_passes=counted.local_passes + (not exhaustive),
        mean_shift=round(statistics.mean_shift, 4),
        share_correlation_down=changed["share_correlation_down"],
        correlation_gained=changed["correlation_gained"],
        correlation_lost=changed["correlation_lost"],
    )


def next_references(
    halves: tuple[Float32, Float32],
    curves: MaskedFsc,
    mask: Float32,
    settings: IterationSettings,
    offset: npt.ArrayLike = (0.0, 0.0, 0.0),
) -> tuple[tuple[Float32, Float32], Float32]:
    """References of the next iteration, and the merged volume filtered by its own FSC.

    Each half is filtered by its FSC (`reference_filters`), what is coarser than the join's limit is shared, the solvent
    is flattened and the map moved back by `offset` (x, y, z; px) where that is more than LARGEST_OFFSET.
    """
    n = settings.box
    fsc = np.clip(monotone_tail(curves.corrected), 0.0, 1.0)
    fsc[0] = 1.0
    mean = 0.5 * (halves[0] + halves[1])
    filters = reference_filters(fsc, settings)
    volume = filter_shells(mean, filters.map)
    shift = -np.asarray(offset, dtype=np.float64)
    if settings.halves == "shared":
        filtered = [apply_mask(filter_shells(mean, filters.shared), mask)] * 2
    else:
        join = join_weights(n, settings)
        filtered = [
            apply_mask(filter_shells(mean, filters.half * join) + filter_shells(half, filters.half * (1 - join)), mask)
            for half in halves
        ]
    if settings.centre and np.linalg.norm(shift) > max(1.0, LARGEST_OFFSET * settings.diameter / settings.pixel_size):
        filtered = [shift_volume(half, shift) for half in filtered]
        volume = shift_volume(volume, shift)
    return (filtered[0], filtered[1]), volume


def frame_offset(particles: pd.DataFrame, settings: IterationSettings) -> Float64:
    """Where the map lies, (x, y, z) in px, relative to the particles' windows, as far as the point group leaves it free.

    A map displaced by t displaces the origin of a particle with the rotation A by the in-plane part of A t; t is the
    least-squares solution over all particles. Steadier than the centre of gravity of a density whose lowest frequencies the CTF
    leaves uncertain.
    """
    offset = np.zeros(3)
    free = ~np.array(centre_is_fixed(settings.symmetry))
    if len(particles) < 10 or not free.any():
        return offset
    axes = pose_matrices(particles)[:, :2].reshape(-1, 3)[:, free]
    normal = axes.T @ axes + np.eye(int(free.sum()))
    offset[free] = np.linalg.solve(normal, axes.T @ pose_shifts(particles, settings.pixel_size).reshape(-1))
    return offset


def monotone_tail(fsc: Float64, threshold: float = 0.05) -> Float64:
    """The FSC up to where it first falls below the threshold for two shells, 0 beyond: noise there must not come back."""
    curve = np.array(fsc, dtype=np.float64)
    low = (curve[1:-1] < threshold) & (curve[2:] < threshold)
    where = np.flatnonzero(low)
    if len(where):
        curve[where[0] + 1 :] = 0.0
    return curve


def join_weights(n: int, settings: IterationSettings) -> Float64:
    """By shell, 1 where the halves' references are joined, falling to 0 over two shells at the join's limit."""
    shells = np.arange(n // 2 + 1)
    if settings.join_resolution <= 0:
        return np.zeros(len(shells))
    limit = n * settings.pixel_size / settings.join_resolution
    return np.clip((limit + 1 - shells) / 2, 0, 1)


def log_iteration(row: IterationRow) -> None:
    """One line for the log."""
    logger.info(
        "iteration %d (%s): %.2f A at FSC 0.143, %.2f A at 0.5; median move %.2f degrees, %.2f A; correlation %.4f%s",
        row.iteration, row.search, row.resolution_0143, row.resolution_05, row.moved_deg, row.moved_angst, row.correlation,
        "; converged" if row.converged else "",
    )  # fmt: skip
    if row.mask_suspect:
        logger.warning("iteration %d: %s", row.iteration, MASK_WARNING)


def search_of(previous: RefinementModel, settings: IterationSettings) -> str:
    """How this iteration searched: what the last model decided, or the configuration's lists."""
    return decision_of(previous, settings).search
