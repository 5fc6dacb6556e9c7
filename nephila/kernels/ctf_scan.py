"""Kernels of CTF estimation: binning of tile spectra and the exhaustive look-up over defocus and astigmatism."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@njit(cache=True, nogil=True)
def add_tile_power(
    transform: npt.NDArray[np.complex64],
    bins: npt.NDArray[np.int32],
    power_sum: Float64,
    bin_sum: Float64,
) -> None:
    """Add |transform|^2 to `power_sum` pixel by pixel, and to `bin_sum[bins]` where bins >= 0.

    All arrays are flat; transform, bins and power_sum have the same length.
    """
    for i in range(transform.size):
        value = transform[i]
        power = np.float64(value.real) * value.real + np.float64(value.imag) * value.imag
        power_sum[i] += power
        if bins[i] >= 0:
            bin_sum[bins[i]] += power


@njit(cache=True, nogil=True)
def scan_table(
    signal: Float32, norm: Float32, offsets: npt.NDArray[np.int32], centres: npt.NDArray[np.int32]
) -> Float32:
    """Score every (mean defocus, astigmatism) from tables by sector and defocus.

    signal [sectors, defoci, bands]: projection of the measured rings onto the model's; norm [defoci, bands]: the model's
    square in one sector; offsets [shapes, sectors]: steps by which a sector's defocus differs from the mean;
    centres [means]: table index of each mean defocus. Returns [shapes, means], each
    sum over bands of max(0, sum_sectors signal)^2 / sum_sectors norm: the drop in chi square with an amplitude >= 0 per band.
    """
    sectors, _, bands = signal.shape
    scores = np.zeros((offsets.shape[0], centres.size), dtype=np.float32)
    top = np.zeros(bands, dtype=np.float32)
    bottom = np.zeros(bands, dtype=np.float32)
    for shape in range(offsets.shape[0]):
        for mean in range(centres.size):
            top[:] = 0.0
            bottom[:] = 0.0
            for sector in range(sectors):
                z = centres[mean] + offsets[shape, sector]
                for band in range(bands):
                    top[band] += signal[sector, z, band]
                    bottom[band] += norm[z, band]
            score = np.float32(0.0)
            for band in range(bands):
                if top[band] > 0.0 and bottom[band] > 0.0:
                    score += top[band] * top[band] / bottom[band]
            scores[shape, mean] = score
    return scores
