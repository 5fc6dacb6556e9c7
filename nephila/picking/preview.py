"""Picks of one micrograph of a project, as its configuration would have them, before or after a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nephila.config import Config
from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.io.tables import read_table
from nephila.micrograph_input import image_coordinates, read_input
from nephila.picking.choose import choose_picks
from nephila.picking.tables import (
    Picker,
    blob_picker,
    choice_settings,
    defocus_rows,
    number_particles,
    picked_table,
    template_picker,
)
from nephila.project import open_project
from nephila.symmetry import point_group_matrices

CTF_TABLES = "results/ctf/power/{method}_*.star"
CANDIDATES = "results/particles/candidates/{method}_*.star"


@dataclass(frozen=True)
class Preview:
    """What was found on one micrograph.

    name : of the micrograph in the project; table : candidates with nphKeep and nphReason
    defocus : U, V (A), angle (deg) used for picking, None without; defocus_source, threshold_source : where they are from
    """

    name: str
    table: pd.DataFrame
    defocus: tuple[float, float, float] | None
    defocus_source: str
    threshold_source: str

    @property
    def picks(self) -> pd.DataFrame:
        """The rows that are kept."""
        return self.table[self.table["nphKeep"] == 1]


def preview_picks(config: Config, micrograph: str) -> tuple[Preview, Any]:
    """Pick one micrograph of the project in the current folder.

    Its CTF is the run's where there is one, else fitted; the threshold comes from its own candidates together with those of
    the run's other micrographs, where there are some.

    Returns
    -------
    what was found, and the micrograph as read

    Raises
    ------
    InputError
        The project starts at particles or coordinates, the micrograph is not one of the project's, or cannot be picked.
    """
    for key, value in (("input.particles", config.input.particles), ("input.coordinates", config.input.coordinates)):
        if value:
            raise InputError(f"{key}: the project starts at {value}; there is nothing to pick")
    name = find_in_project(micrograph, list(open_project(config).batches))
    settings = config.input.model_dump()
    optics = Optics(**config.optics.model_dump())
    image = read_input(name, settings)
    defocus, source = _defocus(config, name, image, optics)
    picker = _picker(config, optics)
    found = picked_table({name: picker(image.image, image.pixel_size, defocus)}, settings)
    others, threshold = _others(config, name)
    everything = pd.concat([found, *others], ignore_index=True) if others else found
    table, model = choose_picks(
        everything, choice_settings(config.picking.model_dump()), config.input.pixel_size, config.particle.diameter
    )
    if config.picking.threshold is not None:
        threshold = "picking.threshold"
    elif model.reason != "none":
        threshold = f"{threshold}; {model.reason}"
    mine = number_particles(table[table["rlnMicrographName"] == name].reset_index(drop=True))
    return Preview(name, mine, defocus, source, threshold), image


def find_in_project(micrograph: str, names: list[str]) -> str:
    """The project's name of a micrograph given by path, file name, or file name without its ending."""
    wanted = os.path.normpath(micrograph)
    exact = [
        name for name in names if os.path.normpath(name) == wanted or os.path.abspath(name) == os.path.abspath(wanted)
    ]
    found = exact or [name for name in names if micrograph in (Path(name).name, Path(name).stem)]
    if not found:
        some = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
        raise InputError(f"{micrograph}: not a micrograph of this project (input.micrographs), which has {some}")
    if len(found) > 1:
        raise InputError(
            f"{micrograph}: {len(found)} micrographs share this name; give one with its folder: {found[0]}"
        )
    return found[0]


def _picker(config: Config, optics: Optics) -> Picker:
    picking, diameter = config.picking.model_dump(), config.particle.diameter
    box_size = config.box * config.pixel_size
    if config.picking.method == "pick":
        return blob_picker(picking, diameter, box_size, optics)
    from nephila.references import filter_reference, fit_reference, read_reference

    source = config.reference.volume
    assert source is not None  # the configuration refuses lfc_pick without it
    stated = config.reference.pixel_size
    volume, given = read_reference(source, stated, config.reference.sampling, config.pixel_size, config.box)
    fitted, actual = fit_reference(volume, given, config.pixel_size, config.box, diameter, source)
    reference = filter_reference(fitted, actual, config.reference.resolution), actual
    return template_picker(
        picking, reference, diameter, box_size, point_group_matrices(config.particle.symmetry), optics
    )


def _defocus(config: Config, name: str, image: Any, optics: Optics) -> tuple[tuple[float, float, float] | None, str]:
    """CTF of the micrograph from the run's tables, or fitted now."""
    for path in sorted(Path().glob(CTF_TABLES.format(method=config.ctf.method))):
        values = defocus_rows(read_table(path, kind="defocus")).get(name)
        if values is not None:
            return (values, str(path)) if values[0] > 0 else (None, f"{path}, which has no fit")
    from nephila.defocus.fit_2d import fit_micrograph
    from nephila.defocus.tables import defocus_settings, spectrum_settings

    section = config.ctf.model_dump()
    _, fit = fit_micrograph(
        image.image, image.pixel_size, optics, spectrum_settings(section), defocus_settings(section)
    )
    if fit.failed or not np.isfinite(fit.defocus_u) or fit.defocus_u <= 0:
        return None, f"no fit: {fit.reason}"
    return (fit.defocus_u, fit.defocus_v, fit.angle_deg), "fitted for this preview"


def _others(config: Config, name: str) -> tuple[list[pd.DataFrame], str]:
    """Candidates of the run's other micrographs, and what the threshold is made from."""
    paths = sorted(Path().glob(CANDIDATES.format(method=config.picking.method)))
    tables = [read_table(path, kind="coordinates") for path in paths]
    others = [table[table["rlnMicrographName"] != name] for table in tables]
    others = [table for table in others if len(table)]
    if not others:
        return [], "from the scores of this micrograph alone"
    number = sum(int(table["rlnMicrographName"].nunique()) for table in others)
    return others, f"from its scores and those of the run's {number} other micrographs"


def summarise_preview(preview: Preview) -> list[str]:
    """Lines that say what was found, and why candidates were left out."""
    table = preview.table
    lines = [f"{preview.name}: {len(preview.picks)} picks of {len(table)} candidates"]
    reasons = table.loc[table["nphKeep"] == 0, "nphReason"].value_counts()
    lines += [f"  {count:5d}  {reason}" for reason, count in reasons.items()]
    if preview.defocus is None:
        lines.append(f"  CTF: not used ({preview.defocus_source})")
    else:
        u, v, angle = preview.defocus
        lines.append(f"  defocus {u:.0f}, {v:.0f} A at {angle:.0f} degrees ({preview.defocus_source})")
    return [*lines, f"  threshold {preview.threshold_source}"]


def draw_preview(preview: Preview, image: Any, config: Config, path: str | os.PathLike[str]) -> None:
    """Write the micrograph with its picks as a picture."""
    from nephila.figures.particles import plot_micrograph_picks

    picks = preview.picks
    settings = config.input.model_dump()
    x, y = (image_coordinates(picks[f"rlnCoordinate{axis}"].to_numpy(dtype=float), settings) for axis in "XY")
    plot_micrograph_picks(
        image.image,
        x,
        y,
        path,
        pixel_size=image.pixel_size,
        diameter=config.particle.diameter,
        score=picks["rlnAutopickFigureOfMerit"] if len(picks) else None,
        title=Path(preview.name).name,
    )
