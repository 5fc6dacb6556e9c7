"""SPIDER files: images, volumes and stacks of either byte order, and document files.

A SPIDER file is a header of float32 words, a multiple of a row and at least 1024 bytes long, followed by float32
data. A stack has an overall header, then per image a header and the data. Words are counted from 1, as in SPIDER's
own description of the format. Arrays are copied row by row without a flip: images [ny, nx], volumes [nz, ny, nx],
stacks [n, ny, nx].
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.io.atomic import atomic_path, write_text

PathLike = str | os.PathLike[str]
FloatArray = npt.NDArray[np.float32]
Buffer = bytes | mmap.mmap

HEADER_WORDS = 256
# Words of the header, counted from 0.
_NSLICE, _NROW, _IREC, _IFORM, _IMAMI, _FMAX, _FMIN, _NSAM, _LABREC, _IANGLE, _LABBYT, _LENBYT, _ISTACK = (
    0, 1, 2, 4, 5, 6, 7, 11, 12, 13, 21, 22, 23,
)  # fmt: skip
_TITLE = 216
_TITLE_BYTES = 160
_MAXIM, _IMGNUM, _LASTINDX, _KANGLE, _PIXSIZ, _MIC, _NUM, _LANGLE = 25, 26, 27, 30, 37, 40, 41, 103
_KINDS = {1: "image", 3: "volume"}
_MAX_SIDE = 100_000
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][-+]?\d+)?|[-+]?(?:NaN|Inf(?:inity)?)", re.IGNORECASE)


@dataclass(frozen=True)
class SpiderHeader:
    """What the header of a SPIDER file says.

    Attributes
    ----------
    kind : "image", "volume" or "stack" (of images)
    shape : (ny, nx), (nz, ny, nx) or (n, ny, nx)
    pixel_size : A, or None where the header states none
    byte_order : "<" little-endian, ">" big-endian
    header_bytes : length of one header
    index_bytes : of an indexed stack, length of the index between the overall header and the first image; else 0
    angles : whether the header holds angles or shifts, which arrays do not
    """

    kind: str
    shape: tuple[int, ...]
    pixel_size: float | None
    byte_order: str
    header_bytes: int
    index_bytes: int = 0
    angles: bool = False

    @property
    def file_bytes(self) -> int:
        """Bytes that a complete file has."""
        if self.kind == "stack":
            n, ny, nx = self.shape
            return self.header_bytes + self.index_bytes + n * (self.header_bytes + 4 * ny * nx)
        return self.header_bytes + 4 * int(np.prod(self.shape))


def _plausible(words: npt.NDArray[np.float64]) -> bool:
    """Whether the header words make sense in the byte order that they were read with."""
    sides = words[[_NSLICE, _NROW, _NSAM, _LABBYT, _LENBYT]]
    if not np.isfinite(sides).all() or np.any(sides != np.round(sides)) or np.any(sides[:3] < 1):
        return False
    nslice, nrow, nsam, header_bytes, row_bytes = sides
    form = words[_IFORM]
    return bool(
        max(nslice, nrow, nsam) <= _MAX_SIDE
        and row_bytes == 4 * nsam
        and header_bytes >= 1024
        and header_bytes % row_bytes == 0
        and form in (1, 3, -11, -12, -21, -22, 8, 11, 12, 21, 22)
    )


def parse_header(start: bytes, name: str) -> SpiderHeader | None:
    """Read a SPIDER header from a file's first 1024 bytes; None where these are not one.

    Raises
    ------
    InputError
        It is SPIDER's, but of a kind that holds no real-space image or volume (a Fourier transform).
    """
    if len(start) < 4 * HEADER_WORDS:
        return None
    for order in "<>":
        with np.errstate(invalid="ignore"):
            words = np.frombuffer(start[: 4 * HEADER_WORDS], dtype=f"{order}f4").astype(np.float64)
        if _plausible(words):
            break
    else:
        return None
    form = int(words[_IFORM])
    if form not in _KINDS:
        raise InputError(
            f"{name}: SPIDER format {form} (a Fourier transform) holds no image; convert it with SPIDER's FT first"
        )
    nz, ny, nx = (int(words[i]) for i in (_NSLICE, _NROW, _NSAM))
    kind, shape = _KINDS[form], (nz, ny, nx)
    if kind == "image":
        shape = (ny, nx)  # type: ignore[assignment]
    index_bytes = 0
    if words[_ISTACK] != 0:
        if kind == "volume":
            raise InputError(
                f"{name}: a SPIDER stack of volumes; unstack it (SPIDER: CP FROM STACK) and give one volume"
            )
        kind, shape = "stack", (int(words[_MAXIM]), ny, nx)
        if words[_ISTACK] < 0:  # indexed: as many slots as are in use, in any order
            shape = (int(words[_LASTINDX]), ny, nx)
            index_bytes = -(-int(-words[_ISTACK]) // nx) * 4 * nx
    pixel = float(words[_PIXSIZ])
    pixel_size = pixel if np.isfinite(pixel) and 0.01 < pixel < 1000 else None
    angles = bool(words[_IANGLE] or words[_KANGLE] or words[_LANGLE])
    return SpiderHeader(kind, shape, pixel_size, order, int(words[_LABBYT]), index_bytes, angles)


def is_spider(path: PathLike) -> bool:
    """Whether a file begins as SPIDER's images, volumes and stacks do."""
    with open(path, "rb") as handle:
        return parse_header(handle.read(4 * HEADER_WORDS), str(path)) is not None


