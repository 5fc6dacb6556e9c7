"""What an alignment is asked to do, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.geometry import euler_matrix

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AlignmentSettings:
    """How particles are aligned; frequencies in Fourier pixels of the box, shifts in pixels, angles in degrees."""

    search: Literal["continuous", "grid"] = "continuous"
    """continuous: candidates of the grid are refined freely; grid: the best point of the grid itself (as SPIDER)."""
    angular_step_deg: float = 15.0
    """Spacing of the reference views."""
    in_plane_step_deg: float = 15.0
    """Spacing of in-plane rotations."""
    shift_range_px: float = 4.0
    """Largest shift along x and y, counted from the prior's shift where there is a prior and the search is local."""
    shift_step_px: float | None = None
    """Spacing of shifts; none: a quarter of the period of the coarse band."""
    coarse_band: int = 8
    """Highest frequency of the search over the grid."""
    candidates: int = 8
    """Poses of the grid that are refined."""
    separation: float = 0.9
    """Least rotation between two of them, in grid steps."""
    bands: tuple[int, ...] | None = None
    """Rising limits of the refinement; none: the coarse band, doubled up to the final one (local: its half, and it)."""
    final_band: int | None = None
    """Highest frequency of the refinement; none: the projector's."""
    steps: int = 6
    """Most Levenberg-Marquardt steps in each band."""
    range_deg: float | None = None
    """Largest rotation away from the prior (grid: of the view's direction); none: no limit."""
    start_step_deg: float | None = None
    """Spacing of the poses within `range_deg` that a continuous local search starts from; none: the prior alone."""
    symmetry: Float | None = field(default=None, repr=False, compare=False)
    """Rotations [s, 3, 3] that leave the reference unchanged; views are then taken from one asymmetric unit."""
    marginal: int = 0
    """Candidates refined to the end and returned with their weights; 0 or 1: the best alone."""
    distinct_deg: float = 10.0
    """The runner-up is the best pose at least so far from the best one."""

    def __post_init__(self) -> None:
        positive = ("angular_step_deg", "in_plane_step_deg", "coarse_band", "candidates", "steps", "separation")
        for name in positive:
            if not getattr(self, name) > 0:
                raise InputError(f"alignment: {name} is {getattr(self, name)}; it has to be positive")
        if self.search not in ("continuous", "grid"):
            raise InputError(f"alignment: search is {self.search!r}; give continuous or grid")
        if not self.shift_range_px >= 0:
            raise InputError(f"alignment: shift_range_px is {self.shift_range_px}; it cannot be negative")
        if self.shift_step_px is not None and not self.shift_step_px > 0:
            raise InputError(f"alignment: shift_step_px is {self.shift_step_px}; it has to be positive")
        if self.bands is not None and (not self.bands or list(self.bands) != sorted(set(self.bands))):
            raise InputError(f"alignment: bands {self.bands} have to rise")
        if self.start_step_deg is not None and not self.start_step_deg > 0:
            raise InputError(f"alignment: start_step_deg is {self.start_step_deg}; it has to be positive")
        if self.range_deg is not None and not self.range_deg > 0:
            raise InputError(f"alignment: range_deg is {self.range_deg}; it has to be positive, or absent for no limit")


@dataclass(frozen=True)
class Poses:
    """Orientations in degrees and shifts in pixels (sign of rlnOrigin) of m particles, each float64 [m]."""

    rot: Float
    tilt: Float
    psi: Float
    shift_x: Float
    shift_y: Float

    def __post_init__(self) -> None:
        lengths = set()
        for item in fields(Poses):
            values = np.atleast_1d(np.asarray(getattr(self, item.name), dtype=np.float64))
            object.__setattr__(self, item.name, values)
            lengths.add(values.shape)
            if not np.isfinite(values).all():
                row = int(np.flatnonzero(~np.isfinite(values))[0])
                raise InputError(f"pose {item.name} of row {row} is {values[row]}")
        if len(lengths) != 1:
            raise InputError(f"angles and shifts of a set of poses differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.rot)

    @property
    def matrices(self) -> Float:
        """Rotation matrices [m, 3, 3]."""
        return euler_matrix(self.rot, self.tilt, self.psi)

    @property
    def shifts(self) -> Float:
        """Shifts [m, 2], x and y."""
        return np.stack([self.shift_x, self.shift_y], axis=-1)


@dataclass(frozen=True)
class AlignmentResult:
    """Poses of m particles and how far they can be trusted; arrays by particle, angles in degrees, shifts in pixels."""

    poses: Poses
    correlation: Float
    """Normalised correlation with projection times CTF within the last band, in [-1, 1]; 0 for empty images."""
    runner_up: Float
    """Correlation of the best pose at least `distinct_deg` away; NaN where no such candidate was left."""
    runner_up_distance_deg: Float
    """Rotation from the best pose to the runner-up; NaN where there is none."""
    amplitude: Float
    """Fitted scale of the projection in the image."""
    moved_deg: Float
    """Rotation from the prior; NaN without one."""
    moved_px: Float
    """Shift from the prior; NaN without one."""
    reference: npt.NDArray[np.int64]
    """Index of the nearest view of the grid."""
    mirrored: npt.NDArray[np.bool_]
    """Whether the particle shows that view's mirror image (the view from the opposite side)."""
    empty: npt.NDArray[np.bool_]
    """Images without signal in the band (all zero, or constant): their pose is the prior's, or zero."""
    candidates: Poses | None = None
    """With `marginal` k > 1: poses of the k best candidates, [m * k], particle after particle."""
    candidate_weights: Float | None = None
    """Their weights [m, k], proportional to the likelihood, summing to 1; 0 where there are fewer."""

    def __len__(self) -> int:
        return len(self.poses)
