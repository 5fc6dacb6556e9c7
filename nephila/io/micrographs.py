"""Micrographs of any supported format, as float32 images with protein bright.

MRC (modes 0, 1, 2, 6, 12), TIFF, SPIDER and raw scanner files, each also compressed with gzip. The format is found
from the content, not from the name.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.io import spider, tiff

PathLike = str | os.PathLike[str]
FloatArray = npt.NDArray[np.float32]
Contrast = Literal["dark", "bright"]
Film = Literal["none", "transmission", "density"]

SUFFIXES = (".mrc", ".mrcs", ".map", ".tif", ".tiff", ".spi", ".spd", ".dat", ".raw", ".img")
PIXEL_SIZE_TOLERANCE = 0.01
_MRC_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_IMOD_STAMP = 1146047817
_MOVIE_ADVICE = "a movie or a stack; align and sum the frames first (MotionCor2, relion_run_motioncorr)"


@dataclass(frozen=True)
class RawLayout:
    """Layout of a raw scanner file (HiScan and others: a header to skip, then rows of numbers).

    Attributes
    ----------
    shape : (height, width) in px
    header_bytes : bytes before the first row (342 for HiScan's 16-bit TIFF)
    dtype : "uint8", "uint16", "int16" or "float32"
    byte_order : "little" or "big"
    """

    shape: tuple[int, int]
    header_bytes: int = 342
    dtype: str = "uint16"
    byte_order: str = "little"

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        if self.dtype not in ("uint8", "uint16", "int16", "float32"):
            raise InputError(f"raw pixel type {self.dtype!r} is not known; use uint8, uint16, int16 or float32")
        if self.byte_order not in ("little", "big"):
            raise InputError(f"raw byte order {self.byte_order!r} is not known; use little or big")
        return np.dtype(self.dtype).newbyteorder("<" if self.byte_order == "little" else ">")


@dataclass(frozen=True)
class Micrograph:
    """A micrograph as the program works on it.

    Attributes
    ----------
    image : float32 [ny, nx], protein bright, decimated
    pixel_size : A, of `image`; 0 where neither the caller nor the header states one
    header_pixel_size : A, of the file, or None
    file_shape : (ny, nx) of the file, before decimation
    warnings : one line each, for the log
    """

    image: FloatArray
    pixel_size: float
    header_pixel_size: float | None
    file_shape: tuple[int, int]
    warnings: tuple[str, ...] = ()


class MicrographHeader(NamedTuple):
    """Height and width in px, pixel size in A (None where the file states none), type of the file's numbers."""

    ny: int
    nx: int
    pixel_size: float | None
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class MicrographSet:
    """What is common to all micrographs of a set; see `check_uniform`."""

    shape: tuple[int, int]
    header_pixel_size: float | None
    warnings: tuple[str, ...]


def read_micrograph(
    path: PathLike,
    pixel_size: float | None = None,
    contrast: Contrast = "dark",
    decimate: int = 1,
    *,
    film: Film = "none",
    raw: RawLayout | None = None,
) -> Micrograph:
    """Read a micrograph as float32 with protein bright.

    Parameters
    ----------
    pixel_size : A, of the file; the header's where None. Where both are given and differ by more than 1 %, `pixel_size`
        counts and a warning says so
    contrast : how protein looks in the file: "dark" (as cameras give it; the image is inverted) or "bright"
    decimate : each block of this many px squared becomes its mean; rows and columns that are left over are dropped
    film : "transmission" for a film scanner that measures light: its logarithm (log10 of the fraction of the brightest
        pixel) is linear in the density and so in the dose; "density" for one that gives optical density, which is
        linear already
    raw : layout of a raw file; None lets the content tell the format

    Raises
    ------
    InputError
        The file is missing, empty, cut short, of an unknown format, a movie, or holds NaN, infinite or only equal
        values.
    """
    if contrast not in ("dark", "bright"):
        raise InputError(f"contrast {contrast!r} is not known; use dark (protein dark, as cameras give it) or bright")
    if film not in ("none", "transmission", "density"):
        raise InputError(f"film {film!r} is not known; use none, transmission or density")
    if pixel_size is not None and not 0 < pixel_size < np.inf:
        raise InputError(f"pixel size {pixel_size} A: it must be positive")
    array, header_pixel_size, notes = _decode(_content(path), str(path), raw)
    ny, nx = array.shape
    image = np.ascontiguousarray(array, dtype=np.float32)
    _check_values(image, path)
    if film == "transmission":
        image = log_transmission(image)
    image = decimate_image(image, decimate)
    if contrast == "dark":
        np.negative(image, out=image)
    message = pixel_size_warning(path, header_pixel_size, pixel_size)
    size = (pixel_size or header_pixel_size or 0.0) * decimate
    return Micrograph(image, size, header_pixel_size, (ny, nx), (*notes, *((message,) if message else ())))


def log_transmission(image: FloatArray) -> FloatArray:
    """log10 of a scanner's light values as fractions of the brightest; values of 0 or less count as the smallest
    above 0.

    InputError where no value is above 0.
    """
    positive = image[image > 0]
    if positive.size == 0:
        raise InputError("film: no light value is above 0; these are not transmissions (film: density?)")
    floor, top = float(positive.min()), float(positive.max())
    return np.log10(np.maximum(image, floor) / top).astype(np.float32)


def decimate_image(image: FloatArray, factor: int) -> FloatArray:
    """Means of blocks of `factor` x `factor` px, float32 [ny // factor, nx // factor].

    The centre of new pixel i lies at `factor * i + (factor - 1) / 2` of the old image.
    InputError for a factor below 1 or larger than the image.
    """
    ny, nx = image.shape
    if factor < 1 or factor != int(factor) or factor > min(ny, nx):
        raise InputError(f"decimation by {factor} of an image of {ny} x {nx} px: give a whole number of 1 or more")
    if factor == 1:
        return image.copy()
    my, mx = ny // factor, nx // factor
    blocks = image[: my * factor, : mx * factor].reshape(my, factor, mx, factor)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float64), dtype=np.float32)


