"""A project folder of SPIDER's procedures as a Nephila project: settings, selections, groups, particles, reference.

The layout is that of SPIDER's `recon` procedures: params, sel_micrograph, Power_Spectra, Particles, Alignment, reference_volume.
Nothing in the folder is changed. docs/exchange.md says what becomes of each file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.io.coordinates import Coordinates, coordinate_table, spider_coordinates
from nephila.io.mrc import stack_writer, write_volume
from nephila.io.scanners import scanner_of, scanner_settings
from nephila.io.spider import read_document, read_spider, read_spider_header, read_stack_numbers
from nephila.io.tables import write_blocks, write_table
from nephila.particle_groups import OPTICS_GROUP, optics_table
from nephila.particle_images import image_name
from nephila.relabelling import refuse_relabelled
from nephila.spider_poses import relion_poses

PathLike = str | os.PathLike[str]
Float64 = npt.NDArray[np.float64]

REFERENCE_RESOLUTION = 40.0
"""Low-pass of the reference, A, in the configuration that is written."""


@dataclass(frozen=True)
class SpiderParams:
    """What SPIDER's params document holds that a project needs. Lengths in A; box and diameter in px of the particles."""

    pixel_size: float
    voltage_kv: float
    cs_mm: float
    amplitude_contrast: float
    decimation: int
    box: int
    diameter_px: int
    scanner: str | None
    width: int
    height: int

    @property
    def optics(self) -> Optics:
        """Of the CTF."""
        return Optics(self.voltage_kv, self.cs_mm, self.amplitude_contrast)


@dataclass
class Imported:
    """What an import made: files written, relative to the project, and remarks."""

    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    configuration: dict[str, Any] = field(default_factory=dict)


def read_params(path: PathLike) -> SpiderParams:
    """SPIDER's params. InputError names the key that is missing or makes no sense."""
    document = read_document(path)
    if document.shape[1] < 1:
        raise InputError(f"{path}: no parameters")

    first = dict(zip(document.index.tolist(), document.iloc[:, 0].tolist(), strict=True))

    def value(key: int, what: str, default: float | None = None) -> float:
        if np.isfinite(first.get(key, np.nan)):
            return float(first[key])
        if default is None:
            raise InputError(f"{path}: key {key} ({what}) is missing")
        return default

    pixel_size = value(5, "pixel size, A")
    if not 0.05 < pixel_size < 100:
        raise InputError(f"{path}: key 5: pixel size {pixel_size:g} A makes no sense; correct it")
    optics = Optics(value(6, "electron energy, keV"), value(7, "Cs, mm"), value(12, "amplitude contrast", 0.1))
    return SpiderParams(
        pixel_size=pixel_size,
        voltage_kv=optics.voltage_kv,
        cs_mm=optics.cs_mm,
        amplitude_contrast=optics.amplitude_contrast,
        decimation=max(1, int(value(16, "decimation", 1.0))),
        # SPIDER's own defaults for a ribosome where 0 is given
        box=int(value(17, "window size, px", 0.0)) or int(368 / pixel_size),
        diameter_px=int(value(18, "particle size, px", 0.0)) or int(250 / pixel_size),
        scanner=scanner_of(int(value(2, "file format", 0.0))),
        width=int(value(3, "width", 0.0)),
        height=int(value(4, "height", 0.0)),
    )


