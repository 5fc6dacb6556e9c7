"""Iterative reconstruction from sums of Fourier slices: conjugate gradients and constrained Richardson iteration.

Both minimise `sum_i w |CTF P_i v - X_i|^2 + regulariser` through its normal equations (`nephila.normal_equations`), so
that a round costs two padded transforms, whatever the number of particles. SPIDER's BP CG and BP RP solve the same
equations with projections in real space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.finishing import finish, mean_weight_by_shell, regulariser_by_shell, symmetrise_sums
from nephila.masks import spherical_mask
from nephila.normal_equations import NormalEquations, dot
from nephila.partial_sum import PartialSum
from nephila.symmetry import point_group_matrices, symmetrise_volume

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


_TRUSTED = 0.3
# Width of the sphere's edge inside its radius, in boxes: a sharp one leaks errors of low frequencies into high ones
_EDGE = 0.02


@dataclass(frozen=True)
class ConjugateGradientSettings:
    """Settings of `conjugate_gradients`.

    Attributes:
        rounds: at most so many (SPIDER: 25, from zero). More follow the data further into the gaps between views.
        tolerance: stop when the residual has fallen to this share of the first one.
        smoothness: weight of the squared first derivative, in units of the particles' mean weight at the largest |k|.
        radius: of the sphere that holds the object, in units of n / 2.
    """

    rounds: int = 5
    tolerance: float = 1e-3
    smoothness: float = 0.2
    radius: float = 0.95


@dataclass(frozen=True)
class RichardsonSettings:
    """Settings of `richardson`.

    Attributes:
        rounds: at most so many (SPIDER: 60).
        step: in units of the largest stable one, below 2; SPIDER's lambda 0.2e-5 has the same meaning on its own scale.
        tolerance: stop when a round changes the volume by less than this share of it.
        positive: whether values below `least` are raised to it after each round.
        least: smallest value that a positive volume may have.
        radius: of the sphere that holds the object, in units of n / 2.
    """

    rounds: int = 50
    step: float = 1.0
    tolerance: float = 1e-3
    positive: bool = False
    least: float = 0.0
    radius: float = 0.95


def normal_equations(
    partial: PartialSum, symmetry: str, added: Float64, radius: float, threads: int = 1
) -> NormalEquations:
    """The equations of a sum: `added` per shell in units of the expected density, the object within `radius` of n /
    2."""
    grid = partial.grid
    numerator, denominator, smoothings = symmetrise_sums(*partial.expand(), grid, symmetry)
    cells = np.arange(grid.radius_cells + 1) / grid.padding
    by_cell = np.interp(cells, np.arange(grid.n // 2 + 1), added * partial.expected_density())
    edge = _EDGE * grid.n
    mask = spherical_mask(grid.n, max(radius * grid.n / 2 - edge, 1.0), edge + 1.0)
    rim = grid.max_radius * grid.padding
    window = grid.window_transform() ** smoothings
    # beyond _TRUSTED of the padded side, copies of the padded volume overlap too much to take the window out
    place = (np.arange(grid.n_pad) - grid.n_pad // 2) / grid.n_pad
    spread = grid.window_transform(grid.n_pad) ** smoothings
    spread = np.maximum(spread, np.interp(_TRUSTED, place[grid.n_pad // 2 :], spread[grid.n_pad // 2 :]))
    return NormalEquations(numerator, denominator, by_cell, rim, window, mask, threads, spread)


def conjugate_gradients(
    partial: PartialSum,
    symmetry: str = "C1",
    regulariser: npt.ArrayLike | None = None,
    *,
    snr: npt.ArrayLike | None = None,
    settings: ConjugateGradientSettings | None = None,
    threads: int = 1,
) -> Float32:
    """Reconstruct by preconditioned conjugate gradients with first-derivative regularisation (SPIDER's BP CG).

    They start from the division's volume, and mend what a division cell by cell cannot see: uneven views, low
    frequencies, the empty space around the object.

    Args:
        partial, symmetry, regulariser, snr: as in `nephila.finishing.finish`.
        settings: see `ConjugateGradientSettings`.

    Returns:
        float32 [n, n, n], zero outside the sphere; all zeros for sums over no particles.
    """
    chosen = settings or ConjugateGradientSettings()
    _check_rounds(chosen.rounds, chosen.radius)
    n = partial.grid.n
    if partial.particles == 0 or partial.weight <= 0:
        point_group_matrices(symmetry)
        return np.zeros((n,) * 3, dtype=np.float32)
    means = mean_weight_by_shell(partial)
    added = regulariser_by_shell(n, regulariser, snr, means)
    # |k|^2 weighs the first derivative; the unit of `added` falls as 1 / |k|
    shells = np.arange(n // 2 + 1) / partial.grid.max_radius
    added = added + chosen.smoothness * means[1 : partial.grid.max_radius + 1].mean() * shells**3
    equations = normal_equations(partial, symmetry, added, chosen.radius, threads)
    start = finish(partial, symmetry, regulariser, snr=snr, threads=threads)
    volume = equations.solve(chosen.rounds, chosen.tolerance, start)
    return symmetrise_volume(volume, point_group_matrices(symmetry)) if symmetry.upper() != "C1" else volume


def richardson(
    partial: PartialSum,
    symmetry: str = "C1",
    regulariser: npt.ArrayLike | None = None,
    *,
    snr: npt.ArrayLike | None = None,
    settings: RichardsonSettings | None = None,
    threads: int = 1,
) -> Float32:
    """Reconstruct by preconditioned Richardson iteration `v <- C[v + step M (b - A v)]` (SPIDER's BP RP).

    C are the constraints: the sphere, and where asked for, a smallest value. M divides by the shells' mean weight and
    by the largest eigenvalue of M A (power iteration), so that steps below 2 are stable.

    Args and Returns: as `conjugate_gradients`.
    """
    chosen = settings or RichardsonSettings()
    _check_rounds(chosen.rounds, chosen.radius)
    if not 0 < chosen.step < 2:
        raise InputError(f"Richardson step {chosen.step}: must lie between 0 and 2")
    n = partial.grid.n
    if partial.particles == 0 or partial.weight <= 0:
        point_group_matrices(symmetry)
        return np.zeros((n,) * 3, dtype=np.float32)
    added = regulariser_by_shell(n, regulariser, snr, mean_weight_by_shell(partial))
    equations = normal_equations(partial, symmetry, added, chosen.radius, threads)
    step = np.float32(chosen.step / equations.largest_eigenvalue())
    volume = np.zeros_like(equations.right)
    last = np.inf
    for _ in range(chosen.rounds):
        change = step * equations.precondition(equations.right - equations.apply(volume))
        if chosen.positive:
            moved = np.maximum(volume + change, np.float32(chosen.least)) * equations.mask
            change = moved - volume
        size = dot(change, change)
        if size > last:  # the largest eigenvalue was underestimated
            step *= np.float32(0.5)
            change *= np.float32(0.5)
        last = size
        volume += change
        if size <= chosen.tolerance**2 * dot(volume, volume):
            break
    return symmetrise_volume(volume, point_group_matrices(symmetry)) if symmetry.upper() != "C1" else volume


def _check_rounds(rounds: int, radius: float) -> None:
    if rounds < 1 or not 0 < radius <= 1:
        raise InputError(
            f"{rounds} rounds within {radius} of the half box: at least 1 round and a radius in (0, 1] are needed"
        )
