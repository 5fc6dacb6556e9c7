"""The search over a whole grid of poses, as matrix products over the low frequencies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.alignment.grids import VARIANT_MATRICES, ShiftGrid, rotation_quaternions
from nephila.alignment.samples import SampleSet
from nephila.kernels.candidates import find_shifts, highest_over_shifts, pick_candidates, spread_shifts
from nephila.kernels.pose import Particle
from nephila.projection import FourierProjector

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
TILE = 64  # references per product, so that the products stay in the cache


@dataclass(frozen=True)
class CoarseGrid:
    """References of a grid of orientations, split for the quarter-plane products (`nephila.kernels.candidates`).

    rotations : float64 [r, 3, 3], orientations of the references, view after view
    parts : float32 [4, r, q], even and odd real, even and odd imaginary parts
    squares : float32 [2, r, q], even and odd parts of the squared moduli
    pairs : int32 [q, 2], samples at (kx, ky) and (kx, -ky); -1 where these are one
    phases : float32 [q, 4, s], of the shifts, which count from the centre
    variants : 4, or 2 where mirror images are left out
    """

    rotations: Float64
    quaternions: Float32
    parts: Float32
    squares: Float32
    pairs: npt.NDArray[np.int32]
    phases: Float32
    shifts: Float64
    variants: int

    @classmethod
    def build(
        cls,
        projector: FourierProjector,
        samples: SampleSet,
        count: int,
        rotations: Float64,
        shift_grid: ShiftGrid,
        mirrors: bool = True,
    ) -> CoarseGrid:
        """Slice the references along `rotations` at the first `count` samples and split them."""
        band = samples.band
        kx, ky = band.column[:count].astype(np.int64), band.row[:count].astype(np.int64) - band.radius
        pairs = _mirror_pairs(kx, ky)
        parts = np.empty((4, len(rotations), len(pairs)), dtype=np.float32)
        squares = np.empty((2, len(rotations), len(pairs)), dtype=np.float32)
        frequencies = np.stack([band.kx[:count], band.ky[:count]])
        for first in range(0, len(rotations), 4096):
            part = slice(first, min(first + 4096, len(rotations)))
            _split_slices(
                projector.sample(rotations[part], frequencies), pairs, kx, ky, parts[:, part], squares[:, part]
            )
        variants = VARIANT_MATRICES[None] @ rotations[:, None]
        return cls(
            rotations,
            rotation_quaternions(variants.reshape(-1, 3, 3)),
            parts,
            squares,
            pairs,
            _shift_phases(kx[pairs[:, 0]], ky[pairs[:, 0]], shift_grid.shifts - band.n // 2, band.n),
            shift_grid.shifts,
            4 if mirrors else 2,
        )

    def norms(self, factors: Float32, batch: int) -> Float32:
        """Even and odd parts of the squared norms of the references times each CTF [b or 1, s]: [2, r, batch]."""
        plus, minus = self.pairs[:, 0], self.pairs[:, 1]
        power = np.zeros((batch, factors.shape[1]), dtype=np.float32)
        power[: max(len(factors), 1)] = factors**2
        if len(factors) == 1:
            power[:] = power[:1]
        first, second = power[:, plus], np.where(minus >= 0, power[:, minus], 0)
        sides = np.ascontiguousarray(np.stack([first + second, first - second]).transpose(0, 2, 1))
        return np.matmul(self.squares, sides)

    def search(
        self, particle: Particle, norms: Float32, candidates: int, separation_deg: float
    ) -> tuple[Float64, Float64, Float64, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The best poses of a batch of particles.

        Returns
        -------
        rotations [b, k, 3, 3], shifts [b, k, 2], matches [b, k] (correlation times the image's norm in the band),
        places [b, k] in references x 4 variants (-1 where there is none), and their number [b]
        """
        batch, count = len(particle.real), int(self.pairs.max()) + 1
        real = np.ascontiguousarray(particle.real[:, :count] * particle.ctf[:, :count])
        imag = np.ascontiguousarray(particle.imag[:, :count] * particle.ctf[:, :count])
        spread = np.empty((4, len(self.pairs), batch, len(self.shifts)), dtype=np.float32)
        spread_shifts(real, imag, self.pairs, self.phases, spread)
        columns = spread.reshape(4, len(self.pairs), -1)
        references = len(self.rotations)
        best = np.empty((batch, references, 4), dtype=np.float32)
        buffer = np.empty((4, TILE, columns.shape[2]), dtype=np.float32)
        for first in range(0, references, TILE):
            part = slice(first, min(first + TILE, references))
            products = buffer[:, : part.stop - first]
            np.matmul(self.parts[:, part], columns, out=products)
            highest_over_shifts(products.reshape(4, -1, batch, len(self.shifts)), best[:, part])
        chosen = np.empty((batch, candidates), dtype=np.int64)
        matches = np.empty((batch, candidates))
        cosine = float(np.cos(np.deg2rad(min(separation_deg, 180.0)) / 2))
        pick_candidates(best, norms, self.variants, self.quaternions, cosine, chosen, matches)
        which = np.empty_like(chosen)
        find_shifts(self.parts, spread, chosen, which)
        place = np.maximum(chosen, 0)
        rotations = VARIANT_MATRICES[place % 4] @ self.rotations[place // 4]
        return rotations, self.shifts[which], matches, chosen, (chosen >= 0).sum(axis=1)


def _mirror_pairs(kx: npt.NDArray[np.int64], ky: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Samples of the quarter plane and their partners across ky = 0; -1 for those on an axis."""
    place = {(int(x), int(y)): i for i, (x, y) in enumerate(zip(kx, ky, strict=True))}
    pairs = [
        (i, -1 if x == 0 or y == 0 else place[(int(x), -int(y))])
        for i, (x, y) in enumerate(zip(kx, ky, strict=True))
        if y >= 0
    ]
    return np.array(pairs, dtype=np.int32)


def _split_slices(
    slices: npt.NDArray[np.complex64],
    pairs: npt.NDArray[np.int32],
    kx: npt.NDArray[np.int64],
    ky: npt.NDArray[np.int64],
    parts: Float32,
    squares: Float32,
) -> None:
    """Fill even and odd parts of slices [r, s] and of their squared moduli."""
    plus = slices[:, pairs[:, 0]]
    minus = slices[:, pairs[:, 1]]
    parts[0], parts[1] = (plus.real + minus.real) / 2, (plus.real - minus.real) / 2
    parts[2], parts[3] = (plus.imag + minus.imag) / 2, (plus.imag - minus.imag) / 2
    p, m = np.abs(plus) ** 2, np.abs(minus) ** 2
    squares[0], squares[1] = (p + m) / 2, (p - m) / 2
    # mirroring (kx -> -kx) takes (kx, 0) to its conjugate and leaves (0, ky) as it is
    on_x, on_y = ky[pairs[:, 0]] == 0, kx[pairs[:, 0]] == 0
    for axis, imaginary in ((on_x, 2), (on_y, 3)):
        parts[:, :, axis] = 0
        parts[0][:, axis] = plus.real[:, axis]
        parts[imaginary][:, axis] = plus.imag[:, axis]
        squares[0][:, axis], squares[1][:, axis] = p[:, axis], 0


def _shift_phases(kx: npt.NDArray[np.int64], ky: npt.NDArray[np.int64], shifts: Float64, n: int) -> Float32:
    """exp(-2 pi i k.o / n) at (kx, ky) and (kx, -ky): [q, 4, s]."""
    along_x, along_y = np.outer(kx, shifts[:, 0]), np.outer(ky, shifts[:, 1])
    plus = np.exp(-2j * np.pi / n * (along_x + along_y))
    minus = np.exp(-2j * np.pi / n * (along_x - along_y))
    return np.stack([plus.real, plus.imag, minus.real, minus.imag], axis=1).astype(np.float32)
