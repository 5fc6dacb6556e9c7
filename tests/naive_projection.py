"""The obvious slow forms of projection and of the search over poses, and a phantom whose projections are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.kernels.kaiser import kaiser_bessel
from nephila.projection import FourierProjector

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Blobs:
    """Equal Gaussians at positions [g, 3] (x, y, z), pixels from the centre; asymmetric, so that the hand shows."""

    positions: Float
    weights: Float
    sigma: float

    @classmethod
    def random(cls, n: int, count: int = 60, seed: int = 0, sigma: float = 1.5) -> Blobs:
        rng = np.random.default_rng([seed, 11])
        clusters = rng.normal(size=(6, 3)) * 0.14 * n
        positions = clusters[rng.integers(0, 6, count)] + rng.normal(size=(count, 3)) * 0.05 * n
        radius = np.linalg.norm(positions, axis=1)
        positions *= np.minimum(1.0, 0.32 * n / np.maximum(radius, 1e-9))[:, None]
        return cls(positions, rng.uniform(0.5, 1.5, count), sigma)

    def _profile(self, n: int, centres: Float) -> Float:
        return np.exp(-0.5 * ((np.arange(n) - n // 2 - centres[..., None]) / self.sigma) ** 2)

    def volume(self, n: int) -> npt.NDArray[np.float32]:
        x, y, z = (self._profile(n, self.positions[:, i]) for i in range(3))
        return np.einsum("g,gz,gy,gx->zyx", self.weights, z, y, x, optimize=True).astype(np.float32)

    def projection(self, n: int, matrix: Float, shift: npt.ArrayLike = (0.0, 0.0)) -> Float:
        """Exact line integrals; `image(x) = P(x + shift)`."""
        centres = (self.positions @ np.asarray(matrix).T)[:, :2] - np.asarray(shift)
        x, y = self._profile(n, centres[:, 0]), self._profile(n, centres[:, 1])
        return np.einsum("g,gy,gx->yx", self.weights, y, x) * np.sqrt(2 * np.pi) * self.sigma


def transform_at(volume: npt.NDArray[np.float32], points: Float) -> npt.NDArray[np.complex128]:
    """The volume's transform about its centre at points [s, 3] (x, y, z) in Fourier pixels: the sum, term by term."""
    n = volume.shape[0]
    waves = [np.exp(-2j * np.pi / n * np.outer(points[:, i], np.arange(n) - n // 2)) for i in range(3)]
    return np.einsum("zyx,sz,sy,sx->s", volume, waves[2], waves[1], waves[0], optimize=True)


def slice_sample(projector: FourierProjector, matrix: Float, kx: float, ky: float) -> complex:
    """One sample of a slice, tap by tap, as `nephila.kernels.taps` describes it."""
    x, y, z = projector.padding * (kx * matrix[0] + ky * matrix[1])
    negative = x < 0
    if negative:
        x, y, z = -x, -y, -z
    total = 0j
    for c in range(int(np.floor(z)) - 1, int(np.floor(z)) + 3):
        for b in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
            for a in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                weight = np.prod(kaiser_bessel([x - a, y - b, z - c], 4, projector.beta))
                total += weight * projector.transform[c + projector.origin, b + projector.origin, a + 1]
    return complex(np.conj(total)) if negative else complex(total)


def correlation(
    image: npt.NDArray[np.complex128], model: npt.NDArray[np.complex128], weights: Float | float = 1.0
) -> float:
    """Normalised correlation of two sets of samples."""
    product = np.sum(weights * np.real(np.conj(model) * image))
    power = np.sum(weights * np.abs(image) ** 2) * np.sum(weights * np.abs(model) ** 2)
    return float(product / np.sqrt(power))


def half_plane(n: int, band: int) -> tuple[Float, Float, npt.NDArray[np.int64]]:
    """kx, ky and flat places of the samples of the open half plane within a band."""
    samples = [
        (kx, ky, (ky % n) * (n // 2 + 1) + kx)
        for kx in range(band + 1)
        for ky in range(-band, band + 1)
        if (kx > 0 or ky > 0) and np.hypot(kx, ky) <= band and 2 * kx < n and 2 * abs(ky) < n
    ]
    kx, ky, place = np.array(samples).T
    return kx.astype(float), ky.astype(float), place


def best_on_grid(
    image_ft: npt.NDArray[np.complex128],
    ctf: Float,
    projector: FourierProjector,
    matrices: Float,
    shifts: Float,
    band: int,
) -> tuple[int, int, float]:
    """Best of all matrices and shifts for one centred half transform: indices and correlation."""
    n = projector.n
    kx, ky, place = half_plane(n, band)
    image, factors = image_ft.ravel()[place], ctf.ravel()[place]
    best = (0, 0, -2.0)
    for i, matrix in enumerate(matrices):
        model = projector.sample(matrix[None], np.stack([kx, ky]))[0] * factors
        for j, (ox, oy) in enumerate(shifts):
            value = correlation(image, model * np.exp(2j * np.pi / n * (kx * ox + ky * oy)))
            if value > best[2]:
                best = (i, j, value)
    return best
