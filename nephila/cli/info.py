"""`nephila info`: what a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nephila.errors import InputError

MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".st", ".rec", ".ali")
TIFF_SUFFIXES = (".tif", ".tiff")


@click.command(short_help="Say what a file holds: MRC, STAR, TIFF, SPIDER.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
def info(files: tuple[Path, ...]) -> None:
    """Say what each FILE holds.

    Images, stacks, volumes: size, number type, pixel size, smallest, largest and mean value. STAR files: blocks, rows, columns.
    """
    for path in files:
        click.echo(describe_file(path))


def describe_file(path: Path) -> str:
    """Lines that describe a file. InputError where it is missing or of no known kind."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    suffix = path.suffix.lower()
    if suffix == ".star":
        return _describe_star(path)
    if suffix in MRC_SUFFIXES:
        return _describe_mrc(path)
    if suffix in (".gz", *TIFF_SUFFIXES):
        return _describe_micrograph(path)
    return _describe_spider(path)


def _describe_star(path: Path) -> str:
    from nephila.io.tables import read_blocks

    lines = [f"{path}: STAR"]
    for name, frame in read_blocks(path).items():
        rows = "1 row" if len(frame) == 1 else f"{len(frame)} rows"
        lines += [
            f"  data_{name}: {rows}, {len(frame.columns)} columns",
            *(f"    {column}" for column in frame.columns),
        ]
    return "\n".join(lines)


def _describe_mrc(path: Path) -> str:
    from nephila.io.mrc import summarise

    found = summarise(path)
    finite = f", {found.not_finite} values are NaN or infinite" if found.not_finite else ""
    return "\n".join(
        [
            f"{path}: MRC {found.kind}, mode {found.mode}",
            f"  size        {_size(found.kind, found.shape)}",
            f"  pixel size  {_pixel_size(found.pixel_size)}",
            f"  values      {found.minimum:g} to {found.maximum:g}, mean {found.mean:g}, deviation {found.deviation:g}{finite}",
        ]
    )


def _describe_micrograph(path: Path) -> str:
    from nephila.io.micrographs import micrograph_header, read_micrograph

    header = micrograph_header(path)
    image = read_micrograph(path, contrast="bright").image
    return "\n".join(
        [
            f"{path}: micrograph, {header.dtype}",
            f"  size        {_size('image', (header.ny, header.nx))}",
            f"  pixel size  {_pixel_size(header.pixel_size)}",
            _values(image),
        ]
    )


def _describe_spider(path: Path) -> str:
    from nephila.io.spider import parse_header, read_document, read_spider

    with open(path, "rb") as stream:
        header = parse_header(stream.read(1024), str(path))
    if header is None:
        try:
            table = read_document(path)
        except (InputError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: neither MRC, STAR, TIFF nor SPIDER by its name and content") from error
        return f"{path}: SPIDER document, {len(table)} lines, {len(table.columns)} columns"
    array, pixel_size = read_spider(path)
    order = "little" if header.byte_order == "<" else "big"
    return "\n".join(
        [
            f"{path}: SPIDER {header.kind}, {order}-endian",
            f"  size        {_size(header.kind, header.shape)}",
            f"  pixel size  {_pixel_size(pixel_size)}",
            _values(array),
        ]
    )


def _values(array: Any) -> str:
    mean, deviation = array.mean(dtype="float64"), array.std(dtype="float64")
    return f"  values      {array.min():g} to {array.max():g}, mean {mean:g}, deviation {deviation:g}"


def _size(kind: str, shape: tuple[int, ...]) -> str:
    if kind == "stack":
        return f"{shape[0]} images of {shape[2]} x {shape[1]} px (x, y)"
    return f"{' x '.join(str(side) for side in reversed(shape))} px ({', '.join('xyz'[: len(shape)])})"


def _pixel_size(value: float | None) -> str:
    return f"{value:g} A" if value else "not stated"
