"""The optics with which another program fitted its CTFs, against the configuration's: defoci hold only with their own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nephila.ctf_results import is_table, result_files
from nephila.errors import InputError
from nephila.io.tables import read_blocks

PathLike = str | os.PathLike[str]

KEYS = (
    ("rlnVoltage", "optics.voltage_kv", 0.01),
    ("rlnSphericalAberration", "optics.cs_mm", 0.001),
    ("rlnAmplitudeContrast", "optics.amplitude_contrast", 0.001),
)
"""RELION's columns, the keys that must agree with them, and how far they may differ."""
PIXEL_SIZES = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")
"""Of the micrographs that were fitted: after and before binning by motion correction."""
PIXEL_KEY = "input.pixel_size"
SAME_SIZE = 0.001
_CTFFIND = (
    ("pixel size", PIXEL_KEY, 0.0),
    ("acceleration voltage", *KEYS[0][1:]),
    ("spherical aberration", KEYS[1][1], 0.0051),  # CTFFIND prints two decimals
    ("amplitude contrast", KEYS[2][1], 0.0051),
)


def check_result_optics(names: Sequence[str], source: str, optics: Mapping[str, float], pixel_size: float) -> None:
    """InputError where results (`ctf.import_from`) of these micrographs state other optics or another pixel size.

    A pixel size may be the micrographs' times, or divided by, a whole number: binning leaves the defocus as it is.

    Parameters
    ----------
    optics : section `optics`; pixel_size : `input.pixel_size`, A
    """
    wanted = {f"optics.{key}": float(value) for key, value in optics.items()} | {PIXEL_KEY: pixel_size}
    if is_table(source):
        _check_table(source, names, wanted)
        return
    for path in result_files(source, names):
        for what, key, limit in _CTFFIND:
            found = _in_heading(path, what)
            if found is not None:
                _compare(found, wanted[key], key, limit, f"{path}: {what}")


def _compare(found: float, wanted: float, key: str, limit: float, where: str) -> None:
    if not (found > 0 and _binned(found / wanted) if key == PIXEL_KEY else abs(found - wanted) <= limit):
        raise InputError(
            f"{where} is {found:g}, {key} is {wanted:g}: the defoci were fitted with the former and hold only with it; correct the "
            "one that is wrong, or fit them here (ctf.method: ctffind)"
        )


def _binned(ratio: float) -> bool:
    factor = max(ratio, 1 / ratio)
    return abs(factor / round(factor) - 1) <= SAME_SIZE


def _check_table(path: str, names: Sequence[str], wanted: Mapping[str, float]) -> None:
    blocks = read_blocks(path)
    rows = next((block for block in blocks.values() if "rlnMicrographName" in block), None)
    if rows is None:
        return  # `read_gctf_star` says what is missing
    here = {_stem(name) for name in names}
    rows = rows[[_stem(str(name)) in here for name in rows["rlnMicrographName"]]]
    table, where = rows, f"{path}: row"
    if "optics" in blocks and "rlnOpticsGroup" in rows:
        table, where = blocks["optics"], f"{path}: block data_optics, row"
        table = table[table["rlnOpticsGroup"].isin(rows["rlnOpticsGroup"])] if "rlnOpticsGroup" in table else table
    columns = [*KEYS, *((name, PIXEL_KEY, 0.0) for name in PIXEL_SIZES if name in table)][: len(KEYS) + 1]
    for column, key, limit in columns:
        values = _numbers(table, column, where)
        for row, value in values.items():
            _compare(value, wanted[key], key, limit, f"{where} {row}: _{column}")
    if not set(PIXEL_SIZES) & set(table.columns) and {"rlnMagnification", "rlnDetectorPixelSize"} <= set(table.columns):
        detector, magnification = (
            _numbers(table, name, where) for name in ("rlnDetectorPixelSize", "rlnMagnification")
        )
        for row, value in detector.items():
            found = 1e4 * value / magnification[row] if magnification[row] > 0 else 0.0
            _compare(found, wanted[PIXEL_KEY], PIXEL_KEY, 0.0, f"{where} {row}: detector pixel size over magnification")


def _numbers(table: pd.DataFrame, column: str, where: str) -> dict[int, float]:
    """Different values of a column by the first row (from 1) that has each; nothing without the column."""
    if column not in table:
        return {}
    numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
    rows = table.index.to_numpy(dtype=np.int64) + 1
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise InputError(f"{where} {rows[bad[0]]}: _{column} is {table[column].iloc[bad[0]]!r}, not a number")
    return dict(zip(rows.tolist(), numbers.tolist(), strict=True))


def _in_heading(path: PathLike, what: str) -> float | None:
    """A number of the comment lines that CTFFIND writes first; None where it is not there."""
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            return None
        found = re.search(rf"{what}: *([-+0-9.eE]+)", line, re.IGNORECASE)
        if found:
            return float(found[1])
    return None


def _stem(name: str) -> str:
    return Path(Path(name).name.removesuffix(".gz")).stem