def import_spider(folder: PathLike, project: PathLike, *, start: str = "auto", alignment: str = "align_01") -> Imported:
    """Make a Nephila project of a SPIDER project folder.

    Parameters
    ----------
    start : particles (the stacks of the defocus groups), micrographs (with the coordinates), or auto: particles where there
        are any
    alignment : first part of the names of the alignment documents whose poses go into the particle table

    Raises
    ------
    InputError
        The project has a config.yaml already, the folder is none of SPIDER's, or a file in it is damaged or contradicts another.
    """
    base, out = Path(folder), Path(project)
    if (out / "config.yaml").exists():
        raise InputError(f"{out / 'config.yaml'} exists already; import into a new folder")
    params = read_params(_needed(base, "params"))
    done = Imported()
    stacks = _numbered(base / "Alignment", r"data_?(\d+)")
    micrographs = _numbered(base / "Micrographs", r"\D*(\d+)")
    if start == "auto":
        start = "particles" if stacks else "micrographs"
    groups = _defocus_groups(base)
    if start == "particles":
        names = _import_particles(base, out, params, stacks, groups, alignment, done)
        done.configuration["input"] = {
            "particles": "spider/particles.star",
            "pixel_size": params.pixel_size,
            "contrast": "bright",
        }
    else:
        names = _import_micrographs(base, out, params, micrographs, done)
        _import_defoci(out, params, names, groups, done)
    _import_groups(out, names, groups, done)
    _import_reference(base, out, params, done)
    done.configuration |= {
        "project": {"name": re.sub(r"[^A-Za-z0-9_.-]", "_", base.resolve().name)},
        "optics": {
            "voltage_kv": params.voltage_kv,
            "cs_mm": params.cs_mm,
            "amplitude_contrast": params.amplitude_contrast,
        },
        "particle": {"diameter": round(params.diameter_px * params.pixel_size, 3), "box": params.box + params.box % 2},
        "reference": {"resolution": max(REFERENCE_RESOLUTION, 4 * params.pixel_size)},
    }
    if params.box % 2 and start == "particles":
        raise InputError(
            f"{base / 'params'}: key 17: particles of an odd box ({params.box} px) cannot be used; cut them again"
        )
    if params.box % 2:
        done.notes.append(f"window of {params.box} px: particle.box is {params.box + 1}, since boxes are even")
    from nephila.config import parse_config
    from nephila.config.render import default_yaml
    from nephila.io.atomic import write_text

    parse_config(done.configuration, "the settings of this import")
    write_text(out / "config.yaml", default_yaml(done.configuration, title=f"Configuration made from {base}."))
    done.files.insert(0, "config.yaml")
    return done


def _find(folder: Path, name: str) -> Path | None:
    """A document or image of SPIDER by its name without extension, which is the project's own."""
    found = sorted(
        path for path in folder.glob(f"{name}.*") if path.is_file() and path.suffix.lower() not in (".star", ".gz")
    )
    if len(found) > 1:
        raise InputError(
            f"{folder}: {name} exists as {', '.join(path.name for path in found)}; leave one of them there"
        )
    return found[0] if found else None


def _needed(folder: Path, name: str) -> Path:
    found = _find(folder, name)
    if found is None:
        raise InputError(f"{folder}: no file {name}.*: not a SPIDER project folder as its procedures make it")
    return found


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Files of a folder whose stem matches, by the number in it."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        match = re.fullmatch(pattern, path.name.split(".")[0])
        if match and path.is_file():
            number = int(match[1])
            if number in found:
                raise InputError(
                    f"{folder}: {found[number].name} and {path.name} have the same number; leave one of them there"
                )
            found[number] = path
    return found


def _defocus_groups(base: Path) -> pd.DataFrame:
    """Index micrograph: defocus (A), group, from def_sort, which the user may have edited; without it from defocus alone."""
    sort, defocus = (_find(base / "Power_Spectra", name) for name in ("def_sort", "defocus"))
    path = sort or defocus
    if path is None:
        return pd.DataFrame({"defocus": [], "group": []})
    table = read_document(path, ["micrograph", "defocus", "group"] if sort else ["micrograph", "defocus"])
    if not sort:
        table["group"] = np.nan
    table = table.set_index(table["micrograph"].astype(int))[["defocus", "group"]]
    if table.index.has_duplicates:
        raise InputError(f"{path}: micrograph {table.index[table.index.duplicated()][0]} occurs twice")
    bad = table.index[~(table["defocus"] > 0)]
    if len(bad):
        raise InputError(f"{path}: micrograph {bad[0]}: defocus {table.loc[bad[0], 'defocus']:g} A is not underfocus")
    return table


def _selected(base: Path) -> list[int] | None:
    path = _find(base, "sel_micrograph")
    return None if path is None else read_document(path, ["micrograph"])["micrograph"].astype(int).tolist()


