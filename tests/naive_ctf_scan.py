"""The obvious, slow forms of the kernels of CTF estimation."""

from __future__ import annotations

import numpy as np


def add_tile_power(transform, bins, power_sum, bin_sum):
    for i, value in enumerate(transform):
        power_sum[i] += abs(value) ** 2
        if bins[i] >= 0:
            bin_sum[bins[i]] += abs(value) ** 2


def scan_table(signal, norm, offsets, centres):
    scores = np.zeros((len(offsets), len(centres)))
    for i, offset in enumerate(offsets):
        for j, centre in enumerate(centres):
            top = sum(signal[s, centre + o] for s, o in enumerate(offset))
            bottom = sum(norm[centre + o] for o in offset)
            scores[i, j] = np.sum(np.maximum(top, 0) ** 2 / bottom)
    return scores
