"""Backprojection of a particle table: images from their stacks, CTF of the group or of each particle, into exact sums."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.alignment.ctfs import ParticleCtfs
from nephila.backprojection import PENDING_BYTES, Backprojector
from nephila.ctf import Optics
from nephila.fourier import centred_rfft2
from nephila.geometry import euler_matrix
from nephila.job import Progress
from nephila.partial_sum import PartialSum
from nephila.particle_images import ParticleImages
from nephila.plan import BLOCK

Float32 = npt.NDArray[np.float32]
CtfMode = Literal["group", "particle", "none"]

GROUP_COLUMNS = ("nphGroupDefocusU", "nphGroupDefocusV", "nphGroupDefocusAngle")
PARTICLE_COLUMNS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")


def ctf_planes(table: pd.DataFrame, n: int, pixel_size: float, optics: Optics, mode: CtfMode) -> Float32:
    """CTF of each row, float32 [1 or m, n, n // 2 + 1]: one plane where all rows share their defocus.

    mode: "group" takes the defocus group's average, "particle" each particle's own, "none" is 1 everywhere.
    """
    if mode == "none":
        return np.ones((1, n, n // 2 + 1), dtype=np.float32)
    columns = list(GROUP_COLUMNS if mode == "group" else PARTICLE_COLUMNS)
    values = table[columns].to_numpy(dtype=np.float64)
    if len(values) and (values == values[0]).all():
        values = values[:1]
    u, v, angle = values.T
    return ParticleCtfs(u, v, angle, optics, pixel_size).planes(slice(None), n)


def pose_matrices(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Rotation matrices [m, 3, 3] of a table's angles."""
    return euler_matrix(table["rlnAngleRot"], table["rlnAngleTilt"], table["rlnAnglePsi"])


def pose_shifts(table: pd.DataFrame, pixel_size: float) -> npt.NDArray[np.float64]:
    """Origins [m, 2] (x, y) in px of a table's origins in A."""
    return table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(dtype=np.float64) / pixel_size


def particle_weights(table: pd.DataFrame) -> Float32:
    """Weights [m] of a table's particles in sums: nphWeight, 1 where there is no such column."""
    if "nphWeight" not in table:
        return np.ones(len(table), dtype=np.float32)
    return table["nphWeight"].to_numpy(dtype=np.float32)


def backproject_table(
    table: pd.DataFrame,
    pixel_size: float,
    box: int,
    optics: Optics,
    mode: CtfMode,
    *,
    max_radius: int | None = None,
    noise_weights: npt.ArrayLike | None = None,
    threads: int = 1,
    progress: str | None = None,
) -> PartialSum:
    """Sums over the particles of a table, in the poses that it states; images are read block by block.

    Parameters
    ----------
    max_radius : finest shell kept, Fourier px; Nyquist where None
    noise_weights : by shell, 1 / noise power
    progress : what to call the work in the log
    """
    images = ParticleImages(table)
    projector = Backprojector(box, max_radius=max_radius, pending_bytes=PENDING_BYTES)
    counter = Progress(len(table), progress) if progress else None
    for first in range(0, len(table), BLOCK):
        rows = slice(first, min(first + BLOCK, len(table)))
        part = table.iloc[rows]
        projector.insert(
            centred_rfft2(images[rows]),
            pose_matrices(part),
            ctf_planes(part, box, pixel_size, optics, mode),
            particle_weights(part),
            noise_weights,
            pose_shifts(part, pixel_size),
            threads,
        )
        if counter:
            counter.step(len(part))
    return projector.partial_sum()
