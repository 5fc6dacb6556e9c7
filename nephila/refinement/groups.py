"""Each defocus group on its own: the FSC of its halves and how its particles moved."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.fsc import resolution_at
from nephila.partial_sum import PartialSum
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
    """One row per group: particles, resolution of its halves at 0.5 (A; 0: none), share of particles moved by more than
    1.5 steps (`step`, degrees), median shift (A), share whose correlation rose."""
    changes = direction_changes(before, particles, point_group_matrices(settings.symmetry))
    rows = []
    for number in sorted(set(sums[0].groups) | set(sums[1].groups)):
        mine = changes[particles["nphDefocusGroup"].to_numpy() == number]
        first, second = sums[0].groups.get(number), sums[1].groups.get(number)
        fsc = grid_fsc(first, second) if first is not None and second is not None else np.zeros(settings.box // 2 + 1)
        rose = mine["nphCorrelationChange"] if "nphCorrelationChange" in mine else pd.Series([0.0])
        rows.append(
            {
                "nphDefocusGroup": number,
                "nphParticles": len(mine),
                "nphResolutionHalf": round(resolution_at(fsc, 0.5, settings.box, settings.pixel_size) or 0.0, 3),
                "nphShareMoved": round(float((mine["nphDirectionChange"] > 1.5 * step).mean()), 5),
                "nphMovedAngst": round(float(mine["nphShiftChange"].median()), 4),
                "nphShareCorrelationUp": round(float((rose > 0).mean()), 5),
            }
        )
    return pd.DataFrame(rows)
