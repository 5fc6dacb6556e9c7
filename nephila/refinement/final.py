"""The final volumes: half maps without a filter, the map, the filtered map, their FSC, and the particle table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.first_reconstruction import solve
from nephila.fourier import filter_shells
from nephila.fsc import MaskedFsc, masked_fsc, reference_correlation, resolution_at
from nephila.job import logger
from nephila.masks import apply_mask
from nephila.partial_sum import PartialSum
from nephila.refinement.claims import claimed_fsc
from nephila.refinement.merge import MASK_WARNING, STABILISER, at_mask_size, load_mask, monotone_tail
from nephila.refinement.settings import IterationSettings
from nephila.refinement.sums import ChunkSums, whole
from nephila.sharpening import LEVEL_FROM, apply_b_factor, level_amplitudes, rotational_power

Float32 = npt.NDArray[np.float32]

RELION_COLUMNS = (
    "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi",
    "rlnOriginXAngst", "rlnOriginYAngst", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift",
    "rlnCtfFigureOfMerit", "rlnCtfMaxResolution", "rlnImageName", "rlnMicrographName", "rlnOpticsGroup", "rlnRandomSubset",
)  # fmt: skip


@dataclass(frozen=True)
class FinalVolumes:
    """half1, half2: without filter; map: of all particles, without filter; filtered: by its FSC, and sharpened where asked."""

    half1: Float32
    half2: Float32
    map: Float32
    filtered: Float32
    mask: Float32
    fsc: MaskedFsc


@dataclass(frozen=True)
class FinalSettings:
    """How final volumes are solved for (method and its options as `first_reconstruction.solve`) and sharpened.

    sharpening : "b_factor", by `b_factor` (A^2, negative sharpens; None for none), or "noise", see `sharpening.level_amplitudes`
    """

    method: str = "conjugate_gradients"
    options: dict[str, Any] = field(default_factory=dict)
    b_factor: float | None = None
    sharpening: Literal["b_factor", "noise"] = "b_factor"


def final_volumes(
    sums: tuple[ChunkSums, ChunkSums], settings: IterationSettings, final: FinalSettings, threads: int = 1
) -> FinalVolumes:
    """Solve for the final volumes; `sums` of half 1 and half 2, to Nyquist."""
    parts: list[PartialSum] = []
    for half, chunk_sums in enumerate(sums, 1):
        part = whole(chunk_sums.groups)
        if part is None or part.particles == 0:
            raise InputError(f"half-set {half} has no particles; loosen the thresholds or add data")
        parts.append(part)
    half1, half2 = (_solve_final(part, settings, final, threads) for part in parts)
    volume = _solve_final(parts[0].copy().add(parts[1]), settings, final, threads)
    mask = load_mask(settings, (half1, half2))
    settings = at_mask_size(settings, mask)
    curves = masked_fsc(half1, half2, mask, settings.seed, threads=threads)
    curves = replace(curves, corrected=claimed_fsc(curves.corrected, settings))
    if curves.mask_makes_resolution(mask):
        logger.warning(MASK_WARNING)
    fsc = np.clip(monotone_tail(curves.corrected), 0.0, 1.0)
    fsc[0] = 1.0
    return FinalVolumes(half1, half2, volume, _sharpened(volume, fsc, mask, settings, final), mask, curves)


def _sharpened(
    volume: Float32, fsc: npt.NDArray[np.float64], mask: Float32, settings: IterationSettings, final: FinalSettings
) -> Float32:
    """The map filtered by its FSC, and sharpened as asked for."""
    if final.sharpening == "noise":
        limit = resolution_at(fsc, 0.143, settings.box, settings.pixel_size)
        if limit is not None and limit < LEVEL_FROM:
            power = rotational_power(apply_mask(volume, mask))
            return level_amplitudes(volume, power, fsc, settings.pixel_size, limit)
        logger.warning(
            "sharpening by noise begins at %g A, which the map does not reach: it is only filtered", LEVEL_FROM
        )
    filtered = filter_shells(volume, reference_correlation(fsc))
    if final.b_factor is not None:
        filtered = apply_b_factor(filtered, final.b_factor, settings.pixel_size)
    return filtered


def _solve_final(part: PartialSum, settings: IterationSettings, final: FinalSettings, threads: int) -> Float32:
    """A volume without a filter, or with the constant SNR where one is set."""
    # without one, conjugate gradients weigh by the SNR that the map shows, and Richardson's rounds end before noise comes in
    unfiltered = STABILISER if final.method == "direct" else None
    regulariser = 1.0 / settings.snr if settings.snr else unfiltered
    return solve(part, final.method, settings.symmetry, regulariser, threads, final.options)


def final_particles(chunks: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All particles, RELION's columns first, in the order of micrographs and particle numbers."""
    table = pd.concat(chunks, ignore_index=True)
    table = table.sort_values(["rlnMicrographName", "nphParticleNumber"], kind="stable", ignore_index=True)
    first = [name for name in RELION_COLUMNS if name in table]
    return table[[*first, *(name for name in table if name not in first)]]