def micrograph_header(path: PathLike, raw: RawLayout | None = None) -> MicrographHeader:
    """Size, pixel size and type from the header alone; InputError for a missing, empty, cut or unreadable file, or a
    movie.

    Whether a gzip-compressed file is complete is seen only when it is read.
    """
    name = str(path)
    start = _content(path, 4096)
    length = None if _is_gzip(path) else os.stat(path).st_size
    if raw is not None:
        if length is not None:
            _check_length(name, length, raw.header_bytes + raw.shape[0] * raw.shape[1] * raw.numpy_dtype.itemsize)
        return MicrographHeader(*raw.shape, None, raw.numpy_dtype)
    if start[:4] in tiff.MAGIC:
        if length is None:
            return MicrographHeader(*tiff.tiff_header(_content(path), name))
        with open(path, "rb") as handle:
            return MicrographHeader(*tiff.tiff_header(handle, name))
    mrc = _mrc_header(start, name)
    if mrc is not None:
        if length is not None:
            _check_length(name, length, mrc.file_bytes)
        return MicrographHeader(mrc.ny, mrc.nx, mrc.pixel_size, mrc.dtype)
    header = spider.parse_header(start, name)
    if header is None:
        raise _unknown(name, start)
    ny, nx = _spider_shape(header.shape, name)
    if length is not None:
        _check_length(name, length, header.file_bytes)
    return MicrographHeader(ny, nx, header.pixel_size, np.dtype(f"{header.byte_order}f4"))


