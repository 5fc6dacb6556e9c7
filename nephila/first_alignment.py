"""The first alignment of a defocus group: every particle against the low-passed starting volume (SPIDER's apsh)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.alignment import AlignmentSettings, align_exhaustively
from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.job import Progress
from nephila.particle_sums import CtfMode, kind_planes
from nephila.projection import FourierProjector
from nephila.sampling import ImageSampling, image_kinds
from nephila.symmetry import point_group_matrices

LEAST_BAND = 6
COARSE_BAND = 8
CANDIDATES = 8


def first_band(box: int, pixel_size: float, resolution: float, projector_limit: int) -> int:
    """Finest shell worth comparing with a reference of this resolution (A): its limit and two more."""
    return int(np.clip(round(box * pixel_size / resolution) + 2, LEAST_BAND, projector_limit))


def align_group(
    particles: pd.DataFrame,
    volume: npt.NDArray[np.float32],
    pixel_size: float,
    resolution: float,
    symmetry: str,
    optics: Optics,
    settings: dict[str, Any],
    threads: int = 1,
) -> pd.DataFrame:
    """Align the particles of a group, or of several; those of other samplings each on their own Fourier grid.

    Parameters
    ----------
    particles : table of the group, images in rlnImageName
    volume : starting volume [n, n, n], already low-passed at `resolution` (A)
    settings : section `alignment`

    Returns
    -------
    The table with angles (degrees), origins (A), nphCorrelation, nphView and nphMirrored (nearest view of the grid; mirrored:
    seen from behind), nphRunnerUp (correlation of the best clearly different pose), nphRunnerUpDistance (degrees to it).
    """
    if not len(particles):
        empty = [
            "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "nphCorrelation",
            "nphView", "nphMirrored", "nphRunnerUp", "nphRunnerUpDistance",
        ]  # fmt: skip
        return particles.assign(**{name: pd.Series(dtype=float) for name in empty})
    n = volume.shape[0]
    band = first_band(n, pixel_size, resolution, n // 2 - 1)
    projector = FourierProjector.from_volume(volume, max_radius=band)
    kinds = image_kinds(particles, n, pixel_size, optics)
    parts = [
        _align_kind(kind.of(particles), projector, band, symmetry, settings, kind.sampling, threads).set_axis(kind.rows)
        for kind in kinds
    ]
    if len(parts) == 1:
        return parts[0].set_axis(particles.index)
    return pd.concat(parts).sort_index().set_axis(particles.index)


def _align_kind(
    particles: pd.DataFrame,
    projector: FourierProjector,
    band: int,
    symmetry: str,
    settings: dict[str, Any],
    sampling: ImageSampling,
    threads: int,
) -> pd.DataFrame:
    """Particles of one sampling, aligned; `band` in Fourier pixels of the reference."""
    n, pixel_size = sampling.box, sampling.pixel_size
    images = sampling.images_of(particles)
    if images.n != n:
        raise InputError(f"particle images of {images.n} px where {n} px are stated (the reference, or _rlnImageSize)")
    band, coarse = sampling.band(band), sampling.band(COARSE_BAND)
    mode: CtfMode = "group" if settings["usectf"] else "none"
    options = AlignmentSettings(
        search=settings["search"],
        angular_step_deg=settings["angular_step_deg"],
        in_plane_step_deg=settings["angular_step_deg"],
        shift_range_px=settings["shift_range"] / pixel_size,
        shift_step_px=settings["shift_step"] / pixel_size if settings.get("shift_step") else None,
        coarse_band=min(coarse, band),
        candidates=CANDIDATES,
        final_band=band,
        symmetry=point_group_matrices(symmetry),
    )
    counter = Progress(len(particles), "aligned")
    result = align_exhaustively(
        images,
        projector.for_images(n, sampling.scale, sampling.magnification),
        lambda first, last: kind_planes(particles.iloc[first:last], sampling, mode),
        options,
        threads=threads,
        progress=lambda done: counter.step(done - counter.done),
    )
    return particles.assign(
        rlnAngleRot=np.round(result.poses.rot, 4),
        rlnAngleTilt=np.round(result.poses.tilt, 4),
        rlnAnglePsi=np.round(result.poses.psi, 4),
        rlnOriginXAngst=np.round(result.poses.shift_x * pixel_size, 4),
        rlnOriginYAngst=np.round(result.poses.shift_y * pixel_size, 4),
        nphCorrelation=np.round(result.correlation, 6),
        nphView=result.reference + 1,
        nphMirrored=result.mirrored.astype(int),
        nphRunnerUp=np.round(np.nan_to_num(result.runner_up), 6),
        nphRunnerUpDistance=np.round(np.nan_to_num(result.runner_up_distance_deg), 3),
    )
