"""Central slices of a padded half transform, sampled with the Kaiser-Bessel window."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from nephila.kernels.taps import AHEAD, CHUNK, locate_samples, prefetch_taps, sum_taps


class Grid(NamedTuple):
    """A padded half transform as the kernels read it."""

    values: npt.NDArray[np.float32]  # flat, real and imaginary in turn
    strides: npt.NDArray[np.int64]  # floats per step in y and in z, and the first tap of frequency zero
    weights: npt.NDArray[np.float32]  # table of the window's taps
    padding: float  # grid cells per Fourier pixel


class SliceSamples(NamedTuple):
    """Samples of a half transform of an image, in the order in which they are computed."""

    frequencies: npt.NDArray[np.float32]  # [2, s], kx and ky
    columns: npt.NDArray[np.uint64]  # [2, s], kx and ky modulo n
    targets: npt.NDArray[np.uint64]  # [s], places in the flattened half transform
    bounds: npt.NDArray[np.int64]  # first sample of each ring, and the end


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def slice_transform(grid, samples, rows, phases, ctf, out):  # type: ignore[no-untyped-def]
    """Write `F(kx rows[0] + ky rows[1])`, times phases and CTF where given, for each sample of each slice into `out`.

    rows : float32 [m, 3, 3], the matrices in grid cells per Fourier pixel
    phases : complex64 [m, 2, n], by kx and by ky modulo n, or none where there are 0 rows
    ctf : float32 [m or 1, s'], flattened half transforms, or none where there are 0 rows
    out : complex64 [m, s'], already zero outside the samples
    """
    stride_y, stride_z = grid.strides[0], grid.strides[1]
    shifted, modulated = len(phases) > 0, len(ctf) > 0
    offsets, places = np.empty(CHUNK, dtype=np.int64), np.empty((4, CHUNK), dtype=np.float32)
    work = np.empty(CHUNK, dtype=np.complex64)
    for ring in range(len(samples.bounds) - 1):
        begin, end = samples.bounds[ring], samples.bounds[ring + 1]
        for i in range(len(rows)):
            row_ctf = min(i, len(ctf) - 1)
            for first in range(begin, end, CHUNK):
                last = min(first + CHUNK, end)
                kx, ky = samples.frequencies[0, first:last], samples.frequencies[1, first:last]
                locate_samples(kx, ky, rows[i], grid.strides, offsets, places)
                for j in range(last - first):
                    if j % 2 == 0 and j + AHEAD < last - first:
                        prefetch_taps(grid.values, offsets[j + AHEAD], stride_y, stride_z)
                    zx, zy, zz = places[0, j], places[1, j], places[2, j]
                    real, imag = sum_taps(grid.values, grid.weights, offsets[j], stride_y, stride_z, zx, zy, zz)
                    work[j] = complex(real, imag * places[3, j])
                if shifted:
                    along_x, along_y = phases[i, 0], phases[i, 1]
                    for j in range(last - first):
                        s = np.uint64(first + j)
                        work[j] *= along_x[samples.columns[0, s]] * along_y[samples.columns[1, s]]
                targets, slice_out = samples.targets[first:last], out[i]
                if modulated:
                    factors = ctf[row_ctf]
                    for j in range(last - first):
                        work[j] *= factors[targets[j]]
                for j in range(last - first):
                    slice_out[targets[j]] = work[j]
