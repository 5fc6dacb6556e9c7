"""Do the two halves find the same poses? Particles of each half are aligned once more, from nothing, to the other half's map.

The FSC of the halves shows only what both maps share: with a pseudo-symmetric object, or a start that misled both, they may agree
while many particles lie in wrong views. Such particles choose another view against a map with other noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics
from nephila.geometry import angular_distance
from nephila.particle_sums import pose_matrices
from nephila.projection import FourierProjector
from nephila.refinement.chunk import align_table, with_poses
from nephila.refinement.model import Decision, RefinementModel
from nephila.refinement.schedule import LATER_STEP_DEG
from nephila.refinement.settings import IterationSettings
from nephila.sampling import image_kinds, noise_and_amplitude
from nephila.symmetry import point_group_matrices

Float32 = npt.NDArray[np.float32]

MOST_PARTICLES = 300
"""Of each half-set."""
FAR_DEG = 10.0
SUSPICIOUS = 0.2
"""Share of particles beyond FAR_DEG from which a warning is due."""


@dataclass(frozen=True)
class PoseCheck:
    """median_deg: median rotation between a particle's pose and that against the other half's map, after the halves' common
    rotation has been taken out; share_far: beyond FAR_DEG; frame_deg: that common rotation."""

    median_deg: float
    share_far: float
    frame_deg: float
    particles: int

    @property
    def doubtful(self) -> bool:
        """Whether too many particles change their view."""
        return self.share_far > SUSPICIOUS


def check_poses(
    particles: pd.DataFrame,
    references: tuple[Float32, Float32],
    model: RefinementModel,
    settings: IterationSettings,
    optics: Optics,
    threads: int = 1,
) -> PoseCheck:
    """Compare the poses of a sample of both halves with those against the other half's reference.

    Parameters
    ----------
    particles : in their refined poses, of both half-sets
    references : of half 1 and half 2, [n, n, n], from the last iteration, whose model is `model`
    """
    group = point_group_matrices(settings.symmetry)
    errors, frames, used = [], [], 0
    for half in (1, 2):
        mine = particles[particles["rlnRandomSubset"] == half]
        mine = mine.iloc[:: max(1, -(-len(mine) // MOST_PARTICLES))].reset_index(drop=True)
        used += len(mine)
        band = model.next.band
        projector = FourierProjector.from_volume(references[2 - half], max_radius=band)
        decision = Decision("exhaustive", LATER_STEP_DEG, 0.0, settings.shift_range, band)
        zeroed = mine.assign(**dict.fromkeys(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), 0.0))
        found = np.zeros((len(mine), 3, 3))
        for kind in image_kinds(zeroed, settings.box, settings.pixel_size, optics):
            part, sampling = kind.of(zeroed), kind.sampling
            own_projector = projector.for_images(sampling.box, sampling.scale, sampling.magnification)
            power = noise_and_amplitude(sampling, model.noise, model.optics)[0]
            images = sampling.images_of(part)
            result = align_table(part, images, own_projector, decision, power, settings, sampling, threads)
            found[kind.rows] = pose_matrices(with_poses(part, result, sampling.pixel_size))
        own = pose_matrices(mine)
        frame = common_rotation(own, found, group)
        frames.append(frame)
        errors.append(angular_distance(found, own @ frame, group if len(group) > 1 else None))
    error = np.concatenate(errors)
    turned = max(float(np.degrees(np.arccos(np.clip((np.trace(frame) - 1) / 2, -1, 1)))) for frame in frames)
    return PoseCheck(
        round(float(np.median(error)), 4), round(float((error > FAR_DEG).mean()), 4), round(turned, 4), used
    )


def common_rotation(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], group: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Rotation G with `second = first @ G` for most particles, up to the group's operations: a robust mean, near the identity."""
    frame = np.eye(3)
    for _ in range(10):
        options = np.einsum("nji,njk,skl->nsil", first, second, group)
        best = np.einsum("nsij,ij->ns", options, frame).argmax(axis=1)
        relative = options[np.arange(len(first)), best]
        cosine = (np.einsum("ij,nij->n", frame, relative) - 1) / 2
        error = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        weights = 1 / (1 + (error / 3.0) ** 2)
        u, _, v = np.linalg.svd((weights[:, None, None] * relative).sum(axis=0))
        frame = u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v
    return frame