def list_micrographs(folder: PathLike, pattern: str = "*") -> list[Path]:
    """Micrographs of a folder whose names match `pattern` (as the shell's), numbers within names in numerical order.

    Where the pattern ends in "*", only names with a micrograph's suffix count (.mrc, .tif, .spi …, also with .gz).
    InputError where the folder is missing or nothing in it matches.
    """
    base = Path(folder)
    if not base.is_dir():
        raise InputError(f"{base}: no such folder of micrographs; check the path in the configuration")
    found = [p for p in base.glob(pattern) if p.is_file() and not p.name.startswith(".")]
    if pattern.endswith("*"):
        found = [p for p in found if Path(p.name.lower().removesuffix(".gz")).suffix in SUFFIXES]
    if not found:
        held = sum(1 for p in base.iterdir() if p.is_file())
        raise InputError(
            f"{base}: none of its {held} files matches {pattern!r}; check the folder and pattern of the micrographs"
        )
    return sorted(found, key=lambda p: natural_key(str(p.relative_to(base))))


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Key that sorts mic_2 before mic_10."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts]


def check_uniform(
    paths: Sequence[PathLike], pixel_size: float | None = None, raw: RawLayout | None = None
) -> MicrographSet:
    """Check from the headers alone that all micrographs have one size and one pixel size.

    Warnings: the header's pixel size differs from the given one by more than 1 %.

    Raises
    ------
    InputError
        No micrographs, one that cannot be read, or sizes or pixel sizes that differ (the files that differ from most
        are named).
    """
    if not paths:
        raise InputError("no micrographs are given; check the folder and pattern of the micrographs")
    headers = [micrograph_header(path, raw) for path in paths]
    shapes = [(h.ny, h.nx) for h in headers]
    shape = Counter(shapes).most_common(1)[0][0]
    odd = [i for i, s in enumerate(shapes) if s != shape]
    if odd:
        ny, nx = shapes[odd[0]]
        raise InputError(
            f"{paths[odd[0]]}: {nx} x {ny} px where most micrographs have {shape[1]} x {shape[0]}{_more(odd)}; "
            "process them as separate projects, or leave them out"
        )
    stated = [round(h.pixel_size, 4) for h in headers if h.pixel_size]
    common = Counter(stated).most_common(1)[0][0] if stated else None
    if common is not None:
        odd = [
            i for i, h in enumerate(headers) if h.pixel_size and abs(h.pixel_size / common - 1) > PIXEL_SIZE_TOLERANCE
        ]
        if odd:
            raise InputError(
                f"{paths[odd[0]]}: pixel size {headers[odd[0]].pixel_size:.4g} A where most have {common:.4g} A"
                f"{_more(odd)}; process them as separate projects, or leave them out"
            )
    message = pixel_size_warning(paths[0], common, pixel_size)
    return MicrographSet(shape, common, (message,) if message else ())


def pixel_size_warning(path: PathLike, header: float | None, given: float | None) -> str | None:
    """A line for the log where the header's pixel size and the given one differ by more than 1 %, else None."""
    if header is None or given is None or abs(header / given - 1) <= PIXEL_SIZE_TOLERANCE:
        return None
    return f"{path}: pixel size {header:.4g} A in the header, {given:.4g} A in the configuration, which counts"


def _more(odd: Sequence[int]) -> str:
    return f" (and {len(odd) - 1} more that differ)" if len(odd) > 1 else ""


def _check_values(image: FloatArray, path: PathLike) -> None:
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(np.count_nonzero(~np.isfinite(image)))
        raise InputError(f"{path}: {bad} of {image.size} pixels are NaN or infinite; repair the file or leave it out")
    if low == high:
        raise InputError(f"{path}: every pixel is {low:g}, an empty exposure; leave it out")


