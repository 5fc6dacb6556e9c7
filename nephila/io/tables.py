"""STAR tables: what each kind of table must hold, reading with errors that name file and column, writing in one step.

RELION's labels where RELION has one; Nephila's own carry the prefix `nph`. docs/files.md lists every column.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import starfile

from nephila.errors import InputError
from nephila.io.atomic import _umask, atomic_path

PathLike = str | os.PathLike[str]
Blocks = dict[str, pd.DataFrame]

NAME_COLUMNS = frozenset({"rlnMicrographName", "rlnImageName", "rlnOpticsGroupName"})
TEXT_COLUMNS = NAME_COLUMNS | {"nphReason", "nphName", "nphValue", "nphSearch"}

_REPLACED = str.maketrans({"'": "`", '"': "`", "#": " ", "\n": " ", "\r": " "})
_KEYWORDS = ("data_", "loop_", "_")


@dataclass(frozen=True)
class Kind:
    """A kind of table: its block's name and the columns that it cannot do without."""

    block: str
    required: tuple[str, ...]


KINDS: dict[str, Kind] = {
    "micrographs": Kind("micrographs", ("rlnMicrographName", "nphBatch")),
    "defocus": Kind(
        "micrographs", ("rlnMicrographName", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "nphKeep", "nphReason")
    ),
    "hand_defocus": Kind("defocus", ("rlnMicrographName", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")),
    "sel_micrograph": Kind("sel_micrograph", ("rlnMicrographName", "nphKeep")),
    "def_sort": Kind("def_sort", ("rlnMicrographName", "nphDefocusGroup")),
    "def_avg": Kind("def_avg", ("rlnMicrographName", "nphDefocus", "nphDefocusGroup", "nphGroupDefocus")),
    "sel_group": Kind("sel_group", ("nphDefocusGroup", "nphGroupDefocus")),
    "coordinates": Kind("particles", ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY")),
    "good": Kind("good", ("rlnMicrographName", "nphParticleNumber", "nphKeep")),
    "particles": Kind("particles", ("rlnMicrographName", "rlnImageName", "rlnOpticsGroup")),
    "poses": Kind("particles", ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")),
    "thresh": Kind("thresh", ("nphDefocusGroup", "nphThreshold")),
    "best_per_view": Kind("best_per_view", ("nphDefocusGroup", "nphAtMost")),
    "directions": Kind("directions", ("rlnAngleRot", "rlnAngleTilt")),
    "fsc": Kind("fsc", ("rlnSpectralIndex", "rlnResolution", "rlnFourierShellCorrelation")),
    "scattering": Kind("scattering", ("nphSpatialFrequency", "nphIntensity")),
    "iterations": Kind("iterations", ("nphIteration",)),
    "checks": Kind("checks", ("nphName", "nphMeasured", "nphLimit", "nphReason")),
    "peaks": Kind("peaks", ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "nphScore")),
}
"""Tables by kind; `read_table(path, kind=...)` checks them."""


def read_blocks(path: PathLike) -> Blocks:
    """All blocks of a STAR file, by name (without `data_`).

    Raises
    ------
    InputError
        The file is missing, empty, holds no table, or has rows of different lengths.
    """
    source = Path(path)
    if not source.exists():
        raise InputError(f"{path}: no such file")
    if source.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    _check_rows(source)
    try:
        blocks = starfile.read(source, always_dict=True, parse_as_string=sorted(TEXT_COLUMNS))
    except Exception as error:  # starfile raises whatever its parsing meets; the user needs the file's name
        raise InputError(f"{path}: not a readable STAR file ({error})") from error
    if not blocks:
        raise InputError(f"{path}: no data block; a STAR file needs a line 'data_…' and a table")
    return {name: _as_frame(block) for name, block in blocks.items()}


def _as_frame(block: Any) -> pd.DataFrame:
    frame = block if isinstance(block, pd.DataFrame) else pd.DataFrame({key: [value] for key, value in block.items()})
    for name in TEXT_COLUMNS.intersection(frame.columns):
        frame[name] = frame[name].fillna("nan")  # a text, not a missing number
    return frame


def _check_rows(path: Path) -> None:
    """Refuse rows whose number of fields differs from the loop's columns, with the line's number."""
    columns = 0
    in_loop = False
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            text = line.split(" #")[0].strip() if "'" not in line and '"' not in line else line.strip()
            if text.startswith("data_"):
                columns, in_loop = 0, False
            elif text.startswith("loop_"):
                columns, in_loop = 0, True
            elif not in_loop or not text or text.startswith("#"):
                continue
            elif text.startswith("_"):
                columns += 1
            elif columns and "'" not in text and '"' not in text and len(text.split()) != columns:
                raise InputError(
                    f"{path}: line {number} has {len(text.split())} fields for {columns} columns; mend or remove it"
                )


def read_table(path: PathLike, kind: str | None = None, block: str | None = None) -> pd.DataFrame:
    """One table of a STAR file.

    Parameters
    ----------
    kind : name in KINDS; its block is taken (or the only block of the file) and its columns are checked
    block : name of the block, where it is not the kind's

    Raises
    ------
    InputError
        Block or column missing (named), or a number that is not one.
    """
    blocks = read_blocks(path)
    rule = KINDS[kind] if kind else None
    wanted = block or (rule.block if rule else None)
    if wanted in blocks:
        frame = blocks[str(wanted)]
    elif len(blocks) == 1:
        frame = next(iter(blocks.values()))
    else:
        raise InputError(f"{path}: no block 'data_{wanted}'; the file has {', '.join('data_' + b for b in blocks)}")
    if rule:
        check_columns(frame, rule.required, str(path))
    return frame


def check_columns(frame: pd.DataFrame, required: tuple[str, ...], source: str) -> None:
    """InputError naming the columns of `required` that `frame` lacks, and text or NaN in those that hold numbers."""
    missing = [f"_{name}" for name in required if name not in frame.columns]
    if missing:
        present = ", ".join(f"_{name}" for name in frame.columns) or "none"
        raise InputError(f"{source}: column {', '.join(missing)} is missing (columns present: {present})")
    for name in required:
        if name in TEXT_COLUMNS:
            continue
        values = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float)
        allowed_nan = name.startswith(("rlnDefocus", "nphDefocus")) and "nphReason" in frame.columns
        bad = ~np.isfinite(values)
        if bad.any() and not allowed_nan:
            row = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"{source}: row {row + 1}, column _{name}: {frame[name].iloc[row]!r} is not a finite number"
            )


def _with_types(frame: pd.DataFrame) -> pd.DataFrame:
    """Text columns as plain strings that STAR can hold: never empty, no quotes, # or line breaks.

    Remarks are changed to fit; InputError for names, which must come back as they are.
    """
    out = frame.copy()
    for column, name in enumerate(out.columns):
        if name not in TEXT_COLUMNS:
            continue
        texts = [str(value) or "none" for value in out[name]]
        if name not in NAME_COLUMNS:
            out[name] = [text.translate(_REPLACED) for text in texts]
            continue
        for text in texts:
            if text.translate(_REPLACED) != text or (column == 0 and text.startswith(_KEYWORDS)):
                raise InputError(
                    f"{text!r} (column _{name}): a STAR table cannot hold this name; use one without quotes, # and line "
                    f"breaks that does not begin with {', '.join(_KEYWORDS)}"
                )
        out[name] = texts
    return out


def write_blocks(path: PathLike, blocks: Blocks, comment: str | None = None, *, read_only: bool = False) -> None:
    """Write blocks to a STAR file in one step.

    `comment` becomes the first lines (each with #); `read_only` removes the write permissions, for resolved files that must
    not be edited in place. Floats are written with six decimals or more where their size asks for it.
    """
    with atomic_path(path) as temporary:
        starfile.write(
            {name: _with_types(frame) for name, frame in blocks.items()},
            temporary,
            overwrite=True,
            float_format="%.9g",
            na_rep="nan",
        )
        text = temporary.read_text(encoding="utf-8")
        body = text[text.index("data_") :] if "data_" in text else text
        head = "".join(f"# {line}\n" for line in (comment or "Nephila").splitlines())
        temporary.write_text(f"{head}\n{body}", encoding="utf-8")
        if read_only:
            temporary.chmod(0o444 & ~_umask)


def write_table(
    path: PathLike,
    frame: pd.DataFrame,
    kind: str | None = None,
    comment: str | None = None,
    *,
    block: str | None = None,
    read_only: bool = False,
) -> None:
    """Write one table; with `kind`, its columns are checked first and its block's name is used."""
    if kind:
        check_columns(frame, KINDS[kind].required, f"{path} (to be written)")
    write_blocks(path, {block or (KINDS[kind].block if kind else ""): frame}, comment, read_only=read_only)
