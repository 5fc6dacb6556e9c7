"""Assignment of particles to classes: likelihood under each class's map, and maps from the particles so weighted, in turn.

The half-sets stay independent: a particle is compared with maps of its own half, which share only what is coarser than the
refinement's join. What the halves have in common besides is the first assignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.alignment import AlignmentSettings, align_exhaustively, align_locally
from nephila.alignment.result import make_poses
from nephila.classes.components import cluster_scores, find_components
from nephila.classes.data import LEAST_BAND, Frame, Particles, inner_products
from nephila.classes.maps import Support, class_sum, references_of, solve_halves
from nephila.errors import InputError
from nephila.fourier import filter_shells
from nephila.job import Progress, logger
from nephila.projection import FourierProjector
from nephila.refinement.chunk import CANDIDATES
from nephila.refinement.schedule import coarse_band
from nephila.symmetry import point_group_matrices

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Halves = tuple[Float32, Float32]

SETTLED_SHARE = 0.002
"""Rounds end when no larger share of the particles changes its class."""
HELD_SEARCHES, EXHAUSTIVE_SEARCHES = 3, 2
"""Exhaustive searches: first by each class's own particles, to which it then belongs; then by all, who choose."""
LOCAL_SEARCHES = 2
SEARCH_STEP_DEG, LOCAL_RANGE_DEG = 10.0, 10.0
FEWEST = 20
SPREAD = 0.1
CLEARLY = 0.1
"""Gain of log likelihood per particle that a start by fine shells must bring: less is what noise gives it."""


@dataclass(frozen=True)
class ClassSettings:
    """count: classes; rounds: most rounds in given poses; search: poses that a class's map is then given, `none` for those of the
    refinement; shift_range: A, of exhaustive searches; seed"""

    count: int = 2
    rounds: int = 25
    search: Literal["none", "local", "exhaustive"] = "none"
    shift_range: float = 16.0
    seed: int = 1


@dataclass(frozen=True)
class Assignment:
    """probability: [m, K], half 1 first; table: the particles in the same order, poses those of the likeliest class;
    rounds: a row per round"""

    probability: Float64
    table: pd.DataFrame
    rounds: pd.DataFrame


def classify(
    table: pd.DataFrame,
    frame: Frame,
    support: Support,
    settings: ClassSettings,
    references: Sequence[Float32] = (),
    threads: int = 1,
) -> Assignment:
    """Assign particles to classes.

    Parameters
    ----------
    table : particles with poses, rlnRandomSubset, and images in the frame
    references : a map per class in the frame, to start from; none: from what varies most among the particles

    Raises
    ------
    InputError
        Fewer than FEWEST particles per class in a half-set; another number of references than of classes.
    """
    halves = _split(table, frame, settings.count)
    if references and len(references) != settings.count:
        raise InputError(
            f"classes.references: {len(references)} maps for {settings.count} classes; give one for each, or none"
        )
    whole = [np.ones(len(half)) for half in halves]
    consensus = _class_halves(halves, 0, whole, frame, threads)
    means = references_of(consensus, support)
    if references:
        volumes = [(reference, reference) for reference in _scaled(references, halves, support)]
        logs = score(halves, volumes)
        start = _probabilities(logs, np.full(settings.count, 1.0 / settings.count))[0]
    else:
        start = _likeliest_start(halves, means, table, support, settings, threads)
    return _alternate(halves, start, support, settings, bool(references), threads)


