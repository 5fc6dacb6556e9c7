"""Files of one format made into another: images, volumes and stacks (SPIDER, MRC, TIFF, raw), document files and STAR tables.

Arrays are copied row by row without a flip; only TIFF, which counts rows from the top, is turned over. What a format cannot
hold is refused, or said.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.io import spider, tiff
from nephila.io.micrographs import RawLayout, log_transmission
from nephila.io.mrc import _opened, stack_writer, write_image, write_volume
from nephila.io.tables import read_blocks, write_blocks
from nephila.relabelling import mark_for

PathLike = str | os.PathLike[str]
Kind = Literal["image", "stack", "volume"]

MRC = (".mrc", ".mrcs", ".map", ".st", ".rec", ".ali")
TIFF = (".tif", ".tiff")
BLOCK = 64
"""Images of a stack that are copied at a time."""
KEY = "spiderKey"
COLUMN = "spiderColumn"


@dataclass(frozen=True)
class ConversionSettings:
    """How a file is converted.

    Attributes
    ----------
    kind : what three dimensions mean; None: what the file says
    pixel_size : A, written to the output; None: the input's
    byte_order : "<" or ">", of SPIDER files that are written
    columns : names of a document's columns in a STAR table; empty: spiderColumn1 …
    table : STAR table to write with the micrograph and particle numbers in a SPIDER stack's headers
    raw : layout of a raw input
    film : turn an image of light that passed a film into optical density, or back; None: as it is
    """

    kind: Kind | None = None
    pixel_size: float | None = None
    byte_order: str = "<"
    columns: tuple[str, ...] = ()
    table: PathLike | None = None
    raw: RawLayout | None = None
    film: Literal["density", "transmission"] | None = None


@dataclass(frozen=True)
class Content:
    """What was read: [ny, nx] or [n or nz, ny, nx] of numbers that float32 holds, what it is, pixel size in A (0: not stated),
    remarks. Arrays of MRC and SPIDER files are views that are read as they are used. mark : of a volume whose pixel size was
    written anew (`nephila.relabelling`), for its header.
    """

    array: npt.NDArray[Any]
    kind: Kind
    pixel_size: float
    notes: tuple[str, ...] = ()
    mark: str = ""


def convert(source: PathLike, target: PathLike, settings: ConversionSettings | None = None) -> list[str]:
    """Convert a file; formats follow from the content of `source` and the suffix of `target`.

    `.mrc`, `.mrcs`, `.map` and the like are MRC, `.star` is STAR, every other suffix is SPIDER: an image, volume or stack, or a
    document file where `source` is a STAR table.

    Returns
    -------
    What was done and what was lost, one line each.

    Raises
    ------
    InputError
        A file that cannot be read, formats that do not go together, or numbers that the target cannot hold.
    """
    chosen = settings or ConversionSettings()
    if Path(source).resolve() == Path(target).resolve():
        raise InputError(f"{target}: is the input; write to another file")
    if not Path(source).is_file():
        raise InputError(f"{source}: no such file")
    if Path(source).stat().st_size == 0:
        raise InputError(f"{source}: the file is empty (0 bytes); copy it again or leave it out")
    to_star = Path(target).suffix.lower() == ".star"
    if Path(source).suffix.lower() == ".star":
        return _star_to_star(source, target) if to_star else _star_to_document(source, target)
    if is_document(source):
        if not to_star:
            raise InputError(f"{source}: a SPIDER document file, which becomes a STAR table: name the output ….star")
        return _document_to_star(source, target, chosen.columns)
    if to_star:
        raise InputError(
            f"{source}: an image, stack or volume, which no STAR table holds; name the output ….mrc or ….spi"
        )
    content = read_content(source, chosen)
    return [*content.notes, *write_content(content, source, target, chosen)]


def is_document(path: PathLike) -> bool:
    """Whether a file is text as SPIDER's document files are: a comment or a line of numbers first, no zero bytes."""
    with open(path, "rb") as handle:
        start = handle.read(1024)
    if b"\0" in start or spider.parse_header(start, str(path)) is not None:
        return False
    first = next((line for line in start.split(b"\n") if line.strip()), b"").strip()
    return first.startswith(b";") or (first[:1].isdigit() and b" " in first) or first.startswith(b"-1 ")


