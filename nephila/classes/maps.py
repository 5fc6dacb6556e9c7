"""Maps of classes and of what varies among particles, from sums over weighted particles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nephila.backprojection import PENDING_BYTES, Backprojector
from nephila.classes.data import Frame, Particles
from nephila.errors import InputError
from nephila.finishing import finish
from nephila.fourier import filter_shells
from nephila.fsc import fourier_shell_correlation
from nephila.io.mrc import read_volume
from nephila.partial_sum import PartialSum
from nephila.projection import FourierProjector
from nephila.refinement.merge import STABILISER, join_weights, load_mask, monotone_tail
from nephila.refinement.settings import IterationSettings
from nephila.relabelling import refuse_near_miss, refuse_relabelled
from nephila.resize import resize_volume

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

LEAST_SHARE = 0.01
"""Particles whose probability is smaller are left out of a class's sums."""


@dataclass(frozen=True)
class Support:
    """mask: [n, n, n], about the object; join: by shell, 1 where the halves' references are shared, 0 where they are not."""

    mask: Float32
    join: Float64


def frame_support(frame: Frame, settings: IterationSettings) -> Support:
    """The refinement's mask and join at the sampling of the frame; settings are of the refinement."""
    mask, _ = resize_volume(load_mask(settings), settings.pixel_size, frame.pixel_size, frame.n)
    small = replace(settings, box=frame.n, pixel_size=frame.pixel_size)
    return Support(np.clip(mask, 0.0, 1.0), join_weights(frame.n, small))


def frame_references(paths: Sequence[str], frame: Frame, settings: IterationSettings) -> list[Float32]:
    """Maps at the sampling of the frame.

    Raises
    ------
    InputError
        A map was relabelled or looks so, or its side in A is not that of the particles' windows.
    """
    out = []
    way_out = "Give a map on the scale of the particles, as the refinement wrote it"
    for path in paths:
        refuse_relabelled(path, way_out=way_out)
        volume, pixel_size = read_volume(path)
        refuse_near_miss(path, pixel_size, len(volume), settings.pixel_size, settings.box, way_out)
        if abs(len(volume) * pixel_size / (settings.box * settings.pixel_size) - 1) > 0.02:
            raise InputError(
                f"{path}: {len(volume)} px of {pixel_size:.4g} A, the particles have {settings.box} px of "
                f"{settings.pixel_size:.4g} A; give a map of the refined map's frame"
            )
        out.append(resize_volume(volume, pixel_size, frame.pixel_size, frame.n)[0])
    return out


def class_sum(particles: Particles, class_index: int, share: Float64, threads: int = 1) -> PartialSum:
    """Sums over particles in their poses in a class, each with its probability `share` [m]."""
    frame = particles.frame
    collected = Backprojector(frame.n, max_radius=frame.band, pending_bytes=PENDING_BYTES)
    weights = np.where(share >= LEAST_SHARE, share, 0.0) * particles.weights
    for rows, transforms, planes in particles.blocks():
        collected.insert(
            transforms,
            particles.matrices[class_index][rows],
            planes,
            weights[rows],
            1.0 / frame.noise,
            particles.shifts[class_index][rows],
            threads,
        )
    return collected.partial_sum()


def component_sums(
    particles: Particles, mean: Float32, scores: Float64, variances: Float64, threads: int = 1
) -> list[PartialSum]:
    """Sums of what the mean leaves of the particles, weighted by scores [m, q] with variances [m, q]: one for each component.

    N = sum z C (X - C P mean), D = sum (z^2 + v) C^2: the maximisation step of probabilistic principal components, with the
    scores of different components taken as uncorrelated.
    """
    frame = particles.frame
    projector = FourierProjector.from_volume(mean, max_radius=frame.band)
    collected = [Backprojector(frame.n, max_radius=frame.band, pending_bytes=PENDING_BYTES) for _ in scores.T]
    for rows, transforms, planes in particles.blocks():
        matrices = particles.matrices[0][rows]
        rest = particles.centre(transforms, rows, 0) - planes * projector.slices(matrices, frame.band)
        for one, z, v in zip(collected, scores[rows].T, variances[rows].T, strict=True):
            size = np.sqrt(z**2 + v)[:, None, None].astype(np.float32)
            turned = rest * (z[:, None, None] / np.maximum(size, 1e-6)).astype(np.float32)
            one.insert(turned, matrices, planes * size, particles.weights[rows], 1.0 / frame.noise, threads=threads)
    return [one.partial_sum() for one in collected]


def solve_halves(sums: Sequence[PartialSum], frame: Frame, threads: int = 1) -> tuple[Float32, Float32]:
    """Half volumes of the sums of two half-sets, hardly regularised."""
    first, second = (finish(part, frame.symmetry, STABILISER, threads=threads) for part in sums)
    return first, second


def shell_agreement(halves: tuple[Float32, Float32], mask: Float32) -> Float64:
    """FSC of two halves inside a mask [n // 2 + 1], between 0 and 1, 0 from where it has fallen to nothing on."""
    curve = fourier_shell_correlation(halves[0] * mask, halves[1] * mask)
    curve = np.clip(monotone_tail(curve), 0.0, 1.0)
    curve[0] = 1.0
    return curve


def references_of(halves: tuple[Float32, Float32], support: Support) -> tuple[Float32, Float32]:
    """Filtered and masked references of both halves: each from its own particles but for what is joined."""
    fsc = shell_agreement(halves, support.mask)
    mean = 0.5 * (halves[0] + halves[1])
    first, second = (
        (filter_shells(mean, fsc * support.join) + filter_shells(half, fsc * (1 - support.join))) * support.mask
        for half in halves
    )
    return first, second
