"""Tables of classes: the particles with their class, sizes and resolutions, FSC between classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.classes.assign import Assignment
from nephila.errors import InputError
from nephila.fsc import fourier_shell_correlation, resolution_at

Float32 = npt.NDArray[np.float32]
KEYS = ["rlnMicrographName", "nphParticleNumber"]
POSE = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"]


def classified_particles(particles: pd.DataFrame, assignment: Assignment) -> pd.DataFrame:
    """The particles in their order, with rlnClassNumber (from 1), nphClassProbability and their poses in that class."""
    found = assignment.table[KEYS + POSE].copy()
    found["rlnClassNumber"] = 1 + assignment.probability.argmax(axis=1)
    found["nphClassProbability"] = np.round(assignment.probability.max(axis=1), 5)
    rest = [name for name in particles if name not in (*POSE, "rlnClassNumber", "nphClassProbability")]
    merged = particles[rest].merge(found, on=KEYS, how="left", validate="one_to_one")
    first = [name for name in particles if name in merged]
    return merged[[*first, *(name for name in merged if name not in first)]]


def class_table(
    particles: pd.DataFrame, curves: Mapping[int, pd.DataFrame], box: int, pixel_size: float
) -> pd.DataFrame:
    """A row per class: particles, their share, mean probability, and resolution of its half maps (A; 0: none).

    curves: FSC table of each class's half maps
    """
    rows = []
    for number, curve in curves.items():
        mine = particles[particles["rlnClassNumber"] == number]
        fsc = curve["rlnFourierShellCorrelation"].to_numpy(dtype=float)
        rows.append(
            {
                "rlnClassNumber": number,
                "nphParticles": len(mine),
                "nphShare": round(len(mine) / max(len(particles), 1), 5),
                "nphClassProbability": round(float(mine["nphClassProbability"].mean()), 5) if len(mine) else 0.0,
                "nphResolution": round(resolution_at(fsc, 0.143, box, pixel_size) or 0.0, 4),
                "nphResolutionHalf": round(resolution_at(fsc, 0.5, box, pixel_size) or 0.0, 4),
            }
        )
    return pd.DataFrame(rows)


def between_classes(maps: Sequence[Float32], mask: Float32, pixel_size: float) -> pd.DataFrame:
    """FSC of the maps of each two classes inside the mask: a row per pair and shell."""
    n = len(mask)
    shells = np.arange(n // 2 + 1)
    parts = []
    for i, first in enumerate(maps, 1):
        for j, second in enumerate(maps[i:], i + 1):
            curve = fourier_shell_correlation(first * mask, second * mask)
            parts.append(
                pd.DataFrame(
                    {
                        "rlnClassNumber": i,
                        "nphOtherClass": j,
                        "rlnSpectralIndex": shells,
                        "rlnResolution": np.round(shells / (n * pixel_size), 6),
                        "rlnFourierShellCorrelation": np.round(curve, 6),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def selection_of_classes(particles: pd.DataFrame, keep: Sequence[int], before: pd.DataFrame | None) -> pd.DataFrame:
    """An edit (rlnMicrographName, nphParticleNumber, nphKeep) that drops the particles of all classes but `keep`.

    before : an edit whose lines are taken over, but for particles that are dropped now

    Raises
    ------
    InputError
        A class to be kept has no particles.
    """
    numbers = set(particles["rlnClassNumber"].astype(int))
    for number in keep:
        if number not in numbers:
            raise InputError(f"class {number} has no particles; there are {', '.join(map(str, sorted(numbers)))}")
    dropped = particles.loc[~particles["rlnClassNumber"].isin(list(keep)), KEYS].assign(nphKeep=0)
    if before is None or not len(before):
        return dropped.reset_index(drop=True)
    columns = [*KEYS, "nphKeep"]
    return pd.concat([before[columns], dropped], ignore_index=True).drop_duplicates(
        KEYS, keep="last", ignore_index=True
    )