def read_content(source: PathLike, settings: ConversionSettings) -> Content:
    """Read an image, stack or volume of any format. InputError for what it cannot be, or what float32 cannot hold."""
    with open(source, "rb") as handle:
        start = handle.read(1024)
    if settings.raw is not None:
        content = _read_raw(source, settings.raw)
    elif start[:4] in tiff.MAGIC:
        array, pixel_size = tiff.read_tiff(Path(source).read_bytes(), str(source))
        content = Content(
            _exact(array, source), "image", pixel_size or 0.0, ("TIFF rows are turned over: row 0 is the lowest",)
        )
    elif start[208:211] == b"MAP":
        content = _read_mrc(source)
    elif spider.parse_header(start, str(source)) is not None:
        content = _read_spider(source)
    elif Path(source).suffix.lower() in MRC:
        content = _read_mrc(source)
    else:
        raise InputError(
            f"{source}: neither MRC, TIFF, SPIDER (in either byte order) nor a document file; describe raw files with --raw"
        )
    if settings.kind is not None and settings.kind != content.kind:
        array = content.array if content.array.ndim == 3 else content.array[None]
        content = replace(content, array=array, kind=settings.kind)
        content = replace(content, notes=(*content.notes, f"taken as a {settings.kind}, as asked"))
    headed = content.kind == "volume" and settings.raw is None and start[:4] not in tiff.MAGIC
    before = content.pixel_size
    if settings.pixel_size is not None:
        given, stated = settings.pixel_size, content.pixel_size
        if stated and abs(stated / given - 1) > 1e-4:
            content = replace(
                content, notes=(*content.notes, f"pixel size {given:g} A instead of the header's {stated:g} A")
            )
        content = replace(content, pixel_size=given)
    if settings.film is not None:
        content = _developed(content, source, settings.film)
    mark = mark_for(source, before, content.pixel_size) if headed else ""
    return replace(content, mark=mark, notes=(*content.notes, f"pixel size {mark}")) if mark else content


def write_content(content: Content, source: PathLike, target: PathLike, settings: ConversionSettings) -> list[str]:
    """Write MRC or SPIDER, as the suffix of `target` says. Returns what was written and what is not in it."""
    array, kind, pixel_size = content.array, content.kind, content.pixel_size
    notes = []
    suffix = Path(target).suffix.lower()
    if suffix in TIFF:
        raise InputError(f"{target}: TIFF is read, not written; use ….mrc, or relion_convert_to_tiff")
    if kind == "volume" and suffix == ".mrcs":
        raise InputError(f"{target}: .mrcs names a stack, {source} is a volume; name it ….mrc, or say --kind stack")
    numbers = _header_numbers(source) if kind == "stack" else None
    if suffix in MRC:
        if kind == "image":
            write_image(target, array, pixel_size)
        elif kind == "volume":
            write_volume(target, array, pixel_size, content.mark)
        else:
            with stack_writer(target, array.shape, pixel_size) as memory:  # type: ignore[arg-type]
                for first in range(0, len(array), BLOCK):
                    memory[first : first + BLOCK] = array[first : first + BLOCK]
        if not pixel_size:
            notes.append("no pixel size is known; the MRC header states none (--pixel-size sets it)")
        if numbers is not None and settings.table is None:
            notes.append("micrograph and particle numbers of the headers are not in the MRC file (--table keeps them)")
        what = f"MRC {kind}"
    else:
        spider.write_spider(
            target,
            array,
            pixel_size or None,
            stack=kind == "stack",
            byte_order=settings.byte_order,
            numbers=numbers,
            title=content.mark,
        )
        what = f"SPIDER {kind}, {'little' if settings.byte_order == '<' else 'big'}-endian"
    if settings.table is not None:
        notes.append(_write_numbers(numbers, source, target, settings.table))
    size = " x ".join(str(side) for side in reversed(array.shape[-2:] if kind == "stack" else array.shape))
    many = f"{len(array)} images of " if kind == "stack" else ""
    scale = f", {pixel_size:g} A/px" if pixel_size else ""
    return [*notes, f"{target}: {what}, {many}{size} px{scale}"]


def _exact(array: npt.NDArray[Any], source: PathLike) -> npt.NDArray[Any]:
    """The same numbers; InputError where float32 does not hold one of them."""
    if array.dtype.itemsize <= 2 or array.dtype == np.float32:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.asarray(array, dtype=np.float32)
        wrong = (result.astype(array.dtype) != array) & ~(np.isnan(result) if array.dtype.kind == "f" else False)
    if wrong.any():
        raise InputError(
            f"{source}: {int(wrong.sum())} of {array.size} numbers ({array.dtype}) do not fit into 32-bit floats; scale the "
            "image first"
        )
    return result