def _is_gzip(path: PathLike) -> bool:
    with open(path, "rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def _content(path: PathLike, size: int = -1) -> bytes:
    """The first `size` bytes of a file (all by default), decompressed where it is gzip."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        with gzip.open(path) if _is_gzip(path) else open(path, "rb") as handle:  # type: ignore[attr-defined]
            content = bytes(handle.read(size))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: the gzip file is damaged or cut short ({error}); copy it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not content:
        raise InputError(f"{path}: the file is empty (0 bytes); copy it again or leave it out")
    return content


def _check_length(name: str, length: int, needed: int) -> None:
    if length < needed:
        raise InputError(
            f"{name}: {length} bytes where the header needs {needed}: cut short; copy it again or leave it out"
        )


def _unknown(name: str, start: bytes) -> InputError:
    if len(start) < 1024:
        return InputError(f"{name}: {len(start)} bytes are too few for a micrograph; copy it again or leave it out")
    return InputError(f"{name}: not an MRC, TIFF or SPIDER file; convert it to MRC, or describe it as raw")


def _decode(content: bytes, name: str, raw: RawLayout | None) -> tuple[npt.NDArray[Any], float | None, list[str]]:
    """Array [ny, nx] of the file's type, header pixel size, remarks."""
    if raw is not None:
        count = raw.shape[0] * raw.shape[1]
        _check_length(name, len(content), raw.header_bytes + count * raw.numpy_dtype.itemsize)
        return np.frombuffer(content, raw.numpy_dtype, count, raw.header_bytes).reshape(raw.shape), None, []
    if content[:4] in tiff.MAGIC:
        array, pixel_size = tiff.read_tiff(content, name)
        return array, pixel_size, []
    mrc = _mrc_header(content, name)
    if mrc is not None:
        _check_length(name, len(content), mrc.file_bytes)
        array = np.frombuffer(content, mrc.dtype, mrc.ny * mrc.nx, mrc.data_offset).reshape(mrc.ny, mrc.nx)
        extra = len(content) - mrc.file_bytes
        return array, mrc.pixel_size, [f"{name}: {extra} bytes more than the header says are left out"] if extra else []
    if spider.parse_header(content[:4096], name) is None:
        raise _unknown(name, content)
    image, header = spider.decode(content, name)
    return image.reshape(_spider_shape(header.shape, name)), header.pixel_size, []


def _spider_shape(shape: tuple[int, ...], name: str) -> tuple[int, int]:
    if len(shape) == 3 and shape[0] != 1:
        raise InputError(f"{name}: a SPIDER file of {shape[0]} images or sections, {_MOVIE_ADVICE}")
    return shape[-2], shape[-1]


class _MrcHeader(NamedTuple):
    ny: int
    nx: int
    pixel_size: float | None
    dtype: np.dtype[Any]
    data_offset: int

    @property
    def file_bytes(self) -> int:
        return self.data_offset + self.ny * self.nx * self.dtype.itemsize


def _mrc_header(start: bytes, name: str) -> _MrcHeader | None:
    """Header of an MRC file; None where the bytes are not one's. Old files have no "MAP " mark: their numbers tell."""
    if len(start) < 1024:
        return None
    marked = start[208:211] == b"MAP"
    if not marked and spider.parse_header(start[:1024], name) is not None:
        return None
    for order in "<>":
        words = np.frombuffer(start[:1024], dtype=f"{order}i4")
        nx, ny, nz, mode = (int(x) for x in words[:4])
        offset = 1024 + int(words[23])
        if 0 < nx < 200_000 and 0 < ny < 200_000 and 0 < nz < 1_000_000 and 0 <= mode <= 101 and 1024 <= offset < 2**31:
            break
    else:
        if marked:
            raise InputError(f"{name}: an MRC header of impossible size or mode; copy it again or leave it out")
        return None
    if mode not in _MRC_TYPES:
        if not marked:
            return None
        known = ", ".join(map(str, _MRC_TYPES))
        raise InputError(
            f"{name}: MRC mode {mode} is not a micrograph's (known: {known}); convert it (newstack -mode 2)"
        )
    if nz != 1:
        raise InputError(f"{name}: {nz} frames, {_MOVIE_ADVICE}")
    kind = _MRC_TYPES[mode]
    if mode == 0 and words[38] == _IMOD_STAMP and not words[39] & 1:
        kind = "u1"  # IMOD's own files say whether their bytes are signed
    cell = np.frombuffer(start[40:44], dtype=f"{order}f4")[0]
    intervals = int(words[7])
    size = float(cell) / intervals if intervals > 0 else 0.0
    pixel_size = size if np.isfinite(size) and size > 0 else None
    return _MrcHeader(ny, nx, pixel_size, np.dtype(f"{order}{kind}"), offset)
