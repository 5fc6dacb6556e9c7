"""Simulated particle sets on disk, of known poses, for refinements: the same files serve every program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.phantom import OPTICS, Phantom
from nephila.ctf import ctf_2d
from nephila.fourier import centred_irfft2, centred_rfft2
from nephila.geometry import euler_matrix
from nephila.io.mrc import stack_writer, write_volume
from nephila.io.tables import write_blocks
from nephila.masks import spherical_mask
from nephila.symmetry import point_group_matrices

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

PER_MICROGRAPH = 100
RADIUS = 0.36  # of the mask, box sides: holds every phantom


@dataclass(frozen=True)
class SetSettings:
    """A set of particles.

    n: box, px; count: particles; snr: variance of the projections with their CTF over that of the noise, over the whole box
    (none: pure noise); shift_px: largest origin in x and y; kind: "blobs" (C1), "ring" (12 of a D7 ring's 14 subunits), or a
    point group; defocus_spread: half range of particles' defocus about their micrograph's, A; noise: deviations of the noise, by
    micrograph in turn; amplitude_spread: deviation of the particles' amplitudes about 1 (within 0.3 to 1.7)
    """

    n: int = 64
    count: int = 2500
    snr: float | None = 0.1
    seed: int = 1
    shift_px: float = 4.0
    kind: str = "blobs"
    defocus_spread: float = 0.0
    pixel_size: float | None = None
    noise: tuple[float, ...] = (1.0,)
    amplitude_spread: float = 0.0


def phantom(settings: SetSettings) -> Phantom:
    """The object of a set."""
    n = settings.n
    if settings.kind == "blobs":
        return Phantom.random(n, settings.seed)
    rng = np.random.default_rng([settings.seed, 211])
    if settings.kind == "ring":
        operators = point_group_matrices("D7")[[i for i in range(14) if i not in (1, 9)]]
        unit = np.array([0.2, 0.03, 0.09]) + rng.normal(size=(30, 3)) * 0.028
    else:
        operators = point_group_matrices(settings.kind)
        place = np.array([0.19, 0.06, 0.13])
        unit = place + rng.normal(size=(max(6, 240 // len(operators)), 3)) * (0.06 if len(operators) < 12 else 0.035)
    weights = np.tile(rng.uniform(0.5, 1.5, len(unit)), len(operators))
    return Phantom(n, np.concatenate([unit @ operator.T for operator in operators]) * n, weights)


def simulate(folder: Path, settings: SetSettings) -> pd.DataFrame:
    """Write a set and return its table with the true poses.

    particles.mrcs (noise of deviation 1), truth.star (with poses), particles.star (without), reference.mrc (the object, on the
    particles' grey scale), mask.mrc.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subject = phantom(settings)
    n, count = settings.n, settings.count
    pixel = settings.pixel_size or subject.pixel_size
    rng = np.random.default_rng([settings.seed, 223])
    tilt = np.rad2deg(np.arccos(rng.uniform(-1, 1, count)))
    angles = np.stack([rng.uniform(-180, 180, count), tilt, rng.uniform(-180, 180, count)], axis=1).round(4)
    shifts = (rng.uniform(-settings.shift_px, settings.shift_px, (count, 2)) * pixel).round(4) / pixel
    micrograph = np.arange(count) // PER_MICROGRAPH
    means = rng.uniform(10000, 25000, micrograph[-1] + 1)[micrograph]
    defocus = (means + rng.uniform(-1, 1, count) * settings.defocus_spread).round(1)
    scale = _scale(subject, settings, angles, shifts, defocus, pixel)
    deviation, amplitude = levels(settings)
    with stack_writer(folder / "particles.mrcs", (count, n, n), pixel, "float32") as stack:
        for first in range(0, count, 256):
            rows = slice(first, min(first + 256, count))
            images = rng.standard_normal((rows.stop - first, n, n), dtype=np.float32)
            images *= deviation[rows, None, None]
            if scale > 0:
                clean = _projections(subject, angles, shifts, defocus, pixel, rows)
                images += scale * amplitude[rows, None, None] * clean
            stack[rows] = images
    write_volume(folder / "reference.mrc", subject.volume() * (scale if scale > 0 else 0.05), pixel)
    write_volume(folder / "mask.mrc", spherical_mask(n, RADIUS * n, 0.06 * n), pixel)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(count)],
            "rlnMicrographName": [f"m{i + 1:03d}.mrc" for i in micrograph],
            "rlnAngleRot": angles[:, 0], "rlnAngleTilt": angles[:, 1], "rlnAnglePsi": angles[:, 2],
            "rlnOriginXAngst": (shifts[:, 0] * pixel).round(4), "rlnOriginYAngst": (shifts[:, 1] * pixel).round(4),
            "rlnDefocusU": defocus + 200, "rlnDefocusV": defocus - 200, "rlnDefocusAngle": 30.0,
            "rlnRandomSubset": 1 + np.arange(count) % 2, "rlnOpticsGroup": 1,
        }
    )  # fmt: skip
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1], "rlnOpticsGroupName": ["opticsGroup1"], "rlnVoltage": [OPTICS.voltage_kv],
            "rlnSphericalAberration": [OPTICS.cs_mm], "rlnAmplitudeContrast": [OPTICS.amplitude_contrast],
            "rlnImagePixelSize": [pixel], "rlnImageSize": [n], "rlnImageDimensionality": [2],
        }
    )  # fmt: skip
    write_blocks(folder / "truth.star", {"optics": optics, "particles": table})
    poses = [name for name in table if name.startswith(("rlnAngle", "rlnOrigin"))]
    write_blocks(folder / "particles.star", {"optics": optics, "particles": table.drop(columns=poses)})
    return table


