"""Levenberg-Marquardt over three rotations and two shifts of one particle, in a central slice.

The model of a particle's transform X is `a C(k) F(A^T k) exp(2 pi i k.o / n)`. The amplitude a is projected out
(variable projection: Golub & Pereyra 1973), so each step raises the normalised correlation of X and slice. Rotations
act on the left, `A <- exp([w]) A`, so that w is in the image's frame:

    dF/dwx = -ky h,   dF/dwy = kx h,   dF/dwz = t,   dF/dox = (2 pi i kx / n) F,   dF/doy = (2 pi i ky / n) F

with h the derivative along the view and t that of an in-plane turn about it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from nephila.kernels.taps import AHEAD, CHUNK, locate_samples, prefetch_taps, sum_taps_and_slopes

SUMS = 25
_FIRST_DAMPING = 1e-2
# Gains of log likelihood below which a step is not worth its evaluation, and after which no further one is
_IDLE_GAIN, _LAST_GAIN = 0.02, 0.15


class BandSamples(NamedTuple):
    """Samples of the open half plane, sorted so that each band is a prefix."""

    kx: npt.NDArray[np.float32]
    ky: npt.NDArray[np.float32]
    column: npt.NDArray[np.int32]  # kx
    row: npt.NDArray[np.int32]  # ky + radius
    radius: int
    n: int  # side of the images


class Particle(NamedTuple):
    """One particle at those samples; both already multiplied by the root of the noise weights."""

    real: npt.NDArray[np.float32]
    imag: npt.NDArray[np.float32]
    ctf: npt.NDArray[np.float32]


class Limits(NamedTuple):
    """How far a pose may go: |o - centre| on each axis, and (cosine of) the rotation from a start."""

    centre: npt.NDArray[np.float64]  # [2], pixels
    shift: float  # pixels
    start: npt.NDArray[np.float64]  # [3, 3]
    cosine: float  # of the largest rotation; -2 for none


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[misc]
def _accumulate(kx, ky, work, count, sums):  # type: ignore[no-untyped-def]
    """Add inner products over `count` samples to `sums`; `work` holds V, h, t (times the CTF) and the moved image."""
    zero = np.float32(0.0)
    vv, yv, b1, b2, b3, b4, b5, s1, s2, s3 = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    for j in range(count):
        x, y = kx[j], ky[j]
        vr, vi, hr, hi, tr, ti = work[0, j], work[1, j], work[2, j], work[3, j], work[4, j], work[5, j]
        yr, yi = work[6, j], work[7, j]
        vv += vr * vr + vi * vi
        yv += vr * yr + vi * yi
        turned = vr * yi - vi * yr
        b4 += x * turned
        b5 += y * turned
        hy, hv = hr * yr + hi * yi, hr * vr + hi * vi
        b1 -= y * hy
        b2 += x * hy
        b3 += tr * yr + ti * yi
        s1 -= y * hv
        s2 += x * hv
        s3 += tr * vr + ti * vi
    for i, value in enumerate((vv, yv, b1, b2, b3, b4, b5, s1, s2, s3)):
        sums[i] += value
    a11, a12, a22, a13, a23, a33, a44, a45, a55 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    for j in range(count):
        x, y = kx[j], ky[j]
        vr, vi, hr, hi, tr, ti = work[0, j], work[1, j], work[2, j], work[3, j], work[4, j], work[5, j]
        hh, ht, power = hr * hr + hi * hi, hr * tr + hi * ti, vr * vr + vi * vi
        a11 += y * y * hh
        a12 -= x * y * hh
        a22 += x * x * hh
        a13 -= y * ht
        a23 += x * ht
        a33 += tr * tr + ti * ti
        a44 += x * x * power
        a45 += x * y * power
        a55 += y * y * power
    for i, value in enumerate((a11, a12, a22, a13, a23, a33, a44, a45, a55)):
        sums[10 + i] += value
    a14, a15, a24, a25, a34, a35 = zero, zero, zero, zero, zero, zero
    for j in range(count):
        x, y = kx[j], ky[j]
        vr, vi, hr, hi, tr, ti = work[0, j], work[1, j], work[2, j], work[3, j], work[4, j], work[5, j]
        cross_h, cross_t = hr * vi - hi * vr, tr * vi - ti * vr
        a14 += x * y * cross_h
        a15 += y * y * cross_h
        a24 -= x * x * cross_h
        a25 -= x * y * cross_h
        a34 -= x * cross_t
        a35 -= y * cross_t
    for i, value in enumerate((a14, a15, a24, a25, a34, a35)):
        sums[19 + i] += value


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def _fill_phases(first, count, angle, out):  # type: ignore[no-untyped-def]
    """exp(-i angle k) for k = first, first + 1, ... as two rows of float32."""
    step_r, step_i = np.cos(angle), -np.sin(angle)
    real, imag = np.cos(angle * first), -np.sin(angle * first)
    for k in range(count):
        out[0, k], out[1, k] = real, imag
        real, imag = real * step_r - imag * step_i, real * step_i + imag * step_r


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def evaluate_pose(grid, samples, count, particle, rotation, shift, work, sums):  # type: ignore[no-untyped-def]
    """Inner products of model, derivatives and image over the first `count` samples.

    rotation float64 [3, 3], shift float64 [2]; `shift` counts from pixel 0 (the caller subtracts the centre).
    work : float32 [8, >= CHUNK]; sums : float64 [25] out, in the order of `_accumulate`, shifts without their 2 pi / n
    """
    matrix = np.empty((3, 3), dtype=np.float32)
    for i in range(3):
        for j in range(3):
            matrix[i, j] = rotation[i, j] * grid.padding
    phases_x = np.empty((2, samples.radius + 1), dtype=np.float32)
    phases_y = np.empty((2, 2 * samples.radius + 1), dtype=np.float32)
    _fill_phases(0, samples.radius + 1, 2 * np.pi * shift[0] / samples.n, phases_x)
    _fill_phases(-samples.radius, 2 * samples.radius + 1, 2 * np.pi * shift[1] / samples.n, phases_y)
    stride_y, stride_z = grid.strides[0], grid.strides[1]
    values, weights = grid.values, grid.weights
    view = (matrix[2, 0], matrix[2, 1], matrix[2, 2])
    offsets, places = np.empty(CHUNK, dtype=np.int64), np.empty((4, CHUNK), dtype=np.float32)
    sums[:] = 0.0
    for first in range(0, count, CHUNK):
        size = min(CHUNK, count - first)
        band_x, band_y = samples.kx[first : first + size], samples.ky[first : first + size]
        locate_samples(band_x, band_y, matrix, grid.strides, offsets, places)
        for j in range(size):
            if j % 2 == 0 and j + AHEAD < size:
                prefetch_taps(values, offsets[j + AHEAD], stride_y, stride_z)
            kx, ky, c, sign = band_x[j], band_y[j], particle.ctf[np.uint64(first + j)], places[3, j]
            turn = (
                ky * matrix[0, 0] - kx * matrix[1, 0],
                ky * matrix[0, 1] - kx * matrix[1, 1],
                ky * matrix[0, 2] - kx * matrix[1, 2],
            )
            vr, vi, hr, hi, tr, ti = sum_taps_and_slopes(
                values, weights, offsets[j], stride_y, stride_z, places[0, j], places[1, j], places[2, j], view, turn
            )
            # F(k) = conj F(-k), so its gradient is -conj of the gradient at -k
            signed = c * sign
            work[0, j], work[1, j] = vr * c, vi * signed
            work[2, j], work[3, j] = hr * signed, hi * c
            work[4, j], work[5, j] = tr * signed, ti * c
        for j in range(size):
            s = np.uint64(first + j)
            column, row = np.uint64(samples.column[s]), np.uint64(samples.row[s])
            xr, xi, yr, yi = phases_x[0, column], phases_x[1, column], phases_y[0, row], phases_y[1, row]
            pr, pi = xr * yr - xi * yi, xr * yi + xi * yr
            re, im = particle.real[s], particle.imag[s]
            work[6, j], work[7, j] = re * pr - im * pi, re * pi + im * pr
        _accumulate(band_x, band_y, work, size, sums)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def _normal_equations(sums, unit, matrix, gradient):  # type: ignore[no-untyped-def]
    """Gauss-Newton equations with the amplitude projected out; `unit` is 2 pi / n. False for a negative match."""
    vv, yv = sums[0], sums[1]
    if not (vv > 0.0 and yv > 0.0):
        return False
    cross = np.array([sums[7], sums[8], sums[9], 0.0, 0.0])
    upper = (
        (0, 0, sums[10]), (0, 1, sums[11]), (1, 1, sums[12]), (0, 2, sums[13]), (1, 2, sums[14]), (2, 2, sums[15]),
        (3, 3, sums[16]), (3, 4, sums[17]), (4, 4, sums[18]), (0, 3, sums[19]), (0, 4, sums[20]), (1, 3, sums[21]),
        (1, 4, sums[22]), (2, 3, sums[23]), (2, 4, sums[24]),
    )  # fmt: skip
    for i, j, value in upper:
        scale = (unit if i > 2 else 1.0) * (unit if j > 2 else 1.0)
        matrix[i, j] = scale * value - cross[i] * cross[j] / vv
        matrix[j, i] = matrix[i, j]
    for i in range(5):
        gradient[i] = sums[2 + i] * (unit if i > 2 else 1.0) * vv / yv - cross[i]
    return True


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def _solve_damped(matrix, gradient, damping, step):  # type: ignore[no-untyped-def]
    """Solve (M + damping diag M) step = gradient by Cholesky; False where M is not positive."""
    lower = np.zeros((5, 5))
    for i in range(5):
        for j in range(i + 1):
            value = matrix[i, j] * (1.0 + damping if i == j else 1.0)
            for k in range(j):
                value -= lower[i, k] * lower[j, k]
            if i == j:
                if not value > 0.0:
                    return False
                lower[i, i] = np.sqrt(value)
            else:
                lower[i, j] = value / lower[j, j]
    for i in range(5):
        value = gradient[i]
        for k in range(i):
            value -= lower[i, k] * step[k]
        step[i] = value / lower[i, i]
    for i in range(4, -1, -1):
        value = step[i]
        for k in range(i + 1, 5):
            value -= lower[k, i] * step[k]
        step[i] = value / lower[i, i]
    return True


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def _rotate(step, rotation, out):  # type: ignore[no-untyped-def]
    """exp([w]) A by Rodrigues' formula."""
    x, y, z = step[0], step[1], step[2]
    angle = np.sqrt(x * x + y * y + z * z)
    if angle < 1e-12:
        first, second = 1.0, 0.5
    else:
        first, second = np.sin(angle) / angle, (1.0 - np.cos(angle)) / (angle * angle)
    for j in range(3):
        a, b, c = rotation[0, j], rotation[1, j], rotation[2, j]
        u, v, w = y * c - z * b, z * a - x * c, x * b - y * a
        out[0, j] = a + first * u + second * (y * w - z * v)
        out[1, j] = b + first * v + second * (z * u - x * w)
        out[2, j] = c + first * w + second * (x * v - y * u)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def _within(limits, rotation, shift):  # type: ignore[no-untyped-def]
    if abs(shift[0] - limits.centre[0]) > limits.shift or abs(shift[1] - limits.centre[1]) > limits.shift:
        return False
    trace = 0.0
    for i in range(3):
        for j in range(3):
            trace += rotation[i, j] * limits.start[i, j]
    return 0.5 * (trace - 1.0) >= limits.cosine


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[misc]
def _power(real, imag, count):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for s in range(count):
        total += real[s] * real[s] + imag[s] * imag[s]
    return np.float64(total)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def _limit_step(step, band, unit):  # type: ignore[no-untyped-def]
    """Shorten a step to about a radian of phase at the band's rim, where the model stops being linear."""
    turn = band * np.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
    move = band * unit * np.sqrt(step[3] ** 2 + step[4] ** 2)
    largest = max(turn / 0.8, move / 1.5)
    if largest > 1.0:
        for i in range(5):
            step[i] /= largest
    return max(turn, move)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def climb(grid, samples, count, band, particle, rotation, shift, limits, steps, work):  # type: ignore[no-untyped-def]
    """Raise the match of one pose (changed in place) within a band, by at most `steps` Levenberg-Marquardt steps.

    count, band : number of samples and radius of the band
    Returns the match `<X, S> / |S|` (divide by |X| for the correlation) and the fitted amplitude.
    """
    sums, trial_sums = np.empty(SUMS), np.empty(SUMS)
    matrix, gradient, step = np.zeros((5, 5)), np.zeros(5), np.zeros(5)
    trial_rotation, trial_shift = np.empty((3, 3)), np.empty(2)
    unit = 2 * np.pi / samples.n
    evaluate_pose(grid, samples, count, particle, rotation, shift, work, sums)
    if not sums[0] > 0.0:
        return 0.0, 0.0
    match, amplitude = sums[1] / np.sqrt(sums[0]), sums[1] / sums[0]
    damping, power = _FIRST_DAMPING, _power(particle.real, particle.imag, count)
    for _ in range(steps):
        if not _normal_equations(sums, unit, matrix, gradient) or not _solve_damped(matrix, gradient, damping, step):
            break
        # what the step should add to the log likelihood, the noise being what the model leaves unexplained
        noise = max((power - match * match) / count, 1e-12 * power)
        gain = amplitude * amplitude * np.dot(gradient, step) / noise
        if gain < _IDLE_GAIN:
            break
        length = _limit_step(step, band, unit)
        _rotate(step, rotation, trial_rotation)
        trial_shift[0], trial_shift[1] = shift[0] + step[3], shift[1] + step[4]
        better = False
        if _within(limits, trial_rotation, trial_shift):
            evaluate_pose(grid, samples, count, particle, trial_rotation, trial_shift, work, trial_sums)
            better = trial_sums[0] > 0.0 and trial_sums[1] / np.sqrt(trial_sums[0]) > match
        if better:
            rotation[:, :] = trial_rotation
            shift[:] = trial_shift
            sums[:] = trial_sums
            match, amplitude = sums[1] / np.sqrt(sums[0]), sums[1] / sums[0]
            damping *= 0.2
            if gain < _LAST_GAIN or length < 1e-4:
                break
        else:
            damping = max(10.0 * damping, 0.1)
    return match, amplitude
