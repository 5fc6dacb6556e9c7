"""The start of the refinement: particles in the order that chunks are cut from, references and model of iteration 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.fsc import masked_fsc, resolution_at
from nephila.refinement.merge import at_mask_size, certainty_of, frame_offset, load_mask, next_references
from nephila.refinement.model import IterationRow, RefinementModel
from nephila.refinement.schedule import first_decision
from nephila.refinement.settings import IterationSettings

Float32 = npt.NDArray[np.float32]


def order_particles(groups: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All particles by half-set, then by group, largest group first, then by micrograph and number.

    Raises
    ------
    InputError
        No particles, or a half-set without any.
    """
    table = (
        pd.concat([group for group in groups if len(group)], ignore_index=True)
        if any(map(len, groups))
        else pd.DataFrame()
    )
    if not len(table) or set(table["rlnRandomSubset"]) != {1, 2}:
        raise InputError(
            f"{len(table)} particles are left after the thresholds, not enough for two half-sets; loosen them"
        )
    size = table.groupby("nphDefocusGroup")["nphDefocusGroup"].transform("size")
    table = table.assign(size=-size)
    order = ["rlnRandomSubset", "size", "nphDefocusGroup", "rlnMicrographName", "nphParticleNumber"]
    return table.sort_values(order, kind="stable", ignore_index=True).drop(columns="size")


def starting_model(
    halves: Sequence[Float32], particles: pd.DataFrame, settings: IterationSettings
) -> tuple[tuple[Float32, Float32], RefinementModel]:
    """References of the first iteration from the half volumes of the first reconstruction, and the model that goes with them.

    The noise starts white: windows have a background of standard deviation 1.
    """
    first, second = halves
    mask = load_mask(settings, (first, second))
    settings = at_mask_size(settings, mask)
    curves = masked_fsc(first, second, mask, settings.seed)
    n, pixel_size = settings.box, settings.pixel_size
    row = IterationRow(
        particles=len(particles),
        resolution_0143=round(resolution_at(curves.corrected, 0.143, n, pixel_size) or 0.0, 4),
        resolution_05=round(resolution_at(curves.corrected, 0.5, n, pixel_size) or 0.0, 4),
        resolution_unmasked=round(resolution_at(curves.unmasked, 0.143, n, pixel_size) or 0.0, 4),
        correlation=round(float(particles["nphCorrelation"].mean()), 6),
    )
    references, _ = next_references((first, second), curves, mask, settings, frame_offset(particles, settings))
    decision = first_decision(curves.corrected, settings)
    noise = np.ones(n // 2 + 1)
    model = RefinementModel(row, decision, curves.corrected, curves.unmasked, noise, certainty=certainty_of(particles))
    return references, model
