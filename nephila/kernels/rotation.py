"""Sums over the operators of a point group on half transforms with their origin at [0, 0, 0].

A cell k = (x, y, z) with x < 0 is read as the complex conjugate at -k. Operators act as out(k) = sum over S of in(S k).
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def sum_permuted(numerator, denominator, operators, radius, numerator_out, denominator_out):
    """Sum over signed permutations of the axes, int64 [h, 3, 3]: exact, no interpolation. Cells within `radius`
    only."""
    reach = int(radius)
    for z in range(-reach, reach + 1):
        for y in range(-reach, reach + 1):
            left = radius * radius - z * z - y * y
            if left < 0:
                continue
            for x in range(int(np.sqrt(left)) + 1):
                re, im, w = np.float32(0.0), np.float32(0.0), np.float32(0.0)
                for h in range(operators.shape[0]):
                    a = operators[h, 0, 0] * x + operators[h, 0, 1] * y + operators[h, 0, 2] * z
                    b = operators[h, 1, 0] * x + operators[h, 1, 1] * y + operators[h, 1, 2] * z
                    c = operators[h, 2, 0] * x + operators[h, 2, 1] * y + operators[h, 2, 2] * z
                    if a < 0:
                        value = numerator[-c, -b, -a]
                        re, im, w = re + value.real, im - value.imag, w + denominator[-c, -b, -a]
                    else:
                        value = numerator[c, b, a]
                        re, im, w = re + value.real, im + value.imag, w + denominator[c, b, a]
                numerator_out[z, y, x] = np.complex64(complex(re, im))
                denominator_out[z, y, x] = w


@njit(cache=True, nogil=True)
def sum_rotated(numerator, denominator, matrices, radius, taps, numerator_out, denominator_out):
    """Sum over rotations float64 [c, 3, 3], each read with the 2 x 2 x 2 window whose polynomials are `taps` [degree +
    1, 2]."""
    weights = np.empty((3, 2), dtype=np.float32)
    base = np.empty(3, dtype=np.int64)
    reach = int(radius)
    for z in range(-reach, reach + 1):
        for y in range(-reach, reach + 1):
            left = radius * radius - z * z - y * y
            if left < 0:
                continue
            for x in range(int(np.sqrt(left)) + 1):
                re, im, w = np.float32(0.0), np.float32(0.0), np.float32(0.0)
                for c in range(matrices.shape[0]):
                    _window(matrices[c], x, y, z, taps, base, weights)
                    for t in range(8):
                        i, j, k = t & 1, (t >> 1) & 1, t >> 2
                        p = weights[0, i] * weights[1, j] * weights[2, k]
                        a, b, d = base[0] + i, base[1] + j, base[2] + k
                        if a < 0:
                            value = numerator[-d, -b, -a]
                            re, im, w = re + p * value.real, im - p * value.imag, w + p * denominator[-d, -b, -a]
                        else:
                            value = numerator[d, b, a]
                            re, im, w = re + p * value.real, im + p * value.imag, w + p * denominator[d, b, a]
                numerator_out[z, y, x] = np.complex64(complex(re, im))
                denominator_out[z, y, x] = w


@njit(cache=True, nogil=True)
def average_rotated(transform, matrices, radius, scale, taps, out):
    """Mean over rotations [c, 3, 3] of a padded transform, read at k * scale with a window of as many taps as `taps`
    has columns.

    `out` is the half transform of the volume itself; cells beyond `radius` (Fourier px) are not touched.
    """
    width = taps.shape[1]
    weights = np.empty((3, width), dtype=np.float32)
    base = np.empty(3, dtype=np.int64)
    share = 1.0 / matrices.shape[0]
    for z in range(-radius, radius + 1):
        for y in range(-radius, radius + 1):
            left = radius * radius - z * z - y * y
            if left < 0:
                continue
            for x in range(int(np.sqrt(left)) + 1):
                re, im = 0.0, 0.0
                for c in range(matrices.shape[0]):
                    _window(matrices[c], x * scale, y * scale, z * scale, taps, base, weights)
                    for k in range(width):
                        for j in range(width):
                            p = weights[2, k] * weights[1, j]
                            d, b = base[2] + k, base[1] + j
                            for i in range(width):
                                a = base[0] + i
                                if a < 0:
                                    value = transform[-d, -b, -a]
                                    re, im = re + p * weights[0, i] * value.real, im - p * weights[0, i] * value.imag
                                else:
                                    value = transform[d, b, a]
                                    re, im = re + p * weights[0, i] * value.real, im + p * weights[0, i] * value.imag
                out[z, y, x] = np.complex64(complex(re * share, im * share))


@njit(cache=True, nogil=True)
def _window(matrix, x, y, z, taps, base, weights):
    """First grid point and weights of the window about `matrix` (x, y, z), along x, y and z."""
    width = taps.shape[1]
    for axis in range(3):
        # whole cells that are hit exactly must not fall to the neighbour by rounding
        u = matrix[axis, 0] * x + matrix[axis, 1] * y + matrix[axis, 2] * z + 1e-9
        whole = np.floor(u)
        base[axis] = int(whole) - width // 2 + 1
        t = np.float32(2.0 * (u - whole) - 1.0)
        for tap in range(width):
            p = taps[0, tap]
            for d in range(1, taps.shape[0]):
                p = p * t + taps[d, tap]
            weights[axis, tap] = p