def levels(settings: SetSettings) -> tuple[Float32, Float32]:
    """Deviation of the noise and amplitude of the signal of each particle of a set, float32 [count]."""
    micrograph = np.arange(settings.count) // PER_MICROGRAPH
    deviation = np.asarray(settings.noise, dtype=np.float32)[micrograph % len(settings.noise)]
    drawn = np.random.default_rng([settings.seed, 227]).standard_normal(settings.count)
    amplitude = np.clip(1 + settings.amplitude_spread * drawn, 0.3, 1.7).astype(np.float32)
    return deviation, amplitude


def project(subject: Phantom, angles: Float64, shifts: Float64, defocus: Float64, pixel: float) -> Float32:
    """Images [m, n, n] without noise, with their CTF (astigmatism 400 A)."""
    clean = subject.projections(euler_matrix(*angles.T), shifts)
    planes = ctf_2d(subject.n, pixel, defocus + 200, defocus - 200, np.full(len(clean), 30.0), OPTICS)
    return centred_irfft2(centred_rfft2(clean) * planes, subject.n)


def _projections(
    subject: Phantom, angles: Float64, shifts: Float64, defocus: Float64, pixel: float, rows: slice
) -> Float32:
    return project(subject, angles[rows], shifts[rows], defocus[rows], pixel)


def _scale(
    subject: Phantom, settings: SetSettings, angles: Float64, shifts: Float64, defocus: Float64, pixel: float
) -> np.float32:
    """Factor that gives the projections the variance snr, from up to 512 of them; 0 for pure noise."""
    if settings.snr is None:
        return np.float32(0)
    sample = _projections(subject, angles, shifts, defocus, pixel, slice(0, min(512, settings.count)))
    return np.float32(np.sqrt(settings.snr / sample.var(axis=(1, 2)).mean()))


def grouped(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """A set's table as the refinement takes it: a defocus group per micrograph, stacks by their full paths."""
    group = 1 + table["rlnMicrographName"].astype("category").cat.codes.astype(int)
    means = table.groupby(group)[["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]].transform("mean")
    return table.assign(
        rlnImageName=[name.replace("@", f"@{folder}/") for name in table["rlnImageName"]],
        nphParticleNumber=table.groupby("rlnMicrographName").cumcount() + 1,
        nphDefocusGroup=group,
        nphGroupDefocusU=means["rlnDefocusU"],
        nphGroupDefocusV=means["rlnDefocusV"],
        nphGroupDefocusAngle=means["rlnDefocusAngle"],
        nphCorrelation=0.0,
    )
