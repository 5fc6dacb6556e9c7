"""The starting volume: brought to the project's sampling, low-passed, projected."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.fourier import butterworth, lowpass
from nephila.geometry import euler_matrix, quasi_even_directions
from nephila.io.mrc import read_volume
from nephila.projection import FourierProjector
from nephila.relabelling import refuse_near_miss, refuse_relabelled
from nephila.resize import resize_volume

Float32 = npt.NDArray[np.float32]
SAME_PIXEL_SIZE = 0.001
"""A; RELION's limit for a reference that belongs to its particles."""


def read_reference(
    path: str, given_pixel_size: float | None, sampling: str, wanted_pixel_size: float, box: int
) -> tuple[Float32, float]:
    """A starting volume and its pixel size (A): `given_pixel_size`, or the header's where that is None.

    sampling : "refuse" takes the project's pixel size and box only, "trust" any others too (the volume is resampled afterwards)
        but those that look relabelled, "resample" those also

    Raises
    ------
    InputError
        The volume was relabelled or looks so, or its sampling is not the project's and `sampling` says "refuse".
    """
    refuse_relabelled(path, given_pixel_size)
    volume, stated = read_volume(path)
    pixel_size = given_pixel_size or stated
    if sampling != "resample":
        way_out = (
            f"Give the map from before, or set reference.pixel_size: {wanted_pixel_size:.6g} (its voxels are the particles') or "
            "reference.sampling: resample (it really was resampled to its pixel size)"
        )
        refuse_near_miss(path, pixel_size, len(volume), wanted_pixel_size, box, way_out)
    other = abs(pixel_size - wanted_pixel_size) > SAME_PIXEL_SIZE or len(volume) != box
    if sampling == "refuse" and other:
        raise InputError(
            f"{path}: {len(volume)} px of {pixel_size:.6g} A, the project has {box} px of {wanted_pixel_size:.6g} A; give a map of "
            "that sampling, or set reference.sampling: trust (the header is believed and the map resampled) or "
            "reference.pixel_size (the header is wrong)"
        )
    return volume, pixel_size


def fit_reference(
    volume: Float32, pixel_size: float, wanted_pixel_size: float, box: int, diameter: float, source: str
) -> tuple[Float32, float]:
    """A volume at the project's pixel size and box, and the pixel size that it really has.

    Raises
    ------
    InputError
        The volume is smaller than the particle, flat, or its protein is dark (`source` names the file).
    """
    extent = len(volume) * pixel_size
    if extent < diameter:
        raise InputError(
            f"{source}: {len(volume)} px of {pixel_size:g} A are {extent:.0f} A, less than particle.diameter ({diameter:g} A); "
            "correct the diameter, the header's pixel size or reference.pixel_size"
        )
    if float(volume.std()) == 0:
        raise InputError(f"{source}: every voxel is {float(volume.flat[0]):g}; give a volume with density")
    if extent > 20 * diameter:
        raise InputError(
            f"{source}: the volume is {extent:.0f} A wide for a particle of {diameter:g} A; its pixel size ({pixel_size:g} A) is "
            "probably wrong: set reference.pixel_size"
        )
    if pixel_size == wanted_pixel_size and len(volume) == box:
        return volume, pixel_size
    return resize_volume(volume, pixel_size, wanted_pixel_size, box)


def filter_reference(volume: Float32, pixel_size: float, resolution: float) -> Float32:
    """Low-pass at `resolution` (A), never beyond Nyquist."""
    return lowpass(volume, pixel_size, max(resolution, 2 * pixel_size))


def reference_views(volume: Float32, step_deg: float) -> tuple[pd.DataFrame, Float32]:
    """Quasi-even views of half the sphere and the volume's projections there.

    Returns the table (nphView from 1, rlnAngleRot, rlnAngleTilt, rlnAnglePsi) and projections float32 [views, n, n].
    """
    directions = quasi_even_directions(step_deg)
    table = pd.DataFrame(
        {
            "nphView": np.arange(1, len(directions) + 1),
            "rlnAngleRot": directions[:, 0],
            "rlnAngleTilt": directions[:, 1],
            "rlnAnglePsi": 0.0,
        }
    )
    matrices = euler_matrix(directions[:, 0], directions[:, 1], 0.0)
    return table, FourierProjector.from_volume(volume).project(matrices)


def filter_at_resolution(
    volume: Float32, pixel_size: float, resolution: float, below: float = 0.05, above: float = 0.05
) -> Float32:
    """SPIDER's `filt`: Butterworth with its bands so far (of sampling) below and above the resolution's frequency.

    A resolution (A) of 0 means that none was measured: 40 A is used.
    """
    frequency = pixel_size / (resolution or 40.0)
    pass_band = max(frequency - below, 0.5 * frequency)
    return butterworth(volume, pass_band, max(min(frequency + above, 0.5), 1.01 * pass_band))
