"""From the batches' candidates to the table of poses."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nephila.alignment.grids import OrientationGrid
from nephila.alignment.settings import AlignmentResult, AlignmentSettings, Poses
from nephila.geometry import angular_distance, matrix_to_euler
from nephila.kernels.pose import Particle

Float64 = npt.NDArray[np.float64]


@dataclass
class Batch:
    """Some rows of the table on their way through the search; arrays have a whole batch's rows, of which `number` count."""

    first: int
    number: int
    particle: Particle | None
    powers: Float64  # [number], sum of |X|^2 in the band; 0 for empty images
    prior_rotations: Float64
    prior_shifts: Float64
    samples: int
    rotations: Float64 = field(default_factory=lambda: np.zeros(0))  # [number, k, 3, 3], best first
    shifts: Float64 = field(default_factory=lambda: np.zeros(0))  # [number, k, 2]
    matches: Float64 = field(default_factory=lambda: np.zeros(0))  # [number, k], -inf where there is no candidate
    amplitudes: Float64 = field(default_factory=lambda: np.zeros(0))
    views: npt.NDArray[np.int64] | None = None  # [number], 2 v, or 2 v + 1 for the mirror image; where known

    def take(
        self, rotations: Float64, shifts: Float64, matches: Float64, amplitudes: Float64, number: npt.NDArray[np.int64]
    ) -> None:
        """Keep sorted candidates."""
        rows = slice(0, self.number)
        self.rotations, self.shifts, self.amplitudes = rotations[rows], shifts[rows], amplitudes[rows]
        self.matches = np.where(np.arange(matches.shape[1]) < number[rows, None], matches[rows], -np.inf)

    def keep(self, most: int) -> None:
        """Forget all but the best candidates."""
        self.rotations, self.shifts = self.rotations[:, :most].copy(), self.shifts[:, :most].copy()
        self.matches, self.amplitudes = self.matches[:, :most].copy(), self.amplitudes[:, :most].copy()

    def take_grid(
        self,
        rotations: Float64,
        shifts: Float64,
        matches: Float64,
        places: npt.NDArray[np.int64],
        number: npt.NDArray[np.int64],
        in_plane: int,
    ) -> None:
        """Keep points of the whole grid; `places` count references x 4 variants, of which two are mirrored."""
        self.take(rotations, shifts, matches, np.zeros_like(matches), number)
        best = np.maximum(places[: self.number, 0], 0)
        self.views = 2 * (best // (4 * in_plane)) + (best % 4 >= 2)

    def take_grid_row(
        self,
        row: int,
        rotations: Float64,
        shifts: Float64,
        matches: Float64,
        places: npt.NDArray[np.int64],
        number: npt.NDArray[np.int64],
        near: npt.NDArray[np.int64],
        in_plane: int,
    ) -> None:
        """Keep one row of a restricted grid, whose views are `near`."""
        if row == 0:
            size = matches.shape[1]
            self.rotations = np.zeros((self.number, size, 3, 3))
            self.shifts, self.matches = np.zeros((self.number, size, 2)), np.full((self.number, size), -np.inf)
            self.amplitudes = np.zeros((self.number, size))
            self.views = np.zeros(self.number, dtype=np.int64)
        assert self.views is not None
        self.rotations[row], self.shifts[row] = rotations[0], shifts[0]
        self.matches[row, : number[0]] = matches[0, : number[0]]
        self.views[row] = near[max(int(places[0, 0]), 0) // (4 * in_plane)]


def assemble_result(
    batches: list[Batch],
    settings: AlignmentSettings,
    grid: OrientationGrid,
    prior: Poses | None,
    noise_known: bool,
) -> AlignmentResult:
    """Poses, correlations, runners-up and movements of all batches."""
    if not batches:
        return _no_particles(settings)
    powers = np.concatenate([b.powers for b in batches])
    rotations = np.concatenate([b.rotations for b in batches])
    shifts = np.concatenate([b.shifts for b in batches])
    matches = np.concatenate([b.matches for b in batches])
    amplitude = np.concatenate([b.amplitudes for b in batches])[:, 0]
    empty = ~((powers > 0) & np.isfinite(matches[:, 0]))
    start = np.concatenate([b.prior_rotations[: b.number] for b in batches])
    rotations[empty, 0], matches[empty] = start[empty], -np.inf
    shifts[empty, 0] = np.concatenate([b.prior_shifts[: b.number] for b in batches])[empty]
    norm = np.sqrt(np.where(empty, 1.0, powers))
    correlations = np.where(np.isfinite(matches), matches / norm[:, None], np.nan)
    runner_up, distance = _runner_up(rotations, correlations, settings)
    moved_deg = moved_px = np.full(len(powers), np.nan)
    if prior is not None:
        moved_deg = angular_distance(rotations[:, 0], prior.matrices, settings.symmetry)
        moved_px = np.hypot(*(shifts[:, 0] - prior.shifts).T)
    reference, mirrored = grid.nearest_view(rotations[:, 0], settings.symmetry)
    if all(b.views is not None for b in batches):
        views = np.concatenate([b.views for b in batches if b.views is not None])
        reference, mirrored = views // 2, (views % 2).astype(bool)
    result = AlignmentResult(
        poses=make_poses(rotations[:, 0], shifts[:, 0]),
        correlation=np.where(empty, 0.0, np.nan_to_num(np.clip(correlations[:, 0], -1, 1))),
        runner_up=runner_up,
        runner_up_distance_deg=distance,
        amplitude=np.where(empty, 0.0, amplitude),
        moved_deg=moved_deg,
        moved_px=moved_px,
        reference=reference,
        mirrored=mirrored,
        empty=empty,
        **_marginal(rotations, shifts, matches, powers, batches[0].samples, settings.marginal, noise_known),  # type: ignore[arg-type]
    )
    return result


def make_poses(rotations: Float64, shifts: Float64) -> Poses:
    """Poses of matrices [m, 3, 3] and shifts [m, 2]."""
    rot, tilt, psi = matrix_to_euler(rotations)
    return Poses(rot, tilt, psi, shifts[:, 0].copy(), shifts[:, 1].copy())


def _no_particles(settings: AlignmentSettings) -> AlignmentResult:
    none, whole, flag = np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
    poses = Poses(none, none, none, none, none)
    marginal = settings.marginal > 1
    return AlignmentResult(
        poses, none, none, none, none, none, none, whole, flag, flag,
        poses if marginal else None, np.zeros((0, settings.marginal)) if marginal else None,
    )  # fmt: skip


def _runner_up(rotations: Float64, correlations: Float64, settings: AlignmentSettings) -> tuple[Float64, Float64]:
    """The best correlation at least `distinct_deg` from the best pose, and how far away it is; NaN where none."""
    best = np.full(len(rotations), np.nan)
    distance = np.full(len(rotations), np.nan)
    for k in range(1, rotations.shape[1]):
        open_rows = np.isnan(best) & np.isfinite(correlations[:, k])
        if not open_rows.any():
            continue
        apart = angular_distance(rotations[open_rows, 0], rotations[open_rows, k], settings.symmetry)
        rows = np.flatnonzero(open_rows)[apart >= settings.distinct_deg]
        best[rows], distance[rows] = correlations[rows, k], apart[apart >= settings.distinct_deg]
    return best, distance


def _marginal(
    rotations: Float64,
    shifts: Float64,
    matches: Float64,
    powers: Float64,
    samples: int,
    number: int,
    noise_known: bool,
) -> dict[str, Poses | Float64 | None]:
    """The k best candidates and weights proportional to their likelihood, each at its own best amplitude.

    With known noise the log likelihood is the explained power `match^2` (complex Gaussian noise of unit power after
    weighting); without, the noise is profiled out too: `-samples log(|X|^2 - match^2)`.
    """
    if number <= 1:
        return {"candidates": None, "candidate_weights": None}
    size = min(number, matches.shape[1])
    explained = np.where(np.isfinite(matches[:, :size]), np.maximum(matches[:, :size], 0.0) ** 2, 0.0)
    if noise_known:
        logs = explained
    else:
        total = np.maximum(powers, 1e-30)[:, None]
        logs = -samples * np.log(np.maximum(1.0 - explained / total, 1e-12))
    logs = np.where(np.isfinite(matches[:, :size]), logs, -np.inf)
    logs[:, 0] = np.where(np.isfinite(logs[:, 0]), logs[:, 0], 0.0)
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    padded = np.zeros((len(weights), number))
    padded[:, :size] = weights
    all_rotations = np.tile(np.eye(3), (len(weights), number, 1, 1))
    all_shifts = np.zeros((len(weights), number, 2))
    present = weights > 0
    all_rotations[:, :size][present], all_shifts[:, :size][present] = (
        rotations[:, :size][present],
        shifts[:, :size][present],
    )
    return {
        "candidates": make_poses(all_rotations.reshape(-1, 3, 3), all_shifts.reshape(-1, 2)),
        "candidate_weights": padded,
    }
