"""Particles beside their predictions, frequency by frequency: what all fits of optics are made from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.aberrations import even_phase, magnified, odd_phase, zernike_basis
from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.fourier import centred_rfft2
from nephila.geometry import euler_matrix
from nephila.optics_groups import OpticsGroup, ParticleSet
from nephila.particle_images import ParticleImages
from nephila.projection import FourierProjector

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]
Int64 = npt.NDArray[np.int64]

NEEDED = (
    "rlnImageName", "rlnMicrographName", "rlnOpticsGroup", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst",
    "rlnOriginYAngst", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle",
)  # fmt: skip
BATCH = 64
GRADIENT_STEP = 0.25
"""Fourier pixels to either side, of the reference's box, between which the reference's slope is taken."""


@dataclass(frozen=True)
class References:
    """Maps to predict particles from.

    volumes : float32 [n, n, n], by rlnRandomSubset, or one under 0 for all; a particle is held against the map of the other half,
        which does not hold its own noise (that would draw every fit towards the CTF with which the map was made)
    pixel_size : A, of their headers
    """

    volumes: Mapping[int, Float32]
    pixel_size: float

    @cached_property
    def projectors(self) -> dict[int, FourierProjector]:
        """Ready to be sampled, by subset."""
        sides = {volume.shape for volume in self.volumes.values()}
        if len(sides) > 1:
            raise InputError(f"half maps of different sides: {sorted(sides)}")
        return {half: FourierProjector.from_volume(volume, padding=2.0) for half, volume in self.volumes.items()}


@dataclass(frozen=True)
class Band:
    """The frequencies of one optics group that a fit uses: those of a half plane, without their conjugates.

    points : int [2, s], (kx, ky) in Fourier pixels of the group's images
    frequency : float64 [2, s], 1/A at the nominal pixel size
    shell : int [s]
    n : side of the images
    """

    points: Int64
    frequency: Float64
    shell: Int64
    n: int

    @classmethod
    def of(cls, n: int, pixel_size: float, coarsest: float, finest: float) -> Band:
        """Resolutions from `coarsest` to `finest` (A), within Nyquist's circle."""
        half = n // 2
        kx, ky = (k.ravel() for k in np.meshgrid(np.arange(half + 1), np.arange(-half + 1, half), indexing="xy"))
        radius = np.hypot(kx, ky)
        low, high = n * pixel_size / coarsest, min(n * pixel_size / finest, half - 1)
        keep = (radius >= max(low, 1)) & (radius <= high) & ((kx > 0) | (ky > 0))
        if keep.sum() < 50:
            raise InputError(
                f"{coarsest:g} to {finest:g} A leave {keep.sum()} frequencies of images of {n} px of {pixel_size:g} A; "
                "widen the range"
            )
        points = np.stack([kx[keep], ky[keep]]).astype(np.int64)
        return cls(points, points / (n * pixel_size), np.rint(radius[keep]).astype(np.int64), n)

    @property
    def size(self) -> int:
        """Number of frequencies."""
        return self.points.shape[1]

    def picture(self, values: npt.ArrayLike, *, odd: bool = False) -> Float64:
        """Values [..., s] on the whole plane [..., n, n], centred, NaN where there is none; `odd`: with the other sign opposite."""
        data = np.asarray(values, dtype=np.float64)
        out = np.full((*data.shape[:-1], self.n, self.n), np.nan)
        centre = self.n // 2
        out[..., centre - self.points[1], centre - self.points[0]] = -data if odd else data
        out[..., centre + self.points[1], centre + self.points[0]] = data
        return out


@dataclass
class Batch:
    """Particles of one optics group beside their predictions.

    rows : of the particle table
    images, predictions : complex64 [m, s], centred, origins and odd aberrations taken off; predictions without CTF
    phase : float32 [m, s], -gamma of the CTF without even Zernike terms: CTF = sin(phase)
    slope : complex64 [m, 2, s] or None; of the prediction, per 1/A of the reference's frequency
    """

    rows: Int64
    images: Complex64
    predictions: Complex64
    phase: Float32
    slope: Complex64 | None = None


