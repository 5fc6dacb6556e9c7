"""Backprojection by gridding: Fourier slices are added to a padded transform.

Per grid cell two sums are kept, `N = sum w CTF X` and `D = sum w CTF^2` (w: particle weight times noise weight), both
spread with a Kaiser-Bessel window two cells wide; `nephila.finishing` divides them.
The sums are whole numbers, so they do not depend on threads, on the order of particles or on how they are cut into
chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from nephila.aberrations import largest_stretch, magnified_rows
from nephila.errors import InputError
from nephila.kernels import gridding
from nephila.kernels.kaiser import kaiser_bessel_beta, weight_polynomials
from nephila.optics_groups import Matrix2
from nephila.partial_sum import WINDOW_WIDTH, GridShape, PartialSum

Float32 = npt.NDArray[np.float32]
Complex64 = npt.NDArray[np.complex64]

PENDING_BYTES = 256 * 2**20  # enough that walking through the volume costs little beside the images
_BLOCK_PARTICLES = 512
_TILE_BYTES = 3 * 2**19
_CELL_LIMIT = 2.0**30  # what a block may add to one 32-bit cell


def _image_bytes(n: int) -> int:
    """What one weighted image takes: four numbers per sample, of which one is only there for the alignment."""
    return 16 * n * (n // 2 + 1)


@dataclass
class _Pending:
    """Weighted images that are not gridded yet: values [b, n, n // 2 + 1, 4], axes [b, 6], largest value [b]."""

    values: Float32
    axes: npt.NDArray[np.float64]
    largest: Float32
    filled: int = 0

    @classmethod
    def empty(cls, n: int, size: int = 0) -> _Pending:
        values = np.zeros((size, n, n // 2 + 1, 4), dtype=np.float32)
        return cls(values, np.empty((size, 6)), np.empty(size, dtype=np.float32))

    def reserve(self, size: int, n: int) -> None:
        """Make room for `size` images; what is there already stays valid only if none wait."""
        if len(self.values) < size:
            fresh = _Pending.empty(n, size)
            self.values, self.axes, self.largest = fresh.values, fresh.axes, fresh.largest

    def take(self, axes: npt.NDArray[np.float64], largest: Float32) -> None:
        """Count images as waiting whose values were written behind the others."""
        rows = slice(self.filled, self.filled + len(largest))
        self.axes[rows], self.largest[rows] = axes, largest
        self.filled = rows.stop


class Backprojector:
    """Collects Fourier slices of images of side `n` into a `PartialSum`.

    Args:
        n: side of images and volume, px.
        padding: side of the Fourier grid over `n`; 2 is accurate, 1.5 saves memory at some accuracy.
        max_radius: largest |k| that is used, Fourier px; n // 2 where it is None.
        data_scale: typical amplitude |X| of the weighted transforms; `n` (white noise of variance 1 per pixel) where it
            is None. Sums are kept in steps of data_scale / 16384, finer than any noise; those that are to be added to
            each other must agree in it.
        weight_scale: typical particle weight times noise weight.
        pending_bytes: weighted images are kept in so much memory and gridded when it is full, or when the sums are asked
            for: each time the whole volume is walked through, which small portions would do over and over. 0: at the end
            of each `insert`.
        image_side: side of the images where it is not the volume's; matrices, shifts, CTF and noise weights are on the
            images' grid.
        image_scale: Fourier px of the volume in one of the images: n pixel size over that of the images.
        image_magnification: M00, M01, M10, M11 of the images, whose samples are added at M k; None for 1.
    """

    def __init__(
        self,
        n: int,
        padding: float = 2.0,
        max_radius: int | None = None,
        *,
        data_scale: float | None = None,
        weight_scale: float = 1.0,
        pending_bytes: int = 0,
        image_side: int | None = None,
        image_scale: float = 1.0,
        image_magnification: Matrix2 | None = None,
    ) -> None:
        self.grid = GridShape.of(n, padding, max_radius, data_scale, weight_scale)
        self._side = n if image_side is None else int(image_side)
        if self._side < 4 or not 0.1 < image_scale < 10:
            raise InputError(
                f"images of side {self._side} at {image_scale:g} times the volume's Fourier pixel: no sensible sampling"
            )
        self._scale = float(image_scale)
        self._magnification = image_magnification
        stretch = 1.0 if image_magnification is None else largest_stretch(image_magnification)
        reach = int(np.floor(self.grid.max_radius / (self._scale * stretch) + 1e-9))
        self._image_radius = max(1, min(self._side // 2, reach))
        self._row_start = gridding.sphere_rows(self.grid.radius_cells)
        self._sums = np.zeros((int(self._row_start[-1, -1]), 3), dtype=np.int64)
        self._particles = 0
        self._weight_units = 0
        self._column_limit = _column_limits(self._side, self._image_radius)
        beta = kaiser_bessel_beta(WINDOW_WIDTH, self.grid.padding)
        self._taps = weight_polynomials(WINDOW_WIDTH, beta, gridding.DEGREE).astype(np.float32)
        self._keeps_pending = pending_bytes > 0
        limit = (
            pending_bytes // _image_bytes(self._side)
            if pending_bytes
            else min(_BLOCK_PARTICLES, PENDING_BYTES // _image_bytes(self._side))
        )
        self._block = max(1, limit)
        self._pending = _Pending.empty(self._side)
        self._threads = 1

    def insert(
        self,
        images_ft: npt.ArrayLike,
        matrices: npt.ArrayLike,
        ctf: npt.ArrayLike | None = None,
        weights: npt.ArrayLike | None = None,
        noise_weights: npt.ArrayLike | None = None,
        shifts_px: npt.ArrayLike | None = None,
        threads: int = 1,
    ) -> None:
        """Add images.

        Args:
            images_ft: complex64 [m, n, n // 2 + 1], centred half transforms.
            matrices: [m, 3, 3], `F_image(kx, ky) = F_volume(kx A[0] + ky A[1])`.
            ctf: [n, n // 2 + 1] or [1 or m, n, n // 2 + 1]; 1 everywhere where it is None.
            weights: [m], per particle, not negative; a particle of weight 0 adds nothing.
            noise_weights: per shell 0 to n // 2, multiplied with both sums (for example 1 / noise power).
            shifts_px: [m, 2], origins (x, y) in px: the shift that brings the particle to the centre, as rlnOriginX/Y.
            threads: the sums are the same for any number.

        Raises:
            InputError: shapes that do not fit, NaN or infinite values, values far above `data_scale`.
        """
        images, axes, planes, particle_weights, shifts = self._check(images_ft, matrices, ctf, weights, shifts_px)
        used = particle_weights > 0
        radial = self._radial_weights(noise_weights)
        rows = np.flatnonzero(used)
        self._pending.reserve(self._block if self._keeps_pending else min(self._block, len(rows)), self._side)
        first = 0
        while first < len(rows):
            filled = self._pending.filled
            part = rows[first : first + self._block - filled]
            chosen: Any = slice(part[0], part[-1] + 1) if part[-1] - part[0] + 1 == len(part) else part
            phases = self._shift_phases(None if shifts is None else shifts[chosen])
            largest = gridding.weigh_images(
                images[chosen],
                planes if len(planes) == 1 else planes[chosen],
                particle_weights[chosen],
                radial,
                self._column_limit,
                *phases,
                np.array([1.0 / self.grid.value_step, 1.0 / self.grid.weight_step]),
                self._pending.values[filled:],
            )
            self._check_range(largest, part)
            self._pending.take(axes[chosen], largest)
            if self._pending.filled == self._block:
                self._flush(threads)
            first += len(part)
        if self._keeps_pending:
            self._threads = threads
        else:
            self._flush(threads)
            self._pending = _Pending.empty(self._side)
        self._particles += int(np.count_nonzero(used))
        self._weight_units += int(np.rint(particle_weights[used].astype(np.float64) / self.grid.weight_step).sum())

    def partial_sum(self) -> PartialSum:
        """What was collected so far. The arrays are shared with this object, not copied."""
        self._flush(self._threads)
        self._pending = _Pending.empty(self._side)
        return PartialSum(self.grid, self._sums, self._particles, self._weight_units)

    def _check(
        self,
        images_ft: npt.ArrayLike,
        matrices: npt.ArrayLike,
        ctf: npt.ArrayLike | None,
        weights: npt.ArrayLike | None,
        shifts_px: npt.ArrayLike | None,
    ) -> tuple[Complex64, npt.NDArray[np.float64], Float32, Float32, npt.NDArray[np.float64] | None]:
        n = self._side
        plane = (n, n // 2 + 1)
        images = np.asarray(images_ft, dtype=np.complex64)
        if images.ndim != 3 or images.shape[1:] != plane:
            raise InputError(f"half transforms of shape [m, {plane[0]}, {plane[1]}] are needed, not {images.shape}")
        m = len(images)
        rotation = np.asarray(matrices, dtype=np.float64)
        if rotation.shape != (m, 3, 3):
            raise InputError(f"{m} images need matrices of shape ({m}, 3, 3), not {rotation.shape}")
        if not np.isfinite(rotation).all():
            raise InputError("matrices hold NaN; check the angles of the particles")
        if self._magnification is not None:
            rotation = magnified_rows(self._magnification, rotation)
        planes = np.ones((1, *plane), np.float32) if ctf is None else np.asarray(ctf, dtype=np.float32)
        planes = planes[None] if planes.ndim == 2 else planes
        if planes.shape[1:] != plane or len(planes) not in {1, m}:
            raise InputError(
                f"the CTF has the shape {planes.shape}; one plane {plane} or one per image ({m}) is needed"
            )
        particle_weights = np.ones(m, np.float32) if weights is None else np.asarray(weights, dtype=np.float32)
        if (
            particle_weights.shape != (m,)
            or not (particle_weights >= 0).all()
            or not np.isfinite(particle_weights).all()
        ):
            raise InputError(f"weights must be {m} finite numbers that are not negative")
        shifts = None if shifts_px is None else np.asarray(shifts_px, dtype=np.float64)
        if shifts is not None and (shifts.shape != (m, 2) or not np.isfinite(shifts).all()):
            raise InputError(f"shifts must be finite, of shape ({m}, 2) as (x, y) in px")
        return (
            images,
            (rotation[:, :2] * (self.grid.padding * self._scale)).reshape(m, 6),
            planes,
            particle_weights,
            shifts,
        )

    def _radial_weights(self, noise_weights: npt.ArrayLike | None) -> Float32:
        n = self._side
        ky, kx = np.fft.fftfreq(n, 1 / n)[:, None], np.arange(n // 2 + 1)[None, :]
        radius = np.hypot(kx, ky)
        radial = np.ones_like(radius)
        if noise_weights is not None:
            curve = np.asarray(noise_weights, dtype=np.float64)
            if curve.shape != (n // 2 + 1,) or not np.isfinite(curve).all() or (curve < 0).any():
                raise InputError(
                    f"noise weights must be {n // 2 + 1} finite numbers (shells 0 to {n // 2}), not negative"
                )
            radial = radial * np.interp(radius, np.arange(n // 2 + 1), curve)
        radial[0, 0] *= 0.5  # the origin is its own Hermitian mate
        return np.asarray(np.where(radius <= self._image_radius, radial, 0.0), dtype=np.float32)

    def _shift_phases(self, shifts: npt.NDArray[np.float64] | None) -> tuple[Complex64, Complex64]:
        n = self._side
        if shifts is None:
            return np.zeros((0, n // 2 + 1), np.complex64), np.zeros((0, n), np.complex64)
        kx, ky = np.arange(n // 2 + 1) / n, np.fft.fftfreq(n)
        phases = (np.exp(-2j * np.pi * shifts[:, axis, None] * k[None, :]) for axis, k in ((0, kx), (1, ky)))
        along_x, along_y = (p.astype(np.complex64) for p in phases)
        return along_x, along_y

    def _check_range(self, largest: Float32, rows: npt.NDArray[np.int64]) -> None:
        bad = np.flatnonzero(~np.isfinite(largest))
        if len(bad):
            raise InputError(f"image {rows[bad[0]]} of the block (from 0) holds NaN or infinite values; leave it out")
        too_large = np.flatnonzero(largest > _CELL_LIMIT)
        if len(too_large):
            factor = float(largest[too_large[0]]) / _CELL_LIMIT
            raise InputError(
                f"image {rows[too_large[0]]} of the block is {factor:.3g} times too large for data_scale "
                f"{self.grid.data_scale:g} and weight_scale {self.grid.weight_scale:g}; normalise the images or "
                "raise the scales"
            )

    def _flush(self, threads: int) -> None:
        """Grid the images that wait, in runs that cannot overflow the 32-bit tiles."""
        waiting = self._pending
        largest = waiting.largest[: waiting.filled]
        total = np.cumsum(np.maximum(largest.astype(np.float64), 1.0))
        first = 0
        while first < len(largest):
            before = total[first - 1] if first else 0.0
            last = max(first + 1, int(np.searchsorted(total, before + _CELL_LIMIT, side="right")))
            self._grid_run(waiting.values, waiting.axes, first, last, threads)
            first = last
        waiting.filled = 0

    def _grid_run(self, values: Float32, axes: npt.NDArray[np.float64], first: int, last: int, threads: int) -> None:
        side = 2 * self.grid.radius_cells + 1
        tile = _tile_side(self.grid.radius_cells, threads)
        tiles = -(-side // tile)
        walk = partial(
            gridding.walk_tiles, axes, first, last, self._column_limit, float(self.grid.radius_cells), tile, tiles
        )
        counts = np.zeros(tiles * tiles, dtype=np.int64)
        walk(counts, np.zeros((0, 3), np.int32), False)
        bounds = np.concatenate([[0], np.cumsum(counts)])
        segments = np.empty((bounds[-1], 3), dtype=np.int32)
        walk(bounds[:-1].copy(), segments, True)

        def run(slabs: Sequence[int]) -> None:
            buffer = np.empty(
                (tile + 2 * gridding.HALO + 1) ** 2 * (self.grid.radius_cells + 2) * 4 + 8, dtype=np.int32
            )
            scratch = np.empty((6, gridding.SEGMENT_LIMIT), dtype=np.float32)
            offsets = np.empty(gridding.SEGMENT_LIMIT, dtype=np.int32)
            for slab in slabs:
                gridding.grid_slab(
                    values, axes, segments, bounds, slab, tile, self._taps, buffer, scratch, offsets, self._row_start,
                    self._sums,
                )  # fmt: skip

        if threads <= 1:
            run(range(tiles))
            return
        with ThreadPoolExecutor(threads) as pool:
            for parity in (0, 1):  # neighbouring slabs share their halo rows
                list(pool.map(lambda slab: run([slab]), range(parity, tiles, 2)))


def _column_limits(n: int, max_radius: int) -> npt.NDArray[np.int64]:
    """How many columns of each row of the half transform lie within the radius, without Nyquist's row and column."""
    ky = np.fft.fftfreq(n, 1 / n)
    reach = np.floor(np.sqrt(np.maximum(max_radius**2 - ky**2, 0.0)) + 1e-9).astype(np.int64) + 1
    inside = (np.abs(ky) <= max_radius) & (np.abs(ky) < n / 2)
    return np.where(inside, np.minimum(reach, (n + 1) // 2), 0)


def _tile_side(radius_cells: int, threads: int) -> int:
    """Side of a tile whose cells (all x) fit the cache, with enough slabs for the threads."""
    rows = int(np.sqrt(_TILE_BYTES / (16 * (radius_cells + 2))))
    side = 2 * radius_cells + 1
    return int(np.clip(min(rows - 3, side // (4 * threads) if threads > 1 else side), 8, 64))
