"""Projections of a volume, as central slices of its padded Fourier transform.

Each sample of a slice is interpolated with a 4 x 4 x 4 Kaiser-Bessel window from a transform padded `padding` times,
after the volume has been divided by the window's own transform (Jackson et al. 1991; Greengard & Lee 2004). At padding
1.5 the projections of a Gaussian phantom are within 1e-3 (relative L2) of the exact ones, at 2.0 within 4e-4.

Conventions (docs/conventions.md): `F_image(kx, ky) = F_volume(kx A[0] + ky A[1])`, both about the centre n // 2, and
`image(x) = P(x + o)` for shifts `o` in pixels with the sign of `rlnOriginX/Y`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from nephila.aberrations import largest_stretch, magnified_rows
from nephila.errors import InputError
from nephila.fast_sides import fast_even_side
from nephila.fourier import irfft2, padded_rfftn
from nephila.kernels.kaiser import kaiser_bessel_beta, kaiser_bessel_transform
from nephila.kernels.slices import Grid, SliceSamples, slice_transform
from nephila.kernels.taps import WIDTH, weight_table
from nephila.optics_groups import Matrix2

Float32 = npt.NDArray[np.float32]
Complex64 = npt.NDArray[np.complex64]

FAST_PADDING = 1.5
PRECISE_PADDING = 2.0
# Above the textbook's beta, which serves the box's rim too: particles leave that empty, and the error halves
BETA_FACTOR = 1.1
# Samples are taken ring by ring, within a ring tile by tile, so that neighbours find their taps in the cache
RING_WIDTH = 8
TILE = 8
# Slices that are made together share what they bring into the cache; beyond so many pixels memory counts more
BLOCK_IMAGES = 256
BLOCK_PIXELS = 2**24


@lru_cache(maxsize=32)
def slice_samples(n: int, radius: int) -> SliceSamples:
    """Samples of a slice up to `radius` Fourier pixels of a box of side n, sorted by ring, then by tile."""
    ky, kx = (
        k.ravel() for k in np.meshgrid(np.arange(-((n - 1) // 2), n // 2 + 1), np.arange(n // 2 + 1), indexing="ij")
    )
    inside = kx**2 + ky**2 <= radius**2
    kx, ky = kx[inside], ky[inside]
    ring = np.floor(np.hypot(kx, ky) / RING_WIDTH).astype(np.int64)
    order = np.lexsort((kx, ky, kx // TILE, ky // TILE, ring))
    kx, ky = kx[order], ky[order]
    columns = np.stack([kx, ky % n])
    return SliceSamples(
        frequencies=np.stack([kx, ky]).astype(np.float32),
        columns=columns.astype(np.uint64),
        targets=(columns[1] * (n // 2 + 1) + columns[0]).astype(np.uint64),
        bounds=np.r_[0, np.cumsum(np.bincount(ring))].astype(np.int64),
    )


@dataclass(frozen=True)
class FourierProjector:
    """A volume's padded transform, ready to be sliced.

    n : side of the volume and of the images, pixels
    padding : size of the padded grid over n (what was asked for, rounded up to a good size)
    max_radius : Fourier pixels of the box n up to which slices are filled
    transform : complex64 [nz, ny, nx], centred half transform, cropped: x from -1, y and z about index `origin`
    magnification : of the images, M00, M01, M10, M11, or None: slices are taken at M k
    """

    n: int
    padding: float
    max_radius: int
    transform: Complex64
    origin: int
    beta: float
    magnification: Matrix2 | None = None

    @classmethod
    def from_volume(
        cls, volume: npt.ArrayLike, padding: float = FAST_PADDING, max_radius: int | None = None, threads: int = 1
    ) -> FourierProjector:
        """Prepare a cubic volume [n, n, n] (odd or even side).

        Parameters
        ----------
        padding : 1.5 is the fast mode, 2.0 the precise one
        max_radius : highest frequency kept, Fourier pixels of the box n; n // 2 where not given

        Raises
        ------
        InputError : volume not cubic, smaller than 8 or not finite; padding outside [1.25, 4]
        """
        data = np.asarray(volume, dtype=np.float32)
        _check_volume(data, padding)
        n = data.shape[0]
        radius = n // 2 if max_radius is None else min(int(max_radius), n // 2)
        if radius < 1:
            raise InputError(f"highest frequency {max_radius}: at least 1 Fourier pixel is needed")
        size = fast_even_side(n * padding - 1e-9)  # n * padding may be a whole number but for its last bit
        actual = size / n
        beta = BETA_FACTOR * kaiser_bessel_beta(WIDTH, actual)
        correction = 1.0 / kaiser_bessel_transform((np.arange(n) - n // 2) / size, WIDTH, beta)
        along = correction.astype(np.float32)
        corrected = data * along[:, None, None]
        corrected *= (correction[:, None] * correction[None, :]).astype(np.float32)
        whole = padded_rfftn(corrected, size, threads)
        transform, origin = _crop_transform(whole, int(np.ceil(radius * actual)))
        return cls(n, actual, radius, transform, origin, beta)

    def for_images(self, n: int, scale: float, magnification: Matrix2 | None = None) -> FourierProjector:
        """The same volume for images of side n whose Fourier pixel is `scale` of the volume's: no copy, no resampling.

        magnification : M00, M01, M10, M11 of the images; slices are then taken at M k
        Slices and bands then count in the images' Fourier pixels; amplitudes stay those of the volume's transform.
        """
        if n == self.n and scale == 1.0 and magnification is None:
            return self
        if n < 8 or not 0.1 < scale < 10:
            raise InputError(
                f"images of side {n} at {scale:g} times the reference's Fourier pixel: no sensible sampling"
            )
        reach = scale if magnification is None else scale * largest_stretch(magnification)
        limit = min(n // 2, int(np.floor(self.max_radius / reach + 1e-9)))
        return replace(self, n=n, padding=self.padding * scale, max_radius=max(limit, 1), magnification=magnification)

    @property
    def grid(self) -> Grid:
        """The transform as the kernels read it."""
        stride_y = 2 * self.transform.shape[2]
        stride_z = stride_y * self.transform.shape[1]
        strides = np.array([stride_y, stride_z, (self.origin - 1) * (stride_y + stride_z)], dtype=np.int64)
        values = self.transform.view(np.float32).reshape(-1)
        return Grid(values, strides, _cached_weight_table(self.beta), self.padding)

    def slices(self, matrices: npt.ArrayLike, max_radius: int | None = None) -> Complex64:
        """Centred half transforms [m, n, n // 2 + 1] of the projections along matrices [m, 3, 3] of `euler_matrix`.

        Zero beyond `max_radius` (Fourier pixels; the projector's own where not given).
        """
        rotations = _check_matrices(matrices)
        radius = self.max_radius if max_radius is None else min(int(max_radius), self.max_radius)
        out = np.zeros((len(rotations), self.n, self.n // 2 + 1), dtype=np.complex64)
        self._fill(rotations, slice_samples(self.n, radius), out)
        return out

    def sample(self, matrices: npt.ArrayLike, frequencies: npt.ArrayLike) -> Complex64:
        """Slices at chosen frequencies only: complex64 [m, s] at (kx, ky) [2, s] in Fourier pixels, kx >= 0."""
        rotations, points = _check_matrices(matrices), np.ascontiguousarray(frequencies, dtype=np.float32)
        if points.ndim != 2 or len(points) != 2 or (points[0] < 0).any():
            raise InputError(f"frequencies of shape {points.shape}: [2, s] with kx >= 0 is needed")
        if points.size and np.hypot(points[0], points[1]).max() > self.max_radius + 1e-3:
            raise InputError(f"frequencies beyond the projector's limit of {self.max_radius} Fourier pixels")
        size = points.shape[1]
        places, bounds = np.arange(size, dtype=np.uint64), np.array([0, size], dtype=np.int64)
        out = np.empty((len(rotations), size), dtype=np.complex64)
        self._fill(rotations, SliceSamples(points, np.zeros((2, 0), np.uint64), places, bounds), out)
        return out

    def project(
        self, matrices: npt.ArrayLike, shifts_px: npt.ArrayLike | None = None, ctf: npt.ArrayLike | None = None
    ) -> Float32:
        """Projections float32 [m, n, n], centred at n // 2.

        Parameters
        ----------
        matrices : [m, 3, 3]
        shifts_px : [m, 2], optional; (x, y) in pixels with the sign of rlnOrigin, the shift that brings the image
            back to the centre: `image(x) = P(x + o)`
        ctf : [m or 1, n, n // 2 + 1] or [n, n // 2 + 1], optional; multiplies the transforms
        """
        rotations = _check_matrices(matrices)
        shifts = np.zeros((len(rotations), 2)) if shifts_px is None else np.asarray(shifts_px, dtype=np.float64)
        if shifts.shape != (len(rotations), 2):
            raise InputError(
                f"shifts of shape {shifts.shape} do not belong to {len(rotations)} orientations: give [m, 2]"
            )
        factors = None if ctf is None else self._check_ctf(ctf, len(rotations))
        # one phase per row and column moves the centre to n // 2 and the particle away from it
        phases = phase_factors(self.n, shifts - self.n // 2)
        out = np.empty((len(rotations), self.n, self.n), dtype=np.float32)
        block = max(1, min(BLOCK_IMAGES, BLOCK_PIXELS // self.n**2))
        half = self.n // 2 + 1
        slices = np.zeros((min(block, len(rotations)), self.n, half), dtype=np.complex64)
        for first in range(0, len(rotations), block):
            part = slice(first, min(first + block, len(rotations)))
            chosen = factors if factors is None or len(factors) == 1 else factors[part]
            used = slices[: part.stop - first]
            self._fill(rotations[part], slice_samples(self.n, self.max_radius), used, phases[part], chosen)
            irfft2(used, self.n, out=out[part])
        return out

    def _fill(
        self,
        matrices: Float32,
        samples: SliceSamples,
        out: Complex64,
        phases: Complex64 | None = None,
        ctf: Float32 | None = None,
    ) -> None:
        """Fill the given samples of slices [m, ...]; the others stay as they are."""
        flat = out.reshape(len(matrices), int(np.prod(out.shape[1:])))
        if self.magnification is not None:
            matrices = magnified_rows(self.magnification, matrices).astype(np.float32)
        slice_transform(
            self.grid,
            samples,
            matrices * np.float32(self.padding),
            np.zeros((0, 2, self.n), dtype=np.complex64) if phases is None else phases,
            np.zeros((0, flat.shape[1]), dtype=np.float32) if ctf is None else ctf,
            flat,
        )

    def _check_ctf(self, ctf: npt.ArrayLike, count: int) -> Float32:
        factors = np.ascontiguousarray(ctf, dtype=np.float32)
        shape = (self.n, self.n // 2 + 1)
        if factors.shape[-2:] != shape or factors.ndim > 3 or (factors.ndim == 3 and len(factors) not in (1, count)):
            raise InputError(f"CTF of shape {factors.shape}: [{count} or 1, {shape[0]}, {shape[1]}] is needed")
        if not np.isfinite(factors.sum(dtype=np.float64)):
            raise InputError("the CTF holds values that are not finite (NaN or infinity); check defocus and optics")
        return factors.reshape(-1, shape[0] * shape[1])


def phase_factors(n: int, shifts_px: npt.ArrayLike) -> Complex64:
    """exp(2 pi i k o / n) by column and by row, complex64 [m, 2, n], for shifts `o` [m, 2] in pixels (x, y).

    Index kx or ky modulo n; their product moves the content of an image by -o.
    """
    shifts = np.asarray(shifts_px, dtype=np.float64)
    return np.exp(2j * np.pi * shifts[:, :, None] * np.fft.fftfreq(n)).astype(np.complex64)


@lru_cache(maxsize=8)
def _cached_weight_table(beta: float) -> Float32:
    return weight_table(beta)


def _crop_transform(whole: Complex64, radius: int) -> tuple[Complex64, int]:
    """The part of a half transform within `radius` cells and the window's reach, and the index of y = z = 0.

    One column of negative x goes in front, so that the taps of every x >= 0 lie in one piece.
    """
    size = whole.shape[0]
    reach = radius + WIDTH // 2 + 1
    index = np.arange(-reach, reach + 1)
    forward, backward = index % size, -index % size
    columns = min(reach + 1, whole.shape[2])
    transform = np.zeros((len(index), len(index), reach + 2), dtype=np.complex64)
    for i, z in enumerate(forward):
        transform[i, :, 1 : columns + 1] = whole[z, forward, :columns]
        transform[i, :, 0] = np.conj(whole[backward[i], backward, 1])
    return transform, reach


def _check_volume(data: Float32, padding: float) -> None:
    if data.ndim != 3 or len(set(data.shape)) != 1:
        raise InputError(f"a volume of shape {data.shape}: projections need a cubic one")
    if data.shape[0] < 8:
        raise InputError(f"a volume of side {data.shape[0]}: at least 8 voxels are needed")
    if not 1.25 <= padding <= 4:
        raise InputError(f"padding {padding}: must lie in [1.25, 4]; 1.5 is fast, 2 precise")
    if not np.isfinite(data).all():
        raise InputError("the volume holds values that are not finite (NaN or infinity)")


def _check_matrices(matrices: npt.ArrayLike) -> Float32:
    rotations = np.asarray(matrices, dtype=np.float32)
    if rotations.ndim != 3 or rotations.shape[1:] != (3, 3):
        raise InputError(f"rotation matrices of shape {rotations.shape}: [m, 3, 3] is needed")
    if not np.isfinite(rotations).all():
        row = int(np.flatnonzero(~np.isfinite(rotations).all(axis=(1, 2)))[0])
        raise InputError(f"the rotation matrix of row {row} is not finite")
    return rotations
