"""Coarse matching of a batch of particles, choice of candidates, and their refinement band by band.

A slice F and its mirror image, each also turned by 180 degrees, share their products: with F split at every pair
(kx, ky), (kx, -ky) into even and odd parts, and those into real and imaginary ones, four products ae, ao, be, bo of the
quarter plane give the four correlations

    itself  ae + ao + be + bo     turned  ae + ao - be - bo     mirrored  ae - ao - be + bo     both  ae - ao + be - bo

which takes a quarter of the multiplications. A mirrored slice is the view from the opposite side, diag(-1, 1, -1) A.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from nephila.kernels.pose import Limits, Particle, climb
from nephila.kernels.taps import CHUNK

VARIANTS = 4


class Plan(NamedTuple):
    """What is done in each band, in rising order."""

    counts: npt.NDArray[np.int64]  # samples
    bands: npt.NDArray[np.int64]  # radius, Fourier pixels
    enter: npt.NDArray[np.int64]  # candidates that are evaluated
    climbers: npt.NDArray[np.int64]  # the best of them, which are refined
    steps: npt.NDArray[np.int64]
    merge_cosine: float  # candidates closer than this rotation are one


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def spread_shifts(real, imag, pairs, phases, out):  # type: ignore[no-untyped-def]
    """The batch's samples (times the CTF), moved by each shift, as even and odd, real and imaginary parts.

    real, imag : float32 [b, samples]; pairs : int32 [q, 2], sample at (kx, ky) and at (kx, -ky), -1 where there is none
    phases : float32 [q, 4, shifts], real and imaginary for either; out : float32 [4, q, b, shifts]
    """
    zero = np.float32(0.0)
    for q in range(len(pairs)):
        plus, minus = pairs[q, 0], pairs[q, 1]
        for b in range(len(real)):
            ar, ai = real[b, plus], imag[b, plus]
            br, bi = (real[b, minus], imag[b, minus]) if minus >= 0 else (zero, zero)
            for s in range(phases.shape[2]):
                ur, ui = ar * phases[q, 0, s] - ai * phases[q, 1, s], ar * phases[q, 1, s] + ai * phases[q, 0, s]
                wr, wi = br * phases[q, 2, s] - bi * phases[q, 3, s], br * phases[q, 3, s] + bi * phases[q, 2, s]
                out[0, q, b, s], out[1, q, b, s] = ur + wr, ur - wr
                out[2, q, b, s], out[3, q, b, s] = ui + wi, ui - wi


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[misc]
def _four_maxima(ae, ao, be, bo):  # type: ignore[no-untyped-def]
    """Largest correlation over the shifts for each variant."""
    lowest = np.float32(-3e38)
    m0, m1, m2, m3 = lowest, lowest, lowest, lowest
    for s in range(len(ae)):
        even, odd, even_b, odd_b = ae[s] + ao[s], ae[s] - ao[s], be[s] + bo[s], be[s] - bo[s]
        v0, v1, v2, v3 = even + even_b, even - even_b, odd - odd_b, odd + odd_b
        m0 = v0 if v0 > m0 else m0
        m1 = v1 if v1 > m1 else m1
        m2 = v2 if v2 > m2 else m2
        m3 = v3 if v3 > m3 else m3
    return m0, m1, m2, m3


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def highest_over_shifts(products, best):  # type: ignore[no-untyped-def]
    """Largest correlation over the shifts; products : float32 [4, r, b, shifts], best : float32 [b, r, 4] out."""
    for r in range(products.shape[1]):
        for b in range(products.shape[2]):
            best[b, r, 0], best[b, r, 1], best[b, r, 2], best[b, r, 3] = _four_maxima(
                products[0, r, b], products[1, r, b], products[2, r, b], products[3, r, b]
            )


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def find_shifts(parts, shifted, chosen, which):  # type: ignore[no-untyped-def]
    """The shift at which each chosen pose matches best.

    parts : float32 [4, r, q]; shifted : float32 [4, q, b, shifts]; chosen : int64 [b, k]; which : int64 [b, k] out
    """
    one = np.float32(1.0)
    values = np.empty(shifted.shape[3], dtype=np.float32)
    for b in range(chosen.shape[0]):
        for k in range(chosen.shape[1]):
            r, variant = max(chosen[b, k], 0) // VARIANTS, max(chosen[b, k], 0) % VARIANTS
            signs = (
                one,
                one if variant < 2 else -one,
                one if variant in (0, 3) else -one,
                one if variant in (0, 2) else -one,
            )
            values[:] = 0.0
            for part in range(4):
                for q in range(parts.shape[2]):
                    weight = signs[part] * parts[part, r, q]
                    for s in range(len(values)):
                        values[s] += weight * shifted[part, q, b, s]
            which[b, k] = np.argmax(values)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def pick_candidates(best, norms, variants, quaternions, cosine, chosen, scores):  # type: ignore[no-untyped-def]
    """The highest normalised correlations of each particle, one after another, none close to a higher one.

    best : float32 [b, r, 4]; norms : float32 [2, r, b], even and odd parts of the slices' squared norms
    variants : 4, or 2 to leave mirror images out
    quaternions : float32 [r * 4, 4]; cosine : of half the least rotation between two candidates
    chosen : int64 [b, k] out, places in r * 4, -1 where there are no more; scores : float64 [b, k] out
    """
    batch, references = best.shape[0], best.shape[1]
    values = np.empty(references * VARIANTS, dtype=np.float32)
    taken = np.float32(-3e38)
    for b in range(batch):
        for r in range(references):
            even, odd = norms[0, r, b], norms[1, r, b]
            upper, lower = np.sqrt(max(even + odd, np.float32(1e-30))), np.sqrt(max(even - odd, np.float32(1e-30)))
            values[4 * r], values[4 * r + 1] = best[b, r, 0] / upper, best[b, r, 1] / upper
            values[4 * r + 2], values[4 * r + 3] = best[b, r, 2] / lower, best[b, r, 3] / lower
            for v in range(variants, VARIANTS):
                values[4 * r + v] = taken
        top = int(np.argmax(values))
        for k in range(chosen.shape[1]):
            if values[top] <= taken:
                chosen[b, k], scores[b, k] = -1, 0.0
                continue
            chosen[b, k], scores[b, k] = top, values[top]
            p0, p1, p2, p3 = quaternions[top, 0], quaternions[top, 1], quaternions[top, 2], quaternions[top, 3]
            following, height = 0, taken
            for i in range(len(values)):
                if values[i] > height:
                    q = quaternions[i]
                    if abs(p0 * q[0] + p1 * q[1] + p2 * q[2] + p3 * q[3]) > cosine:
                        values[i] = taken
                    else:
                        following, height = i, values[i]
            top = following


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def _sort_candidates(order, scores, count):  # type: ignore[no-untyped-def]
    """Insertion sort of `order[:count]` by falling score; stable."""
    for i in range(1, count):
        item = order[i]
        j = i
        while j > 0 and scores[order[j - 1]] < scores[item]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = item


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def _drop_duplicates(order, rotations, count, cosine):  # type: ignore[no-untyped-def]
    """Keep the first of any candidates that have come to the same rotation; returns how many are left."""
    kept = 0
    for i in range(count):
        item = order[i]
        distinct = True
        for j in range(kept):
            trace = 0.0
            for r in range(3):
                for c in range(3):
                    trace += rotations[item, r, c] * rotations[order[j], r, c]
            if 0.5 * (trace - 1.0) > cosine:
                distinct = False
                break
        if distinct:
            order[kept] = item
            kept += 1
    return kept


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def refine_batch(grid, samples, plan, images, poses, limits, scores, amplitudes):  # type: ignore[no-untyped-def]
    """Refine every candidate of every particle through the bands, and sort them by their last match.

    images : `Particle` of arrays [b, s] (ctf [b or 1, s])
    poses : (rotations [b, k, 3, 3], shifts [b, k, 2], number [b]), changed in place
    limits : `Limits` of arrays by particle (centre [b, 2], start [b, 3, 3])
    scores, amplitudes : float64 [b, k] out, match `<X, S> / |S|` in the last band, -inf for candidates dropped earlier
    """
    rotations, shifts, number = poses
    size = rotations.shape[1]
    work = np.empty((8, CHUNK), dtype=np.float32)
    order = np.empty(size, dtype=np.int64)
    for b in range(len(number)):
        particle = Particle(images.real[b], images.imag[b], images.ctf[min(b, len(images.ctf) - 1)])
        limit = Limits(limits.centre[b], limits.shift, limits.start[b], limits.cosine)
        active = number[b]
        for i in range(size):
            order[i] = i
        for level in range(len(plan.counts)):
            active = min(active, plan.enter[level])
            count, band = plan.counts[level], plan.bands[level]
            for i in range(active):
                item = order[i]
                steps = plan.steps[level] if i < plan.climbers[level] else 0
                scores[b, item], amplitudes[b, item] = climb(
                    grid, samples, count, band, particle, rotations[b, item], shifts[b, item], limit, steps, work
                )
            first = order[0]
            _sort_candidates(order, scores[b], active)
            if active > 0 and order[0] != first and plan.climbers[level] == 1:
                item = order[0]
                scores[b, item], amplitudes[b, item] = climb(
                    grid, samples, count, band, particle, rotations[b, item], shifts[b, item], limit,
                    plan.steps[level], work
                )  # fmt: skip
            active = _drop_duplicates(order, rotations[b], active, plan.merge_cosine)
        sorted_rotations, sorted_shifts = rotations[b][order], shifts[b][order]
        sorted_scores, sorted_amplitudes = scores[b][order], amplitudes[b][order]
        rotations[b], shifts[b] = sorted_rotations, sorted_shifts
        for i in range(size):
            scores[b, i] = sorted_scores[i] if i < active else -np.inf
            amplitudes[b, i] = sorted_amplitudes[i] if i < active else 0.0
        number[b] = active