def _developed(content: Content, source: PathLike, film: str) -> Content:
    """Light as optical density, -log10 of its share of the brightest pixel's; or density as that share."""
    if content.kind != "image":
        raise InputError(f"{source}: a {content.kind}; film is turned into density, or back, image by image")
    values = np.asarray(content.array, dtype=np.float32)
    if film == "density":
        dark = int((values <= 0).sum())
        note = "light is now optical density: 0 at the brightest pixel"
        note += f"; {dark} pixels without light count as the darkest other one" if dark else ""
        return replace(content, array=-log_transmission(values), notes=(*content.notes, note))
    if float(values.min()) < -0.01 or float(values.max()) > 10:
        raise InputError(
            f"{source}: values from {values.min():g} to {values.max():g} are no optical densities, which lie between 0 and about 5"
        )
    return replace(
        content,
        array=np.power(np.float32(10), -values),
        notes=(*content.notes, "density is now the share of light that passes"),
    )


def _read_raw(source: PathLike, layout: RawLayout) -> Content:
    content = Path(source).read_bytes()
    needed = layout.header_bytes + layout.shape[0] * layout.shape[1] * layout.numpy_dtype.itemsize
    if len(content) < needed:
        raise InputError(
            f"{source}: {len(content)} bytes where the layout needs {needed}: cut short, or another layout"
        )
    notes = (f"{len(content) - needed} bytes after the image are left out",) if len(content) > needed else ()
    array = np.frombuffer(content, layout.numpy_dtype, layout.shape[0] * layout.shape[1], layout.header_bytes)
    return Content(_exact(array.reshape(layout.shape), source), "image", 0.0, notes)


def _read_spider(source: PathLike) -> Content:
    array, header = spider.map_spider(source)
    notes = []
    if header.angles:
        notes.append("angles or shifts in the SPIDER header are left out")
    if header.index_bytes:
        used = spider.read_image_numbers(source)
        gaps = int(used[-1]) - len(used) if len(used) else 0
        notes.append(
            f"indexed stack: {len(used)} images in the order of their numbers"
            + (f", {gaps} unused left out" if gaps else "")
        )
    kind: Kind = header.kind  # type: ignore[assignment]
    return Content(array, kind, header.pixel_size or 0.0, tuple(notes))


def _read_mrc(source: PathLike) -> Content:
    with _opened(source, mmap=True) as handle:
        head, data = handle.header, handle.data
        if np.iscomplexobj(data):
            raise InputError(f"{source}: MRC mode {int(head.mode)}, a Fourier transform; transform it back first")
        if data.ndim == 4 or int(head.ispg) >= 401:
            raise InputError(f"{source}: a stack of volumes; split it into single volumes first")
        if (int(head.mapc), int(head.mapr), int(head.maps)) not in ((1, 2, 3), (0, 0, 0)):
            raise InputError(
                f"{source}: axes in the order {int(head.mapc)}, {int(head.mapr)}, {int(head.maps)}; turn them to x, y, z "
                "(1, 2, 3) first"
            )
        # the header has the cell's side as float32: seven digits of the pixel size are right
        sizes = [float(f"{float(getattr(handle.voxel_size, axis)):.7g}") for axis in "xyz"]
        stack = data.ndim == 3 and (handle.is_image_stack() or Path(source).suffix.lower() == ".mrcs")
        extended = int(head.nsymbt)
        array: npt.NDArray[Any] = np.memmap(source, data.dtype, "r", 1024 + extended, data.shape)
        origin = [float(getattr(head.origin, axis)) for axis in "xyz"] + [
            float(head[f"n{axis}start"]) for axis in "xyz"
        ]
    if array.ndim == 2 and Path(source).suffix.lower() == ".mrcs":
        array, stack = array[None], True
    kind: Kind = "image" if array.ndim == 2 else "stack" if stack else "volume"
    used = sizes[:2] if kind != "volume" else sizes
    if max(used) > 0 and max(used) / max(min(used), 1e-9) > 1.0001:
        raise InputError(
            f"{source}: pixel sizes {', '.join(f'{s:g}' for s in used)} A differ by axis; resample it first"
        )
    notes = []
    if any(origin):
        notes.append("the origin of the MRC header is left out")
    if extended:
        notes.append(f"the extended MRC header ({extended} bytes) is left out")
    return Content(array, kind, sizes[0] if np.isfinite(sizes[0]) else 0.0, tuple(notes))


