"""Sampling of images on shifted, mirrored and turned grids (private; `nephila.averaging` checks the arguments)."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt


@numba.njit(cache=True, nogil=True)
def sample_splines(
    coefficients: npt.NDArray[np.float32],
    cosine: npt.NDArray[np.float64],
    sine: npt.NDArray[np.float64],
    shifts: npt.NDArray[np.float64],
    flip: npt.NDArray[np.float64],
    out: npt.NDArray[np.float32],
) -> None:
    """Cubic B-splines [m, n, n], periodic in the box, at the points `flip_y(R w) - shift` for each output pixel w."""
    number, n, _ = coefficients.shape
    centre = n // 2
    weights_x, weights_y = np.empty(4), np.empty(4)
    columns, rows = np.empty(4, dtype=np.int64), np.empty(4, dtype=np.int64)
    for i in range(number):
        c, s, mirror = cosine[i], sine[i], flip[i]
        for y in range(n):
            for x in range(n):
                u = c * (x - centre) + s * (y - centre) - shifts[i, 0] + centre
                v = mirror * (c * (y - centre) - s * (x - centre)) - shifts[i, 1] + centre
                left, top = np.floor(u), np.floor(v)
                _spline_weights(u - left, weights_x)
                _spline_weights(v - top, weights_y)
                column, row = (int(left) - 1) % n, (int(top) - 1) % n
                for k in range(4):
                    columns[k], rows[k] = column, row
                    column = column + 1 if column + 1 < n else 0
                    row = row + 1 if row + 1 < n else 0
                total = 0.0
                for j in range(4):
                    line = coefficients[i, rows[j]]
                    part = 0.0
                    for k in range(4):
                        part += weights_x[k] * line[columns[k]]
                    total += weights_y[j] * part
                out[i, y, x] = total


@numba.njit(cache=True, nogil=True, inline="always")
def _spline_weights(t: float, weights: npt.NDArray[np.float64]) -> None:
    """Weights of the four neighbours of a point a fraction t beyond the second of them."""
    r = 1.0 - t
    weights[0] = r * r * r / 6.0
    weights[1] = 2.0 / 3.0 - 0.5 * t * t * (2.0 - t)
    weights[2] = 2.0 / 3.0 - 0.5 * r * r * (2.0 - r)
    weights[3] = t * t * t / 6.0
