"""Simulated particles whose projections are known exactly, in memory and as RELION's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.alignment import ParticleCtfs
from nephila.ctf import Optics, ctf_2d
from nephila.fourier import centred_irfft2, centred_rfft2
from nephila.geometry import euler_matrix
from nephila.io.mrc import stack_writer, write_volume
from nephila.io.tables import write_blocks

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

OPTICS = Optics(300.0, 2.7, 0.1)
FIELD_A = 360.0  # side of the box in A, whatever its pixels
SIGMA_PX = 1.2
_BLOCK_PIXELS = 2**23


@dataclass(frozen=True)
class Phantom:
    """400 equal Gaussians in 12 clusters, without symmetry, in a box of side n; positions [g, 3] (x, y, z), px."""

    n: int
    positions: Float64
    weights: Float64

    @classmethod
    def random(cls, n: int, seed: int = 0, count: int = 400) -> Phantom:
        rng = np.random.default_rng([seed, 101])
        clusters = rng.normal(size=(12, 3)) * 0.14
        positions = clusters[rng.integers(0, 12, count)] + rng.normal(size=(count, 3)) * 0.05
        radius = np.linalg.norm(positions, axis=1)
        positions *= np.minimum(1.0, 0.3 / np.maximum(radius, 1e-9))[:, None]
        return cls(n, (positions - positions.mean(axis=0)) * n, rng.uniform(0.5, 1.5, count))

    @property
    def pixel_size(self) -> float:
        return FIELD_A / self.n

    def volume(self) -> Float32:
        """float32 [n, n, n]."""
        x, y, z = (self._profile(self.positions[:, axis]) for axis in range(3))
        return np.einsum("g,gz,gy,gx->zyx", self.weights, z, y, x, optimize=True).astype(np.float32)

    def projections(self, matrices: Float64, shifts: Float64 | None = None) -> Float32:
        """Exact line integrals float32 [m, n, n]; `image(x) = P(x + shift)`."""
        out = np.empty((len(matrices), self.n, self.n), dtype=np.float32)
        scale = self.weights * np.sqrt(2 * np.pi) * SIGMA_PX
        for i, matrix in enumerate(matrices):
            centres = (self.positions @ matrix.T)[:, :2] - (0.0 if shifts is None else shifts[i])
            x, y = self._profile(centres[:, 0]), self._profile(centres[:, 1])
            out[i] = (y * scale[:, None]).T.astype(np.float32) @ x.astype(np.float32)
        return out

    def _profile(self, centres: Float64) -> Float64:
        return np.exp(-0.5 * ((np.arange(self.n) - self.n // 2 - centres[:, None]) / SIGMA_PX) ** 2)


@dataclass(frozen=True)
class ParticleSet:
    """m particles: images with CTF and white noise, angles in degrees [m, 3], shifts in pixels [m, 2]."""

    phantom: Phantom
    images: Float32
    angles: Float64
    shifts: Float64
    ctfs: ParticleCtfs

    @classmethod
    def simulate(
        cls,
        phantom: Phantom,
        m: int,
        snr: float | None,
        *,
        seed: int = 0,
        shift_px: float = 4.0,
        cone_share: float = 0.0,
        ctf: bool = True,
    ) -> ParticleSet:
        """Orientations even over the sphere, of a share of them within 26 degrees of the z axis; shifts in +-shift_px.

        snr : variance of the projections with their CTF over that of the noise, over the whole box; none: no noise
        """
        rng = np.random.default_rng([seed, 103])
        # rounded as in the STAR file, so that every program works on the same numbers
        cosine = rng.uniform(-1, 1, m)
        inside = round(cone_share * m)
        cosine[:inside] = rng.uniform(0.9, 1, inside)
        tilt = np.rad2deg(np.arccos(cosine))
        angles = np.stack([rng.uniform(-180, 180, m), tilt, rng.uniform(-180, 180, m)], axis=1).round(4)
        pixel = phantom.pixel_size
        shifts = (rng.uniform(-shift_px, shift_px, (m, 2)) * pixel).round(4) / pixel
        defocus = rng.uniform(10000, 25000, m).round(1)
        ctfs = ParticleCtfs(defocus + 200, defocus - 200, rng.uniform(0, 180, m).round(3), OPTICS, pixel)
        images = np.empty((m, phantom.n, phantom.n), dtype=np.float32)
        matrices = euler_matrix(*angles.T)
        block = max(1, _BLOCK_PIXELS // phantom.n**2)
        for first in range(0, m, block):
            part = slice(first, first + block)
            images[part] = phantom.projections(matrices[part], shifts[part])
            if ctf:
                factors = _planes(ctfs, phantom.n, part)
                images[part] = centred_irfft2(centred_rfft2(images[part]) * factors, phantom.n)
        if snr is not None:
            deviation = np.float32(np.sqrt(images.var(axis=(1, 2)).mean() / snr))
            for image in images:
                image += deviation * rng.standard_normal(image.shape, dtype=np.float32)
        return cls(phantom, images, angles, shifts, ctfs)

    @property
    def matrices(self) -> Float64:
        return euler_matrix(*self.angles.T)

    def ctf_planes(self, part: slice = slice(None)) -> Float32:
        """CTFs float32 [m, n, n // 2 + 1]."""
        return _planes(self.ctfs, self.phantom.n, part)

    def write(self, folder: Path) -> None:
        """`particles.mrcs`, `particles.star` and `map.mrc`, as RELION 3.1 reads them."""
        n, pixel = self.phantom.n, self.phantom.pixel_size
        write_volume(folder / "map.mrc", self.phantom.volume(), pixel)
        with stack_writer(folder / "particles.mrcs", self.images.shape, pixel, "float32") as stack:
            stack[:] = self.images
        self.write_table(folder / "particles.star", n, pixel, len(self.images))

    def write_table(self, path: Path, n: int, pixel: float, count: int) -> None:
        """The first `count` rows as a STAR file."""
        optics = pd.DataFrame(
            {
                "rlnOpticsGroup": [1],
                "rlnOpticsGroupName": ["opticsGroup1"],
                "rlnVoltage": [OPTICS.voltage_kv],
                "rlnSphericalAberration": [OPTICS.cs_mm],
                "rlnAmplitudeContrast": [OPTICS.amplitude_contrast],
                "rlnImagePixelSize": [pixel],
                "rlnImageSize": [n],
                "rlnImageDimensionality": [2],
            }
        )
        particles = pd.DataFrame(
            {
                "rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(count)],
                "rlnMicrographName": "micrograph.mrc",
                "rlnAngleRot": self.angles[:count, 0],
                "rlnAngleTilt": self.angles[:count, 1],
                "rlnAnglePsi": self.angles[:count, 2],
                "rlnOriginXAngst": (self.shifts[:count, 0] * pixel).round(4),
                "rlnOriginYAngst": (self.shifts[:count, 1] * pixel).round(4),
                "rlnDefocusU": self.ctfs.defocus_u[:count],
                "rlnDefocusV": self.ctfs.defocus_v[:count],
                "rlnDefocusAngle": self.ctfs.angle_deg[:count],
                "rlnOpticsGroup": 1,
            }
        )
        write_blocks(path, {"optics": optics, "particles": particles})


def _planes(ctfs: ParticleCtfs, n: int, part: slice) -> Float32:
    return ctf_2d(n, ctfs.pixel_size, ctfs.defocus_u[part], ctfs.defocus_v[part], ctfs.angle_deg[part], ctfs.optics)
