"""View directions on the hemisphere, and how orientations move between iterations (`angdisp`, `angdiff`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.geometry import angular_distance, euler_matrix, view_direction

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AngularDistribution:
    """Particles in bins of equal solid angle on the hemisphere of tilt 0 to 90 degrees.

    Attributes
    ----------
    bins : float64 [b, 4], degrees: rot from, rot to, tilt from, tilt to
    counts : int64 [b]; of all symmetry mates of each view
    particles : number of particles
    mates : views that symmetry makes of one
    """

    bins: Float64
    counts: npt.NDArray[np.int64]
    particles: int
    mates: int = 1

    @property
    def density(self) -> Float64:
        """Particles of each bin over those of an even distribution [b]; 1 is even."""
        return np.asarray(self.counts * (len(self.counts) / max(self.particles * self.mates, 1)), dtype=np.float64)

    @property
    def share_empty(self) -> float:
        """Share of the bins that hold no particle."""
        return float(np.mean(self.counts == 0))

    @property
    def evenness(self) -> float:
        """Shannon entropy of the counts over that of an even distribution: 1 even, 0 all in one bin."""
        share = self.counts[self.counts > 0] / max(self.particles * self.mates, 1)
        return float(-(share * np.log(share)).sum() / np.log(len(self.counts))) if len(share) else 0.0


def fold_to_hemisphere(rot: npt.ArrayLike, tilt: npt.ArrayLike) -> tuple[Float64, Float64]:
    """Directions in degrees, rot in [0, 360), tilt in [0, 90]; those of the lower half become their opposites."""
    direction = view_direction(rot, tilt)
    direction = np.where(direction[..., 2:] < 0, -direction, direction)
    folded = np.rad2deg(np.arctan2(np.hypot(direction[..., 0], direction[..., 1]), direction[..., 2]))
    azimuth = np.mod(np.rad2deg(np.arctan2(direction[..., 1], direction[..., 0])), 360.0)
    return np.where(azimuth >= 360.0, 0.0, azimuth), np.minimum(folded, 90.0)


def equal_area_position(rot: npt.ArrayLike, tilt: npt.ArrayLike) -> tuple[Float64, Float64]:
    """Lambert's equal-area map of the hemisphere (degrees): x, y in a disc of radius 1, the pole at its centre."""
    radius = np.sqrt(2.0) * np.sin(np.deg2rad(np.asarray(tilt, dtype=np.float64)) / 2)
    angle = np.deg2rad(np.asarray(rot, dtype=np.float64))
    return radius * np.cos(angle), radius * np.sin(angle)


