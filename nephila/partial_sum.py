"""Sums of gridded Fourier slices that add exactly, on disk and in memory, and their way to the padded grid."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fast_sides import fast_even_side
from nephila.io.atomic import atomic_path
from nephila.kernels import gridding
from nephila.kernels.kaiser import kaiser_bessel_beta, kaiser_bessel_transform

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]

WINDOW_WIDTH = 2
_VALUE_STEPS = 2.0**14  # steps of the integer grid in a typical value
_WEIGHT_STEPS = 2.0**15
_FORMAT = 1


def views_per_voxel(radius: npt.ArrayLike) -> Float64:
    """How often one slice measures a voxel of the volume at |k| (Fourier px): 1 / (2 |k|), at most 3 / 2.

    A slice has 2 pi k dk samples, a shell 4 pi k^2 dk voxels; 1/3 is the mean |k| over the origin's pixel.
    """
    return 0.5 / np.maximum(np.asarray(radius, dtype=np.float64), 1.0 / 3.0)


@dataclass(frozen=True)
class GridShape:
    """The Fourier grid of a sum; two sums can be added when these are equal.

    Attributes:
        n: side of images and volume, px.
        n_pad: side of the Fourier grid, cells (even).
        max_radius: largest |k| used, Fourier px.
        data_scale, weight_scale: see `Backprojector`.
    """

    n: int
    n_pad: int
    max_radius: int
    data_scale: float
    weight_scale: float

    @classmethod
    def of(
        cls, n: int, padding: float, max_radius: int | None, data_scale: float | None = None, weight_scale: float = 1.0
    ) -> GridShape:
        """Check and complete the settings of a grid. Raises InputError."""
        if n < 4:
            raise InputError(f"images of side {n} px are too small to reconstruct from; at least 4 px are needed")
        if not 1.25 <= padding <= 4:
            raise InputError(f"padding {padding}: must lie in 1.25 to 4; 2 is usual")
        radius = n // 2 if max_radius is None else int(max_radius)
        if not 1 <= radius <= n // 2:
            raise InputError(f"max_radius {max_radius}: must lie in 1 to {n // 2} Fourier px for side {n}")
        scale = float(n) if data_scale is None else float(data_scale)
        for name, value in (("data_scale", scale), ("weight_scale", weight_scale)):
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{name} {value}: must be a positive number")
        return cls(n, fast_even_side(n * padding - 1e-9), radius, scale, float(weight_scale))

    @property
    def padding(self) -> float:
        """Grid cells per Fourier px."""
        return self.n_pad / self.n

    @property
    def radius_cells(self) -> int:
        """Grid cells from the origin to the last cell that is kept."""
        return int(np.ceil(self.max_radius * self.padding)) + 1

    @property
    def value_step(self) -> float:
        """Unit of the numerator's whole numbers: a power of 2."""
        return float(2.0 ** np.ceil(np.log2(self.data_scale)) / _VALUE_STEPS)

    @property
    def weight_step(self) -> float:
        """Unit of the denominator's whole numbers: a power of 2."""
        return float(2.0 ** np.ceil(np.log2(self.weight_scale)) / _WEIGHT_STEPS)

    def window_transform(self, side: int | None = None) -> Float64:
        """The window's transform along one axis of a volume of `side` voxels (n), 1 at the centre side // 2."""
        size = self.n if side is None else side
        beta = kaiser_bessel_beta(WINDOW_WIDTH, self.padding)
        position = (np.arange(size) - size // 2) / self.n_pad
        return kaiser_bessel_transform(position, WINDOW_WIDTH, beta) / self.window_integral

    @property
    def window_integral(self) -> float:
        """Integral of the window along one axis, cells."""
        return float(kaiser_bessel_transform(0.0, WINDOW_WIDTH, kaiser_bessel_beta(WINDOW_WIDTH, self.padding)))

    @property
    def density_per_measurement(self) -> float:
        """D that one measurement of weight 1 of each Fourier px gives: the window's integral over the cells per
        voxel."""
        return self.window_integral**3 / self.padding**3


@dataclass
class PartialSum:
    """Sums over some particles, in whole numbers: additions are exact and their order does not matter.

    Attributes:
        grid: the Fourier grid.
        sums: int64 [cells, 3], (Re N, Im N, D) in units of the grid's steps; rows as `kernels.gridding.sphere_rows`.
        particles: how many images were added.
        weight_units: sum of their weights in units of `grid.weight_step`.
    """

    grid: GridShape
    sums: npt.NDArray[np.int64]
    particles: int
    weight_units: int

    @property
    def weight(self) -> float:
        """Sum of the particles' weights."""
        return self.weight_units * self.grid.weight_step

    def expected_density(self) -> Float64:
        """Mean of D per shell 0 to n // 2 that evenly spread views with CTF 1 would give: the unit of regularisers."""
        views = views_per_voxel(np.arange(self.grid.n // 2 + 1))
        return self.weight * self.grid.density_per_measurement * views

    @classmethod
    def empty(cls, grid: GridShape) -> PartialSum:
        """A sum over no particles."""
        cells = int(gridding.sphere_rows(grid.radius_cells)[-1, -1])
        return cls(grid, np.zeros((cells, 3), np.int64), 0, 0)

    def add(self, other: PartialSum) -> PartialSum:
        """Add another sum in place and return self. Raises InputError where the grids differ."""
        if other.grid != self.grid:
            raise InputError(f"sums over different grids cannot be added: {self.grid} and {other.grid}")
        self.sums += other.sums
        self.particles += other.particles
        self.weight_units += other.weight_units
        return self

    def copy(self) -> PartialSum:
        """An independent copy."""
        return PartialSum(self.grid, self.sums.copy(), self.particles, self.weight_units)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as an uncompressed .npz, whole or not at all; 12 bytes per cell where 32 bits hold the sums, else
        24."""
        fits = self.sums.size == 0 or (self.sums.max() < 2**31 and self.sums.min() >= -(2**31))
        header = {
            "format": _FORMAT,
            "grid": asdict(self.grid),
            "particles": self.particles,
            "weight": self.weight_units,
        }
        with atomic_path(Path(path)) as temporary, open(temporary, "wb") as handle:
            np.savez(
                handle, header=np.array(json.dumps(header)), sums=self.sums.astype(np.int32) if fits else self.sums
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PartialSum:
        """Read what `save` wrote. Raises InputError where the file is missing or not such a file."""
        try:
            with np.load(path) as archive:
                header = json.loads(str(archive["header"]))
                sums = archive["sums"].astype(np.int64)
            if header["format"] != _FORMAT:
                raise InputError(f"{path}: format {header['format']} of partial sums is not known; compute them again")
            grid = GridShape(**header["grid"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a file of partial sums ({error}); compute it again") from error
        if len(sums) != int(gridding.sphere_rows(grid.radius_cells)[-1, -1]):
            raise InputError(f"{path}: {len(sums)} cells do not belong to {grid}; compute it again")
        return cls(grid, sums, int(header["particles"]), int(header["weight"]))

    def expand(self) -> tuple[Complex64, Float32]:
        """Numerator and denominator as half transforms [n_pad, n_pad, n_pad // 2 + 1], origin at [0, 0, 0]."""
        side = self.grid.n_pad
        numerator = np.zeros((side, side, side // 2 + 1), dtype=np.complex64)
        denominator = np.zeros(numerator.shape, dtype=np.float32)
        rows = gridding.sphere_rows(self.grid.radius_cells)
        gridding.expand_sums(self.sums, rows, self.grid.value_step, self.grid.weight_step, numerator, denominator)
        return numerator, denominator
