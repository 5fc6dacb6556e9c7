"""Particles as samples of the half plane: which frequencies, and their values from images and CTFs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.aberrations import magnified
from nephila.alignment.ctfs import ParticleCtfs
from nephila.errors import InputError
from nephila.fourier import rfft2
from nephila.kernels.modulation import gather_samples, row_powers
from nephila.kernels.pose import BandSamples, Particle
from nephila.optics_groups import Matrix2

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
CtfSource = npt.ArrayLike | ParticleCtfs | Callable[[int, int], npt.ArrayLike] | None
TILE = 8
EMPTY_SHARE = 1e-12  # of an image's power within the band: below it there is only rounding


@dataclass(frozen=True)
class SampleSet:
    """Samples of the open half plane up to the last band, sorted by band, within it by tiles.

    band : what the kernels need; targets : places in a flattened half transform; counts : samples of each band
    radius : |k| of each sample
    """

    band: BandSamples
    targets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    radius: npt.NDArray[np.float64]

    @classmethod
    def build(cls, n: int, bands: tuple[int, ...]) -> SampleSet:
        """For images of side n and rising band limits in Fourier pixels."""
        last = bands[-1]
        ky, kx = (k.ravel() for k in np.meshgrid(np.arange(-last, last + 1), np.arange(last + 1), indexing="ij"))
        radius = np.hypot(kx, ky)
        # the other half plane holds the conjugates; Nyquist and the origin say nothing about a pose
        inside = (radius <= last) & ((kx > 0) | (ky > 0)) & (2 * kx < n) & (2 * np.abs(ky) < n)
        kx, ky, radius = kx[inside], ky[inside], radius[inside]
        level = np.searchsorted(np.asarray(bands, dtype=float), radius - 1e-9)
        order = np.lexsort((kx, ky, kx // TILE, ky // TILE, level))
        kx, ky, radius = kx[order], ky[order], radius[order]
        band = BandSamples(
            kx.astype(np.float32), ky.astype(np.float32), kx.astype(np.int32), (ky + last).astype(np.int32), last, n
        )
        counts = np.cumsum(np.bincount(level, minlength=len(bands)))
        return cls(band, (ky % n) * (n // 2 + 1) + kx, counts.astype(np.int64), radius)

    def magnified(self, matrix: Matrix2) -> BandSamples:
        """What the kernels need to sample the reference at M k; shifts still count in k.

        Their slopes by the shift are then M times the true ones, which vanish in the same places.
        """
        kx, ky = (k.astype(np.float32) for k in magnified(matrix, self.band.kx, self.band.ky))
        return self.band._replace(kx=kx, ky=ky)

    def root_weights(self, weights_by_shell: npt.ArrayLike | None) -> Float32:
        """Square roots of the weights of the samples, from one weight per shell (interpolated); 1 without."""
        if weights_by_shell is None:
            return np.ones(len(self.targets), dtype=np.float32)
        weights = np.asarray(weights_by_shell, dtype=np.float64)
        if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any():
            raise InputError("weights by shell have to be one row of finite numbers, none negative")
        if len(weights) <= self.band.radius:
            raise InputError(f"weights for {len(weights)} shells: the band goes up to shell {self.band.radius}")
        return np.sqrt(np.interp(self.radius, np.arange(len(weights)), weights)).astype(np.float32)

    def gather(self, images: Float32, ctf: Float32, root: Float32, first_row: int) -> tuple[Particle, Float64]:
        """Transforms of a batch [b, n, n] at the samples and their CTFs [b or 1, s], both times the weights' root.

        Also the power sum |X|^2 of each, 0 where the image is empty. Raises InputError for values that are not finite.
        """
        real, imag = (np.empty((len(images), len(self.targets)), dtype=np.float32) for _ in range(2))
        gather_samples(rfft2(images).reshape(len(images), -1), self.targets, root, real, imag)
        powers, whole = np.zeros(len(images)), np.zeros(len(images))
        row_powers(real, powers)
        row_powers(imag, powers)
        row_powers(images.reshape(len(images), -1), whole)
        if not np.isfinite(powers).all():
            row = first_row + int(np.flatnonzero(~np.isfinite(powers))[0])
            raise InputError(f"particle in row {row} (counted from 0) holds values that are not finite; remove it")
        # by Parseval, against the power of the whole image
        limit = EMPTY_SHARE * whole * self.band.n**2 * float(np.max(root, initial=0.0)) ** 2
        return Particle(real, imag, ctf * root), np.where(powers > limit, powers, 0.0)

    def take_ctf(self, source: CtfSource, total: int, first: int, last: int) -> Float32:
        """CTFs float32 [1 or last - first, s] at the samples, of rows first to last - 1."""
        n = self.band.n
        if source is None:
            return np.ones((1, len(self.targets)), dtype=np.float32)
        if isinstance(source, ParticleCtfs):
            if len(source) not in (1, total):
                raise InputError(f"{len(source)} CTFs for {total} particles: one each, or one for all")
            rows = slice(0, 1) if len(source) == 1 else slice(first, last)
            return source.at(rows, n, self.band.kx, self.band.ky)
        if callable(source):
            values = np.asarray(source(first, last), dtype=np.float32)
        else:
            whole = np.asarray(source)
            values = whole[first:last] if whole.ndim == 3 and len(whole) == total > 1 else whole
        values = values[None] if values.ndim == 2 else values
        if values.shape[1:] != (n, n // 2 + 1) or len(values) not in (1, last - first):
            raise InputError(
                f"CTF of shape {values.shape} for {last - first} particles of side {n}: one each, or one for all"
            )
        taken = np.take(values.reshape(len(values), -1), self.targets, axis=1).astype(np.float32, copy=False)
        if not np.isfinite(taken).all():
            row = first + int(np.flatnonzero(~np.isfinite(taken).all(axis=1))[0])
            raise InputError(
                f"the CTF of row {row} (counted from 0) holds values that are not finite; check its defocus"
            )
        return taken


def is_shared(source: CtfSource) -> bool:
    """Whether one CTF serves all particles."""
    if source is None:
        return True
    if isinstance(source, ParticleCtfs):
        return len(source) == 1
    return not callable(source) and (np.ndim(source) == 2 or len(np.asarray(source)) == 1)
