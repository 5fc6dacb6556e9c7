"""Spreading of atoms as Gaussians on a grid: the real-space half of `phantom.density`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

REACH = 5  # px; exp(-5^2 / 2) = 4e-6 of the peak at sigma 1


def spread_atoms(
    positions: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], n: int, sigma: float
) -> npt.NDArray[np.float32]:
    """Sum of Gaussians of integral `weights` on a periodic grid.

    Parameters
    ----------
    positions : [m, 3], (x, y, z) in px
    sigma : px, about 1

    Returns
    -------
    float32 [n, n, n], (z, y, x)
    """
    grid = np.zeros((n, n, n), dtype=np.float32)
    _spread(np.ascontiguousarray(positions), np.ascontiguousarray(weights), sigma, grid)
    return grid


@njit(cache=True, nogil=True)
def _spread(positions, weights, sigma, grid):  # type: ignore[no-untyped-def]
    n = grid.shape[0]
    width = 2 * REACH + 1
    taps = np.empty((3, width))
    scale = 1.0 / (sigma * np.sqrt(2.0 * np.pi))
    first = np.empty(3, dtype=np.int64)
    for a in range(positions.shape[0]):
        for axis in range(3):
            first[axis] = int(np.floor(positions[a, axis] + 0.5)) - REACH
            for t in range(width):
                d = (first[axis] + t - positions[a, axis]) / sigma
                taps[axis, t] = scale * np.exp(-0.5 * d * d)
        for k in range(width):
            z = (first[2] + k) % n
            wz = weights[a] * taps[2, k]
            for j in range(width):
                y = (first[1] + j) % n
                wzy = wz * taps[1, j]
                for i in range(width):
                    grid[z, y, (first[0] + i) % n] += wzy * taps[0, i]
