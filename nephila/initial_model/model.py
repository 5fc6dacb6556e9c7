"""The model of a try: sums that forget, and the volume that follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.backprojection import Backprojector
from nephila.finishing import finish_grids
from nephila.initial_model.data import SmallParticles
from nephila.initial_model.expectation import Expectation
from nephila.initial_model.settings import BOX
from nephila.kernels import gridding
from nephila.partial_sum import GridShape

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]

LEAST_WEIGHT = 1e-3
"""Slices of less than this share of the mean weight are left out."""


@dataclass
class ForgettingSums:
    """Gridded sums of slices, of which each batch replaces a share."""

    radius: int
    numerator: Complex64 | None = None
    denominator: Float32 | None = None
    grid: GridShape | None = None

    def add(self, found: Expectation, rotations: Float64, particles: SmallParticles, share: float) -> None:
        """Let the sums over a batch replace `share` of what was there."""
        numerator, denominator, self.grid = grid_slices(found, rotations, particles, self.radius)
        if self.numerator is None or self.denominator is None:
            self.numerator, self.denominator = numerator, denominator
            return
        self.numerator += np.float32(share) * (numerator - self.numerator)
        self.denominator += np.float32(share) * (denominator - self.denominator)

    def volume(self, symmetry: str, band: int, mask: Float32, strength: float) -> Float32:
        """The model [BOX, BOX, BOX] up to a band, within a mask.

        strength : of the prior that there is nothing, as a share of a shell's mean weight
        """
        assert self.numerator is not None and self.denominator is not None and self.grid is not None
        total, count = gridding.shell_totals(self.denominator, self.grid.padding, BOX // 2 + 1)
        added = strength * total / np.maximum(count, 1.0)
        volume = finish_grids(
            self.numerator.copy(), self.denominator.copy(), self.grid, symmetry, added, min(band, self.radius)
        )
        return volume * mask


def grid_slices(
    found: Expectation, rotations: Float64, particles: SmallParticles, radius: int
) -> tuple[Complex64, Float32, GridShape]:
    """Slices' sums on the padded grid, per particle of the batch."""
    batch = np.float32(1.0 / max(len(found.evidence), 1))
    weight = found.denominator.mean(axis=1)
    used = np.flatnonzero(weight > LEAST_WEIGHT * weight.mean())
    root = np.sqrt(np.maximum(found.denominator[used] * batch, 1e-12))
    values = found.numerator[used] * (batch * BOX) / root
    count = found.numerator.shape[1]
    targets = particles.samples.targets[:count]
    shape = (len(used), BOX, BOX // 2 + 1)
    images, roots = np.zeros(shape, dtype=np.complex64), np.zeros(shape, dtype=np.float32)
    images.reshape(len(used), -1)[:, targets], roots.reshape(len(used), -1)[:, targets] = values, root
    # the samples are of the open half plane; a transform holds both halves of its first column
    rows = np.arange(1, BOX // 2)
    images[:, -rows, 0], roots[:, -rows, 0] = np.conj(images[:, rows, 0]), roots[:, rows, 0]
    scale = float(np.sqrt((root**2).mean()))
    projector = Backprojector(
        BOX, max_radius=radius, data_scale=max(float(np.abs(values * root).max()), 1e-6), weight_scale=scale**2
    )
    projector.insert(images, rotations[used], roots)
    partial = projector.partial_sum()
    return *partial.expand(), partial.grid
