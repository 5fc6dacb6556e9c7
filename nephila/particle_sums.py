"""Backprojection of a particle table: images from their stacks, CTF of the group or of each particle, into exact sums."""

from __future__ import annotations

from collections.abc import Mapping
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
from nephila.optics_groups import OpticsGroup
from nephila.partial_sum import GridShape, PartialSum
from nephila.plan import BLOCK
from nephila.sampling import ImageSampling, OpticsState, image_kinds, noise_and_amplitude

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]
CtfMode = Literal["group", "particle", "none"]

GROUP_COLUMNS = ("nphGroupDefocusU", "nphGroupDefocusV", "nphGroupDefocusAngle")
PARTICLE_COLUMNS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")


def ctf_planes(
    table: pd.DataFrame,
    n: int,
    pixel_size: float,
    optics: Optics,
    mode: CtfMode,
    group: OpticsGroup | None = None,
) -> Float32:
    """CTF of each row, float32 [1 or m, n, n // 2 + 1]: one plane where all rows share their defocus.

    mode: "group" takes the defocus group's average, "particle" each particle's own, "none" is 1 everywhere.
    group: the optics group, where its magnification and even aberrations count.
    """
    if mode == "none":
        return np.ones((1, n, n // 2 + 1), dtype=np.float32)
    columns = list(GROUP_COLUMNS if mode == "group" else PARTICLE_COLUMNS)
    values = table[columns].to_numpy(dtype=np.float64)
    if len(values) and (values == values[0]).all():
        values = values[:1]
    u, v, angle = values.T
    return ParticleCtfs(u, v, angle, optics, pixel_size, group=group).planes(slice(None), n)


def kind_planes(table: pd.DataFrame, sampling: ImageSampling, mode: CtfMode) -> Float32:
    """`ctf_planes` of images of one sampling."""
    return ctf_planes(table, sampling.box, sampling.pixel_size, sampling.optics, mode, sampling.group)


def pose_matrices(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Rotation matrices [m, 3, 3] of a table's angles."""
    return euler_matrix(table["rlnAngleRot"], table["rlnAngleTilt"], table["rlnAnglePsi"])


def pose_shifts(table: pd.DataFrame, pixel_size: float) -> npt.NDArray[np.float64]:
    """Origins [m, 2] (x, y) in px of a table's origins in A."""
    return table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(dtype=np.float64) / pixel_size


def particle_weights(table: pd.DataFrame) -> Float32:
    """Weights [m] of a table's particles in sums, 1 where there is none of these columns: nphWeight (how likely the pose is right)
    times nphViewWeight (where views are capped) over nphNoiseLevel (noise power of the micrograph)."""
    weights = np.ones(len(table))
    for name, power in (("nphWeight", 1), ("nphViewWeight", 1), ("nphNoiseLevel", -1)):
        if name in table:
            weights *= table[name].to_numpy(dtype=np.float64) ** power
    return weights.astype(np.float32)


def particle_scales(table: pd.DataFrame) -> Float32:
    """Amplitudes [m] of the projections in a table's images over the mean: nphScale, 1 where there is no such column."""
    if "nphScale" not in table:
        return np.ones(len(table), dtype=np.float32)
    return table["nphScale"].to_numpy(dtype=np.float32)


def at_unit_amplitude(transforms: Complex64, weights: Float32, scales: Float32) -> tuple[Complex64, Float32]:
    """Images X of amplitudes a and weights w as images X / a of weights w a^2: the same sums `w a C X` and `w a^2 C^2`."""
    if (scales == 1.0).all():
        return transforms, weights
    return transforms / scales[:, None, None], weights * scales**2


def group_cuts(groups: npt.NDArray[np.int64], first: int, end: int) -> list[tuple[int, int]]:
    """Rows first to end in stretches of one defocus group each."""
    cuts = first + np.flatnonzero(np.diff(groups[first:end])) + 1
    return list(zip([first, *cuts], [*cuts, end], strict=True))


def group_spectrum(noise: Float64, factors: Mapping[int, Float64], group: int) -> Float64:
    """Noise power by shell of a defocus group: the overall one, times the group's factors where there are any for these shells."""
    mine = factors.get(group)
    return noise if mine is None or len(mine) != len(noise) else noise * mine


def backproject_table(
    table: pd.DataFrame,
    pixel_size: float,
    box: int,
    optics: Optics,
    mode: CtfMode,
    *,
    max_radius: int | None = None,
    noise: npt.ArrayLike | None = None,
    states: Mapping[int, OpticsState] | None = None,
    group_factors: Mapping[int, Float64] | None = None,
    threads: int = 1,
    progress: str | None = None,
) -> PartialSum:
    """Sums over the particles of a table, in the poses that it states; images are read block by block.

    Particles of other pixel sizes or boxes (columns of `SAMPLING_COLUMNS`) enter on their own Fourier grids, those of optics groups
    with aberrations (`ABERRATION_COLUMNS`) corrected for these.

    Parameters
    ----------
    pixel_size, box : of the map, and of the images where the table states no others
    max_radius : finest shell kept, Fourier px; Nyquist where None
    noise : power of the noise by shell of the map; 1 where None
    states : noise and amplitude of optics groups, where they were measured
    group_factors : noise power of defocus groups over that of all, by the images' shells, where it was measured
    progress : what to call the work in the log
    """
    counter = Progress(len(table), progress) if progress else None
    total: PartialSum | None = None
    for kind in image_kinds(table, box, pixel_size, optics):
        mine, sampling = kind.of(table), kind.sampling
        images = sampling.images_of(mine)
        power, amplitude = noise_and_amplitude(
            sampling, np.ones(box // 2 + 1) if noise is None else noise, states or {}
        )
        projector = Backprojector(
            box, max_radius=max_radius, pending_bytes=PENDING_BYTES, image_side=sampling.box,
            image_scale=sampling.scale, image_magnification=sampling.magnification,
        )  # fmt: skip
        factors = group_factors or {}
        groups = mine["nphDefocusGroup"].to_numpy(dtype=np.int64) if factors else np.zeros(len(mine), dtype=np.int64)
        for first in range(0, len(mine), BLOCK):
            end = min(first + BLOCK, len(mine))
            for a, b in group_cuts(groups, first, end):
                part = mine.iloc[a:b]
                images_ft, weights = at_unit_amplitude(
                    centred_rfft2(images[a:b]), particle_weights(part), particle_scales(part)
                )
                projector.insert(
                    images_ft,
                    pose_matrices(part),
                    scaled(kind_planes(part, sampling, mode), amplitude),
                    weights,
                    sampling.noise_weights(group_spectrum(power, factors, int(groups[a]))),
                    pose_shifts(part, sampling.pixel_size),
                    threads,
                )
            if counter:
                counter.step(end - first)
        total = projector.partial_sum() if total is None else total.add(projector.partial_sum())
    return PartialSum.empty(GridShape.of(box, 2.0, max_radius)) if total is None else total


def scaled(planes: Float32, amplitude: float) -> Float32:
    """CTFs times the amplitude of projections in the images: what makes images of a density."""
    return planes if amplitude == 1.0 else planes * np.float32(amplitude)