def _likeliest_start(
    halves: tuple[Particles, Particles],
    means: Halves,
    table: pd.DataFrame,
    support: Support,
    settings: ClassSettings,
    threads: int,
) -> Float64:
    """First probabilities: from components to half of the band, or to all of it where the particles are clearly likelier so.

    Few or noisy particles show what varies in the coarse shells only: the finer ones hold eight times as many unknowns. Each
    half is compared with the other's maps, which do not hold its own noise.
    """
    best, best_likelihood = np.zeros((0, 0)), -np.inf
    for divisor in (2, 1):
        frame = replace(halves[0].frame, band=max(halves[0].frame.band // divisor, LEAST_BAND))
        coarse = _split(table, frame, settings.count)
        scores = find_components(coarse, means, support, settings.count, settings.seed, threads)
        start = cluster_scores(scores, settings.count, settings.seed)
        crossed = [pair[::-1] for pair in class_volumes(halves, start, support, threads)]
        _, likelihood = _probabilities(score(halves, crossed), start.mean(axis=0) + 1e-6)
        logger.info("start from components to shell %d: log likelihood %.3f", frame.band, likelihood)
        if likelihood > best_likelihood + CLEARLY:
            best, best_likelihood = start, likelihood
    return best


def _split(table: pd.DataFrame, frame: Frame, classes: int) -> tuple[Particles, Particles]:
    first, second = (Particles(table[table["rlnRandomSubset"] == half], frame, classes) for half in (1, 2))
    fewest = min(len(first), len(second))
    if fewest < FEWEST * classes:
        raise InputError(
            f"{fewest} particles in a half-set are too few for {classes} classes; {FEWEST * classes} are needed"
        )
    return first, second


def _alternate(
    halves: tuple[Particles, Particles],
    start: Float64,
    support: Support,
    settings: ClassSettings,
    keep_order: bool,
    threads: int,
) -> Assignment:
    """Rounds in the given poses until nothing changes, then, where asked for, with poses searched for each class."""
    probability = start
    rows: list[tuple[Any, ...]] = []
    first = len(halves[0])
    schedule = _schedule(settings)
    progress = Progress(len(schedule), "rounds")
    for search, held in schedule:
        if search == "none" and rows and rows[-1][3] < SETTLED_SHARE:
            progress.step()
            continue
        volumes = class_volumes(halves, probability, support, threads)
        if search != "none":
            search_poses(halves, volumes, search, settings, probability if held else None, threads)
        shares = np.maximum(probability.mean(axis=0), FEWEST / len(probability))
        fresh, likelihood = _probabilities(score(halves, volumes), shares / shares.sum())
        fresh = probability if held else fresh
        changed = float((fresh.argmax(axis=1) != probability.argmax(axis=1)).mean())
        probability = fresh
        rows.append((len(rows) + 1, search, likelihood, changed, *fresh.mean(axis=0)))
        logger.info("round %d (%s): %.1f %% change their class", len(rows), search, 100 * changed)
        progress.step()
    order = np.arange(settings.count) if keep_order else np.argsort(-probability.mean(axis=0), kind="stable")
    probability = probability[:, order]
    chosen = order[probability.argmax(axis=1)]
    table = pd.concat(
        [_with_poses(half, part) for half, part in zip(halves, np.split(chosen, [first]), strict=True)],
        ignore_index=True,
    )
    names = ["nphIteration", "nphSearch", "nphLogLikelihood", "nphShareMoved"]
    history = pd.DataFrame([row[:4] for row in rows], columns=names)
    for number, index in enumerate(order, 1):
        history[f"nphShareOfClass{number}"] = np.round([row[4 + index] for row in rows], 5)
    return Assignment(probability, table, history.round({"nphLogLikelihood": 4, "nphShareMoved": 5}))


def _schedule(settings: ClassSettings) -> list[tuple[str, bool]]:
    """Rounds: how poses are searched, and whether the particles stay in their classes meanwhile.

    Where poses are found anew, rounds in the given ones would do harm: those favour the class that the common map resembles.
    """
    given = [("none", False)] * settings.rounds
    local = [("local", False)] * LOCAL_SEARCHES
    if settings.search == "exhaustive":
        return [("exhaustive", True)] * HELD_SEARCHES + [("exhaustive", False)] * EXHAUSTIVE_SEARCHES + local
    return given + local if settings.search == "local" else given


def class_volumes(
    halves: tuple[Particles, Particles], probability: Float64, support: Support, threads: int = 1
) -> list[Halves]:
    """References of each class for both halves, from the particles as they are assigned."""
    parts = np.split(probability, [len(halves[0])])
    out = []
    for index in range(probability.shape[1]):
        shares = [part[:, index] for part in parts]
        out.append(references_of(_class_halves(halves, index, shares, halves[0].frame, threads), support))
    return out


def _class_halves(
    halves: tuple[Particles, Particles], index: int, shares: Sequence[Float64], frame: Frame, threads: int
) -> Halves:
    sums = [class_sum(half, index, share, threads) for half, share in zip(halves, shares, strict=True)]
    return solve_halves(sums, frame, threads)


def score(halves: tuple[Particles, Particles], volumes: Sequence[Halves]) -> Float64:
    """Log likelihood [m, K] of each particle under each class's map of its own half, up to a constant of the particle.

    The particle's amplitude is integrated over, taken as normal about 1 with the deviation SPREAD: free, it would hide that a
    part of the particle is missing or that the map is another object's; fixed, thicker ice would look like that.
    """
    logs = []
    for half, particles in enumerate(halves):
        same = all(matrices is particles.matrices[0] for matrices in particles.matrices)
        cross, gram = inner_products(particles, [pair[half] for pair in volumes], same)
        power = np.einsum("mkk->mk", gram)
        precision = 2 * power + 1 / SPREAD**2
        logs.append((cross + 0.5 / SPREAD**2) ** 2 * 2 / precision - 0.5 * np.log(precision))
    return np.concatenate(logs)


def _probabilities(logs: Float64, shares: Float64) -> tuple[Float64, float]:
    """Posterior probabilities [m, K] and the mean log likelihood of a particle."""
    values = logs + np.log(shares)
    top = values.max(axis=1, keepdims=True)
    probability = np.exp(values - top)
    total = probability.sum(axis=1, keepdims=True)
    return probability / total, float((top + np.log(total)).mean())


def search_poses(
    halves: tuple[Particles, Particles],
    volumes: Sequence[Halves],
    search: Literal["local", "exhaustive"] | str,
    settings: ClassSettings,
    members: Float64 | None = None,
    threads: int = 1,
) -> None:
    """Give every particle a pose of its own in each class, by alignment to the class's map of its half.

    members : probabilities [m1 + m2, K]; only particles of which the class is the likeliest are aligned to it. None: all
    """
    frame = halves[0].frame
    mine = None if members is None else np.split(members.argmax(axis=1), [len(halves[0])])
    weights = 1.0 / (frame.noise * frame.n**2)
    for half, particles in enumerate(halves):
        for index, pair in enumerate(volumes):
            rows = None if mine is None else np.flatnonzero(mine[half] == index)
            if not pair[half].any() or (rows is not None and len(rows) == 0):
                continue
            projector = FourierProjector.from_volume(pair[half], max_radius=frame.band)
            chosen = slice(None) if rows is None else rows
            prior = make_poses(particles.matrices[index][chosen], particles.shifts[index][chosen])
            options = AlignmentSettings(
                angular_step_deg=SEARCH_STEP_DEG,
                in_plane_step_deg=SEARCH_STEP_DEG,
                shift_range_px=settings.shift_range / frame.pixel_size,
                coarse_band=min(coarse_band(SEARCH_STEP_DEG), frame.band),
                candidates=CANDIDATES,
                final_band=frame.band,
                range_deg=LOCAL_RANGE_DEG if search == "local" else None,
                symmetry=point_group_matrices(frame.symmetry),
            )
            part = particles if rows is None else particles.of(rows)
            if search == "local":
                result = align_locally(
                    part.images, projector, part.planes, prior, options, weights_by_shell=weights, threads=threads
                )
            else:
                result = align_exhaustively(
                    part.images, projector, part.planes, options, prior, weights_by_shell=weights, threads=threads
                )
            particles.move(index, rows, result.poses)


def _with_poses(particles: Particles, chosen: npt.NDArray[np.int64]) -> pd.DataFrame:
    """The half's table with each particle's pose in its class; untouched where no class has poses of its own."""
    if all(matrices is particles.matrices[0] for matrices in particles.matrices):
        return particles.table
    rows = np.arange(len(particles))
    poses = make_poses(np.stack(particles.matrices)[chosen, rows], np.stack(particles.shifts)[chosen, rows])
    size = particles.frame.pixel_size
    return particles.table.assign(
        rlnAngleRot=np.round(poses.rot, 4),
        rlnAngleTilt=np.round(poses.tilt, 4),
        rlnAnglePsi=np.round(poses.psi, 4),
        rlnOriginXAngst=np.round(poses.shift_x * size, 4),
        rlnOriginYAngst=np.round(poses.shift_y * size, 4),
    )


def _scaled(references: Sequence[Float32], halves: tuple[Particles, Particles], support: Support) -> list[Float32]:
    """The given maps on the particles' grey scale: each by the factor with which it fits the particles best."""
    out = []
    for reference in references:
        masked = filter_shells(reference, np.ones(halves[0].frame.band + 1)) * support.mask
        products = [inner_products(half, [masked], same_pose=True) for half in halves]
        cross, power = (sum(float(part.sum()) for part in parts) for parts in zip(*products, strict=True))
        if not (power > 0 and cross > 0):
            raise InputError(
                "classes.references: a map does not fit the particles at all (negative or no correlation); turn its contrast, or "
                "fit it to the refined map first"
            )
        out.append((masked * np.float32(cross / power)).astype(np.float32))
    return out