def _header_numbers(source: PathLike) -> npt.NDArray[np.int64] | None:
    """Micrograph and particle numbers [2, n] in a SPIDER stack's headers; None where there are none."""
    with open(source, "rb") as handle:
        header = spider.parse_header(handle.read(1024), str(source))
    if header is None or header.kind != "stack":
        return None
    numbers = np.stack(spider.read_stack_numbers(source))
    return numbers if numbers.any() else None


def _write_numbers(numbers: npt.NDArray[np.int64] | None, source: PathLike, target: PathLike, table: PathLike) -> str:
    if numbers is None:
        raise InputError(f"{source}: --table: its headers hold no micrograph and particle numbers")
    names = [f"{row:06d}@{target}" for row in range(1, numbers.shape[1] + 1)]
    frame = pd.DataFrame({"rlnImageName": names, "nphNumber": numbers[0], "nphParticleNumber": numbers[1]})
    write_blocks(table, {"particles": frame}, f"Numbers in the headers of {source}.")
    return f"{table}: micrograph and particle number of {len(frame)} images"


def _document_to_star(source: PathLike, target: PathLike, columns: tuple[str, ...]) -> list[str]:
    """A document file as the block `document`: keys and columns, every number as it was read."""
    table = spider.read_document(source)
    width = len(table.columns)
    if len(columns) > width:
        raise InputError(f"{source}: {width} columns, but {len(columns)} names are given ({', '.join(columns)})")
    notes = []
    short = int(table.isna().any(axis=1).sum())
    if short:
        notes.append(f"{short} of {len(table)} lines have fewer columns; what is missing is 'nan'")
    names = [*columns, *(f"{COLUMN}{i + 1}" for i in range(len(columns), width))]
    table = table.set_axis(names, axis=1)
    frame = table.reset_index().rename(columns={"key": KEY})
    write_blocks(target, {"document": frame}, f"Made from the SPIDER document file {source}.")
    return [
        *notes,
        f"{target}: STAR table of {len(frame)} lines, {width} columns; comments of the document are left out",
    ]


def _star_to_document(source: PathLike, target: PathLike) -> list[str]:
    blocks = read_blocks(source)
    if len(blocks) != 1:
        raise InputError(
            f"{source}: {len(blocks)} blocks ({', '.join(blocks)}); a document file holds one table, so keep one block only"
        )
    frame = next(iter(blocks.values()))
    columns = [column for column in frame if column != KEY]
    numbers = {column: pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=float) for column in frame}
    text = [f"_{column}" for column in frame if np.isnan(numbers[column]).sum() > _missing(frame[column])]
    if text:
        raise InputError(
            f"{source}: {', '.join(text)} hold text, which no SPIDER document can; leave them out, or number them"
        )
    if not columns:
        raise InputError(f"{source}: no columns but the keys")
    keys = numbers[KEY] if KEY in numbers else np.arange(1, len(frame) + 1)
    if (keys != np.round(keys)).any() or len(set(keys.tolist())) < len(keys):
        raise InputError(f"{source}: _{KEY} must hold whole numbers, each once")
    table = pd.DataFrame({column: numbers[column] for column in columns})
    spider.write_document(target, table, [int(key) for key in keys])
    back = spider.read_document(target)
    worst = _worst(table.to_numpy(), back.to_numpy()[:, : len(columns)])
    notes = [f"numbers are rounded to 7 digits (largest relative change {worst:.1g})"] if worst else []
    return [*notes, f"{target}: SPIDER document of {len(table)} lines, {len(columns)} columns"]


def _missing(values: pd.Series) -> int:
    return int(values.astype(str).str.lower().isin(["nan", "<na>", "none"]).sum())


def _worst(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.abs(a - b) / np.where(a == 0, 1.0, np.abs(a))
    return float(np.nanmax(change, initial=0.0))


def _star_to_star(source: PathLike, target: PathLike) -> list[str]:
    """A particle table of RELION 3.0 or 3.1 as one of 3.1."""
    from nephila.optics_groups import read_particle_set, with_image_sizes, write_particle_set

    particles = with_image_sizes(read_particle_set(source))
    write_particle_set(target, particles, f"Made from {source}.")
    notes = list(particles.notes)
    lacking = [group.name for group in particles.optics if group.image_size is None]
    if lacking:
        notes.append(
            f"the image size of optics group {lacking[0]} is not known (its stack is not here); RELION 3.1 needs it"
        )
    groups = len(particles.optics)
    return [
        *notes,
        f"{target}: {len(particles.particles)} particles in {groups} optics group{'s' if groups > 1 else ''} (RELION 3.1)",
    ]
