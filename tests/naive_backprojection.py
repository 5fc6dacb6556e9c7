"""The obvious slow forms of backprojection, symmetry and FSC, and a phantom whose projections are known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.kernels.kaiser import kaiser_bessel, kaiser_bessel_beta
from nephila.partial_sum import GridShape

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]


@dataclass(frozen=True)
class GaussianPhantom:
    """Gaussians: positions [g, 3] (x, y, z) in px from the centre, sigma in px, amplitude; transforms in closed
    form."""

    positions: Float64
    sigma: Float64
    amplitude: Float64

    @classmethod
    def random(cls, n: int, count: int = 40, seed: int = 0, sigma: tuple[float, float] = (1.0, 2.0)) -> GaussianPhantom:
        rng = np.random.default_rng([seed, 4])
        directions = rng.normal(size=(count, 3))
        radius = 0.3 * n * rng.random(count) ** (1 / 3)
        positions = directions * (radius / np.linalg.norm(directions, axis=1))[:, None]
        return cls(positions, rng.uniform(*sigma, count), rng.uniform(0.5, 1.5, count))

    def repeated(self, matrices: npt.ArrayLike) -> GaussianPhantom:
        copies = np.einsum("gij,nj->gni", np.asarray(matrices), self.positions).reshape(-1, 3)
        times = len(copies) // len(self.positions)
        return GaussianPhantom(copies, np.tile(self.sigma, times), np.tile(self.amplitude, times))

    def transform(self, n: int, points: Float64) -> npt.NDArray[np.complex128]:
        """Centred transform at `points` [..., 3] (x, y, z) in Fourier px of the box n."""
        k = points / n
        k2 = (k**2).sum(-1)
        out = np.zeros(k2.shape, dtype=np.complex128)
        for position, sigma, amplitude in zip(self.positions, self.sigma, self.amplitude, strict=True):
            height = amplitude * (2 * np.pi * sigma**2) ** 1.5
            out += height * np.exp(-2 * np.pi**2 * sigma**2 * k2 - 2j * np.pi * (k @ position))
        return out

    def slices(self, n: int, matrices: npt.ArrayLike) -> Complex64:
        """Centred half transforms [m, n, n // 2 + 1] of projections."""
        ky, kx = np.meshgrid(np.fft.fftfreq(n, 1 / n), np.arange(n // 2 + 1), indexing="ij")
        out = [self.transform(n, kx[..., None] * a[0] + ky[..., None] * a[1]) for a in np.asarray(matrices)]
        return np.asarray(out).reshape(-1, n, n // 2 + 1).astype(np.complex64)

    def volume(self, n: int) -> Float32:
        """The band-limited volume [n, n, n]."""
        k = np.fft.fftfreq(n, 1 / n)
        z, y, x = np.meshgrid(k, k, np.arange(n // 2 + 1), indexing="ij")
        transform = self.transform(n, np.stack([x, y, z], axis=-1))
        return np.fft.fftshift(np.fft.irfftn(transform, s=(n, n, n), axes=(0, 1, 2))).astype(np.float32)


def random_matrices(m: int, seed: int = 0) -> Float64:
    """Rotations drawn evenly from all, float64 [m, 3, 3]."""
    q = np.random.default_rng([seed, 5]).normal(size=(m, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1)[:, None]).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def grid_slices(
    images: Complex64, matrices: Float64, ctf: Float32, weights: Float64, noise_weights: Float64, grid: GridShape
) -> tuple[npt.NDArray[np.complex128], Float64]:
    """Numerator and denominator on the whole padded grid, index -n_pad // 2 ... n_pad // 2 - 1 as numpy counts them.

    Every sample of the whole (not the half) transform is spread over the 8 nearest cells.
    """
    n, side = grid.n, grid.n_pad
    numerator = np.zeros((side, side, side), dtype=np.complex128)
    denominator = np.zeros((side, side, side))
    beta = kaiser_bessel_beta(2, grid.padding)
    for image, a, c, weight in zip(images, matrices, ctf, weights, strict=True):
        for ky in range(-((n - 1) // 2), (n - 1) // 2 + 1):
            for kx in range(-((n - 1) // 2), (n - 1) // 2 + 1):
                radius = np.hypot(kx, ky)
                if radius > grid.max_radius:
                    continue
                value, plane = (image[ky, kx], c[ky, kx]) if kx >= 0 else (np.conj(image[-ky, -kx]), c[-ky, -kx])
                r = weight * np.interp(radius, np.arange(n // 2 + 1), noise_weights)
                position = grid.padding * (kx * a[0] + ky * a[1])
                base = np.floor(position).astype(int)
                for corner in np.ndindex(2, 2, 2):
                    cell = base + corner
                    tap = float(np.prod(kaiser_bessel(position - cell, 2, beta)))
                    numerator[cell[2], cell[1], cell[0]] += tap * r * plane * value
                    denominator[cell[2], cell[1], cell[0]] += tap * r * plane**2
    # a sample that sits on a cell has its window's rim on one side only; its mate has it on the other
    mirror = np.ix_(*[(-np.arange(side)) % side] * 3)
    return (numerator + numerator[mirror].conj()) / 2, (denominator + denominator[mirror]) / 2


def shell_correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> Float64:
    """FSC from whole complex transforms, shell by shell."""
    first, second = np.fft.fftn(np.asarray(a, np.float64)), np.fft.fftn(np.asarray(b, np.float64))
    n = first.shape[0]
    k = np.fft.fftfreq(n, 1 / n)
    shells = np.rint(np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2))
    curve = []
    for shell in range(n // 2 + 1):
        p, q = first[shells == shell], second[shells == shell]
        curve.append(np.sum(p * q.conj()).real / np.sqrt(np.sum(np.abs(p) ** 2) * np.sum(np.abs(q) ** 2)))
    return np.array(curve)
