"""Results of CTFFIND4 and Gctf, read instead of fitting."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from nephila.ctf_results import is_table, result_file
from nephila.defocus.settings import DefocusFit, failed_fit
from nephila.errors import InputError
from nephila.io.tables import read_blocks

PathLike = str | os.PathLike[str]

NO_RESULT = "no CTF result"
"""How the reason begins where another program has none for a micrograph."""


def imported_fit(
    defocus_1: float,
    defocus_2: float,
    angle_deg: float,
    phase_shift_deg: float = 0.0,
    figure_of_merit: float = 0.0,
    resolution: float = float("nan"),
) -> DefocusFit:
    """A fit made elsewhere, put in order: defocus_u >= defocus_v (A), angle in [-90, 90). Errors and score are not known (NaN)."""
    if not all(np.isfinite(x) for x in (defocus_1, defocus_2, angle_deg)):
        return failed_fit("the imported defocus is not a number")
    if min(defocus_1, defocus_2) <= 0:
        return failed_fit(f"the imported defocus {min(defocus_1, defocus_2):.0f} A is not underfocus")
    if max(defocus_1, defocus_2) < 50:
        return failed_fit(f"the imported defocus {max(defocus_1, defocus_2):.2f} A is implausible: is it in um?")
    if defocus_1 < defocus_2:
        defocus_1, defocus_2, angle_deg = defocus_2, defocus_1, angle_deg + 90
    fit = failed_fit("none", score=float("nan"), gap=float("nan"))
    return replace(
        fit,
        defocus_u=float(defocus_1),
        defocus_v=float(defocus_2),
        angle_deg=float((angle_deg + 90) % 180 - 90),
        phase_shift_deg=float(phase_shift_deg),
        figure_of_merit=float(figure_of_merit),
        resolution=float(resolution) if np.isfinite(resolution) and resolution > 0 else float("nan"),
        anisotropy=1.0,
        failed=False,
    )


def read_ctffind(path: PathLike) -> list[DefocusFit]:
    """Fits in a CTFFIND4 text file, one per micrograph of the stack that it was run on.

    Columns: number, defocus 1 and 2 (A), azimuth (degrees), phase shift (radians), cross correlation, resolution (A).
    """
    source = Path(path)
    if not source.exists():
        raise InputError(f"{path}: no such file")
    fits = []
    for number, line in enumerate(source.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        text = line.split("#")[0].split()
        if not text:
            continue
        try:
            values = [float(x) for x in text]
        except ValueError:
            values = []
        if len(values) < 7:
            raise InputError(
                f"{path}: line {number} is not a line of CTFFIND4 results (7 numbers): {line.strip()[:60]!r}"
            )
        fits.append(imported_fit(values[1], values[2], values[3], float(np.degrees(values[4])), values[5], values[6]))
    if not fits:
        raise InputError(
            f"{path}: holds no CTFFIND4 results; give the .txt file that CTFFIND4 wrote beside its spectrum"
        )
    return fits


def read_ctffind_files(names: Sequence[str], pattern: str) -> list[DefocusFit]:
    """For each micrograph the fit in its file (`pattern` with the micrograph's name in place of *).

    A missing file is a failed fit with that reason. InputError where a file holds results of several micrographs, which name none.
    """
    fits = []
    for name in names:
        path = result_file(pattern, name)
        if not Path(path).is_file():
            fits.append(failed_fit(f"{NO_RESULT}: there is no file {path}"))
            continue
        found = read_ctffind(path)
        if len(found) > 1:
            raise InputError(
                f"{path}: holds results of {len(found)} micrographs, without their names; run CTFFIND on each one by itself"
            )
        fits.append(found[0])
    return fits


def read_results(names: Sequence[str], source: str) -> list[DefocusFit]:
    """Fits of these micrographs from a STAR table or from text files, as `ctf.import_from` names them.

    Micrographs without a result are failed fits with that reason. InputError for what is not a result.
    """
    if not is_table(source):
        return read_ctffind_files(names, source)
    return read_gctf_star(source, names)[1]


def read_gctf_star(path: PathLike, names: Sequence[str] | None = None) -> tuple[list[str], list[DefocusFit]]:
    """Fits in a STAR file of Gctf (or of RELION's CtfFind job), matched to micrographs by file name without folder and ending.

    With `names`, exactly those, in that order; one that the file lacks is a failed fit with that reason.
    """
    frame = _ctf_table(path)
    keys = [_key(str(name)) for name in frame["rlnMicrographName"]]
    double = next((k for i, k in enumerate(keys) if k in keys[:i]), None) if len(set(keys)) < len(keys) else None
    if double is not None:
        raise InputError(f"{path}: micrograph {double} occurs twice; remove one of the rows")

    def get(row: pd.Series, column: str, default: float) -> float:
        return float(row[column]) if column in frame.columns else default

    fits = {
        key: imported_fit(
            float(row["rlnDefocusU"]),
            float(row["rlnDefocusV"]),
            float(row["rlnDefocusAngle"]),
            get(row, "rlnPhaseShift", 0.0),
            get(row, "rlnCtfFigureOfMerit", 0.0),
            get(row, "rlnCtfMaxResolution", get(row, "rlnFinalResolution", float("nan"))),
        )
        for key, (_, row) in zip(keys, frame.iterrows(), strict=True)
    }
    if names is None:
        return [str(name) for name in frame["rlnMicrographName"]], [fits[key] for key in keys]
    missing = failed_fit(f"{NO_RESULT}: {path} has no row for this micrograph")
    return list(names), [fits.get(_key(name), missing) for name in names]


def _key(name: str) -> str:
    """What a micrograph's name is matched by: programs change folder and ending (.mrc, .mrcs, .tif), not the name itself."""
    return Path(Path(name).name.removesuffix(".gz")).stem


def _ctf_table(path: PathLike) -> pd.DataFrame:
    wanted = ["rlnMicrographName", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
    blocks = read_blocks(path)
    frame = max(blocks.values(), key=lambda f: len(set(wanted) & set(f.columns)))
    for column in wanted:
        if column not in frame.columns:
            raise InputError(f"{path}: no column {column}; a table of CTF results with RELION's labels is needed")
    for column in wanted[1:]:
        numbers = pd.to_numeric(frame[column], errors="coerce")
        if numbers.isna().any():
            row = int(np.flatnonzero(numbers.isna())[0])
            raise InputError(f"{path}: row {row + 1}: {column} is {frame[column].iloc[row]!r}, not a number")
    return frame
