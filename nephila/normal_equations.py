"""The normal equations of reconstruction, `A v = b`, from sums of Fourier slices, and their solution by conjugate
gradients.

b is the transform of N, and A the convolution with the transform of D (Toeplitz form): a product costs two transforms
of the padded grid, whatever the number of particles. Source: Fessler & Sutton (2003), IEEE Trans. Signal Process. 51,
560.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nephila.fourier import (
    centred_irfftn,
    centred_rfftn,
    cropped_irfftn,
    frequency_radius_3d,
    irfftn,
    padded_rfftn,
    rfftn,
)
from nephila.kernels.gridding import shell_totals

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]


class NormalEquations:
    """`A v = b` for volumes v within a mask, float32 [side, side, side]."""

    def __init__(
        self,
        numerator: Complex64,
        denominator: Float32,
        added: Float64,
        radius_cells: float,
        window: Float64,
        mask: Float32,
        threads: int = 1,
        spread: Float64 | None = None,
    ) -> None:
        """Take sums apart into b and A; `denominator` is overwritten.

        Args:
            numerator, denominator: half transforms of side M, as `PartialSum.expand` gives them.
            added: what is added to D, per cell of |k| (interpolated; the last value holds beyond).
            radius_cells: largest |k| that was measured. Beyond it A has its mean value at the rim, which pulls to 0.
            window: the gridding window's transform along one axis of the volume [side].
            mask: [side, side, side], 0 to 1: where the object may be.
            spread: what the gridding window did to D in real space, along one axis of the padded volume [M], centred at
                M // 2: it is taken out of D's deviations from its mean over |k|. (The mean is wide in real space, where
                the padded volume's copies overlap; taking the window out there would make it worse.) None: D as it is.
        """
        self.n_pad, self.side, self.mask, self.threads = numerator.shape[0], len(window), mask, threads
        inverse = (1.0 / window).astype(np.float32)
        self.right = cropped_irfftn(numerator, self.side, threads)
        self.right *= inverse[:, None, None] * inverse[None, :, None] * inverse[None, None, :]
        self.right *= mask
        total, count = shell_totals(denominator, 1.0, int(radius_cells) + 2)
        means = total / np.maximum(count, 1.0)
        means += np.interp(np.arange(len(means)), np.arange(len(added)), added)
        rim = float(means[max(int(radius_cells) - 1, 0) : int(radius_cells) + 1].mean())
        radius = frequency_radius_3d(self.n_pad)
        if spread is not None:
            denominator = _sharpened(denominator, total / np.maximum(count, 1.0), radius_cells, spread, threads)
        denominator += np.interp(radius, np.arange(len(added)), added).astype(np.float32)
        denominator[radius > radius_cells + 0.5] = rim
        self._eigenvalues = denominator
        cells = frequency_radius_3d(self.side) * (self.n_pad / self.side)
        floor = max(1e-3 * float(means.max()), 1e-30)
        reciprocal = 1.0 / np.maximum(np.r_[means[: int(radius_cells) + 1], rim], floor)
        self._reciprocal = np.interp(cells, np.arange(len(reciprocal)), reciprocal).astype(np.float32)

    def apply(self, volume: Float32) -> Float32:
        """A v."""
        transform = padded_rfftn(volume * self.mask, self.n_pad, self.threads)
        transform *= self._eigenvalues
        return cropped_irfftn(transform, self.side, self.threads) * self.mask

    def precondition(self, residual: Float32) -> Float32:
        """An approximate inverse: divides by the mean of A over |k|."""
        transform = centred_rfftn(residual * self.mask, self.threads)
        transform *= self._reciprocal
        return centred_irfftn(transform, self.side, self.threads) * self.mask

    def solve(self, rounds: int, tolerance: float, start: Float32 | None = None) -> Float32:
        """v by preconditioned conjugate gradients from `start` (none: 0): at most `rounds`, or until the residual has
        fallen to `tolerance` of what it is for v = 0."""
        conditioned = self.precondition(self.right)
        first = dot(self.right, conditioned)
        if start is None:
            volume, residual, direction = np.zeros_like(self.right), self.right.copy(), conditioned
        else:
            volume = start * self.mask
            residual = self.right - self.apply(volume)
            direction = self.precondition(residual)
        product = dot(residual, direction)
        for _ in range(rounds):
            if product <= tolerance**2 * first:
                break
            image = self.apply(direction)
            curvature = dot(direction, image)
            if curvature <= 0:
                break
            length = np.float32(product / curvature)
            volume += length * direction
            residual -= length * image
            conditioned = self.precondition(residual)
            last, product = product, dot(residual, conditioned)
            direction *= np.float32(product / last)
            direction += conditioned
        return volume

    def largest_eigenvalue(self, rounds: int = 8) -> float:
        """Of preconditioner times A, by power iteration from fixed noise; a tenth is added for what few rounds miss."""
        noise = np.random.default_rng(0).standard_normal(self.mask.shape, dtype=np.float32)
        vector = self.precondition(noise)
        value = 0.0
        for _ in range(rounds):
            size = np.sqrt(dot(vector, vector))
            if size == 0:
                break
            vector = self.precondition(self.apply(vector / np.float32(size)))
            value = float(np.sqrt(dot(vector, vector)))
        return 1.1 * value if value > 0 else 1.0


def _sharpened(denominator: Float32, means: Float64, radius_cells: float, spread: Float64, threads: int) -> Float32:
    """D with the window taken out of its deviations from the mean over |k|."""
    n_pad = denominator.shape[0]
    radius = frequency_radius_3d(n_pad)
    smooth = np.interp(radius, np.arange(len(means)), means).astype(np.float32)
    smooth[radius > radius_cells + 0.5] = 0.0
    inverse = np.fft.ifftshift(1.0 / spread).astype(np.float32)
    deviations = irfftn(denominator - smooth, n_pad, threads)
    deviations *= inverse[:, None, None] * inverse[None, :, None]
    deviations *= inverse[None, None, :]
    smooth += rfftn(deviations, threads).real
    return np.maximum(smooth, 0.0)


def dot(a: Float32, b: Float32) -> float:
    """Scalar product in double precision, plane by plane, in one order whatever the number of threads."""
    return float(sum(np.sum(p * q, dtype=np.float64) for p, q in zip(a, b, strict=True)))
