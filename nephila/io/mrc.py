"""MRC images, stacks and volumes through mrcfile, with Nephila's header conventions and errors that name the file.

Arrays are what the file holds, without flips: images [ny, nx], stacks [n, ny, nx], volumes [nz, ny, nx]. The voxel size is
the pixel size in A, the origin is 0; stacks of images have ISPG 0 and volumes ISPG 1.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.io.atomic import atomic_path

PathLike = str | os.PathLike[str]
FloatArray = npt.NDArray[np.float32]


@contextmanager
def _opened(path: PathLike, mmap: bool = False) -> Iterator[Any]:
    """Open an MRC file for reading; every way in which it can be wrong becomes an InputError that names it."""
    if not Path(path).exists():
        raise InputError(f"{path}: no such file")
    if Path(path).stat().st_size < 1024:
        raise InputError(
            f"{path}: {Path(path).stat().st_size} bytes are too few for an MRC header; copy the file again"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            handle = mrcfile.mmap(path, mode="r") if mmap else mrcfile.open(path, mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a complete MRC file ({error}); copy it again or leave it out") from error
    try:
        if handle.data is None:
            raise InputError(f"{path}: the MRC file holds no data")
        yield handle
    finally:
        handle.close()


def _pixel_size(handle: Any) -> float:
    """Pixel size from the header (x), A; 0 where the header states none."""
    value = float(handle.voxel_size.x)
    return value if np.isfinite(value) and value > 0 else 0.0


def read_image(path: PathLike) -> tuple[FloatArray, float]:
    """Read an image, stack or volume as float32.

    Returns
    -------
    array : float32, as many dimensions as the file states
    pixel_size : float, A; 0 where the header states none

    Raises
    ------
    InputError
        The file is missing, cut short, not MRC, or holds NaN or infinite values.
    """
    with _opened(path) as handle:
        array = np.asarray(handle.data).astype(np.float32)
        pixel_size = _pixel_size(handle)
    if not np.isfinite(array).all():
        count = int(np.count_nonzero(~np.isfinite(array)))
        raise InputError(f"{path}: {count} of {array.size} values are NaN or infinite; repair the file or leave it out")
    return array, pixel_size


def read_volume(path: PathLike) -> tuple[FloatArray, float]:
    """Read a cubic volume [n, n, n]; see `read_image`. InputError where it is not cubic or states no pixel size."""
    volume, pixel_size = read_image(path)
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise InputError(f"{path}: a cubic volume is needed, this one has the shape {volume.shape} (z, y, x)")
    if pixel_size == 0:
        raise InputError(
            f"{path}: the header states no pixel size; set it (relion_image_handler --angpix, e2proc3d --apix)"
        )
    return volume, pixel_size


@dataclass(frozen=True)
class MrcSummary:
    """What an MRC file holds. shape as read; pixel_size in A, 0 where the header states none; not_finite: count of NaN, inf."""

    kind: str
    shape: tuple[int, ...]
    mode: int
    pixel_size: float
    minimum: float
    maximum: float
    mean: float
    deviation: float
    not_finite: int


def summarise(path: PathLike) -> MrcSummary:
    """Header and statistics of an MRC file of any size, read section by section. InputError as for `read_image`."""
    with _opened(path, mmap=True) as handle:
        data = handle.data
        kind = "image" if data.ndim == 2 else "stack" if handle.is_image_stack() else "volume"
        count, missing, total, squares = 0, 0, 0.0, 0.0
        low, high = np.inf, -np.inf
        for section in data if data.ndim > 2 else [data]:
            values = np.asarray(section, dtype=np.float64)
            values = values[np.isfinite(values)]
            missing += section.size - values.size
            if values.size:
                count += values.size
                total += float(values.sum())
                squares += float((values**2).sum())
                low, high = min(low, float(values.min())), max(high, float(values.max()))
        mean = total / count if count else float("nan")
        deviation = float(np.sqrt(max(squares / count - mean**2, 0.0))) if count else float("nan")
        shape = tuple(int(x) for x in data.shape)
        mode = int(handle.header.mode)
        return MrcSummary(kind, shape, mode, _pixel_size(handle), low, high, mean, deviation, missing)


def read_labels(path: PathLike) -> list[str]:
    """Text labels of an MRC header, without empty ones."""
    with _opened(path, mmap=True) as handle:
        texts = [bytes(label).split(b"\0")[0].decode("latin-1").strip() for label in handle.header.label]
    return [text for text in texts if text]


def _write(path: PathLike, array: npt.NDArray[Any], pixel_size: float, volume: bool, label: str = "") -> None:
    with atomic_path(path) as temporary, mrcfile.new(temporary, overwrite=True) as handle:
        handle.set_data(array)
        if array.ndim == 3:
            if volume:
                handle.set_volume()
            else:
                handle.set_image_stack()
        handle.voxel_size = pixel_size
        handle.header.label[:] = b""
        handle.header.label[0] = b"Nephila"
        handle.header.nlabl = 1
        if label:
            handle.header.label[1] = label[:80].encode("ascii", "replace")
            handle.header.nlabl = 2


def write_image(path: PathLike, array: npt.ArrayLike, pixel_size: float) -> None:
    """Write one image [ny, nx] as float32."""
    _write(path, np.asarray(array, dtype=np.float32), pixel_size, volume=False)


def write_volume(path: PathLike, array: npt.ArrayLike, pixel_size: float, label: str = "") -> None:
    """Write a volume [nz, ny, nx] as float32 (MRC mode 2, ISPG 1); `label` (80 characters) goes into the header."""
    _write(path, np.asarray(array, dtype=np.float32), pixel_size, volume=True, label=label)


def write_stack(path: PathLike, array: npt.ArrayLike, pixel_size: float, dtype: str = "float32") -> None:
    """Write images [n, ny, nx] as a stack (ISPG 0), float32 (mode 2) or float16 (mode 12)."""
    data = np.asarray(array, dtype=np.dtype(dtype))
    with stack_writer(path, (data.shape[0], data.shape[1], data.shape[2]), pixel_size, dtype) as memory:
        memory[:] = data


class Stack:
    """A stack of images on disk, read as it is sliced: `stack[i]`, `stack[a:b]` and `stack[[rows]]` give float32."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        with _opened(path, mmap=True) as handle:
            shape = tuple(int(x) for x in handle.data.shape)
            self.pixel_size = _pixel_size(handle)
            dtype = handle.data.dtype
            offset = int(1024 + handle.header.nsymbt)
        if len(shape) == 2:
            shape = (1, *shape)
        if len(shape) != 3:
            raise InputError(f"{path}: a stack of images is needed, this file has the shape {shape}")
        self.shape: tuple[int, int, int] = (shape[0], shape[1], shape[2])
        self._data: npt.NDArray[Any]
        if shape[0] == 0:
            self._data = np.zeros(shape, dtype=dtype)
        else:
            self._data = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> FloatArray:
        return np.asarray(self._data[rows], dtype=np.float32)


