"""Picks as tables: numbered candidates, the kept coordinates, counts by micrograph, coordinates of other programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.job import Progress, logger
from nephila.micrograph_input import file_coordinates, read_input
from nephila.picking.blob import pick_blobs
from nephila.picking.choose import candidates_table
from nephila.picking.local_correlation import pick_by_templates
from nephila.picking.peaks import Picks
from nephila.picking.settings import BlobSettings, ChoiceSettings, PeakSettings, TemplateSettings
from nephila.picking.templates import TemplateSet

Picker = Callable[[Any, float, tuple[float, float, float] | None], Picks]


def peak_settings(picking: dict[str, Any], diameter: float, box_size: float) -> PeakSettings:
    """Which maxima are candidates, from the section `picking`; box_size and diameter in A."""
    return PeakSettings(min_distance=picking["min_distance"], edge=picking["border"] * box_size / diameter)


def choice_settings(picking: dict[str, Any]) -> ChoiceSettings:
    """Which candidates are kept, from the section `picking`."""
    return ChoiceSettings(
        threshold=picking["threshold"],
        at_most=picking["at_most"],
        min_probability=picking["min_probability"],
        overlap=picking["overlap"],
    )


def blob_picker(picking: dict[str, Any], diameter: float, box_size: float, optics: Optics) -> Picker:
    """A function that picks blobs of the particle's diameter in an image."""
    settings = BlobSettings(
        method=picking["blob"], scales=tuple(picking["scales"]), peaks=peak_settings(picking, diameter, box_size)
    )
    return lambda image, pixel_size, ctf: pick_blobs(image, pixel_size, diameter, settings, ctf, optics)


def template_picker(
    picking: dict[str, Any],
    reference: tuple[Any, float],
    diameter: float,
    box_size: float,
    symmetry: Any,
    optics: Optics,
) -> Picker:
    """A function that picks by projections of the reference (volume, pixel size)."""
    settings = TemplateSettings(
        views=picking["views"],
        in_plane_deg=picking["in_plane_step_deg"],
        resolution_limit=picking["finest"],
        peaks=peak_settings(picking, diameter, box_size),
    )
    templates = TemplateSet.from_volume(*reference, diameter, settings, symmetry)
    return lambda image, pixel_size, ctf: pick_by_templates(image, pixel_size, templates, ctf, optics)


def pick_batch(
    names: Sequence[str], defocus: pd.DataFrame, picker: Picker, input_settings: dict[str, Any]
) -> dict[str, pd.DataFrame]:
    """Candidates of a batch of micrographs (block `particles`), numbered by falling score; coordinates in px of the files.

    Those too close to the edge follow the others of their micrograph. A micrograph that cannot be read or searched gives no
    candidates; block `micrographs` holds the reason (`nphReason`, "none" for the others).
    """
    defoci = defocus_rows(defocus)
    picks: dict[str, Picks] = {}
    reasons: list[str] = []
    progress = Progress(len(names), "micrographs picked")
    for name in names:
        found = defoci[name]
        values = found if found[0] > 0 else None
        try:
            micrograph = read_input(name, input_settings)
            picks[name] = picker(micrograph.image, micrograph.pixel_size, values)
            reasons.append("none")
        except InputError as error:
            logger.warning("%s: no picks: %s", name, error)
            picks[name] = Picks()
            reasons.append(str(error))
        progress.step()
    return {
        "particles": number_particles(picked_table(picks, input_settings)),
        "micrographs": pd.DataFrame({"rlnMicrographName": list(names), "nphReason": reasons}),
    }


def defocus_rows(defocus: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """Defocus U, V (A) and angle (deg) by micrograph; not positive, or NaN, where there is no fit."""
    columns = ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
    rows = defocus[columns].to_numpy(dtype=np.float64)
    return {
        str(n): (float(u), float(v), float(a)) for n, (u, v, a) in zip(defocus["rlnMicrographName"], rows, strict=True)
    }


def picked_table(picks: dict[str, Picks], input_settings: dict[str, Any]) -> pd.DataFrame:
    """Table of candidates by micrograph, coordinates in px of the files."""
    table = candidates_table(picks)
    for axis in "XY":
        column = f"rlnCoordinate{axis}"
        table[column] = np.round(file_coordinates(table[column].astype(float), input_settings), 2)
    return table


def number_particles(table: pd.DataFrame) -> pd.DataFrame:
    """The table with nphParticleNumber, 1, 2 … within each micrograph in the order of rows."""
    numbers = table.groupby("rlnMicrographName", sort=False).cumcount() + 1
    return table.assign(nphParticleNumber=numbers.astype(np.int64))


def given_coordinates(table: pd.DataFrame, names: Sequence[str], source: str) -> pd.DataFrame:
    """Coordinates of another program as picks, matched to the project's micrographs by file name.

    Raises
    ------
    InputError
        A micrograph that the project does not have, or two of the project's that share a file name.
    """
    by_base: dict[str, str] = {}
    for name in names:
        base = _base(name)
        if base in by_base:
            raise InputError(
                f"{source}: micrographs {by_base[base]} and {name} share a file name; coordinates cannot be told apart"
            )
        by_base[base] = name
    found: list[str] = []
    for row, name in enumerate(table["rlnMicrographName"].astype(str), 1):
        if _base(name) not in by_base:
            raise InputError(
                f"{source}: row {row}: micrograph {name} is not among the {len(names)} of this project (input.micrographs)"
            )
        found.append(by_base[_base(name)])
    out = table.assign(rlnMicrographName=pd.Series(found, index=table.index, dtype=object))
    if "rlnAutopickFigureOfMerit" not in out:
        out["rlnAutopickFigureOfMerit"] = 0.0
    order = {name: i for i, name in enumerate(names)}
    out = out.sort_values("rlnMicrographName", key=lambda column: column.map(order), kind="stable", ignore_index=True)
    return number_particles(out).assign(nphProbability=1.0, nphKeep=1, nphReason="none")


def count_picks(table: pd.DataFrame, names: Sequence[str], searched: Sequence[pd.DataFrame] = ()) -> pd.DataFrame:
    """Picks by micrograph, in the order of `names`: rlnMicrographName, nphCandidates, nphPicked, and nphReason, which says
    why a micrograph has none ("none" where it has some); `searched`: blocks `micrographs` of `pick_batch`."""
    failed = {
        str(name): str(text)
        for part in searched
        for name, text in zip(part["rlnMicrographName"], part["nphReason"], strict=True)
        if text != "none"
    }
    candidates = table.groupby("rlnMicrographName").size()
    kept = table[table["nphKeep"] == 1].groupby("rlnMicrographName").size()
    dropped = table[table["nphKeep"] == 0].groupby("rlnMicrographName")["nphReason"]
    common: dict[str, str] = {str(name): str(reasons.value_counts().index[0]) for name, reasons in dropped}

    def reason(name: str) -> str:
        if kept.get(name, 0):
            return "none"
        if not candidates.get(name, 0):
            return failed.get(name, "no candidates")
        return f"no candidate was taken, most of them for: {common[name]}"

    return pd.DataFrame(
        {
            "rlnMicrographName": list(names),
            "nphCandidates": [int(candidates.get(name, 0)) for name in names],
            "nphPicked": [int(kept.get(name, 0)) for name in names],
            "nphReason": [reason(name) for name in names],
        }
    )


def _base(name: str) -> str:
    return name.rpartition("/")[2]
