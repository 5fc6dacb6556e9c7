"""Resolution against the number of particles, and the B factor that follows.

Rosenthal & Henderson 2003, J. Mol. Biol. 333, 721.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.finishing import finish
from nephila.fsc import masked_fsc, resolution_at
from nephila.job import logger
from nephila.partial_sum import PartialSum
from nephila.particle_sums import backproject_table
from nephila.refinement.merge import STABILISER, load_mask
from nephila.refinement.settings import IterationSettings

Float64 = npt.NDArray[np.float64]

SMALLEST_HALF = 25
"""Fewer particles in a half give no curve worth a point."""


@dataclass(frozen=True)
class BFactorFit:
    """Fit of ln(particles) = intercept + (B / 2) / d^2.

    Attributes:
        b_factor: A^2; larger means that resolution costs more particles.
        error: its standard error; 0 where two points leave none.
        intercept: of the line.
    """

    b_factor: float
    error: float
    intercept: float


def resolution_by_particles(
    table: pd.DataFrame, settings: IterationSettings, optics: Optics, doublings: int = 5, threads: int = 1
) -> pd.DataFrame:
    """Resolution of random subsets of the particles, in the poses that the whole set gave.

    Subsets are nested: each holds the one before and as many again, up to the whole; every particle is backprojected once.
    Poses come from the refinement with all particles, so small subsets look better than they would refined alone.

    Args:
        table: refined particles with rlnRandomSubset.
        doublings: the smallest subset is the whole divided by 2^doublings, or what leaves `SMALLEST_HALF` in a half.

    Returns:
        nphParticles, nphResolution (A at FSC 0.143, interpolated), nphResolutionHalf (at 0.5); rows with nothing
        resolved are left out.

    Raises:
        InputError: fewer than four times `SMALLEST_HALF` particles in a half.
    """
    halves = [table[table["rlnRandomSubset"] == half] for half in (1, 2)]
    fewest = min(map(len, halves))
    steps = min(doublings, int(np.log2(max(fewest, 1) / SMALLEST_HALF)))
    if steps < 2:
        raise InputError(f"{fewest} particles in a half are too few for a curve; {4 * SMALLEST_HALF} are needed")
    mask = load_mask(settings)
    rng = np.random.default_rng([settings.seed, 8101])
    orders = [half.iloc[rng.permutation(len(half))] for half in halves]
    sums: list[PartialSum | None] = [None, None]
    rows = []
    for step in range(steps, -1, -1):
        for index, order in enumerate(orders):
            first = 0 if step == steps else len(order) >> (step + 1)
            new = order.iloc[first : len(order) >> step].sort_index()
            part = backproject_table(new, settings.pixel_size, settings.box, optics, settings.ctf, threads=threads)
            before = sums[index]
            sums[index] = part if before is None else before.add(part)
        maps = [
            finish(part.copy(), settings.symmetry, STABILISER, threads=threads) for part in sums if part is not None
        ]
        curve = masked_fsc(maps[0], maps[1], mask, settings.seed, threads=threads).corrected
        particles = sum(len(order) >> step for order in orders)
        fine, half = (
            resolution_at(curve, at, settings.box, settings.pixel_size, interpolate=True) for at in (0.143, 0.5)
        )
        logger.info("%d particles: %s A", particles, f"{fine:.2f}" if fine else "no")
        if fine:
            rows.append((particles, round(fine, 4), round(half, 4) if half else 0.0))
    return pd.DataFrame(rows, columns=["nphParticles", "nphResolution", "nphResolutionHalf"])


def fit_b_factor(particles: npt.ArrayLike, resolution: npt.ArrayLike, nyquist: float) -> BFactorFit | None:
    """Straight line through ln(particles) against 1 / resolution^2; None for fewer than two usable points.

    Args:
        resolution: A.
        nyquist: A; points within 5 % of it are left out, since they are cut off there.
    """
    count, d = np.asarray(particles, dtype=np.float64), np.asarray(resolution, dtype=np.float64)
    usable = (count > 0) & (d > 1.05 * nyquist)
    x, y = 1 / d[usable] ** 2, np.log(count[usable])
    if len(x) < 2 or np.ptp(x) == 0:
        return None
    if len(x) == 2:
        slope, intercept = np.polyfit(x, y, 1)
        return BFactorFit(2 * float(slope), 0.0, float(intercept))
    (slope, intercept), covariance = np.polyfit(x, y, 1, cov=True)
    return BFactorFit(2 * float(slope), 2 * float(np.sqrt(covariance[0, 0])), float(intercept))
