"""Micrographs and their spectra."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nephila.ctf import Optics
from nephila.defocus_by_hand import REASON as BY_HAND
from nephila.defocus_by_hand import edge_of_spectra
from nephila.errors import InputError
from nephila.io.mrc import open_stack
from nephila.micrograph_input import image_coordinates, read_input
from nephila.review.kinds import TABLE as TABLE
from nephila.review.kinds import defoci, defoci_stamp
from nephila.review.pictures import SpectrumTile, large_picture, measured_spectrum, version_of
from nephila.review.project import Project

COLUMNS = {
    "defocusU": "rlnDefocusU",
    "defocusV": "rlnDefocusV",
    "angle": "rlnDefocusAngle",
    "merit": "rlnCtfFigureOfMerit",
    "resolution": "rlnCtfMaxResolution",
    "error": "nphDefocusError",
    "gap": "nphScoreGap",
    "anisotropy": "nphRingAnisotropy",
    "ice": "nphIceRing",
    "foreign": "nphForeignArea",
}


def micrographs(project: Project) -> dict[str, Any]:
    """The table with defoci by hand, column by column; numbers that are not known are null."""
    table = defoci(project)
    found: dict[str, Any] = {"names": table["rlnMicrographName"].tolist(), "reason": table["nphReason"].tolist()}
    found["proposed"] = table["nphKeep"].astype(int).tolist()
    for name, column in COLUMNS.items():
        if column in table.columns:
            found[name] = numbers(table[column])
    for name, path, column in (
        ("picked", "results/particles/picks_by_micrograph.star", "nphPicked"),
        ("selected", "results/particles/percent_selected.star", "nphSelected"),
    ):
        if project.exists(path):
            rows = project.table(path, block=_first_block(project, path))
            if column in rows.columns:
                counts = dict(zip(rows["rlnMicrographName"], rows[column].astype(int), strict=True))
                found[name] = [counts.get(key) for key in found["names"]]
    found["images"] = not project.config().input.particles
    found["imageVersion"] = version_of(micrograph_items(project))
    found["spectrumVersion"] = version_of(spectrum_items(project))
    return found


def _first_block(project: Project, path: str) -> str:
    from nephila.io.tables import read_blocks

    blocks = project.kept(("blocks", path), project.stamp(path), lambda: read_blocks(project.path(path)))
    return next((name for name, frame in blocks.items() if "rlnMicrographName" in frame.columns), next(iter(blocks)))


def numbers(column: pd.Series, digits: int = 6) -> list[float | None]:
    """A column as JSON can hold it."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values]


def micrograph_items(project: Project) -> tuple[list[str], Any]:
    """Names in the order of the table, and their stamp."""
    names = project.table(TABLE, "defocus")["rlnMicrographName"].tolist()
    settings = project.config().input
    return names, (_stamps(project, names), settings.model_dump_json())


def _stamps(project: Project, names: list[str]) -> tuple[tuple[str, int], ...]:
    found = []
    for name in names:
        try:
            found.append((name, (project.folder / name).stat().st_mtime_ns))
        except OSError:
            found.append((name, 0))
    return tuple(found)


def spectrum_items(project: Project) -> tuple[list[SpectrumTile], Any]:
    """Spectra in the order of the table, and their stamp."""
    table = defoci(project)
    if "nphBatch" not in table.columns:
        raise InputError(f"{TABLE}: no column nphBatch")
    place = table.groupby("nphBatch").cumcount()
    resolution = finest(project)
    items = [
        SpectrumTile(
            f"results/ctf/power/pw_avg_{int(batch):04d}.mrcs", int(i), float(u), float(v), float(a), resolution
        )
        for batch, i, u, v, a in zip(
            table["nphBatch"], place, table["rlnDefocusU"], table["rlnDefocusV"], table["rlnDefocusAngle"], strict=True
        )
    ]
    stacks = sorted({item.stack for item in items})
    stamps = tuple((name, project.stamp(name)) for name in stacks if project.exists(name))
    return items, (defoci_stamp(project), stamps, project.config().optics.model_dump_json())


