"""Merging of sums over defocus groups, chunks or halves, and the spectral signal-to-noise ratio of what they give.

`V = sum_g N_g / (sum_g D_g + R)` (`nephila.finishing.finish`): N and D are CTF-weighted data and CTF^2 over the noise power, so
that groups fill each other's zeros and nothing is amplified where all groups have zeros. R is 1 / SNR for a constant SNR, or
noise over signal shell by shell.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fsc import spectral_snr
from nephila.partial_sum import PartialSum

Float64 = npt.NDArray[np.float64]


def add_sums(sums: Iterable[PartialSum]) -> PartialSum:
    """Sum over groups, chunks or halves, in a new array. Raises InputError for no sums or different grids."""
    total: PartialSum | None = None
    for part in sums:
        total = part.copy() if total is None else total.add(part)
    if total is None:
        raise InputError("nothing to merge: no sums were given")
    return total


def signal_to_noise_from_fsc(fsc: npt.ArrayLike, of: str = "whole", first_noise: float | None = 0.143) -> Float64:
    """Spectral SNR per shell for a Wiener filter, from the FSC of two halves.

    Args:
        of: "whole" for the merged map, "half" for one half's.
        first_noise: from the first shell (from 1) below this FSC on, later shells cannot rise above what that shell
            has, so that chance correlations beyond the resolution do not open the filter; None: as measured.
    """
    curve = np.asarray(fsc, dtype=np.float64).copy()
    if first_noise is not None:
        below = np.flatnonzero(curve[1:] < first_noise)
        if len(below):
            start = int(below[0]) + 1
            curve[start:] = np.minimum(curve[start:], np.maximum(curve[start], 0.0))
    return spectral_snr(curve, of)
