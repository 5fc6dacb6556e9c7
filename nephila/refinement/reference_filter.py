"""Filters of the references and of an iteration's map: the Wiener filter by the half maps' FSC, or SPIDER's Butterworth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nephila.fourier import butterworth_weights
from nephila.fsc import reference_correlation, resolution_at
from nephila.refinement.settings import IterationSettings

Float64 = npt.NDArray[np.float64]

UNKNOWN = 40.0
"""A: pass band of the Butterworth filter where the halves agree nowhere."""


class ReferenceFilters(NamedTuple):
    """Weights by shell 0 to n // 2: of one half as its reference, of the mean as a shared reference, of the mean as the map."""

    half: Float64
    shared: Float64
    map: Float64


def reference_filters(fsc: Float64, settings: IterationSettings) -> ReferenceFilters:
    """Filters by the FSC of the halves, which lies in [0, 1] and is 0 beyond what counts.

    wiener: F for a half, 2 F / (1 + F) for the mean as a reference, and its root for the map. butterworth: for all the same, its
    pass band where F falls to 0.5 (at most `filter_at_most`), its stop band `filter_stop` beyond, in units of sampling.
    """
    if settings.filter == "wiener":
        return ReferenceFilters(fsc, 2 * fsc / (1 + fsc), reference_correlation(fsc))
    resolution = resolution_at(fsc, 0.5, settings.box, settings.pixel_size) or UNKNOWN
    passed = min(settings.pixel_size / resolution, settings.filter_at_most)
    weights = butterworth_weights(settings.box, passed, passed + settings.filter_stop)[: settings.box // 2 + 1]
    return ReferenceFilters(weights, weights, weights)