def _import_particles(
    base: Path,
    out: Path,
    params: SpiderParams,
    stacks: dict[int, Path],
    groups: pd.DataFrame,
    alignment: str,
    done: Imported,
) -> dict[int, str]:
    """Stacks of the defocus groups as one MRC stack and table; returns the micrographs' names by number."""
    if not stacks:
        raise InputError(f"{base / 'Alignment'}: no stacks data***; run win2stk in SPIDER, or start from micrographs")
    if groups.empty:
        raise InputError(f"{base / 'Power_Spectra'}: neither def_sort nor defocus: the particles' defoci are not known")
    parts, images = [], []
    for group, path in stacks.items():
        header = read_spider_header(path)
        if header.kind != "stack" or header.shape[1:] != (params.box, params.box):
            raise InputError(
                f"{path}: a {header.kind} {header.shape}; stacks of {params.box} px are expected (key 17 of params)"
            )
        parts.append(_group_table(base, path, group, params, alignment, done))
        images.append(path)
    table = pd.concat(parts, ignore_index=True)
    unknown = sorted(set(table["micrograph"]) - set(groups.index))
    if unknown:
        raise InputError(f"micrograph {unknown[0]} has particles but no line in def_sort or defocus; add it there")
    defoci = groups.loc[table["micrograph"], "defocus"].to_numpy(dtype=np.float64)
    names = {number: f"mic_{number:04d}" for number in sorted(set(table["micrograph"]))}
    stack = out / "spider" / "particles.mrcs"
    row = 0
    with stack_writer(stack, (len(table), params.box, params.box), params.pixel_size) as memory:
        for path in images:
            array, _ = read_spider(path)
            memory[row : row + len(array)] = array
            row += len(array)
    given = table.drop(columns=["micrograph", "particle"])
    poses = [column for column in given if given[column].notna().all()]
    if len(poses) < given.shape[1]:
        done.notes.append("not every group has an alignment document: the particles go without poses")
        poses = []
    particles = pd.DataFrame(
        {
            "rlnImageName": [image_name(i, "spider/particles.mrcs") for i in range(len(table))],
            "rlnMicrographName": [names[number] for number in table["micrograph"]],
            "rlnOpticsGroup": OPTICS_GROUP,
            "rlnDefocusU": defoci,
            "rlnDefocusV": defoci,
            "rlnDefocusAngle": 0.0,
            "nphParticleNumber": table["particle"].to_numpy(),
        }
    ).join(given[poses])
    optics = optics_table("spider", params.optics, params.pixel_size, params.box)
    write_blocks(out / "spider" / "particles.star", {"optics": optics, "particles": particles}, f"Particles of {base}.")
    done.files += ["spider/particles.star", "spider/particles.mrcs"]
    done.notes.append(
        f"{len(table)} particles of {len(names)} micrographs in {len(stacks)} defocus groups"
        + (", with SPIDER's poses, which the first alignment finds anew" if poses else "")
    )
    done.notes.append("input.contrast is bright, as SPIDER's windows have it; look at the picture of the windows")
    return names


def _group_table(
    base: Path, path: Path, group: int, params: SpiderParams, alignment: str, done: Imported
) -> pd.DataFrame:
    """Micrograph and particle number of a group's images, and their poses where there is an alignment document."""
    micrograph, particle = read_stack_numbers(path)
    digits = re.sub(r"\D", "", path.name.split(".")[0])
    selection = _find(base / "Alignment", f"sel_particles_{digits}")
    if selection is not None:
        listed = read_document(selection, ["number", "particle", "group", "micrograph"])
        if len(listed) != len(micrograph):
            raise InputError(f"{selection}: {len(listed)} particles, {path.name} holds {len(micrograph)}")
        if not micrograph.any():
            micrograph, particle = (listed[name].to_numpy(dtype=np.int64) for name in ("micrograph", "particle"))
        elif (listed["micrograph"].to_numpy(dtype=np.int64) != micrograph).any():
            raise InputError(f"{selection}: lists other micrographs than the headers of {path.name}")
    elif not micrograph.any():
        raise InputError(f"{path}: no micrograph numbers in its headers and no sel_particles_{digits}")
    table = pd.DataFrame({"micrograph": micrograph, "particle": particle})
    document = _find(base / "Alignment", f"{alignment}_{digits}")
    columns = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"]
    if document is None:
        return table.assign(**dict.fromkeys(columns, np.nan))
    poses = relion_poses(read_document(document), params.pixel_size, str(document))
    keys = poses.index.to_numpy()
    if len(poses) != len(table) or set(keys.tolist()) != set(range(1, len(table) + 1)):
        raise InputError(f"{document}: {len(poses)} lines, {path.name} holds {len(table)} images")
    return table.join(poses.sort_index().reset_index(drop=True))