class Observations:
    """Particles of one optics group, read batch by batch.

    Parameters
    ----------
    particles : the set, with poses and defoci
    group : the optics group, with its present aberrations
    references : maps
    coarsest, finest : A, of the frequencies that count
    folder : to which the paths of images are relative
    """

    def __init__(
        self,
        particles: ParticleSet,
        group: OpticsGroup,
        references: References,
        coarsest: float,
        finest: float,
        folder: str | os.PathLike[str] = ".",
    ) -> None:
        table = particles.particles
        missing = [f"_{name}" for name in NEEDED if name not in table]
        if missing:
            raise InputError(f"{particles.source}: column {', '.join(missing)} is missing; give refined particles")
        self.table = table
        self.group = group
        self.references = references
        self.rows = np.flatnonzero((table["rlnOpticsGroup"] == group.number).to_numpy())
        if len(self.rows) == 0:
            raise InputError(f"{particles.source}: optics group {group.name!r} has no particles")
        self._images = ParticleImages(table.iloc[self.rows], folder)
        if group.pixel_size is None:
            raise InputError(f"{particles.source}: optics group {group.name!r} states no _rlnImagePixelSize")
        self.pixel_size = group.pixel_size
        self.band = Band.of(self._images.n, self.pixel_size, coarsest, finest)
        if 0 in references.volumes:
            self._half = np.zeros(len(self.rows), dtype=np.int64)
        else:
            if "rlnRandomSubset" not in table:
                raise InputError(
                    f"{particles.source}: no column _rlnRandomSubset, so half maps cannot be told apart; give one map"
                )
            self._half = table["rlnRandomSubset"].to_numpy(dtype=np.int64)[self.rows]
            strange = sorted(set(self._half.tolist()) - set(references.volumes))
            if strange:
                raise InputError(f"{particles.source}: _rlnRandomSubset {strange[0]} has no half map")
        angles = (table[f"rlnAngle{name}"].to_numpy(dtype=float)[self.rows] for name in ("Rot", "Tilt", "Psi"))
        self._matrices = euler_matrix(*angles)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def stretched(self) -> Float64:
        """M k [2, s], 1/A."""
        return np.stack(magnified(self.group.magnification, *self.band.frequency))

    def basis(self, count: int, *, even: bool) -> Float64:
        """Zernike polynomials [count, s] at M k, as RELION counts them."""
        return zernike_basis(count, *self.stretched, even=even)

    def even_phase(self) -> Float64:
        """Phase [s] of the group's even coefficients, radians, added to gamma."""
        return even_phase(self.group, *self.stretched)

    def odd_phase(self) -> Float64:
        """Phase [s] of the group's odd coefficients and beam tilt, radians: images are multiplied by exp(i phase)."""
        return odd_phase(self.group, *self.stretched)

    def batches(self, table: pd.DataFrame | None = None, *, slopes: bool = False) -> Iterator[Batch]:
        """All particles. table : with newer defoci, if any"""
        source = self.table if table is None else table
        group, band = self.group, self.band
        x, y = self.stretched
        turned_back = np.exp(-1j * self.odd_phase()).astype(np.complex64)
        origin = source[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(dtype=float)[self.rows]
        u, v, angle = (source[f"rlnDefocus{name}"].to_numpy(dtype=float)[self.rows] for name in ("U", "V", "Angle"))
        shift = (
            source["rlnPhaseShift"].to_numpy(dtype=float)[self.rows] if "rlnPhaseShift" in source else np.zeros(len(u))
        )
        optics = Optics(group.voltage_kv, group.cs_mm, group.amplitude_contrast)
        k2, cos2, sin2 = x**2 + y**2, x**2 - y**2, 2 * x * y
        fixed = optics.constant_phase - optics.k4_factor * k2**2
        for first in range(0, len(self.rows), BATCH):
            part = slice(first, min(first + BATCH, len(self.rows)))
            transforms = centred_rfft2(self._images[part])[:, band.points[1], band.points[0]]
            transforms *= np.exp(-2j * np.pi * (origin[part] @ band.frequency)).astype(np.complex64) * turned_back
            mean, half = 0.5 * (u + v)[part, None], 0.5 * (u - v)[part, None]
            twice = 2 * np.deg2rad(angle[part, None])
            defocus_k2 = mean * k2 + half * (np.cos(twice) * cos2 + np.sin(twice) * sin2)
            phase = (optics.k2_factor * defocus_k2 + fixed + np.deg2rad(shift[part, None])).astype(np.float32)
            predictions, slope = self._predict(part, slopes)
            yield Batch(self.rows[part], transforms, predictions, phase, slope)

    def _predict(self, part: slice, slopes: bool) -> tuple[Complex64, Complex64 | None]:
        count = part.stop - part.start
        predictions = np.empty((count, self.band.size), dtype=np.complex64)
        slope = np.empty((count, 2, self.band.size), dtype=np.complex64) if slopes else None
        for half, projector in self.references.projectors.items():
            chosen = np.flatnonzero(self._half[part] != half) if half else np.arange(count)
            if len(chosen) == 0:
                continue
            matrices = self._matrices[part][chosen]
            field = projector.n * self.references.pixel_size
            points = self.stretched * field
            predictions[chosen] = _sample(projector, matrices, points)
            if slope is not None:
                for axis in (0, 1):
                    step = np.zeros((2, 1))
                    step[axis] = GRADIENT_STEP
                    ahead, behind = (_sample(projector, matrices, points + sign * step) for sign in (1, -1))
                    slope[chosen, axis] = (ahead - behind) * np.float32(field / (2 * GRADIENT_STEP))
        return predictions, slope


def _sample(projector: FourierProjector, matrices: Float64, points: Float64) -> Complex64:
    """Slices at (kx, ky) [2, s] anywhere within the projector's limit; beyond it 0."""
    inside = np.flatnonzero(np.hypot(*points) <= projector.max_radius)
    flipped = points[0, inside] < 0
    wanted = np.where(flipped, -points[:, inside], points[:, inside])
    values = projector.sample(matrices, wanted)
    out = np.zeros((len(matrices), points.shape[1]), dtype=np.complex64)
    out[:, inside] = np.where(flipped, np.conj(values), values)
    return out
