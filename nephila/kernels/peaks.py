"""Suppression of neighbours among sorted points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit


@njit(cache=True, nogil=True)
def suppress_neighbours(
    y: npt.NDArray[np.float64], x: npt.NDArray[np.float64], distance: float, at_most: int
) -> npt.NDArray[np.int64]:
    """Indices of the points, taken in the order given, that are at least `distance` from all those taken before."""
    count = len(y)
    taken = np.empty(min(count, at_most), dtype=np.int64)
    number = 0
    if count == 0 or at_most == 0:
        return taken[:0]
    size = max(distance, 1e-6)
    y0, x0 = y.min(), x.min()
    rows, columns = int((y.max() - y0) / size) + 1, int((x.max() - x0) / size) + 1
    # Chains of taken points by cell of side `distance`: only the 3 x 3 cells around a point can hold one that is too
    # close
    head = np.full((rows, columns), -1, dtype=np.int64)
    following = np.full(min(count, at_most), -1, dtype=np.int64)
    for i in range(count):
        if number == at_most:
            break
        row, column = int((y[i] - y0) / size), int((x[i] - x0) / size)
        free = True
        for r in range(max(row - 1, 0), min(row + 2, rows)):
            for c in range(max(column - 1, 0), min(column + 2, columns)):
                j = head[r, c]
                while j >= 0 and free:
                    k = taken[j]
                    if (y[k] - y[i]) ** 2 + (x[k] - x[i]) ** 2 < distance * distance:
                        free = False
                    j = following[j]
        if free:
            taken[number] = i
            following[number] = head[row, column]
            head[row, column] = number
            number += 1
    return taken[:number]
