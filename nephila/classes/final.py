"""Final volumes of one class, from its particles at their full sampling."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.classes.data import portions
from nephila.ctf import Optics
from nephila.fsc import MaskedFsc
from nephila.job import logger
from nephila.partial_sum import PartialSum
from nephila.particle_sums import backproject_table
from nephila.refinement.final import FinalSettings, FinalVolumes, final_volumes
from nephila.refinement.merge import load_mask
from nephila.refinement.settings import IterationSettings
from nephila.refinement.sums import ChunkSums


def class_volumes(
    table: pd.DataFrame,
    noise: npt.NDArray[np.float64],
    settings: IterationSettings,
    optics: Optics,
    final: FinalSettings,
    threads: int = 1,
    group_factors: Mapping[int, npt.NDArray[np.float64]] | None = None,
) -> FinalVolumes:
    """Half maps, map, filtered map and FSC of a class's particles in their poses; empty maps where a half-set has none of them.

    noise : by shell, of the last iteration; group_factors : of defocus groups, over it
    """
    halves = [table[table["rlnRandomSubset"] == half] for half in (1, 2)]
    if min(map(len, halves)) == 0:
        logger.warning("the class has %d and %d particles in the half-sets: no map", *map(len, halves))
        empty, curve = np.zeros((settings.box,) * 3, dtype=np.float32), np.zeros(settings.box // 2 + 1)
        return FinalVolumes(empty, empty, empty, empty, load_mask(settings), MaskedFsc(curve, curve, curve, curve, 1))
    first, second = (
        ChunkSums({0: _sum(half, noise, settings, optics, threads, group_factors)}, None) for half in halves
    )
    return final_volumes((first, second), settings, final, threads)


def _sum(
    table: pd.DataFrame,
    noise: npt.NDArray[np.float64],
    settings: IterationSettings,
    optics: Optics,
    threads: int,
    group_factors: Mapping[int, npt.NDArray[np.float64]] | None,
) -> PartialSum:
    total: PartialSum | None = None
    for part in portions(len(table)):
        sums = backproject_table(
            table.iloc[part], settings.pixel_size, settings.box, optics, settings.ctf,
            noise=noise, group_factors=group_factors, threads=threads,
        )  # fmt: skip
        total = sums if total is None else total.add(sums)
    assert total is not None
    return total