def angular_distribution(
    rot: npt.ArrayLike, tilt: npt.ArrayLike, n_rings: int | None = None, symmetry: npt.ArrayLike | None = None
) -> AngularDistribution:
    """Count view directions in 3 n_rings^2 bins of equal solid angle; opposite directions are the same view.

    Parameters
    ----------
    rot, tilt : [n], degrees
    n_rings : rings of tilt; ring i (from 0) has 6 i + 3 sectors, so that bins are about as wide as high. By default 3
        to 12, so that an even distribution has about 8 views in each bin.
    symmetry : [s, 3, 3], optional; rotations that leave the object unchanged. A view counts with all its mates: it shows them
        all, and where angles are kept in one part of the sphere the rest is not empty.

    Raises
    ------
    InputError
        rot and tilt differ in length, hold values that are not finite, or n_rings is less than 1.
    """
    a, b = np.asarray(rot, dtype=np.float64), np.asarray(tilt, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise InputError(f"{a.size} rot and {b.size} tilt angles; one of each per particle is needed")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("rot or tilt of a particle is not a number; align these particles again")
    operators = np.eye(3)[None] if symmetry is None else np.asarray(symmetry, dtype=np.float64)
    particles, mates = len(a), len(operators)
    if mates > 1:
        seen = view_direction(a, b)
        whole = np.concatenate([seen @ operator for operator in operators])
        a = np.rad2deg(np.arctan2(whole[:, 1], whole[:, 0]))
        b = np.rad2deg(np.arctan2(np.hypot(whole[:, 0], whole[:, 1]), whole[:, 2]))
    if n_rings is None:
        n_rings = int(np.clip(np.sqrt(len(a) / 24), 3, 12))
    if n_rings < 1:
        raise InputError(f"{n_rings} rings: at least 1 is needed")
    bins, _ = _equal_area_bins(n_rings)
    counts = np.bincount(_bins_of(*fold_to_hemisphere(a, b), n_rings), minlength=len(bins)).astype(np.int64)
    return AngularDistribution(bins, counts, particles, mates)


def _bins_of(azimuth: Float64, folded: Float64, n_rings: int) -> npt.NDArray[np.int64]:
    """Bin of each direction of the hemisphere (degrees)."""
    # On the equal-area map ring i is the annulus between the radii i / n and (i + 1) / n; before it lie 3 i^2 bins.
    radius = np.sqrt(2.0) * np.sin(np.deg2rad(folded) / 2)
    ring = np.clip((radius * n_rings).astype(np.int64), 0, n_rings - 1)
    sectors = 6 * ring + 3
    return 3 * ring**2 + np.minimum((azimuth / 360.0 * sectors).astype(np.int64), sectors - 1)


def view_bins(table: pd.DataFrame, n_rings: int, operator: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
    """Bin of each particle's view among those of `angular_distribution`; operator [3, 3]: of the view that it makes of it."""
    direction = view_direction(table["rlnAngleRot"].to_numpy(float), table["rlnAngleTilt"].to_numpy(float))
    if operator is not None:
        direction = direction @ np.asarray(operator, dtype=np.float64)
    rot = np.rad2deg(np.arctan2(direction[:, 1], direction[:, 0]))
    tilt = np.rad2deg(np.arctan2(np.hypot(direction[:, 0], direction[:, 1]), direction[:, 2]))
    return _bins_of(*fold_to_hemisphere(rot, tilt), n_rings)


def direction_changes(
    previous: pd.DataFrame, current: pd.DataFrame, symmetry: npt.ArrayLike | None = None
) -> pd.DataFrame:
    """How far each particle's orientation and centre moved from one iteration to the next.

    Parameters
    ----------
    previous, current : rlnAngleRot, rlnAngleTilt, rlnAnglePsi (degrees), rlnOriginXAngst, rlnOriginYAngst (A); the same
        particles in the same order
    symmetry : [s, 3, 3], optional; rotations that leave the object unchanged

    Returns
    -------
    DataFrame with the index of `current`: nphRotationChange (degrees, full rotation), nphDirectionChange (degrees, of
    the view direction alone), nphShiftChange (A, length of the change of the origin), nphCorrelationChange where both
    tables have nphCorrelation.

    Raises
    ------
    InputError
        The tables differ in their particles or lack a column.
    """
    if len(previous) != len(current):
        raise InputError(
            f"{len(previous)} particles in the previous iteration, {len(current)} in this one; they must agree"
        )
    if "rlnImageName" in previous and "rlnImageName" in current:
        differ = np.flatnonzero(previous["rlnImageName"].to_numpy() != current["rlnImageName"].to_numpy())
        if len(differ):
            row = differ[0]
            raise InputError(
                f"particle {row + 1} is {previous['rlnImageName'].iloc[row]} in the previous iteration and "
                f"{current['rlnImageName'].iloc[row]} in this one; sort both tables alike"
            )
    before, after = (_poses(table, name) for table, name in ((previous, "previous"), (current, "current")))
    operators = np.eye(3)[None] if symmetry is None else np.asarray(symmetry, dtype=np.float64)
    # Chords: the arc cosine of the scalar product would lose small changes.
    chord = np.min([np.linalg.norm(after[:, 2] @ s - before[:, 2], axis=1) for s in operators], axis=0)
    shift = [
        current[name].to_numpy(dtype=np.float64) - previous[name].to_numpy(dtype=np.float64)
        for name in ("rlnOriginXAngst", "rlnOriginYAngst")
    ]
    changes = {
        "nphRotationChange": angular_distance(after, before, operators),
        "nphDirectionChange": np.rad2deg(2 * np.arcsin(np.minimum(chord / 2, 1.0))),
        "nphShiftChange": np.hypot(*shift),
    }
    if "nphCorrelation" in previous and "nphCorrelation" in current:
        changes["nphCorrelationChange"] = current["nphCorrelation"].to_numpy() - previous["nphCorrelation"].to_numpy()
    return pd.DataFrame(changes, index=current.index)


@dataclass(frozen=True)
class ChangeStatistics:
    """What `change_statistics` reports for one iteration."""

    particles: int
    median_rotation: float  # degrees
    median_direction: float  # degrees
    share_moved: float  # of the particles whose direction moved by more than `moved_by`
    moved_by: float  # degrees
    mean_shift: float  # A
    share_correlation_rose: float  # NaN where the correlations are not known


def change_statistics(changes: pd.DataFrame, moved_by: float) -> ChangeStatistics:
    """Summarise `direction_changes`.

    Parameters
    ----------
    changes : table of `direction_changes`
    moved_by : degrees; a particle whose direction changed by more counts as moved (SPIDER: 1.5 angular steps)
    """
    if not (np.isfinite(moved_by) and moved_by >= 0):
        raise InputError(f"angle {moved_by} degrees beyond which a particle has moved: must be 0 or more")
    if len(changes) == 0:
        return ChangeStatistics(0, 0.0, 0.0, 0.0, float(moved_by), 0.0, float("nan"))
    rose = changes.get("nphCorrelationChange")
    return ChangeStatistics(
        particles=len(changes),
        median_rotation=float(changes["nphRotationChange"].median()),
        median_direction=float(changes["nphDirectionChange"].median()),
        share_moved=float((changes["nphDirectionChange"] > moved_by).mean()),
        moved_by=float(moved_by),
        mean_shift=float(changes["nphShiftChange"].mean()),
        share_correlation_rose=float("nan") if rose is None else float((rose > 0).mean()),
    )


def _equal_area_bins(n_rings: int) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Bins [b, 4] in the order of rings, and the index of each ring's first bin."""
    bins: list[tuple[float, float, float, float]] = []
    first = []
    for ring in range(n_rings):
        first.append(len(bins))
        low, high = (float(np.rad2deg(2 * np.arcsin(r / n_rings / np.sqrt(2.0)))) for r in (ring, ring + 1))
        sectors = 6 * ring + 3
        bins += [(360.0 * i / sectors, 360.0 * (i + 1) / sectors, low, high) for i in range(sectors)]
    return np.array(bins), np.array(first, dtype=np.int64)


def _poses(table: pd.DataFrame, name: str) -> Float64:
    for column in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"):
        if column not in table.columns:
            raise InputError(f"{name} particle table has no column {column}; it is needed to compare orientations")
        if not np.isfinite(table[column].to_numpy(dtype=np.float64)).all():
            raise InputError(f"{column} of the {name} particle table holds a value that is not a number")
    angles = [table[column].to_numpy(dtype=np.float64) for column in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")]
    return euler_matrix(*angles)
