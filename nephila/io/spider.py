"""SPIDER files: images, volumes and stacks of either byte order, and document files.

A SPIDER file is a header of float32 words, a multiple of a row and at least 1024 bytes long, followed by float32
data. A stack has an overall header, then per image a header and the data. Words are counted from 1, as in SPIDER's
own description of the format. Arrays are copied row by row without a flip: images [ny, nx], volumes [nz, ny, nx],
stacks [n, ny, nx].
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.io.atomic import atomic_path, write_text

PathLike = str | os.PathLike[str]
FloatArray = npt.NDArray[np.float32]

HEADER_WORDS = 256
# Words of the header, counted from 0.
_NSLICE, _NROW, _IREC, _IFORM, _NSAM, _LABREC, _LABBYT, _LENBYT, _ISTACK, _MAXIM, _IMGNUM, _PIXSIZ = (
    0, 1, 2, 4, 11, 12, 21, 22, 23, 25, 26, 37,
)  # fmt: skip
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
    """

    kind: str
    shape: tuple[int, ...]
    pixel_size: float | None
    byte_order: str
    header_bytes: int

    @property
    def file_bytes(self) -> int:
        """Bytes that a complete file has."""
        if self.kind == "stack":
            n, ny, nx = self.shape
            return self.header_bytes + n * (self.header_bytes + 4 * ny * nx)
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
    if words[_ISTACK] > 0:
        if kind == "volume":
            raise InputError(
                f"{name}: a SPIDER stack of volumes; unstack it (SPIDER: CP FROM STACK) and give one volume"
            )
        kind, shape = "stack", (int(words[_MAXIM]), ny, nx)
    elif words[_ISTACK] < 0:
        raise InputError(f"{name}: an indexed SPIDER stack; copy it to a plain stack with SPIDER's CP first")
    pixel = float(words[_PIXSIZ])
    pixel_size = pixel if np.isfinite(pixel) and 0.01 < pixel < 1000 else None
    return SpiderHeader(kind, shape, pixel_size, order, int(words[_LABBYT]))


def decode(content: bytes, name: str) -> tuple[FloatArray, SpiderHeader]:
    """Array and header of a whole SPIDER file held in memory; see `read_spider`."""
    header = parse_header(content, name)
    if header is None:
        raise InputError(f"{name}: not a SPIDER image, volume or stack; check the format that the configuration names")
    if len(content) < header.file_bytes:
        raise InputError(
            f"{name}: {len(content)} bytes where {header.kind} {header.shape} needs {header.file_bytes}: cut short; "
            "copy it again"
        )
    dtype = np.dtype(f"{header.byte_order}f4")
    start = header.header_bytes
    if header.kind == "stack":
        n, ny, nx = header.shape
        step = (header.header_bytes + 4 * ny * nx) // 4
        words = np.frombuffer(content, dtype, count=n * step, offset=start).reshape(n, step)
        array = words[:, header.header_bytes // 4 :].reshape(n, ny, nx)
    else:
        array = np.frombuffer(content, dtype, count=int(np.prod(header.shape)), offset=start).reshape(header.shape)
    return array.astype(np.float32), header


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
    array, header = decode(_content(path), str(path))
    return array, header.pixel_size


def read_spider_header(path: PathLike) -> SpiderHeader:
    """Read the header only; InputError as for `read_spider`."""
    header = parse_header(_content(path, 4 * HEADER_WORDS), str(path))
    if header is None:
        raise InputError(f"{path}: not a SPIDER image, volume or stack")
    return header


def read_stack_numbers(path: PathLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Micrograph and particle number that `win2stk` left in each image's header (words 41 and 42), int64 [n] each.

    InputError where the file is not a SPIDER stack.
    """
    header = read_spider_header(path)
    if header.kind != "stack":
        raise InputError(f"{path}: a SPIDER {header.kind}, not a stack of particles")
    content = _content(path)
    n, ny, nx = header.shape
    step = (header.header_bytes + 4 * ny * nx) // 4
    if len(content) < header.file_bytes:
        raise InputError(
            f"{path}: {len(content)} bytes where {n} images need {header.file_bytes}: cut short; copy it again"
        )
    words = np.frombuffer(content, f"{header.byte_order}f4", count=n * step, offset=header.header_bytes).reshape(
        n, step
    )
    return words[:, 40].astype(np.int64), words[:, 41].astype(np.int64)


def _content(path: PathLike, size: int = -1) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read(size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _header_bytes(shape: Sequence[int], form: int, pixel_size: float | None, **more: float) -> bytes:
    nz, ny, nx = ((1, *shape) if len(shape) == 2 else tuple(shape))[-3:]
    row = 4 * nx
    records = -(-1024 // row)
    words = np.zeros(max(HEADER_WORDS, records * nx), dtype="<f4")
    words[[_NSLICE, _NROW, _NSAM, _IFORM]] = nz, ny, nx, form
    words[[_LABREC, _LABBYT, _LENBYT, _IREC]] = records, records * row, row, nz * ny + records
    words[_PIXSIZ] = pixel_size or 0.0
    for word, value in more.items():
        words[int(word.removeprefix("word"))] = value
    stamp = datetime(2000, 1, 1)  # a fixed date: equal data give equal bytes
    text = stamp.strftime("%d-%b-%Y").upper().encode().ljust(12, b"\0") + stamp.strftime("%H:%M:%S").encode()
    raw = bytearray(words.tobytes()[: records * row])
    raw[211 * 4 : 211 * 4 + len(text)] = text
    return bytes(raw)


def write_spider(path: PathLike, array: npt.ArrayLike, pixel_size: float | None = None, *, stack: bool = False) -> None:
    """Write an image [ny, nx], a volume [nz, ny, nx] or, with `stack`, images [n, ny, nx], as little-endian SPIDER.

    InputError for another number of dimensions or for a side of 0.
    """
    data = np.ascontiguousarray(array, dtype="<f4")
    if data.ndim not in (2, 3) or (stack and data.ndim != 3) or data.size == 0:
        raise InputError(f"{path}: SPIDER takes images, volumes and stacks, not an array of shape {data.shape}")
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        if not stack:
            handle.write(_header_bytes(data.shape, 1 if data.ndim == 2 else 3, pixel_size))
            handle.write(data.tobytes())
            return
        overall = {f"word{_ISTACK}": 2.0, f"word{_MAXIM}": float(len(data))}
        handle.write(_header_bytes(data.shape[1:], 1, pixel_size, **overall))
        for number, image in enumerate(data, start=1):
            handle.write(_header_bytes(image.shape, 1, pixel_size, **{f"word{_IMGNUM}": float(number)}))
            handle.write(image.tobytes())


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
    text = _content(path).decode("utf-8", errors="replace")
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
