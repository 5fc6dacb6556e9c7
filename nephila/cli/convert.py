"""`nephila convert`: files of one format into another."""

from __future__ import annotations

from pathlib import Path

import click

from nephila.cli.numbers import PIXEL_SIZE
from nephila.errors import InputError

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(short_help="Convert SPIDER, MRC, TIFF, raw images and tables.")
@click.argument("source", metavar="IN", type=FILE)
@click.argument("target", metavar="OUT", type=FILE)
@click.option(
    "--kind", type=click.Choice(["stack", "volume"]), help="What three dimensions are, where the file is wrong."
)
@click.option("--pixel-size", type=PIXEL_SIZE, help="Pixel size of the output, A.  [IN's]")
@click.option(
    "--byte-order", type=click.Choice(["little", "big"]), default="little", help="Of a SPIDER output.  [little]"
)
@click.option("--columns", metavar="A,B,…", help="Names for a document's columns.  [spiderColumn1 …]")
@click.option("--table", type=FILE, help="STAR table for micrograph and particle numbers of a SPIDER stack's headers.")
@click.option("--scanner", type=click.Choice(["hiscan", "perkinelmer", "zi", "nikon"]), help="Scanner that made IN.")
@click.option("--raw", metavar="WxHxBITS", help="IN is raw: width and height in px, bits (8, 16 or 16s for signed).")
@click.option("--size", metavar="WxH", help="Size of a raw scanner file, px.")
@click.option("--header-bytes", type=click.IntRange(0), default=0, help="Of a raw file, before the first pixel.  [0]")
@click.option("--to-density", is_flag=True, help="Light that a scanner measured becomes optical density.")
@click.option("--to-transmission", is_flag=True, help="Optical density becomes the share of light that passes.")
@click.option("--raw-order", type=click.Choice(["little", "big"]), default="little", help="Of a raw file.  [little]")
def convert(
    source: Path,
    target: Path,
    kind: str | None,
    pixel_size: float | None,
    byte_order: str,
    columns: str | None,
    table: Path | None,
    scanner: str | None,
    raw: str | None,
    size: str | None,
    header_bytes: int,
    raw_order: str,
    to_density: bool,
    to_transmission: bool,
) -> None:
    """Convert the file IN to OUT. What IN is follows from its content, what OUT becomes from its suffix.

    \b
    .mrc .mrcs .map .st .rec   MRC image, stack or volume
    .star                      table: of a SPIDER document, or of a RELION 3.0 particle table (then in RELION 3.1's form)
    any other                  SPIDER image, stack or volume; a document file where IN is a STAR table

    IN may be SPIDER in either byte order (also indexed stacks), MRC, TIFF, raw, a SPIDER document or a STAR table. Arrays are
    copied row by row without a flip (TIFF is turned over). What OUT cannot hold is refused, or said.
    """
    from nephila.conversion import ConversionSettings
    from nephila.conversion import convert as convert_file
    from nephila.io.micrographs import RawLayout
    from nephila.io.scanners import scanner_layout

    if scanner and raw:
        raise InputError("--scanner and --raw exclude each other")
    if to_density and to_transmission:
        raise InputError("--to-density and --to-transmission exclude each other")
    if to_density and scanner == "perkinelmer":
        raise InputError(
            "--to-density: a PerkinElmer gives density already; if it scanned light, describe its file with --raw"
        )
    layout = None
    if scanner:
        layout = scanner_layout(scanner, *(_numbers(size, 2, "--size") if size else ()))
    elif raw:
        bits = raw.rpartition("x")[2]
        if bits not in ("8", "16", "16s"):
            raise InputError(f"--raw {raw}: bits must be 8, 16 or 16s; give WxHxBITS, as in 4000x5000x16")
        width, height = _numbers(raw.rpartition("x")[0], 2, "--raw")
        layout = RawLayout((height, width), header_bytes, "int16" if bits == "16s" else f"uint{bits}", raw_order)
    settings = ConversionSettings(
        kind=kind,  # type: ignore[arg-type]
        pixel_size=pixel_size,
        byte_order="<" if byte_order == "little" else ">",
        columns=tuple(columns.split(",")) if columns else (),
        table=table,
        raw=layout,
        film="density" if to_density else "transmission" if to_transmission else None,
    )
    for line in convert_file(source, target, settings):
        click.echo(line)


def _numbers(text: str, count: int, option: str) -> list[int]:
    parts = text.split("x")
    if len(parts) != count or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"{option} {text}: give whole numbers as in 4000x5000 (width x height, px)")
    return [int(part) for part in parts]