def spectrum_picture(project: Project, index: int, side: int = 420) -> bytes:
    """The measured spectrum of a micrograph as JPEG."""
    items, _ = spectrum_items(project)
    if not 0 <= index < len(items):
        raise InputError(f"no micrograph {index + 1}; there are {len(items)}")
    return measured_spectrum(project, items[index], side)


def optics(project: Project) -> dict[str, Any]:
    """What the page needs to draw a CTF, sin^2(k2 dz k^2 - k4 k^4 + constant); the resolution at the edge of spectra (A); the
    defocus and astigmatism that the settings allow (A)."""
    config = project.config()
    found = Optics(**config.optics.model_dump())
    return {
        "optics": {"k2": found.k2_factor, "k4": found.k4_factor, "constant": found.constant_phase},
        "resolution": finest(project),
        "range": [config.ctf.min_defocus, config.ctf.max_defocus],
        "astigmatism": config.ctf.max_astigmatism,
    }


def finest(project: Project) -> float:
    """Resolution at the edges of a spectrum's picture, A."""
    settings = project.config().input
    return edge_of_spectra(settings.pixel_size * settings.decimate)


def micrograph_picture(project: Project, index: int, side: int = 1000) -> bytes:
    """A micrograph as JPEG."""
    name = _name(project, index)
    return large_picture(read_input(project.folder / name, project.config().input.model_dump()).image, side)


def fit_picture(project: Project, index: int) -> bytes:
    """The figure of the fit, PNG: that of the workflow, or of the defocus by hand in use. NotYet where there is none."""
    name = _name(project, index)
    table = defoci(project)
    if table["nphReason"].iloc[index] == BY_HAND:
        return _drawn_by_hand(project, index)
    batch = f"{int(table['nphBatch'].iloc[index]):04d}"
    places = [f"results/ctf/{folder}/{batch}/{Path(name).stem}.png" for folder in ("figures_pooled", "figures")]
    path = next((place for place in places if project.exists(place)), places[-1])
    project.stamp(path)
    return project.path(path).read_bytes()


def _drawn_by_hand(project: Project, index: int) -> bytes:
    """The figure of a fit by hand, drawn from the average spectrum: the workflow draws it in its next run."""
    from nephila.defocus.polar import draw_fit_of_power

    item = spectrum_items(project)[0][index]
    project.stamp(item.stack)
    stack = open_stack(project.path(item.stack))
    settings = project.config()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fit.png"
        draw_fit_of_power(
            stack[item.index],
            stack.pixel_size or settings.input.pixel_size * settings.input.decimate,
            item.resolution,
            (item.defocus_u, item.defocus_v, item.angle_deg),
            Optics(**settings.optics.model_dump()),
            path,
            Path(_name(project, index)).name,
        )
        return path.read_bytes()


def picks(project: Project, index: int) -> dict[str, Any]:
    """Picks of a micrograph as shares of its width and height (0 to 1), and the particle's diameter as a share of the width."""
    name = _name(project, index)
    if not project.exists("results/particles/coordinates.star"):
        return {"x": [], "y": [], "diameter": 0}
    table = project.table("results/particles/coordinates.star", block="particles")
    mine = table[table["rlnMicrographName"] == name]
    config = project.config()
    settings = config.input.model_dump()
    ny, nx = read_input(project.folder / name, settings).image.shape
    x, y = (image_coordinates(mine[f"rlnCoordinate{axis}"], settings) for axis in "XY")
    pixel_size = config.input.pixel_size * config.input.decimate
    return {
        "x": [round(float(v) / nx, 5) for v in x],
        "y": [round(float(v) / ny, 5) for v in y],
        "diameter": config.particle.diameter / pixel_size / nx,
    }


def _name(project: Project, index: int) -> str:
    names = project.table(TABLE, "defocus")["rlnMicrographName"]
    if not 0 <= index < len(names):
        raise InputError(f"no micrograph {index + 1}; there are {len(names)}")
    return str(names.iloc[index])
