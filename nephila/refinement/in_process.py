"""A whole refinement in one process, from particles and a starting volume to the final maps: small sets, notebooks, comparisons.

The workflow does the same in jobs; here the particles are one chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics
from nephila.first_alignment import align_group
from nephila.first_reconstruction import half_volumes
from nephila.particle_sums import backproject_table
from nephila.refinement.chunk import refine_chunk
from nephila.refinement.final import FinalSettings, FinalVolumes, final_volumes
from nephila.refinement.merge import Merged, merge_iteration, search_of
from nephila.refinement.model import RefinementModel
from nephila.refinement.settings import IterationSettings
from nephila.refinement.start import order_particles, starting_model
from nephila.refinement.sums import ChunkSums

Float32 = npt.NDArray[np.float32]

FIRST_ALIGNMENT: dict[str, Any] = {
    "usectf": True,
    "search": "continuous",
    "angular_step_deg": 15.0,
    "shift_range": 25.0,
}
FIRST_RECONSTRUCTION: dict[str, Any] = {"method": "direct", "snr": 3.0}


@dataclass(frozen=True)
class Refined:
    """particles: with their last poses; models: of the start and every iteration; references: of the halves; volumes: final."""

    particles: pd.DataFrame
    models: list[RefinementModel]
    references: tuple[Float32, Float32]
    volumes: FinalVolumes


def refine_in_process(
    particles: pd.DataFrame,
    start: Float32,
    settings: IterationSettings,
    optics: Optics,
    iterations: int = 8,
    *,
    alignment: dict[str, Any] | None = None,
    end_method: str = "conjugate_gradients",
    threads: int = 1,
    observe: Callable[[int, pd.DataFrame, Merged], None] | None = None,
) -> Refined:
    """Align to a starting volume, then refine until nothing moves.

    Parameters
    ----------
    particles : images in rlnImageName, defocus of groups, nphDefocusGroup, rlnRandomSubset 1 and 2; poses are not used
    start : starting volume [n, n, n], protein bright, already low-passed at settings.start_resolution
    iterations : most iterations
    alignment : of the first alignment, as section `alignment` of the configuration
    observe : called after each iteration with its number, the particles and what its merge gave

    Raises
    ------
    InputError
        A half-set without particles, or images of another side than the volume.
    """
    n, pixel_size = settings.box, settings.pixel_size
    table = align_group(
        particles, start, pixel_size, settings.start_resolution, settings.symmetry, optics,
        {**FIRST_ALIGNMENT, **(alignment or {})}, threads,
    )  # fmt: skip
    table = order_particles([table])
    sums = [
        backproject_table(_half(table, half), pixel_size, n, optics, settings.ctf, threads=threads) for half in (1, 2)
    ]
    halves = half_volumes(ChunkSums(dict(enumerate(sums, 1)), None), FIRST_RECONSTRUCTION, settings.symmetry, threads)
    references, model = starting_model(halves, table, settings)
    models = [model]
    for iteration in range(1, iterations + 1):
        step = replace(settings, iteration=iteration)
        parts = [
            refine_chunk(_half(table, half), references[half - 1], model, step, optics, threads) for half in (1, 2)
        ]
        moved = pd.concat([part for part, _ in parts], ignore_index=True)
        merged = merge_iteration((parts[0][1], parts[1][1]), moved, table, model, step, search_of(model, step), threads)
        table, references, model = moved, merged.references, merged.model
        models.append(model)
        if observe is not None:
            observe(iteration, table, merged)
        if model.row.converged:
            break
    table = model.entering(table)
    last = [
        ChunkSums(
            {0: backproject_table(
                _half(table, half), pixel_size, n, optics, settings.ctf, noise=model.noise, states=model.optics,
                group_factors=model.group_factors, threads=threads,
            )},
            None,
        )
        for half in (1, 2)
    ]  # fmt: skip
    volumes = final_volumes((last[0], last[1]), settings, FinalSettings(end_method), threads)
    return Refined(table, models, references, volumes)


def _half(table: pd.DataFrame, half: int) -> pd.DataFrame:
    return table[table["rlnRandomSubset"] == half].reset_index(drop=True)
