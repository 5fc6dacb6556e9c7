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
from nephila.fourier import filter_shells
from nephila.masks import spherical_mask
from nephila.normal_equations import NormalEquations, dot
from nephila.partial_sum import PartialSum
from nephila.radial_prior import powers_inside_and_outside, signal_to_noise
from nephila.symmetry import point_group_matrices, symmetrise_volume

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


_TRUSTED = 0.3
# Width of the sphere's edge inside its radius, in boxes: a sharp one leaks errors of low frequencies into high ones, a wide
# one is no constraint
_EDGE = 0.1
_RICHARDSON_EDGE = 0.02
# Least SNR of a shell that the prior knows: no shell is wiped out
_LEAST_SNR = 0.1
# Power of what the equations get wrong, as shares of a shell's signal (near Nyquist; measured) and of the strongest shell's
_OWN_ERROR = 0.1
_LEAKED_ERROR = 1e-8


@dataclass(frozen=True)
class ConjugateGradientSettings:
    """Settings of `conjugate_gradients`.

    Attributes:
        rounds: at most so many (SPIDER: 25, from zero). More follow the data further into the gaps between views.
        tolerance: stop when the residual has fallen to this share of the first one.
        prior: weight of the radial prior: a shell's mean weight over `prior` times its SNR, as the map by division shows
            it, is added to the equations, unless a regulariser or an SNR is given; 0 for none.
        smoothness: weight of the squared first derivative, in units of the particles' mean weight at the largest |k|.
        radius: of the sphere that holds the object, in units of n / 2; the outer fifth of it fades out.
    """

    rounds: int = 5
    tolerance: float = 1e-3
    prior: float = 3.0
    smoothness: float = 0.0
    radius: float = 1.0


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
    partial: PartialSum, symmetry: str, added: Float64, radius: float, threads: int = 1, edge: float = _EDGE
) -> NormalEquations:
    """The equations of a sum: `added` per shell in units of the expected density, the object within `radius` of n / 2,
    whose outermost `edge` (in boxes) fades out."""
    grid = partial.grid
    numerator, denominator, smoothings = symmetrise_sums(*partial.expand(), grid, symmetry)
    cells = np.arange(grid.radius_cells + 1) / grid.padding
    by_cell = np.interp(cells, np.arange(grid.n // 2 + 1), added * partial.expected_density())
    mask = spherical_mask(grid.n, max(radius * grid.n / 2 - edge * grid.n, 1.0), edge * grid.n + 1.0)
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
    """Reconstruct by preconditioned conjugate gradients with a radial prior (Tikhonov; in the place of SPIDER's BP CG).

    They start from the division's volume, and mend what a division cell by cell cannot see: uneven views, noise in cells
    that few views measure, low frequencies, the empty space around the object. The prior is the Wiener filter's, cell by
    cell; its mean effect on a shell is taken out again, so that the map is not filtered. Shells in which the division's
    errors lie below the equations' own (data nearly without noise) keep the division.

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
    if not means.any():
        return np.zeros((n,) * 3, dtype=np.float32)
    divided = finish(partial, symmetry, regulariser, snr=snr, threads=threads)
    inside, outside = powers_inside_and_outside(divided, threads)
    own_prior = regulariser is None and snr is None and chosen.prior > 0
    known = chosen.prior * signal_to_noise(inside, outside, _LEAST_SNR) if own_prior else snr
    added = regulariser_by_shell(n, regulariser, known, means)
    # |k|^2 weighs the first derivative; the unit of `added` falls as 1 / |k|
    shells = np.arange(n // 2 + 1) / partial.grid.max_radius
    added = added + chosen.smoothness * means[1 : partial.grid.max_radius + 1].mean() * shells**3
    equations = normal_equations(partial, symmetry, added, chosen.radius, threads)
    volume = equations.solve(chosen.rounds, chosen.tolerance, divided) * equations.mask
    divided *= equations.mask
    if own_prior:
        volume = filter_shells(volume, 1.0 + 1.0 / np.asarray(known, dtype=np.float64))
    volume = divided + filter_shells(volume - divided, _trust(inside, outside))
    volume[equations.mask == 0] = 0.0
    return symmetrise_volume(volume, point_group_matrices(symmetry)) if symmetry.upper() != "C1" else volume


def _trust(inside: Float64, outside: Float64) -> Float64:
    """By shell: the division's errors, which the surroundings show, against them and the equations' own together."""
    own = _OWN_ERROR * np.maximum(inside - outside, 0.0) + _LEAKED_ERROR * inside.max()
    return np.asarray(np.where(own > 0, outside / np.where(own > 0, outside + own, 1.0), 1.0))


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
    means = mean_weight_by_shell(partial)
    if not means.any():
        return np.zeros((n,) * 3, dtype=np.float32)
    added = regulariser_by_shell(n, regulariser, snr, means)
    equations = normal_equations(partial, symmetry, added, chosen.radius, threads, _RICHARDSON_EDGE)
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
