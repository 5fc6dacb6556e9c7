"""Whether two tries found the same object: how their frames lie follows from the poses of the same particles in both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.fsc import fourier_shell_correlation
from nephila.refinement.reference_check import mirror
from nephila.rigid_fit import transform_volume

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

NEAR_DEG = 20.0
FLIP = np.diag([1.0, 1.0, -1.0])


@dataclass(frozen=True)
class PosedModel:
    """A model [n, n, n] with rotations [m, 3, 3] and origins [m, 2] in px of particles against it."""

    volume: Float32
    matrices: Float64
    shifts: Float64

    def mirrored(self) -> PosedModel:
        """The mirror image (z reversed): the same particles fit it as well, in other poses."""
        return PosedModel(mirror(self.volume), FLIP @ self.matrices @ FLIP, self.shifts)


@dataclass(frozen=True)
class Frame:
    """`A_first = A_second rotation` for the particles that agree, up to the point group; share : of all particles.

    displacement : px (x, y, z), of the second model, once turned, from the first
    """

    rotation: Float64
    displacement: Float64
    share: float


@dataclass(frozen=True)
class Agreement:
    """fsc : of two models, fitted; mirrored : whether the second had to be mirrored; share : of the particles whose poses agree."""

    fsc: Float64
    mirrored: bool
    share: float


def common_frame(first: PosedModel, second: PosedModel, group: Float64) -> Frame:
    """How two models lie to each other, by the relation that most particles have in common.

    group : [s, 3, 3], rotations that leave the second model as it is
    """
    options = np.einsum("sji,mkj,mkl->msil", group, second.matrices, first.matrices)
    own, cosine = options[:, 0], np.cos(np.deg2rad(NEAR_DEG))
    near = (np.einsum("aij,msij->ams", own, options) - 1) / 2 > cosine
    support = near.any(axis=2).sum(axis=1)
    rotation = own[int(support.argmax())]
    for _ in range(5):
        traces = np.einsum("ij,msij->ms", rotation, options)
        chosen = options[np.arange(len(options)), traces.argmax(axis=1)]
        inside = (traces.max(axis=1) - 1) / 2 > cosine
        if not inside.any():
            break
        u, _, v = np.linalg.svd(chosen[inside].sum(axis=0))
        rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v
    axes = first.matrices[inside][:, :2].reshape(-1, 3)
    moved = (second.shifts - first.shifts)[inside].reshape(-1)
    displacement = np.linalg.lstsq(axes, moved, rcond=None)[0] if inside.any() else np.zeros(3)
    return Frame(rotation, displacement, float(inside.mean()))


def compare_models(first: PosedModel, second: PosedModel, group: Float64, mask: Float32) -> Agreement:
    """FSC of two models within a mask, after the second was brought onto the first in the better hand."""
    candidates = ((second, group, False), (second.mirrored(), FLIP @ group @ FLIP, True))
    frames = [common_frame(first, model, operators) for model, operators, _ in candidates]
    best = int(np.argmax([frame.share for frame in frames]))
    frame, (model, _, mirrored) = frames[best], candidates[best]
    fitted = transform_volume(model.volume, frame.rotation.T, -frame.displacement)
    return Agreement(fourier_shell_correlation(first.volume * mask, fitted * mask), mirrored, frame.share)
