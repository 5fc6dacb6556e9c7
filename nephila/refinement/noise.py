"""Noise spectrum of particle images, as what the aligned reference leaves of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.fourier import half_weights, shell_index_2d
from nephila.kernels.residual import add_residual_power, shell_counts

Float = npt.NDArray[np.float64]
STEP = 2.0**-20


@dataclass
class NoiseSum:
    """Power by shell summed over particles, in whole numbers of STEP, so that sums over chunks are exact.

    residual, signal: int64 [n // 2 + 1], of transforms divided by the number of pixels and samples; particles: how many.
    """

    residual: npt.NDArray[np.int64]
    signal: npt.NDArray[np.int64]
    particles: int

    @classmethod
    def empty(cls, n: int) -> NoiseSum:
        """No particles of side n."""
        zero = np.zeros(n // 2 + 1, dtype=np.int64)
        return cls(zero, zero.copy(), 0)

    @classmethod
    def zero_like(cls, other: NoiseSum) -> NoiseSum:
        """No particles, of the side of another's."""
        return cls(np.zeros_like(other.residual), np.zeros_like(other.signal), 0)

    def add(self, other: NoiseSum) -> NoiseSum:
        """Add another sum in place and return self."""
        self.residual += other.residual
        self.signal += other.signal
        self.particles += other.particles
        return self

    @property
    def noise(self) -> Float:
        """Mean noise power per shell; white noise of standard deviation 1 gives 1."""
        return self.residual * STEP / max(self.particles, 1)

    @property
    def signal_power(self) -> Float:
        """Mean power of the fitted model per shell, in the same unit."""
        return self.signal * STEP / max(self.particles, 1)


@dataclass(frozen=True)
class ParticleFit:
    """What a reference leaves of single particles.

    level: power of the residual over that of the noise spectrum given, mean over samples [m]; amplitude, error: least-squares
    amplitude of the reference's projection and its standard error [m] (0 where the projection is empty).
    """

    level: Float
    amplitude: Float
    error: Float

    @classmethod
    def join(cls, parts: list[ParticleFit]) -> ParticleFit:
        """Those of several stretches of a table, one after the other."""
        return cls(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("level", "amplitude", "error"))
        )


def measure_noise(
    images_ft: npt.NDArray[np.complex64],
    slices: npt.NDArray[np.complex64],
    ctf: npt.NDArray[np.float32],
    shifts_px: Float,
    band: int,
) -> NoiseSum:
    """Noise of images [m, n, n // 2 + 1] (centred transforms) against CTF-multiplied slices that are zero beyond `band`.

    `shifts_px` [m, 2] are the origins (x, y) that bring the particles to the centre; each image's amplitude is fitted.
    """
    return fit_particles(images_ft, slices, ctf, shifts_px, band, np.ones(images_ft.shape[1] // 2 + 1))[0]


def fit_particles(
    images_ft: npt.NDArray[np.complex64],
    slices: npt.NDArray[np.complex64],
    ctf: npt.NDArray[np.float32],
    shifts_px: Float,
    band: int,
    noise: Float,
) -> tuple[NoiseSum, ParticleFit]:
    """`measure_noise` with samples weighted by what is known of the noise (power by shell), and each particle's own numbers."""
    m, n = images_ft.shape[:2]
    residual = np.zeros((m, n // 2 + 1), dtype=np.float64)
    signal, fit = np.zeros_like(residual), np.zeros((m, 2))
    # image(x) = P(x + o), so the image's transform times exp(-2 pi i k.o / n) is the centred particle's
    phase_x = np.exp(-2j * np.pi * np.arange(n // 2 + 1)[None, :] * shifts_px[:, :1] / n).astype(np.complex64)
    phase_y = np.exp(-2j * np.pi * np.fft.fftfreq(n)[None, :] * shifts_px[:, 1:]).astype(np.complex64)
    weights = 1.0 / (np.asarray(noise, dtype=np.float64) * n * n)
    add_residual_power(
        images_ft, slices, ctf, phase_x, phase_y, shell_index_2d(n), half_weights(n), weights, band, residual, signal, fit
    )  # fmt: skip
    counts = shell_counts(n)
    scale = 1.0 / (counts * n * n)
    # per particle in whole numbers: the sum over particles then does not depend on how they are cut into chunks
    total = NoiseSum(
        np.rint(residual * scale / STEP).astype(np.int64).sum(axis=0),
        np.rint(signal * scale / STEP).astype(np.int64).sum(axis=0),
        m,
    )
    # sums of products, not a matrix product, whose order of additions may depend on the number of rows
    level = (residual[:, 1:] * weights[None, 1:]).sum(axis=1) / counts[1:].sum()
    error = np.where(fit[:, 1] > 0, 1.0 / np.sqrt(np.maximum(fit[:, 1], 1e-300)), 0.0)
    return total, ParticleFit(level, fit[:, 0], error)