def _import_micrographs(
    base: Path, out: Path, params: SpiderParams, micrographs: dict[int, Path], done: Imported
) -> dict[int, str]:
    """Micrographs in place, with SPIDER's selection and coordinates; returns their names by number."""
    if not micrographs:
        raise InputError(
            f"{base / 'Micrographs'}: no numbered micrographs, and no particle stacks in {base / 'Alignment'}"
        )
    names = {number: str(path.resolve()) for number, path in micrographs.items()}
    settings: dict[str, Any] = {
        "micrographs": str((base / "Micrographs").resolve() / _pattern(list(micrographs.values()))),
        # params state the pixel size after decimation
        "pixel_size": params.pixel_size / params.decimation,
        "decimate": params.decimation,
    }
    if params.scanner:
        settings |= scanner_settings(params.scanner, params.width, params.height)
    done.configuration["input"] = settings
    wanted = _selected(base)
    if wanted is not None:
        missing = sorted(set(wanted) - set(names))
        if missing:
            done.notes.append(f"sel_micrograph lists {len(missing)} micrographs that are not there ({missing[0]})")
        keep = pd.DataFrame(
            {"rlnMicrographName": list(names.values()), "nphKeep": [int(number in wanted) for number in names]}
        )
        write_table(
            out / "edits" / "sel_micrograph.star", keep, kind="sel_micrograph", comment=f"From {base}: sel_micrograph."
        )
        done.files.append("edits/sel_micrograph.star")
    coordinates = _numbered(base / "Particles" / "coords", r"sndc(\d+)")
    parts = [
        (names[n], _selected_picks(base, n, path, params.box, done)) for n, path in coordinates.items() if n in names
    ]
    if parts:
        table = coordinate_table(parts)
        tiff = table["rlnMicrographName"].str.lower().str.contains(r"\.tiff?(?:\.gz)?$")
        if tiff.any():
            table = _turned_over(table, tiff.to_numpy(), params)
            done.notes.append("TIFF micrographs: SPIDER counts rows from the top, so coordinates are turned over")
        for axis in "XY":
            column = f"rlnCoordinate{axis}"
            table[column] = table[column] * params.decimation + (params.decimation - 1) / 2
        write_table(out / "spider" / "coordinates.star", table, kind="coordinates", comment=f"Picks of {base}.")
        done.files.append("spider/coordinates.star")
        settings["coordinates"] = "spider/coordinates.star"
        done.notes.append(f"{len(table)} picks on {len(parts)} micrographs")
    return names


def _import_defoci(
    out: Path, params: SpiderParams, names: dict[int, str], groups: pd.DataFrame, done: Imported
) -> None:
    """SPIDER's defoci of the micrographs as results of another program (`ctf.method: import`), without astigmatism."""
    here = groups[groups.index.isin(list(names))]
    if here.empty:
        done.notes.append("neither def_sort nor defocus: defoci are fitted from the micrographs (ctf.method: ctffind)")
        return
    optics = {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["spider"],
        "rlnVoltage": [params.voltage_kv],
        "rlnSphericalAberration": [params.cs_mm],
        "rlnAmplitudeContrast": [params.amplitude_contrast],
        "rlnMicrographPixelSize": [params.pixel_size],
    }
    table = {
        "rlnMicrographName": [names[number] for number in here.index],
        "rlnOpticsGroup": 1,
        "rlnDefocusU": here["defocus"].to_numpy(dtype=np.float64),
        "rlnDefocusV": here["defocus"].to_numpy(dtype=np.float64),
        "rlnDefocusAngle": 0.0,
    }
    target = "spider/micrographs_ctf.star"
    blocks = {"optics": pd.DataFrame(optics), "micrographs": pd.DataFrame(table)}
    write_blocks(out / target, blocks, "Defoci of SPIDER's def_sort or defocus.")
    done.files.append(target)
    done.configuration["ctf"] = {"method": "import", "import_from": target}
    done.notes.append(
        f"SPIDER's defoci of {len(here)} micrographs are used (ctf.method: import), each held against the micrograph's rings; "
        "their astigmatism is taken as 0. ctf.method: ctffind with ctf.import_from empty fits them anew"
    )
    if len(here) < len(names):
        done.notes.append(
            f"{len(names) - len(here)} micrographs have no defocus there: they are dropped, with that reason"
        )


