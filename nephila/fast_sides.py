"""Sides of images and volumes that Fourier transforms are fast at: no prime factor above 5."""

from __future__ import annotations

from math import ceil


def fast_side(least: float) -> int:
    """The smallest side of at least `least`."""
    side = max(1, ceil(least))
    while not _is_fast(side):
        side += 1
    return side


def fast_even_side(least: float) -> int:
    """The smallest even side of at least `least`."""
    return 2 * fast_side(least / 2)


def good_box(least: float) -> int:
    """The smallest good side of a window: even, at least `least`, and at least 16."""
    return max(16, fast_even_side(least))


def _is_fast(side: int) -> bool:
    for prime in (2, 3, 5):
        while side % prime == 0:
            side //= prime
    return side == 1