def open_stack(path: PathLike) -> Stack:
    """Open a stack without reading its images; a single image counts as a stack of one."""
    return Stack(path)


@contextmanager
def stack_writer(
    path: PathLike, shape: tuple[int, int, int], pixel_size: float, dtype: str = "float32"
) -> Iterator[npt.NDArray[Any]]:
    """Make a stack of `shape` (n, ny, nx) and give its memory map to fill; it appears under `path` when the block ends.

    A stack of no images is written as a header and no data, which `open_stack` reads back.
    """
    n, ny, nx = shape
    mode = {"float32": 2, "float16": 12}.get(dtype)
    if mode is None:
        raise InputError(f"stack type {dtype!r} is not known; use float32 or float16")
    with atomic_path(path) as temporary:
        with mrcfile.new_mmap(temporary, shape=(max(n, 1), ny, nx), mrc_mode=mode, overwrite=True) as handle:
            handle.set_image_stack()
            handle.voxel_size = pixel_size
            handle.header.label[:] = b""
            handle.header.label[0] = b"Nephila"
            handle.header.nlabl = 1
            if n == 0:
                handle.header.nz = 0
                handle.header.mz = 1
                yield np.zeros((0, ny, nx), dtype=dtype)
            else:
                yield handle.data
                handle.flush()
        if n == 0:
            with open(temporary, "r+b") as raw:
                raw.truncate(1024)
