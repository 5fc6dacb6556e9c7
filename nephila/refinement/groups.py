"""Each defocus group on its own: the FSC of its halves and how its particles moved."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.fsc import resolution_at
from nephila.partial_sum import PartialSum
from nephila.refinement.model import COLUMNS
from nephila.refinement.settings import IterationSettings
from nephila.refinement.sums import ChunkSums
from nephila.symmetry import point_group_matrices
from nephila.views import direction_changes

Float64 = npt.NDArray[np.float64]


def grid_fsc(first: PartialSum, second: PartialSum) -> Float64:
    """FSC of two sums on their Fourier grid, [n // 2 + 1]: of N / D where both saw something, without transforming back.

    Cheap enough for every group in every iteration. Without mask and without the point group's averaging, so a group's
    resolution is stated somewhat worse than its volume's would be.
    """
    n = first.grid.n
    a, weight_a = first.expand()
    b, weight_b = second.expand()
    side = first.grid.n_pad
    k = np.fft.fftfreq(side, 1.0 / side)
    kx = np.arange(side // 2 + 1)
    floors = [np.maximum(0.01 * part.expected_density(), 1e-30) for part in (first, second)]
    cross, power_a, power_b = (np.zeros(n // 2 + 1) for _ in range(3))
    for z in range(side):
        radius = np.sqrt(k[z] ** 2 + k[:, None] ** 2 + kx[None, :] ** 2) / first.grid.padding
        shell = np.rint(radius).astype(np.int64)
        inside = shell <= n // 2
        shell = shell[inside]
        x = a[z][inside] / (weight_a[z][inside] + floors[0][shell])
        y = b[z][inside] / (weight_b[z][inside] + floors[1][shell])
        for total, values in ((cross, (x * y.conj()).real), (power_a, np.abs(x) ** 2), (power_b, np.abs(y) ** 2)):
            total += np.bincount(shell, weights=values, minlength=n // 2 + 1)
    product = power_a * power_b
    return np.divide(cross, np.sqrt(product), out=np.zeros_like(cross), where=product > 0)


def group_fsc_table(
    sums: tuple[ChunkSums, ChunkSums],
    particles: pd.DataFrame,
    before: pd.DataFrame,
    settings: IterationSettings,
    step: float,
) -> pd.DataFrame:
    """One row per group: particles, resolution of its halves at 0.5 and 0.143 (A; 0: none), share of particles moved by more than
    1.5 steps (`step`, degrees), median and mean shift (A), shares whose correlation rose and fell and by how much."""
    changes = direction_changes(before, particles, point_group_matrices(settings.symmetry))
    rows = []
    for number in sorted(set(sums[0].groups) | set(sums[1].groups)):
        mine = changes[particles["nphDefocusGroup"].to_numpy() == number]
        first, second = sums[0].groups.get(number), sums[1].groups.get(number)
        fsc = grid_fsc(first, second) if first is not None and second is not None else np.zeros(settings.box // 2 + 1)
        changed = {COLUMNS[key]: value for key, value in correlation_changes(mine).items()}
        rows.append(
            {
                "nphDefocusGroup": number,
                "nphParticles": len(mine),
                "nphResolutionHalf": round(resolution_at(fsc, 0.5, settings.box, settings.pixel_size) or 0.0, 3),
                "nphResolution": round(resolution_at(fsc, 0.143, settings.box, settings.pixel_size) or 0.0, 3),
                "nphShareMoved": round(float((mine["nphDirectionChange"] > 1.5 * step).mean()), 5),
                "nphMovedAngst": round(float(mine["nphShiftChange"].median()), 4),
                "nphMeanShift": round(float(mine["nphShiftChange"].mean()), 4),
                **changed,
            }
        )
    return pd.DataFrame(rows)


def correlation_changes(changes: pd.DataFrame) -> dict[str, float]:
    """Shares of the particles whose correlation rose and fell, and means over all of them of what it rose and fell; by the names of
    `model.IterationRow`."""
    if "nphCorrelationChange" not in changes or not len(changes):
        change = np.zeros(1)
    else:
        change = changes["nphCorrelationChange"].to_numpy(dtype=np.float64)
    return {
        "share_correlation_up": round(float((change > 0).mean()), 5),
        "share_correlation_down": round(float((change < 0).mean()), 5),
        "correlation_gained": round(float(np.maximum(change, 0.0).mean()), 6),
        "correlation_lost": round(float(np.maximum(-change, 0.0).mean()), 6),
    }


def with_mean_factors(groups: pd.DataFrame, factors: Mapping[int, Float64]) -> pd.DataFrame:
    """The table of groups with the noise power of each over that of all, the mean over shells (1 where it is not known)."""
    if not len(groups):
        return groups
    means = [
        round(float(factors[number][1:].mean()), 4) if number in factors else 1.0
        for number in groups["nphDefocusGroup"]
    ]
    return groups.assign(nphNoiseFactor=means)
