"""An object of points, whose transform is known exactly at every frequency: for tests of optics, where interpolation would show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.fourier import centred_irfftn

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]


@dataclass(frozen=True)
class PointObject:
    """Points in a ball, blurred by exp(-B k^2 / 4).

    Attributes
    ----------
    positions : [g, 3], (x, y, z) in A about the centre
    weights : [g]
    b_factor : A^2
    """

    positions: Float64
    weights: Float64
    b_factor: float

    @classmethod
    def random(cls, radius: float, count: int = 300, b_factor: float = 20.0, seed: int = 0) -> PointObject:
        """Points evenly in a ball of `radius` A about their centre of mass, of unlike weights."""
        rng = np.random.default_rng([seed, 211])
        directions = rng.normal(size=(count, 3))
        positions = directions / np.linalg.norm(directions, axis=1)[:, None]
        positions *= radius * rng.uniform(0, 1, (count, 1)) ** (1 / 3)
        weights = rng.uniform(0.5, 1.5, count)
        return cls(positions - np.average(positions, axis=0, weights=weights), weights, b_factor)

    def transform(self, frequencies: npt.ArrayLike) -> Complex64:
        """Centred transform at frequencies [..., 3] (1/A), complex64 [...]."""
        k = np.asarray(frequencies, dtype=np.float64)
        phase = k @ self.positions.T
        values = np.exp(-2j * np.pi * phase) @ self.weights
        return (values * np.exp(-0.25 * self.b_factor * (k**2).sum(axis=-1))).astype(np.complex64)

    def slices(
        self, matrices: Float64, n: int, pixel_size: float, magnification: npt.ArrayLike | None = None
    ) -> Complex64:
        """Centred half transforms [m, n, n // 2 + 1] of projections along matrices [m, 3, 3], up to Nyquist's circle.

        magnification : [2, 2]; the object is seen at frequencies M k
        """
        ky, kx, inside = _half_grid(n, pixel_size)
        stretch = np.eye(2) if magnification is None else np.asarray(magnification, dtype=np.float64).reshape(2, 2)
        out = np.empty((len(matrices), n, n // 2 + 1), dtype=np.complex64)
        radius2 = ((stretch @ np.stack([kx + 0 * ky, ky + 0 * kx]).reshape(2, -1)) ** 2).sum(axis=0).reshape(n, -1)
        envelope = inside * np.exp(-0.25 * self.b_factor * radius2)
        for i, matrix in enumerate(matrices):
            # M k . r = k . M^T r, so the stretch acts on the points, and the phases part into rows and columns
            seen = (self.positions @ np.asarray(matrix, dtype=np.float64).T)[:, :2] @ stretch
            columns = np.exp(-2j * np.pi * kx.T * seen[:, 0]).astype(np.complex64)
            rows = np.exp(-2j * np.pi * ky * seen[:, 1]).astype(np.complex64)
            out[i] = (rows * self.weights.astype(np.float32)) @ columns.T * envelope
        return out

    def volume(self, n: int, pixel_size: float) -> Float32:
        """float32 [n, n, n], scaled so that its projections have the transforms of `slices`."""
        k, half = np.fft.fftfreq(n, pixel_size), np.fft.rfftfreq(n, pixel_size)
        x = np.exp(-2j * np.pi * half[:, None] * self.positions[:, 0]).astype(np.complex64)
        y = np.exp(-2j * np.pi * k[:, None] * self.positions[:, 1]).astype(np.complex64)
        z = np.exp(-2j * np.pi * k[:, None] * self.positions[:, 2]).astype(np.complex64)
        radius2 = (k[:, None] ** 2)[:, :, None] + (k[None, :] ** 2)[:, :, None] + half[None, None, :] ** 2
        whole = np.stack([(z_row * self.weights * y) @ x.T for z_row in z])
        whole *= np.exp(-0.25 * self.b_factor * radius2) * (radius2 < (0.5 / pixel_size) ** 2)
        return centred_irfftn(whole.astype(np.complex64), n)


def _half_grid(n: int, pixel_size: float) -> tuple[Float64, Float64, npt.NDArray[np.bool_]]:
    """ky [n, 1] and kx [1, n // 2 + 1] in 1/A, and what lies within Nyquist's circle."""
    ky = np.fft.fftfreq(n, pixel_size)[:, None].astype(np.float64)
    kx = np.fft.rfftfreq(n, pixel_size)[None, :].astype(np.float64)
    return ky, kx, kx**2 + ky**2 < (0.5 / pixel_size) ** 2