def _pattern(paths: list[Path]) -> str:
    """A pattern for numbered files: raw*.dat; * where they differ in more than their numbers."""
    kinds = {re.sub(r"\d+", "*", path.name, count=1) for path in paths}
    return kinds.pop() if len(kinds) == 1 else "*"


def _selected_picks(base: Path, number: int, path: Path, box: int, done: Imported) -> Coordinates:
    """Picks of a micrograph, those in Particles/good/ngood where there is such a list (numbers of its first column)."""
    picks = spider_coordinates(path, box)
    good = _numbered(base / "Particles" / "good", r"ngood(\d+)").get(number)
    if good is None or not len(picks):
        return picks
    given = read_document(path).iloc[:, 2].to_numpy(dtype=np.int64)
    rows = np.isin(given, read_document(good, ["particle"])["particle"].to_numpy(dtype=np.int64))
    if not rows.all():
        done.notes.append(f"{good.name}: {int(rows.sum())} of {len(rows)} picks are selected, the others left out")
    return Coordinates(picks.x[rows], picks.y[rows], picks.score[rows])


def _turned_over(table: pd.DataFrame, rows: npt.NDArray[np.bool_], params: SpiderParams) -> pd.DataFrame:
    """Coordinates (px after decimation) of TIFF micrographs counted from the lowest row, as the images are read."""
    from nephila.io.micrographs import micrograph_header

    heights = {name: micrograph_header(name).ny for name in table.loc[rows, "rlnMicrographName"].unique()}
    y = table["rlnCoordinateY"].to_numpy(dtype=np.float64).copy()
    last = np.array([heights.get(name, 0) // params.decimation - 1 for name in table["rlnMicrographName"]])
    y[rows] = last[rows] - y[rows]
    return table.assign(rlnCoordinateY=y)


def _import_groups(out: Path, names: dict[int, str], groups: pd.DataFrame, done: Imported) -> None:
    """SPIDER's defocus groups as edits/def_sort.star."""
    here = groups[groups.index.isin(list(names)) & groups["group"].notna()]
    if here.empty:
        done.notes.append("no def_sort: defocus groups are made anew")
        return
    if len(here) < len(names):
        done.notes.append(
            f"def_sort lacks {len(names) - len(here)} of the {len(names)} micrographs: defocus groups are made anew"
        )
        return
    table = pd.DataFrame(
        {
            "rlnMicrographName": [names[number] for number in here.index],
            "nphDefocusGroup": here["group"].astype(int).to_numpy(),
        }
    )
    write_table(out / "edits" / "def_sort.star", table, kind="def_sort", comment="SPIDER's defocus groups (def_sort).")
    done.files.append("edits/def_sort.star")


def _import_reference(base: Path, out: Path, params: SpiderParams, done: Imported) -> None:
    path = _find(base, "reference_volume")
    if path is None:
        done.notes.append("no reference_volume: put a starting volume at reference.mrc")
        return
    refuse_relabelled(path, way_out="Give the map from before relabelling")
    volume, pixel_size = read_spider(path)
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise InputError(f"{path}: a cubic volume is needed, this file has the shape {volume.shape}")
    if pixel_size and abs(pixel_size / params.pixel_size - 1) > 0.01:
        raise InputError(
            f"{path}: the header's pixel size is {pixel_size:g} A, key 5 of params says {params.pixel_size:g} A; correct one"
        )
    write_volume(out / "reference.mrc", volume, params.pixel_size)
    done.files.append("reference.mrc")
