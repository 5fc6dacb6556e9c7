"""What the FSC of the halves may claim: nothing that their common start and the joining of their references made themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nephila.refinement.settings import IterationSettings

THRESHOLD = 0.143
LEAK = 2.0
"""Shells by which a mask of the box's width smears correlation beyond the last joined shell."""
BEYOND = 5
"""Shells after that over which the FSC is averaged: single shells of noise scatter by a tenth within a mask."""


def common_limit(settings: IterationSettings) -> int:
    """Last shell in which the references of the halves have something in common: the start's resolution, or what is joined."""
    side = settings.box * settings.pixel_size
    limits = [side / settings.start_resolution]
    if settings.join_resolution > 0:
        limits.append(side / settings.join_resolution)
    return min(int(max(limits) + 1e-6), settings.box // 2)


def claimed_fsc(fsc: npt.ArrayLike, settings: IterationSettings) -> npt.NDArray[np.float64]:
    """The FSC [n // 2 + 1], with 0 beyond the halves' common limit where it falls below 0.143 so close to it that common
    references and mask explain it: half maps of pure noise agree that far."""
    curve = np.array(fsc, dtype=np.float64)
    limit = common_limit(settings)
    leak = int(np.ceil(LEAK * settings.box * settings.pixel_size / settings.mask_diameter))
    below = np.flatnonzero(curve[1:] < THRESHOLD)
    last = int(below[0]) if len(below) else len(curve) - 1
    # a curve that only dips below the threshold there goes on; what the mask smears has ended some shells later
    beyond = curve[limit + leak + 1 : limit + leak + 1 + BEYOND]
    ended = len(beyond) == 0 or float(beyond.mean()) < 0.75 * THRESHOLD
    if limit < last <= limit + leak and ended:
        curve[limit + 1 :] = np.minimum(curve[limit + 1 :], 0.0)
    return curve
