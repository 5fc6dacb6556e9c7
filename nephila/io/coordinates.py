"""Coordinates of other programs: RELION's STAR files, EMAN's .box, crYOLO's .cbox (both forms), SPIDER's sndc documents.

All become the centre of the particle in px of the micrograph, counted from 0 at the centre of the first pixel, rows in the
file's order. STAR tables state centres. Boxes state their lowest corner and their size: the centre is the pixel N // 2 from the
corner of a box of a whole number N of pixels, corner + N / 2 otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.io.spider import read_document
from nephila.io.tables import read_blocks

PathLike = str | os.PathLike[str]
Float64 = npt.NDArray[np.float64]

SUFFIXES = ("_autopick", "_manualpick", "_topaz", "_picks", "_extract", "_match")
"""What programs put between the micrograph's name and .star."""


@dataclass(frozen=True)
class Coordinates:
    """Picks of one file.

    Attributes
    ----------
    x, y : centres, px of the micrograph
    score : figure of merit or confidence, NaN where there is none
    micrographs : name of each pick's micrograph, or None where the file's name tells it
    """

    x: Float64
    y: Float64
    score: Float64
    micrographs: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.x)


def box_centre(corner: npt.ArrayLike, size: npt.ArrayLike) -> Float64:
    """Centre of boxes from their lowest corner and size, px: pixel N // 2 of a whole number N of pixels."""
    sides = np.asarray(size, dtype=np.float64)
    whole = sides == np.round(sides)
    return np.asarray(corner, dtype=np.float64) + np.where(whole, sides // 2, sides / 2)


def read_coordinates(path: PathLike) -> Coordinates:
    """Coordinates of a .star, .box or .cbox file. InputError for a file that is none, naming line or column."""
    source = Path(path)
    if not source.is_file():
        raise InputError(f"{path}: no such file")
    suffix = source.suffix.lower()
    text = source.read_text(encoding="utf-8", errors="replace")
    if not text.strip():
        if suffix in (".box", ".cbox") and source.stat().st_size == 0:
            return _empty()  # pickers write such files for micrographs without picks
        raise InputError(f"{path}: the file is empty")
    if suffix == ".cbox":
        return _cryolo_table(path) if "data_cryolo" in text else _boxes(text, path, score_column=4)
    if suffix == ".box":
        return _boxes(text, path, score_column=None)
    if suffix == ".star":
        return _star(path)
    raise InputError(f"{path}: coordinates come as .star (RELION), .box (EMAN) or .cbox (crYOLO)")


def listed_coordinates(path: PathLike) -> list[tuple[str, Path]] | None:
    """Micrograph and coordinate file of each row of RELION's list of coordinate files (autopick.star); None for other files.

    Paths count from RELION's project folder: the current one, or one above the list.

    InputError for a file that is in none of them.
    """
    source = Path(path)
    if source.suffix.lower() != ".star" or "_rlnMicrographCoordinates" not in source.read_text(errors="replace"):
        return None
    table = next(block for block in read_blocks(path).values() if "rlnMicrographCoordinates" in block)
    if "rlnMicrographName" not in table:
        raise InputError(f"{path}: column _rlnMicrographName is missing")
    roots = [Path(), *source.resolve().parents]
    found = []
    for micrograph, name in zip(table["rlnMicrographName"], table["rlnMicrographCoordinates"], strict=True):
        here = next((root / str(name) for root in roots if (root / str(name)).is_file()), None)
        if here is None:
            raise InputError(
                f"{path}: {name} is neither here nor in a folder above the list; run this in RELION's project folder"
            )
        found.append((str(micrograph), here))
    return found


def spider_coordinates(path: PathLike, box: int) -> Coordinates:
    """Centres of the windows that SPIDER cut at the places of an sndc document.

    Two procedures write it, pixels counted from 1. `pick` writes three columns (x, y, number): the window's upper left corner.
    `lfc_pick` writes four (with the height of the peak): the window then begins at x - (box // 2 + 1), so that its centre is one
    pixel before the given one.
    """
    table = read_document(path)
    if len(table) == 0:
        return _empty()
    if len(table.columns) < 3:
        raise InputError(
            f"{path}: {len(table.columns)} columns; coordinates of SPIDER have x, y, number and perhaps peak height"
        )
    x, y = (table.iloc[:, i].to_numpy(dtype=np.float64) for i in (0, 1))
    corner = len(table.columns) == 3
    shift = box // 2 - 1 if corner else -2
    score = np.full(len(table), np.nan) if corner else table.iloc[:, 3].to_numpy(dtype=np.float64)
    _check_finite(x, y, path)
    return Coordinates(x + shift, y + shift, score)


def micrograph_stem(path: PathLike) -> str:
    """The micrograph that a coordinate file's name speaks of: its stem without what programs append."""
    name = Path(path).stem
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def match_micrographs(paths: Sequence[PathLike], names: Sequence[str]) -> dict[str, str]:
    """Micrograph of each coordinate file, by stem; InputError where there is none or more than one."""
    by_stem: dict[str, list[str]] = {}
    for name in names:
        stem = re.sub(r"(\.mrcs?|\.tiff?|\.spi|\.dat|\.raw|\.img)(\.gz)?$", "", Path(name).name, flags=re.IGNORECASE)
        by_stem.setdefault(stem, []).append(name)
    found = {}
    for path in paths:
        stem = micrograph_stem(path)
        here = by_stem.get(stem, [])
        if len(here) != 1:
            problem = "no micrograph is" if not here else f"{len(here)} micrographs are"
            raise InputError(f"{path}: {problem} named {stem} among the {len(names)} given; rename the coordinate file")
        found[str(path)] = here[0]
    return found


def coordinate_table(parts: Sequence[tuple[str, Coordinates]]) -> pd.DataFrame:
    """The table that `input.coordinates` takes: rlnMicrographName, rlnCoordinateX, Y, and rlnAutopickFigureOfMerit where known.

    parts : micrograph and picks; the name is used where the file itself names none
    """
    rows = [
        pd.DataFrame(
            {
                "rlnMicrographName": list(picks.micrographs or [name] * len(picks)),
                "rlnCoordinateX": np.round(picks.x, 3),
                "rlnCoordinateY": np.round(picks.y, 3),
                "rlnAutopickFigureOfMerit": picks.score,
            }
        )
        for name, picks in parts
    ]
    table = pd.concat(rows, ignore_index=True)
    if table["rlnAutopickFigureOfMerit"].isna().all():
        return table.drop(columns="rlnAutopickFigureOfMerit")
    return table.fillna({"rlnAutopickFigureOfMerit": 0.0})


def _empty() -> Coordinates:
    none = np.zeros(0)
    return Coordinates(none, none, none)


def _check_finite(x: Float64, y: Float64, path: PathLike) -> None:
    bad = np.flatnonzero(~(np.isfinite(x) & np.isfinite(y)))
    if len(bad):
        raise InputError(f"{path}: row {bad[0] + 1}: the coordinates {x[bad[0]]}, {y[bad[0]]} are not finite")


def _boxes(text: str, path: PathLike, score_column: int | None) -> Coordinates:
    """Lines of x, y, width, height …; the fifth column of EMAN 1 marks helices (-1, -2), of old .cbox it is the confidence."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            values = [float(field) for field in fields[:5]]
        except ValueError:
            values = []
        if len(values) < 4 or not np.isfinite(values).all():
            raise InputError(f"{path}, line {number}: not x, y, width, height of a box: {line.strip()[:60]!r}")
        if min(values[2:4]) <= 0:
            raise InputError(
                f"{path}, line {number}: a box of {values[2]:g} x {values[3]:g} px; the size must be positive"
            )
        if score_column is None and len(values) == 5 and values[4] in (-1.0, -2.0):
            raise InputError(f"{path}, line {number}: the end of a helix (fifth column {values[4]:g}), not a particle")
        rows.append(values + [np.nan] * (5 - len(values)))
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    score = table[:, 4] if score_column is not None else np.full(len(table), np.nan)
    return Coordinates(box_centre(table[:, 0], table[:, 2]), box_centre(table[:, 1], table[:, 3]), score)


def _cryolo_table(path: PathLike) -> Coordinates:
    """crYOLO from version 1.8 on: block `cryolo` with the corner, sizes and the confidence."""
    table = read_blocks(path)["cryolo"]
    table = table.rename(columns={str(column): str(column).lstrip("_") for column in table})
    needed = ("CoordinateX", "CoordinateY", "Width", "Height")
    missing = [name for name in needed if name not in table]
    if missing:
        raise InputError(f"{path}: block data_cryolo: column _{', _'.join(missing)} is missing")
    if "CoordinateZ" in table and pd.to_numeric(table["CoordinateZ"], errors="coerce").fillna(0).nunique() > 1:
        raise InputError(f"{path}: boxes in several slices (_CoordinateZ): picks of a tomogram, not of a micrograph")
    x, y, width, height = (pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64) for name in needed)
    score = pd.to_numeric(table.get("Confidence", pd.Series(np.nan, index=table.index)), errors="coerce")
    centre = box_centre(x, width), box_centre(y, height)
    _check_finite(*centre, path)
    return Coordinates(*centre, score.to_numpy(dtype=np.float64))


def _star(path: PathLike) -> Coordinates:
    blocks = read_blocks(path)
    name = next((b for b in ("particles", "") if b in blocks), None)
    table = blocks[name] if name is not None else next(iter(blocks.values())) if len(blocks) == 1 else None
    if table is None or not {"rlnCoordinateX", "rlnCoordinateY"} <= set(table.columns):
        if any("rlnMicrographCoordinates" in block for block in blocks.values()):
            raise InputError(f"{path}: a list of coordinate files, not coordinates")
        raise InputError(f"{path}: no table with the columns _rlnCoordinateX and _rlnCoordinateY")
    x, y = (pd.to_numeric(table[f"rlnCoordinate{axis}"], errors="coerce").to_numpy(dtype=np.float64) for axis in "XY")
    _check_finite(x, y, path)
    given = table.get("rlnAutopickFigureOfMerit", pd.Series(np.nan, index=table.index))
    score = pd.to_numeric(given, errors="coerce").to_numpy(dtype=np.float64)
    names = tuple(table["rlnMicrographName"].astype(str)) if "rlnMicrographName" in table else None
    return Coordinates(x, y, np.where(score <= -999, np.nan, score), names)
