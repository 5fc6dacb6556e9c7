"""Images of a particle table, read from their stacks as they are needed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.fourier import irfft2, rfft2
from nephila.io.mrc import Stack, open_stack


def image_name(index: int, path: str | os.PathLike[str]) -> str:
    """rlnImageName of image `index` (from 0) of a stack: RELION counts from 1."""
    return f"{index + 1:06d}@{path}"


def split_image_name(name: str) -> tuple[int, str]:
    """Index (from 0) and path of an rlnImageName. InputError where it is not `number@path`."""
    number, at, path = name.partition("@")
    if not at or not number.isdigit() or int(number) < 1:
        raise InputError(f"image name {name!r}: expected number@stack, counted from 1, as in 000001@particles.mrcs")
    return int(number) - 1, path


class ParticleImages:
    """Images of the rows of a particle table: `images[a:b]` gives float32 [b - a, n, n].

    Paths in rlnImageName are relative to `folder`. Stacks are opened once, memory-mapped, and read by runs of rows.
    """

    def __init__(self, table: pd.DataFrame, folder: str | os.PathLike[str] = ".") -> None:
        names = [split_image_name(str(name)) for name in table["rlnImageName"]]
        self._index = np.array([index for index, _ in names], dtype=np.int64)
        paths = [path for _, path in names]
        unique = list(dict.fromkeys(paths))
        number = {path: i for i, path in enumerate(unique)}
        self._stack = np.array([number[path] for path in paths], dtype=np.int64)
        self._stacks: list[Stack] = [open_stack(Path(folder) / path) for path in unique]
        sides = {stack.shape[1:] for stack in self._stacks}
        if len(sides) > 1 or any(ny != nx for ny, nx in sides):
            raise InputError(
                f"particle stacks of different or uneven sizes {sorted(sides)} cannot be used together: {', '.join(unique)}"
            )
        self.n = self._stacks[0].shape[1] if self._stacks else 0
        self.pixel_size = self._stacks[0].pixel_size if self._stacks else 0.0
        for i, stack in enumerate(self._stacks):
            rows = self._index[self._stack == i]
            if rows.max(initial=-1) >= len(stack):
                raise InputError(f"{unique[i]}: image {rows.max() + 1} is asked for, the stack holds {len(stack)}")

    def __len__(self) -> int:
        return len(self._index)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(particles, n, n)."""
        return (len(self), self.n, self.n)

    def __getitem__(self, rows: slice | int) -> npt.NDArray[np.float32]:
        if not isinstance(rows, slice):
            image: npt.NDArray[np.float32] = self[rows : rows + 1][0]
            return image
        index, stack = self._index[rows], self._stack[rows]
        out = np.empty((len(index), self.n, self.n), dtype=np.float32)
        for i in np.unique(stack):
            here = np.flatnonzero(stack == i)
            out[here] = self._stacks[i][index[here]]
        if len(out) and not np.isfinite(out).all():
            row = int(np.flatnonzero(~np.isfinite(out).all(axis=(1, 2)))[0])
            raise InputError(f"{self._stacks[stack[row]].path}: image {index[row] + 1} holds NaN or infinite values")
        return out


class CorrectedImages(ParticleImages):
    """Images whose transforms are multiplied by `phases`, complex64 [n, n // 2 + 1], as they are read."""

    def __init__(
        self, table: pd.DataFrame, phases: npt.NDArray[np.complex64], folder: str | os.PathLike[str] = "."
    ) -> None:
        super().__init__(table, folder)
        if phases.shape != (self.n, self.n // 2 + 1):
            raise InputError(f"particle images of {self.n} px where {phases.shape[0]} px are stated (_rlnImageSize)")
        self._phases = phases

    def __getitem__(self, rows: slice | int) -> npt.NDArray[np.float32]:
        images = super().__getitem__(rows)
        return irfft2(rfft2(images) * self._phases, self.n) if isinstance(rows, slice) else images
