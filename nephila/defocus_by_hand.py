"""Defoci that a person fitted: edits/defocus.star takes the place of what the workflow fitted, micrograph by micrograph."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from nephila.errors import InputError

COLUMNS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
REASON = "by hand"
FINEST = 5.0
"""Resolution at the edges of a spectrum's picture, A (or 2.2 pixels, where that is coarser)."""
LARGEST = 1e6
"""A; a defocus beyond it is a slip of the pen."""
_UNKNOWN = ("nphDefocusUError", "nphDefocusVError", "nphDefocusAngleError", "nphDefocusError")

HandFit = tuple[str, float, float, float, float, float]
"""A micrograph's name, its defocus U, V (A) and angle (degrees) by hand, and U and V as they were fitted (0: no fit)."""


def edge_of_spectra(pixel_size: float) -> float:
    """Resolution at the edges of a picture of a spectrum, A; pixel_size: A, of the micrographs as they are used."""
    return max(FINEST, 2.2 * pixel_size)


def hand_fits(ctf: pd.DataFrame, edit: pd.DataFrame, source: str) -> list[HandFit]:
    """The rows of an edit that differ from the fit, in the order of `ctf`.

    Parameters
    ----------
    ctf : rlnMicrographName, rlnDefocusU, V (A), rlnDefocusAngle (degrees), as fitted
    edit : the same columns, only of the micrographs fitted by hand
    source : name of the edit's file, for messages

    Raises
    ------
    InputError
        A column is missing, a micrograph is unknown or named twice, or a defocus is no underfocus.
    """
    for column in ("rlnMicrographName", *COLUMNS):
        if column not in edit.columns:
            raise InputError(f"{source}: no column {column}; each row needs a micrograph with defocus U, V and angle")
    fitted = {
        str(name): (float(u), float(v), float(a))
        for name, u, v, a in zip(ctf["rlnMicrographName"], *(ctf[name] for name in COLUMNS), strict=True)
    }
    given: dict[str, tuple[float, float, float]] = {}
    for row, (name, *texts) in enumerate(
        zip(edit["rlnMicrographName"].astype(str), *(edit[name] for name in COLUMNS), strict=True), 1
    ):
        if name not in fitted:
            raise InputError(
                f"{source}: row {row}: micrograph {name} is not in this project; remove the row or correct the name"
            )
        if name in given:
            raise InputError(f"{source}: row {row}: micrograph {name} is named twice; leave one row")
        u, v, angle = (float(x) for x in pd.to_numeric(pd.Series(texts), errors="coerce"))
        for label, value in (("rlnDefocusU", u), ("rlnDefocusV", v)):
            if not 0 < value < LARGEST:
                raise InputError(
                    f"{source}: row {row}: {label} of {name} is {value:g}: must be an underfocus in A, above 0"
                )
        if not np.isfinite(angle):
            raise InputError(f"{source}: row {row}: rlnDefocusAngle of {name} is not a number; give degrees")
        given[name] = (u, v, angle)
    # to the digits that a table keeps: a copy of the fit changes nothing
    return [
        (name, *given[name], was[0], was[1])
        for name, was in fitted.items()
        if name in given and [f"{x:.9g}" for x in given[name]] != [f"{x:.9g}" for x in was]
    ]


def with_hand_fits(ctf: pd.DataFrame, fits: Sequence[HandFit]) -> pd.DataFrame:
    """The table of CTFs with the defoci by hand: proposed for keeping, with the reason `by hand` and no standard errors.

    What the workflow measured about its own fit (merit, resolution, score) stays.
    """
    if not fits:
        return ctf
    table = ctf.copy()
    place = {str(name): i for i, name in enumerate(table["rlnMicrographName"])}
    rows = [place[fit[0]] for fit in fits]
    for k, column in enumerate(COLUMNS, 1):
        values = table[column].to_numpy(dtype=np.float64).copy()
        values[rows] = [float(fit[k]) for fit in fits]  # type: ignore[arg-type]
        table[column] = values
    for column in _UNKNOWN:
        if column in table:
            values = table[column].to_numpy(dtype=np.float64).copy()
            values[rows] = 0.0
            table[column] = values
    keep, reason = table["nphKeep"].to_numpy(dtype=np.int64).copy(), table["nphReason"].to_numpy(dtype=object).copy()
    keep[rows], reason[rows] = 1, REASON
    return table.assign(nphKeep=keep, nphReason=reason)


def resolve_defocus(ctf: pd.DataFrame, edit: pd.DataFrame | None, source: str) -> pd.DataFrame:
    """The defoci in use: those fitted, or those of the edit where it names the micrograph."""
    return ctf if edit is None else with_hand_fits(ctf, hand_fits(ctf, edit, source))


def by_hand(table: pd.DataFrame) -> list[tuple[str, int, int, tuple[float, float, float]]]:
    """Micrographs of a resolved table that were fitted by hand: name, batch, place in the batch (from 0), and defocus U, V (A) and
    angle (degrees)."""
    place = table.groupby("nphBatch").cumcount()
    rows = zip(
        table["rlnMicrographName"],
        table["nphBatch"],
        place,
        table["nphReason"],
        *(table[c] for c in COLUMNS),
        strict=True,
    )
    return [
        (str(name), int(batch), int(i), (float(u), float(v), float(a)))
        for name, batch, i, reason, u, v, a in rows
        if reason == REASON
    ]


def fits_of(fits: Sequence[HandFit], names: Collection[str]) -> tuple[HandFit, ...]:
    """The fits by hand of these micrographs."""
    wanted = set(names)
    return tuple(fit for fit in fits if fit[0] in wanted)


def particles_by_hand(particles: pd.DataFrame, fits: Sequence[HandFit]) -> pd.DataFrame:
    """Particles (rlnMicrographName, rlnDefocusU, V, Angle) with the defocus that their micrograph got by hand.

    Where the defocus changes across the micrograph, each particle keeps its distance from the micrograph's.
    """
    if not fits or not set(COLUMNS) <= set(particles):
        return particles
    by_name = {fit[0]: fit for fit in fits}
    names = particles["rlnMicrographName"].astype(str)
    rows = np.flatnonzero(names.isin(by_name).to_numpy())
    if not len(rows):
        return particles
    values = particles[list(COLUMNS)].to_numpy(dtype=np.float64).copy()
    for row in rows:
        _, u, v, angle, fitted_u, fitted_v = by_name[names.iloc[row]]
        values[row] = u + values[row, 0] - fitted_u, v + values[row, 1] - fitted_v, angle
    return particles.assign(
        rlnDefocusU=np.round(values[:, 0], 3), rlnDefocusV=np.round(values[:, 1], 3), rlnDefocusAngle=values[:, 2]
    )
