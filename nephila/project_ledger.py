"""The ledger of pixel sizes of a whole project: what it started from, what it made, and maps that lie about in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nephila.errors import InputError
from nephila.io.mrc import open_stack
from nephila.ledger import Entry, Ledger, build_ledger
from nephila.optics_groups import read_particle_set
from nephila.pixel_size import Calibration
from nephila.relabelling import NEARLY, SAME, stated_before

RESULTS = Path("results/refinement")
MADE = ("half1.mrc", "half2.mrc", "map_filtered.mrc", "mask.mrc", "local_resolution.mrc", "map_local.mrc")
"""Maps beside map.mrc that are on its grid, where they exist."""
NOT_SEARCHED = frozenset({"results", "micrographs", "edits", "logs", "merge", ".snakemake", "truth"})
MOST_FOUND = 200
"""Maps that are looked for in a project's folder and the ones in it."""


def project_ledger(
    folder: str | Path,
    given: Mapping[str, Any],
    reference: Mapping[str, Any],
    known: Mapping[str, Calibration] | None = None,
    *,
    search: bool = True,
) -> Ledger:
    """Rows for particles and micrographs, the given reference, the refined maps, masks, and maps in the project's folder.

    Parameters
    ----------
    given, reference : sections `input` and `reference` of the configuration
    known : calibrated pixel sizes, as `build_ledger` takes them
    search : look for maps of the same box in the folder and the folders in it

    Raises
    ------
    InputError
        The refinement has not ended, or what `build_ledger` refuses.
    """
    top = Path(folder)
    results = top / RESULTS
    if not (results / "particles.star").is_file():
        raise InputError(
            f"{folder}: no finished refinement ({RESULTS}/particles.star); `nephila run {folder}` makes it"
        )
    particles = replace(read_particle_set(results / "particles.star"), source=str(RESULTS / "particles.star"))
    side, grid = _header(results / "map.mrc")
    built = build_ledger(particles, known or {}, reference=(str(RESULTS / "map.mrc"), grid))
    of_map = next(entry for entry in built.entries if entry.what == "map on the grid of the reference")
    same = replace(of_map, how="on the grid of map.mrc, and of its scale")
    rows = [*_inputs(given), *built.entries, *_reference(top, reference, side, grid)]
    rows += [replace(same, file=str(RESULTS / name), what=_what(name)) for name in MADE if (results / name).is_file()]
    rows += _found(top, str(reference["volume"]), side, grid, same) if search else []
    return Ledger(tuple(rows), built.notes)


def _header(path: Path) -> tuple[int, float]:
    """Side (px; 0: not a cube) and pixel size (A) of a map, without reading it."""
    found = open_stack(path)
    return (found.shape[0] if len(set(found.shape)) == 1 else 0), found.pixel_size


def _what(name: str) -> str:
    if name.startswith("half"):
        return f"half map {name[4]}"
    return "mask" if name == "mask.mrc" else f"map {name}"


def _inputs(given: Mapping[str, Any]) -> list[Entry]:
    """Micrographs as given; particles that were given have their rows in the table."""
    if given["particles"]:
        return []
    how, factor = "input.pixel_size", given["decimate"]
    if factor > 1:
        how += f"; {factor} x {factor} pixels are averaged on reading"
    return [Entry(str(given["micrographs"]), "micrographs as given", float(given["pixel_size"]), how)]


def _reference(top: Path, reference: Mapping[str, Any], side: int, grid: float) -> list[Entry]:
    """The given starting volume and the one on the map's grid."""
    rows, volume = [], reference["volume"]
    if volume and (top / volume).is_file():
        own, header = _header(top / volume)
        stated = reference["pixel_size"] or header
        how = (
            "its header is believed"
            if not reference["pixel_size"]
            else "reference.pixel_size, its header is not believed"
        )
        if own != side or abs(stated / grid - 1) > SAME:
            how += f"; resampled to {side} px of {grid:.6g} A for the run"
        rows.append(Entry(str(volume), "reference as given", stated, how + "; its true scale is not that of the map"))
    resampled = Path("results/project/reference_volume.mrc")
    if (top / resampled).is_file():
        rows.append(
            Entry(
                str(resampled),
                "reference of the first alignment",
                _header(top / resampled)[1],
                "on the grid of the map",
            )
        )
    return rows


def _found(top: Path, volume: str, side: int, grid: float, same: Entry) -> list[Entry]:
    """Maps of the refinement's box that lie in the folder or one below: postprocessed, relabelled, or copies of its own."""
    folders = [top, *sorted(p for p in top.iterdir() if p.is_dir() and p.name not in NOT_SEARCHED)]
    paths = [path for place in folders for path in sorted(place.glob("*.mrc"))][:MOST_FOUND]
    rows = []
    for path in paths:
        name = str(path.relative_to(top))
        if name == volume:
            continue
        try:
            own, header = _header(path)
            before = stated_before(path)
        except InputError:
            continue  # not a map: nothing to say of its pixel size
        if own != side or not header:
            continue
        entry = replace(same, file=name, what=f"map {path.name}", nominal=header)
        if before is not None and abs(before[0] / grid - 1) <= SAME:
            rows.append(replace(entry, how=f"relabelled from {before[0]:g} A/px: never to be used as a reference"))
        elif abs(header / grid - 1) <= SAME:
            rows.append(replace(entry, how="on the grid of map.mrc; of its scale if it was made from it"))
        elif abs(header / grid - 1) <= NEARLY:
            how = f"the box of map.mrc, nearly its {grid:g} A/px, no mark: looks relabelled, not to be used as a reference"
            rows.append(replace(entry, how=how, low=None, high=None, error=None))
    return rows