def read_title(path: PathLike) -> str:
    """The title in a SPIDER file's header."""
    with open(path, "rb") as handle:
        start = handle.read(4 * HEADER_WORDS)
    return start[4 * _TITLE : 4 * _TITLE + _TITLE_BYTES].split(b"\0")[0].decode("latin-1").strip()


def decode(content: Buffer, name: str) -> tuple[FloatArray, SpiderHeader]:
    """Array and header of a whole SPIDER file held in memory; see `read_spider`."""
    array, header = _decoded(content, name)
    return array.astype(np.float32), header


def map_spider(path: PathLike) -> tuple[npt.NDArray[np.floating], SpiderHeader]:
    """The file's numbers as a read-only view of its own byte order, which is read as it is used; else as `read_spider`."""
    return _decoded(_mapped(path), str(path))


def _decoded(content: Buffer, name: str) -> tuple[npt.NDArray[np.floating], SpiderHeader]:
    header = _checked_header(content, name)
    if header.kind == "stack":
        n, ny, nx = header.shape
        images, _ = _stacked(content, header, name)
        array = images[:, header.header_bytes // 4 :].reshape(len(images), ny, nx)
        header = replace(header, shape=(len(images), ny, nx))
    else:
        dtype = np.dtype(f"{header.byte_order}f4")
        array = np.frombuffer(content, dtype, int(np.prod(header.shape)), header.header_bytes).reshape(header.shape)
    _check_numbers(array[:4096] if array.ndim == 2 else array[:16], header, name)  # some tell
    return array, header


def _checked_header(content: Buffer, name: str) -> SpiderHeader:
    """The header of a whole file. InputError where there is none, or the file is shorter than it says."""
    if not content:
        raise InputError(f"{name}: the file is empty (0 bytes); copy it again or leave it out")
    header = parse_header(content[: 4 * HEADER_WORDS], name)
    if header is None:
        raise InputError(
            f"{name}: not a SPIDER image, volume or stack in either byte order; check the format that the configuration names"
        )
    if len(content) < header.file_bytes:
        raise InputError(
            f"{name}: {len(content)} bytes where {header.kind} {header.shape} needs {header.file_bytes}: cut short; "
            "copy it again"
        )
    return header


def _stacked(
    content: Buffer, header: SpiderHeader, name: str
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int64]]:
    """Words of a stack's images (each with its header), and their numbers; of an indexed stack, those that are in use."""
    n, ny, nx = header.shape
    step = (header.header_bytes + 4 * ny * nx) // 4
    start = header.header_bytes + header.index_bytes
    words = np.frombuffer(content, f"{header.byte_order}f4", count=n * step, offset=start).reshape(n, step)
    if not header.index_bytes:
        return words, np.arange(1, n + 1)
    count = header.index_bytes // 4
    # SPIDER writes the index as integers; a number of the same value as float32 is larger than any slot
    slots = np.frombuffer(content, f"{header.byte_order}i4", count=count, offset=header.header_bytes)
    numbers = np.flatnonzero(slots > 0)
    wrong = numbers[slots[numbers] > n]
    if len(wrong):
        raise InputError(
            f"{name}: the index puts image {wrong[0] + 1} into slot {slots[wrong[0]]} of {n}; copy the stack with SPIDER's CP"
        )
    return words[slots[numbers] - 1], numbers + 1


