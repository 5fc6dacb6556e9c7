"""How a refinement goes on: exhaustive passes until nothing improves, then local ones until nothing moves.

One exhaustive pass is not enough: wrong poses of the first pass are mended by the second and third, against a better map.
The share of particles that still change their view tells when: the median settles long before.
Local passes after that are cheap and end when the median particle turns by less than STILL_DEG.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nephila.refinement.model import Decision, IterationRow, RefinementModel
from nephila.refinement.settings import IterationSettings

LEAST_EXHAUSTIVE = 2
MOST_EXHAUSTIVE = 6
SETTLED_DEG, SETTLED_SHARE = 1.0, 0.04
"""An exhaustive pass in which the median particle turns by less, and no larger share changes its view, was the last one."""
LEAST_LOCAL = 2
MOST_LOCAL = 3
STILL_DEG = 0.15
LATER_STEP_DEG = 10.0
BAND_MARGIN = 2
LEAST_BAND = 6
SMOOTHED = 5
CHANCE_SIGMAS = 3.0
LEAST_FSC = 0.04


def alignment_band(fsc: np.ndarray, settings: IterationSettings) -> int:
    """Finest shell for the next alignment: where the FSC, smoothed over five shells, ceases to exceed chance, and two more.

    Chance is three standard deviations of the FSC of noise inside the mask, and never less than LEAST_FSC. The references are
    Wiener filters, so that weak shells count little; but a dip of the object's spectrum (proteins have one near 12 A) must not
    cut off what lies beyond it. Never beyond the last shell below Nyquist, never below LEAST_BAND.
    """
    shells = np.arange(len(fsc))
    share = np.pi / 6 * min(settings.mask_diameter / (settings.box * settings.pixel_size), 1.0) ** 3
    independent = np.maximum(2 * np.pi * shells**2 * share, 1.0)
    half = SMOOTHED // 2
    smooth = np.convolve(np.pad(fsc, half, mode="edge"), np.full(SMOOTHED, 1.0 / SMOOTHED), "valid")
    chance = np.maximum(CHANCE_SIGMAS / np.sqrt(SMOOTHED * independent), LEAST_FSC)
    noise = np.flatnonzero((smooth < chance) & (shells > LEAST_BAND - BAND_MARGIN))
    last = int(noise[0]) - 1 if len(noise) else len(fsc) - 1
    return int(np.clip(last + BAND_MARGIN, LEAST_BAND, (settings.box - 1) // 2))


def grid_radius(band: int, box: int) -> int:
    """Finest shell that is backprojected: far enough beyond the band that a better FSC can show."""
    return min(box // 2, int(1.5 * band) + 8)


def first_decision(fsc: np.ndarray, settings: IterationSettings) -> Decision:
    """How the first iteration searches, after the first reconstruction."""
    return Decision("exhaustive", LATER_STEP_DEG, 0.0, settings.shift_range, alignment_band(fsc, settings))


def listed_decision(settings: IterationSettings, band: int) -> Decision:
    """What the configuration's lists say for an iteration."""
    local = settings.search_range_deg > 0
    return Decision(
        "local" if local else "exhaustive",
        settings.angular_step_deg,
        settings.search_range_deg,
        settings.shift_range,
        band,
    )


def decision_of(before: RefinementModel, settings: IterationSettings) -> Decision:
    """How an iteration searches: what the model before it decided, or the configuration's lists; or it starts again."""
    if settings.start_again:
        return Decision("exhaustive", LATER_STEP_DEG, 0.0, settings.shift_range, before.next.band)
    if settings.schedule == "lists":
        return listed_decision(settings, before.next.band)
    # the model was made with the shift range of its own iteration
    local = before.next.search == "local"
    return replace(before.next, shift_range=local_shift_range(before.row, settings) if local else settings.shift_range)


def coarse_band(step_deg: float) -> int:
    """Finest shell of the search over a grid of this step: neighbours 15 degrees apart still correlate to shell 8, 10 to 10."""
    return 8 if step_deg > 12 else 10


def compared_samples(decision: Decision, settings: IterationSettings) -> float:
    """Independent samples in which an exhaustive search compares images: half the pixels of a disc, the rest are their mirrors."""
    shell = min(coarse_band(decision.angular_step_deg), decision.band) if settings.search == "grid" else decision.band
    return float(np.pi * shell**2 / 2)


def next_decision(
    before: RefinementModel, row: IterationRow, fsc: np.ndarray, settings: IterationSettings
) -> tuple[bool, Decision]:
    """Whether the refinement has converged after `row`, and how the next iteration searches (schedule: auto).

    `before` is the model of the iteration before, whose FSC limit and moves `row` is compared with.
    """
    band = alignment_band(fsc, settings)
    improved = band > before.next.band or (before.row.moved_deg > 0 and row.moved_deg < 0.7 * before.row.moved_deg)
    if row.search == "exhaustive":
        # a quiet median may hide that many particles still look for their view
        improved = improved or row.share_moved < 0.9 * before.row.share_moved
        settled = row.moved_deg < SETTLED_DEG and row.share_moved < SETTLED_SHARE
        enough = row.exhaustive_passes >= LEAST_EXHAUSTIVE and not improved
        if enough or settled or row.exhaustive_passes >= MOST_EXHAUSTIVE:
            return False, local_decision(band, row, settings)
        return False, Decision("exhaustive", LATER_STEP_DEG, 0.0, settings.shift_range, band)
    still = row.moved_deg < STILL_DEG and band <= before.next.band
    done = (row.local_passes >= LEAST_LOCAL and still) or row.local_passes >= MOST_LOCAL
    return done, local_decision(band, row, settings)


def local_decision(band: int, row: IterationRow, settings: IterationSettings) -> Decision:
    """A local pass around each particle's last pose, ranges from how far particles still move."""
    reach = float(np.clip(3 * row.moved_deg, 3.0, 15.0))
    return Decision("local", min(LATER_STEP_DEG, reach), reach, local_shift_range(row, settings), band)


def local_shift_range(row: IterationRow, settings: IterationSettings) -> float:
    """How far shifts may go in a local pass after `row`, A: four times what they moved, two pixels or more."""
    return float(np.clip(4 * row.moved_angst, 2 * settings.pixel_size, settings.shift_range))
