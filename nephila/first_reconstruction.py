"""The first reconstruction: both halves of each defocus group, then their merge over groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.finishing import finish
from nephila.fsc import MaskedFsc, masked_fsc, resolution_at
from nephila.iterative_reconstruction import (
    ConjugateGradientSettings,
    RichardsonSettings,
    conjugate_gradients,
    richardson,
)
from nephila.job import logger
from nephila.masks import spherical_mask
from nephila.partial_sum import GridShape, PartialSum
from nephila.particle_sums import backproject_table
from nephila.refinement.sums import ChunkSums, add_chunks, whole

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def solve(
    partial: PartialSum,
    method: str,
    symmetry: str,
    regulariser: float | None,
    threads: int = 1,
    options: dict[str, Any] | None = None,
) -> Float32:
    """A volume from sums: "direct" (regularised division), "conjugate_gradients" (BP CG) or "richardson" (BP RP).

    regulariser : in units of the mean CTF^2 of the particles; 1 / 3 is a Wiener filter for SNR 3. None: conjugate gradients take
        the signal-to-noise ratio from the map itself, the others do without
    options : fields of the method's settings, `ConjugateGradientSettings` or `RichardsonSettings`
    """
    if method == "direct" or partial.particles == 0:
        return finish(partial, symmetry, regulariser, threads=threads)
    if method == "conjugate_gradients":
        chosen = ConjugateGradientSettings(**(options or {}))
        return conjugate_gradients(partial, symmetry, regulariser, settings=chosen, threads=threads)
    if method == "richardson":
        return richardson(
            partial, symmetry, regulariser, settings=RichardsonSettings(**(options or {})), threads=threads
        )
    raise InputError(f"reconstruction method {method!r}: give direct, conjugate_gradients or richardson")


def group_sums(particles: pd.DataFrame, pixel_size: float, box: int, optics: Optics, threads: int = 1) -> ChunkSums:
    """Sums of both half-sets of a group, under the numbers 1 and 2; a half without particles is an empty sum."""
    halves = {}
    for half in (1, 2):
        mine = particles[particles["rlnRandomSubset"] == half] if len(particles) else particles
        if len(mine):
            halves[half] = backproject_table(
                mine, pixel_size, box, optics, "group", threads=threads, progress=f"half {half} backprojected"
            )
        else:
            logger.warning("half %d of the group has no particles", half)
            halves[half] = PartialSum.empty(GridShape.of(box, 2.0, None))
    return ChunkSums(halves, None)


def sphere(diameter: float, pixel_size: float, box: int) -> Float32:
    """Soft sphere of 1.1 particle diameters in which FSCs are measured."""
    return spherical_mask(box, min(0.55 * diameter / pixel_size, box // 2 - 2), 0.06 * diameter / pixel_size)


def half_volumes(sums: ChunkSums, settings: dict[str, Any], symmetry: str, threads: int = 1) -> tuple[Float32, Float32]:
    """Volumes of both halves by the configured method (`method`, `options`) and SNR (`snr`, None for none)."""
    first, second = (solve_as(sums.groups[half], settings, symmetry, threads) for half in (1, 2))
    return first, second


def solve_as(partial: PartialSum, settings: dict[str, Any], symmetry: str, threads: int = 1) -> Float32:
    """`solve` by settings as `half_volumes` takes them."""
    regulariser = 1.0 / settings["snr"] if settings["snr"] else None
    return solve(partial, settings["method"], symmetry, regulariser, threads, settings.get("options"))


def halves_fsc(first: Float32, second: Float32, mask: Float32, seed: int) -> MaskedFsc:
    """FSC of two half volumes inside the sphere; all zero where one is empty."""
    if not first.any() or not second.any():
        zero = np.zeros(len(first) // 2 + 1)
        return MaskedFsc(zero, zero, zero, zero, 0)
    return masked_fsc(first, second, mask, seed)


@dataclass(frozen=True)
class FirstVolume:
    """The merged first volume [n, n, n], its halves, and their FSC."""

    volume: Float32
    half1: Float32
    half2: Float32
    fsc: MaskedFsc


def merge_groups(
    paths: Sequence[str], settings: dict[str, Any], symmetry: str, mask: Float32, seed: int, threads: int = 1
) -> FirstVolume:
    """Merge the groups' sums and solve: directly this is the Wiener merge V = sum N_g / (sum D_g + 1 / SNR)."""
    sums = add_chunks(paths)
    if any(sums.groups[half].particles == 0 for half in (1, 2)):
        raise InputError(
            "a half-set has no particles in any group; loosen the thresholds (edits/thresh.star) or add data"
        )
    half1, half2 = half_volumes(sums, settings, symmetry, threads)
    total = whole(sums.groups)
    assert total is not None
    volume = solve_as(total, settings, symmetry, threads)
    return FirstVolume(volume, half1, half2, masked_fsc(half1, half2, mask, seed, threads=threads))


def resolution_table(groups: dict[int, Float64], overall: Float64, box: int, pixel_size: float) -> pd.DataFrame:
    """SPIDER's `resolution`: per group and overall (group 0) the resolution at FSC 0.5 and 0.143 (A; 0: none) and as a fraction
    of sampling."""
    rows = []
    for number, fsc in [(0, overall), *sorted(groups.items())]:
        half = resolution_at(fsc, 0.5, box, pixel_size)
        fine = resolution_at(fsc, 0.143, box, pixel_size)
        rows.append(
            {
                "nphDefocusGroup": number,
                "nphNormalisedFrequency": round(pixel_size / half, 5) if half else 0.0,
                "nphResolutionHalf": round(half or 0.0, 3),
                "nphResolution": round(fine or 0.0, 3),
            }
        )
    return pd.DataFrame(rows)