def _check_numbers(array: npt.NDArray[np.floating], header: SpiderHeader, name: str) -> None:
    """InputError where the numbers make sense only in the other byte order than the header's."""
    if not array.size:
        return
    with np.errstate(invalid="ignore", over="ignore"):
        size = float(np.abs(array).max())
        if np.isfinite(size) and size < 1e30:
            return
        other = np.frombuffer(array.tobytes(), array.dtype.newbyteorder())
        swapped = float(np.abs(other).max())
    if np.isfinite(swapped) and swapped < 1e20:
        here, there = ("little", "big") if header.byte_order == "<" else ("big", "little")
        raise InputError(
            f"{name}: the header is {here}-endian and the numbers {there}-endian: converted by halves; take the original file"
        )


def read_spider(path: PathLike) -> tuple[FloatArray, float | None]:
    """Read a SPIDER image, volume or stack of either byte order.

    Returns
    -------
    array : float32 [ny, nx], [nz, ny, nx] or [n, ny, nx]
    pixel_size : A, or None where the header states none (most SPIDER files)

    Raises
    ------
    InputError
        No such file, not SPIDER, a Fourier transform or a stack of volumes, or cut short.
    """
    array, header = decode(_mapped(path), str(path))
    return array, header.pixel_size


def read_spider_header(path: PathLike) -> SpiderHeader:
    """Read the header only; InputError as for `read_spider`."""
    content = _content(path, 4 * HEADER_WORDS)
    header = parse_header(content, str(path))
    if header is None:
        problem = "not a SPIDER image, volume or stack" if content else "the file is empty (0 bytes)"
        raise InputError(f"{path}: {problem}")
    return header


