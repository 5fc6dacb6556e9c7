"""Particles as classification sees them: Fourier-cropped to what it looks at, by half-set, with their poses in each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.alignment import Poses
from nephila.ctf import Optics
from nephila.fast_sides import good_box
from nephila.fourier import centred_rfft2, fourier_resize_image, frequency_radius_2d, shift_phases
from nephila.io.mrc import stack_writer
from nephila.particle_images import ParticleImages, image_name
from nephila.particle_sums import CtfMode, ctf_planes, particle_weights, pose_matrices, pose_shifts
from nephila.plan import BLOCK
from nephila.projection import FourierProjector

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]

LEAST_BAND = 6
PORTION = 16 * BLOCK


@dataclass(frozen=True)
class Frame:
    """The sampling at which particles are classified.

    n: side, px; pixel_size: A; band: finest shell, Fourier px; noise: power by shell [n // 2 + 1], 1 for white noise of
    deviation 1; optics; ctf: as refinement.ctf; symmetry: point group of the maps
    """

    n: int
    pixel_size: float
    band: int
    noise: Float64
    optics: Optics
    ctf: CtfMode
    symmetry: str

    @classmethod
    def of(
        cls, box: int, pixel_size: float, resolution: float, noise: Float64, optics: Optics, ctf: CtfMode, symmetry: str
    ) -> Frame:
        """The smallest good box that holds `resolution` (A) of windows of side `box`; noise [box // 2 + 1]."""
        band = int(np.clip(round(box * pixel_size / resolution), LEAST_BAND, box // 2 - 1))
        n = min(good_box(2 * band + 6), box)
        return cls(n, pixel_size * box / n, band, np.asarray(noise[: n // 2 + 1]), optics, ctf, symmetry)

    def root_weights(self) -> Float32:
        """Root of the weight of each sample of a half transform [n, n // 2 + 1], such that the log likelihood of an image is
        minus the weighted power of what a model leaves of it."""
        radius = frequency_radius_2d(self.n)
        inside = (radius > 0) & (radius <= self.band)
        weights = inside / (np.interp(radius, np.arange(len(self.noise)), self.noise) * self.n**2)
        weights[:, 0] *= 0.5  # both halves of that column are there
        return np.sqrt(weights).astype(np.float32)


def portions(rows: int) -> list[slice]:
    """Slices of PORTION rows."""
    return [slice(first, min(first + PORTION, rows)) for first in range(0, rows, PORTION)]


def shrink_images(table: pd.DataFrame, frame: Frame, path: Path) -> pd.DataFrame:
    """Write the particles' windows cropped to the frame, on the same grey scale (noise of deviation 1), and return their table."""
    with stack_writer(path, (len(table), frame.n, frame.n), frame.pixel_size, "float32") as stack:
        for part in portions(len(table)):
            # opened anew for each portion: what was read of a memory-mapped stack stays in memory while it is open
            images = ParticleImages(table.iloc[part])
            for first in range(0, len(images), BLOCK):
                windows = images[first : first + BLOCK]
                # resizing keeps values; noise of deviation 1 in all pixels is to keep that instead
                small = fourier_resize_image(windows, frame.n) * np.float32(images.n / frame.n)
                stack[part.start + first : part.start + first + len(small)] = small
    return table.assign(rlnImageName=[image_name(i, path) for i in range(len(table))])


class Particles:
    """The particles of one half-set: images in the frame, poses in each class.

    matrices : K arrays [m, 3, 3]; shifts : K arrays [m, 2], px of the frame
    """

    def __init__(self, table: pd.DataFrame, frame: Frame, classes: int) -> None:
        self.table, self.frame = table.reset_index(drop=True), frame
        self.images = ParticleImages(self.table)
        self.matrices: list[Float64] = [pose_matrices(self.table)] * classes
        self.shifts: list[Float64] = [pose_shifts(self.table, frame.pixel_size)] * classes
        self.weights = particle_weights(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def of(self, rows: npt.NDArray[np.int64]) -> Particles:
        """Some of them, in the poses of their table."""
        return Particles(self.table.iloc[rows], self.frame, len(self.matrices))

    def move(self, class_index: int, rows: npt.NDArray[np.int64] | None, poses: Poses) -> None:
        """New poses in a class, of some rows or all."""
        chosen = slice(None) if rows is None else rows
        matrices, shifts = self.matrices[class_index].copy(), self.shifts[class_index].copy()
        matrices[chosen], shifts[chosen] = poses.matrices, poses.shifts
        self.matrices[class_index], self.shifts[class_index] = matrices, shifts

    def planes(self, first: int, last: int) -> Float32:
        """CTFs [1 or m, n, n // 2 + 1] of some rows."""
        frame = self.frame
        return ctf_planes(self.table.iloc[first:last], frame.n, frame.pixel_size, frame.optics, frame.ctf)

    def blocks(self) -> Iterator[tuple[slice, Complex64, Float32]]:
        """Rows, centred transforms and CTFs, block by block."""
        for first in range(0, len(self), BLOCK):
            last = min(first + BLOCK, len(self))
            yield slice(first, last), centred_rfft2(self.images[first:last]), self.planes(first, last)

    def centre(self, transforms: Complex64, rows: slice, class_index: int) -> Complex64:
        """Transforms of some rows with the particle moved to the centre."""
        return transforms * shift_phases(self.frame.n, *self.shifts[class_index][rows].T)


def inner_products(particles: Particles, volumes: Sequence[Float32], same_pose: bool) -> tuple[Float64, Float64]:
    """Products of images with projections of q volumes times CTF, and of these with each other, weighted by the noise.

    Volume i is seen in the pose of class i, or all in that of the first class (`same_pose`).

    Returns
    -------
    cross [m, q] : Re <projection, image>; gram [m, q, q] : Re <projection, projection>
    """
    frame, q = particles.frame, len(volumes)
    projectors = [FourierProjector.from_volume(volume, max_radius=frame.band) for volume in volumes]
    root = frame.root_weights()
    keep = np.flatnonzero(root)
    root = root.ravel()[keep]
    cross, gram = np.zeros((len(particles), q)), np.zeros((len(particles), q, q))
    for rows, transforms, planes in particles.blocks():
        number = rows.stop - rows.start
        models = np.empty((number, q, len(keep)), dtype=np.complex64)
        factor = planes.reshape(len(planes), -1)[:, keep] * root
        centred: Complex64 | None = None
        for index, projector in enumerate(projectors):
            place = 0 if same_pose else index
            slices = projector.slices(particles.matrices[place][rows], frame.band)
            models[:, index] = slices.reshape(number, -1)[:, keep] * factor
            if centred is None or (not same_pose and particles.shifts[place] is not particles.shifts[0]):
                centred = particles.centre(transforms, rows, place).reshape(number, -1)[:, keep] * root
            cross[rows, index] = np.einsum("mp,mp->m", models[:, index].conj(), centred, optimize=True).real
        real = models.view(np.float32)
        gram[rows] = real @ real.transpose(0, 2, 1)
    return cross, gram
