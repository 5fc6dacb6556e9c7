"""Film scanners that SPIDER's procedures read: how their files lie on disk, as settings of `input` in config.yaml.

Taken from SPIDER's loadmic and zi2spi: HiScan, a TIFF read as raw after 342 bytes, most significant byte first, negatives
folded, then log10(value + 1); PerkinElmer, 16-bit numbers of density or transmission without a header; ZI (Intergraph), a
tiled TIFF with overviews, whose transmission becomes 5 + log10; Nikon Coolscan, a 16-bit TIFF taken as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nephila.errors import InputError
from nephila.io.micrographs import RawLayout


@dataclass(frozen=True)
class Scanner:
    """A scanner's files.

    Attributes
    ----------
    number : in key 2 of SPIDER's params
    raw : whether the file does not describe itself, so that width and height must be given
    film : what its numbers are, as `input.film` says: transmission (light), density, or none (taken as they are)
    header_bytes, bits, byte_order, negatives : of raw files, as `input.raw` has them
    """

    number: int
    raw: bool
    film: str
    header_bytes: int = 0
    bits: int = 16
    byte_order: str = "little"
    negatives: str = "folded"


SCANNERS = {
    "hiscan": Scanner(1, True, "transmission", header_bytes=342, byte_order="big"),
    "perkinelmer": Scanner(2, True, "density"),
    "zi": Scanner(3, False, "transmission"),
    "nikon": Scanner(4, False, "none"),
}
"""Scanners by name. A PerkinElmer run in transmission mode needs `input.film: transmission`."""


def scanner_of(number: int) -> str | None:
    """Name of the scanner that key 2 of SPIDER's params stands for; None for 0, SPIDER's own format.

    InputError for any other number.
    """
    if number == 0:
        return None
    name = next((name for name, scanner in SCANNERS.items() if scanner.number == number), None)
    if name is None:
        known = ", ".join(f"{scanner.number} {name}" for name, scanner in SCANNERS.items())
        raise InputError(f"scanner format {number} is not known; SPIDER's params have 0 SPIDER, {known}")
    return name


def scanner_settings(name: str, width: int | None = None, height: int | None = None) -> dict[str, Any]:
    """Keys of the section `input` for a scanner's files: film, and raw with the size in px where the file does not state it.

    InputError for an unknown scanner, or a raw one without width and height.
    """
    scanner = SCANNERS.get(name)
    if scanner is None:
        raise InputError(f"scanner {name!r} is not known; use {', '.join(SCANNERS)}, or describe the file as raw")
    settings: dict[str, Any] = {"film": scanner.film}
    if scanner.raw:
        if not width or not height:
            raise InputError(f"scanner {name}: its files do not state their size; give width and height in px")
        settings["raw"] = {
            "width": int(width),
            "height": int(height),
            "bits": scanner.bits,
            "header_bytes": scanner.header_bytes,
            "byte_order": scanner.byte_order,
            "negatives": scanner.negatives,
        }
    return settings


def scanner_layout(name: str, width: int | None = None, height: int | None = None) -> RawLayout | None:
    """Layout of a scanner's raw files; None for one whose files describe themselves. InputError as `scanner_settings`."""
    from nephila.micrograph_input import raw_layout

    return raw_layout({"raw": None} | scanner_settings(name, width, height))