def read_stack_numbers(path: PathLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Micrograph and particle number that `win2stk` left in each image's header (words 41 and 42), int64 [n] each.

    InputError where the file is not a SPIDER stack.
    """
    content = _mapped(path)
    header = _checked_header(content, str(path))
    if header.kind != "stack":
        raise InputError(f"{path}: a SPIDER {header.kind}, not a stack of particles")
    words, _ = _stacked(content, header, str(path))
    return words[:, _MIC].astype(np.int64), words[:, _NUM].astype(np.int64)


def read_image_numbers(path: PathLike) -> npt.NDArray[np.int64]:
    """Numbers of a stack's images, int64 [n]: 1, 2 …, or those in use of an indexed stack, which may have gaps."""
    content = _mapped(path)
    header = _checked_header(content, str(path))
    return _stacked(content, header, str(path))[1] if header.kind == "stack" else np.array([1])


def _mapped(path: PathLike) -> Buffer:
    """A file's bytes, mapped into memory; InputError where it cannot be read."""
    try:
        with open(path, "rb") as handle:
            if os.fstat(handle.fileno()).st_size == 0:
                return b""
            return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _content(path: PathLike, size: int = -1) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read(size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _header_bytes(
    shape: Sequence[int], form: int, pixel_size: float | None, order: str, more: Mapping[int, float] | None = None
) -> bytes:
    nz, ny, nx = ((1, *shape) if len(shape) == 2 else tuple(shape))[-3:]
    row = 4 * nx
    records = -(-1024 // row)
    words = np.zeros(max(HEADER_WORDS, records * nx), dtype=f"{order}f4")
    words[[_NSLICE, _NROW, _NSAM, _IFORM]] = nz, ny, nx, form
    words[[_LABREC, _LABBYT, _LENBYT, _IREC]] = records, records * row, row, nz * ny + records
    words[_PIXSIZ] = pixel_size or 0.0
    for word, value in (more or {}).items():
        words[word] = value
    stamp = datetime(2000, 1, 1)  # a fixed date: equal data give equal bytes
    text = stamp.strftime("%d-%b-%Y").upper().encode().ljust(12, b"\0") + stamp.strftime("%H:%M:%S").encode()
    raw = bytearray(words.tobytes()[: records * row])
    raw[211 * 4 : 211 * 4 + len(text)] = text
    return bytes(raw)


def write_spider(
    path: PathLike,
    array: npt.ArrayLike,
    pixel_size: float | None = None,
    *,
    stack: bool = False,
    byte_order: str = "<",
    numbers: npt.ArrayLike | None = None,
    title: str = "",
) -> None:
    """Write an image [ny, nx], a volume [nz, ny, nx] or, with `stack`, images [n, ny, nx] as SPIDER.

    Parameters
    ----------
    byte_order : "<" little-endian, as SPIDER writes on today's machines, or ">" big-endian
    numbers : [2, n], of a stack: micrograph and particle number of each image, into words 41 and 42 of its header
    title : of an image or volume, at most 160 characters

    InputError for another number of dimensions or for a side of 0.
    """
    if byte_order not in ("<", ">"):
        raise InputError(f"{path}: byte order {byte_order!r} is not known; use '<' (little-endian) or '>' (big-endian)")
    data = np.asarray(array)
    dtype = np.dtype(f"{byte_order}f4")
    if data.ndim not in (2, 3) or (stack and data.ndim != 3) or data.size == 0:
        raise InputError(f"{path}: SPIDER takes images, volumes and stacks, not an array of shape {data.shape}")
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        if not stack:
            header = bytearray(_header_bytes(data.shape, 1 if data.ndim == 2 else 3, pixel_size, byte_order))
            text = title[:_TITLE_BYTES].encode("ascii", "replace")
            header[4 * _TITLE : 4 * _TITLE + len(text)] = text
            handle.write(bytes(header))
            handle.write(data.astype(dtype).tobytes())
            return
        overall = {_ISTACK: 2.0, _MAXIM: float(len(data))}
        handle.write(_header_bytes(data.shape[1:], 1, pixel_size, byte_order, overall))
        marks = np.zeros((2, len(data))) if numbers is None else np.asarray(numbers, dtype=np.float64)
        for row, image in enumerate(data):
            words = {_IMGNUM: row + 1.0, _MIC: marks[0, row], _NUM: marks[1, row]}
            handle.write(_header_bytes(image.shape, 1, pixel_size, byte_order, words))
            handle.write(image.astype(dtype).tobytes())


def read_document(path: PathLike, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a SPIDER document file: lines of key, number of columns, columns; lines with ';' are comments.

    Columns written without a space between them (a negative number after a full field) are told apart. Where a key
    occurs twice, the later line counts, as in SPIDER.

    Parameters
    ----------
    columns : names of the columns; by default c1, c2 …

    Returns
    -------
    DataFrame of float64, index `key` (int) in the order of the file; a short line is filled with NaN.

    Raises
    ------
    InputError
        No such file, a line that is not of this form (named), or fewer columns than `columns` names.
    """
    content = _content(path)
    if not content:
        raise InputError(f"{path}: the file is empty (0 bytes); copy it again or leave it out")
    text = content.decode("utf-8", errors="replace")
    rows: dict[int, list[float]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.split(";")[0].strip()
        if not stripped:
            continue
        match = re.match(r"(-?\d+)\s+(\d+)(?=\s|[-+.]|$)(.*)$", stripped)
        values = [float(x.replace("D", "E").replace("d", "e")) for x in _NUMBER.findall(match[3])] if match else []
        if match is None or len(values) != int(match[2]):
            raise InputError(
                f"{path}, line {number}: not key, number of columns, columns of a SPIDER document: {stripped[:60]!r}"
            )
        key = int(match[1])
        rows.pop(key, None)
        rows[key] = values
    width = max((len(values) for values in rows.values()), default=0)
    if columns is not None and rows and width < len(columns):
        raise InputError(f"{path}: {width} columns where {len(columns)} are needed ({', '.join(columns)})")
    width = max(width, len(columns or ()))
    names = [*(columns or ()), *(f"c{i + 1}" for i in range(len(columns or ()), width))]
    filled = [values + [np.nan] * (width - len(values)) for values in rows.values()]
    table = pd.DataFrame(np.array(filled, dtype=np.float64).reshape(len(rows), width), columns=names)
    table.index = pd.Index(list(rows), name="key", dtype="int64")
    return table


def write_document(
    path: PathLike, table: pd.DataFrame | Mapping[str, Iterable[float]], keys: Iterable[int] | None = None
) -> None:
    """Write a SPIDER document file with one heading line of the columns' names.

    Parameters
    ----------
    table : numeric columns; an integer index named "key" gives the keys unless `keys` does, else they count from 1
    """
    frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame({k: list(v) for k, v in table.items()})
    if keys is None:
        keys = frame.index if frame.index.name == "key" else range(1, len(frame) + 1)
    values = frame.to_numpy(dtype=np.float64)
    lines = [f" ;spi/dat   {Path(path).name}", " ;      " + "".join(f"{name:>15}" for name in map(str, frame.columns))]
    for key, row in zip(keys, values, strict=True):
        lines.append(f"{int(key):5d} {len(row):2d} " + "".join(f" {value:14.7G}" for value in row))
    write_text(path, "\n".join(lines) + "\n")
