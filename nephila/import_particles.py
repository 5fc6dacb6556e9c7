"""Particles of another program (STAR table and stacks) as the start of a run: defoci, list, and windows batch by batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.extraction import ExtractionSettings
from nephila.given_checks import DEFOCUS, check_defoci, check_grid, check_stack_size
from nephila.ignored_aberrations import ignored_aberrations, ignored_mtf
from nephila.io.mrc import stack_writer
from nephila.io.tables import check_columns, read_blocks
from nephila.job import Progress, logger
from nephila.joining import join_particle_sets
from nephila.optics_groups import (
    OPTICS_COLUMNS,
    ParticleSet,
    as_particle_set,
    optics_frame,
    read_optics,
    read_particle_set,
)
from nephila.particle_images import ParticleImages, image_name, split_image_name
from nephila.sampling import ABERRATION_COLUMNS, GROUP_COLUMNS, SAMPLING_COLUMNS, image_kinds
from nephila.window_normalisation import Region, normalise_background, remove_dust, remove_ramps

PathLike = str | os.PathLike[str]
Float32 = npt.NDArray[np.float32]

COORDINATES = ("rlnCoordinateX", "rlnCoordinateY")
MTF_SHELLS = 256
"""Side of the box in whose shells MTFs of optics groups are compared, px."""
NEEDED = ("rlnMicrographName", "rlnImageName", *DEFOCUS)
OPTICS = (
    ("rlnVoltage", "optics.voltage_kv", 0.01),
    ("rlnSphericalAberration", "optics.cs_mm", 0.001),
    ("rlnAmplitudeContrast", "optics.amplitude_contrast", 0.001),
    ("rlnPhaseShift", "optics.phase_shift_deg", 0.5),
)
"""RELION's columns that must agree with keys of the configuration, and how far they may differ."""


def read_given_particles(path: PathLike, *, overfocus: bool = False) -> pd.DataFrame:
    """The particle table of a STAR file of RELION 3.1 (blocks optics and particles) or 3.0 (one block).

    Columns of the optics block are added to the rows of its groups, and nphParticleNumber counts within each micrograph in the
    order of rows. 3.0's magnification and detector pixel size become rlnImagePixelSize (A). overfocus : take negative defoci

    Raises
    ------
    InputError
        No block with particles, a column missing (named), a defocus that makes no sense, or a row of an optics group without
        optics.
    """
    blocks = read_blocks(path)
    if "optics" in blocks:
        given = as_particle_set(blocks, str(path))
        check_defoci(given.particles, str(path), overfocus=overfocus)
        table = _with_optics(given)
    else:
        found = blocks.get("particles", next(iter(blocks.values())) if len(blocks) == 1 else None)
        if found is None:
            raise InputError(
                f"{path}: no block 'data_particles'; the file has {', '.join('data_' + name for name in blocks)}"
            )
        check_defoci(found, str(path), overfocus=overfocus)
        check_columns(found, NEEDED, str(path))
        table = found.reset_index(drop=True)
        if {"rlnDetectorPixelSize", "rlnMagnification"} <= set(table.columns) and "rlnImagePixelSize" not in table:
            table["rlnImagePixelSize"] = 1e4 * table["rlnDetectorPixelSize"] / table["rlnMagnification"]
    return _numbered(table)


def read_given_tables(
    paths: Sequence[PathLike], *, stacks: bool = False, quiet: bool = False, overfocus: bool = False
) -> pd.DataFrame:
    """The particles of one table, as `read_given_particles`, or of several, joined as `nephila join` does.

    stacks : also look for the stacks, each table's as `find_stacks` does; quiet : keep the notes on joining to oneself

    InputError as for those, and where optics groups of one name differ or an image is in two tables.
    """
    if len(paths) == 1:
        table = read_given_particles(paths[0], overfocus=overfocus)
        return find_stacks(table, paths[0]) if stacks else table
    sets = []
    for path in paths:
        one = read_particle_set(path)
        sets.append(replace(one, particles=find_stacks(one.particles, path)) if stacks else one)
    joined = join_particle_sets(sets, overfocus=overfocus)
    for note in () if quiet else joined.notes:
        logger.warning(note)
    return _numbered(_with_optics(replace(joined.particles, source=", ".join(map(str, paths)))))


def _with_optics(given: ParticleSet) -> pd.DataFrame:
    """Particles with the columns of their optics group that they do not have themselves."""
    check_columns(given.particles, NEEDED, given.source)
    optics = optics_frame(given.optics)
    new = [name for name in optics if name not in given.particles or name == "rlnOpticsGroup"]
    return given.particles.merge(optics[new], on="rlnOpticsGroup", how="left", validate="many_to_one")


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    numbers = table.groupby("rlnMicrographName", sort=False).cumcount() + 1
    return table.assign(nphParticleNumber=numbers.astype(np.int64))


def check_against_config(
    table: pd.DataFrame, pixel_size: float, box: int, optics: dict[str, Any], source: str, *, several: bool = False
) -> None:
    """InputError where the table's pixel size (A), box (px) or optics are not those of the configuration (section `optics`).

    several : of the optics groups' values only the phase shift must be the configuration's (`check_samplings` sees to the rest)
    """
    rules = [
        ("rlnImagePixelSize", "input.pixel_size", pixel_size, 0.001 * pixel_size),
        ("rlnImageSize", "particle.box", box, 0),
    ]
    rules += [(column, key, optics[key.partition(".")[2]], limit) for column, key, limit in OPTICS]
    for column, key, wanted, limit in rules[-1:] if several else rules:
        if column not in table:
            continue
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
        wrong = np.flatnonzero(~(np.abs(values - wanted) <= limit))
        if len(wrong):
            raise InputError(
                f"{source}: _{column} is {table[column].iloc[wrong[0]]:g} in row {wrong[0] + 1}, {key} is {wanted:g}; "
                "correct the one that is wrong, or set input.optics_groups: several"
            )


def check_samplings(
    table: pd.DataFrame, pixel_size: float, box: int, diameter: float, source: str, *, trust: bool = False
) -> list[str]:
    """Check particles of several optics groups against the reference's sampling; a line for each group that has another, and
    for each aberration that will be corrected.

    pixel_size, box, diameter : of reference and map, and of the particle; A, px, A
    trust : the map's pixel size may be nearly but not quite a group's (`reference.sampling: resample`)

    Raises
    ------
    InputError
        A group's sampling or optics are not stated, its images are smaller than the particle, or pixel sizes lie more than
        a factor of 4 apart, or look calibrated (`check_grid`); or the phase shifts differ between particles.
    """
    needed = [name for name in SAMPLING_COLUMNS if name not in table]
    if needed:
        raise InputError(
            f"{source}: input.optics_groups is several, but column _{needed[0]} is missing (block data_optics)"
        )
    if not trust:
        check_grid([float(size) for size in table["rlnImagePixelSize"].unique()], pixel_size, source)
    lines = []
    for kind in image_kinds(table, box, pixel_size, Optics(300.0, 0.0, 0.1)):
        own = kind.sampling
        if own.box * own.pixel_size < diameter:
            raise InputError(
                f"{source}: images of optics group {own.number}, {own.box} px of {own.pixel_size:g} A, are smaller than the "
                f"particle (particle.diameter: {diameter:g} A)"
            )
        if not 0.25 < own.pixel_size / pixel_size < 4:
            raise InputError(
                f"{source}: optics group {own.number} has {own.pixel_size:g} A/px, the reference (input.pixel_size) "
                f"{pixel_size:g} A/px; correct the one that is wrong"
            )
        if own.scale != 1.0 or own.box != box:
            lines.append(
                f"optics group {own.number}: {len(kind.rows)} particles of {own.box} px of {own.pixel_size:g} A, the map has "
                f"{box} px of {pixel_size:g} A; its Fourier pixel is {own.scale:.4f} of the map's"
            )
        if own.group is not None:
            effects = ignored_aberrations([own.group], own.pixel_size, diameter)
            lines += [f"{effect} without its correction" for effect in effects]
    return lines


def optics_of_micrographs(paths: Sequence[PathLike], *, overfocus: bool = False) -> dict[str, int]:
    """Number of the optics group (of the joined table) of each micrograph. InputError where a micrograph has two."""
    table = read_given_tables(paths, quiet=True, overfocus=overfocus)
    pairs = table[["rlnMicrographName", "rlnOpticsGroup"]].drop_duplicates()
    double = pairs[pairs["rlnMicrographName"].duplicated()]
    if len(double):
        raise InputError(
            f"{', '.join(map(str, paths))}: micrograph {double['rlnMicrographName'].iloc[0]} has particles of several optics "
            "groups; with input.optics_groups: several each micrograph belongs to one: rename it in one of the tables"
        )
    return dict(zip(pairs["rlnMicrographName"].astype(str), pairs["rlnOpticsGroup"].astype(int), strict=True))


def check_aberrations(
    table: pd.DataFrame, pixel_size: float, diameter: float, ignore: bool, source: str, *, several: bool = False
) -> list[str]:
    """What the particles' optics state and is not used: beam tilt, Zernike terms, magnification, MTF; one line each.

    pixel_size, diameter : of the images and of the particle, A; ignore : `input.ignore_aberrations`; several : whether optics
    groups count (`input.optics_groups`): aberrations are then corrected, unless they are to be ignored

    InputError where the phase error of one that is not corrected reaches 90 degrees before Nyquist and it is not to be ignored.
    """
    columns = [name for name in OPTICS_COLUMNS if name in table]
    rows = table[columns].drop_duplicates()
    if "rlnOpticsGroup" not in rows:
        rows = rows.assign(rlnOpticsGroup=range(1, len(rows) + 1))
    needed = {"rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"}
    if not needed <= set(rows.columns):
        return []
    effects, groups = [], read_optics(rows, source)
    if ignore or not several:
        effects = ignored_aberrations(groups, pixel_size, diameter)
    bad = next((effect for effect in effects if effect.resolution is not None), None)
    if bad is not None and not ignore:
        raise InputError(
            f"{source}: {bad}; have it corrected with input.optics_groups: several, or accept the limit with "
            "input.ignore_aberrations: true"
        )
    unused = {"rlnCtfBfactor": "0", "rlnCtfScalefactor": "1"}
    lines = [f"{effect}, is ignored" for effect in effects] + ignored_mtf(groups, MTF_SHELLS, pixel_size)
    for column, nothing in unused.items():
        if column in table and not table[column].astype(str).isin([nothing, nothing + ".0"]).all():
            lines.append(f"_{column} is not used")
    return lines


def micrograph_defoci(
    table: pd.DataFrame, batches: dict[str, int], source: str, with_optics: bool = False, *, overfocus: bool = False
) -> pd.DataFrame:
    """Defocus of each micrograph: the mean over its particles, astigmatism averaged as a vector of twice its angle.

    table : of `read_given_particles`; batches : batch of each micrograph, in the order of the result; with_optics : state the
    optics group of each; overfocus : keep micrographs whatever the sign of their defocus

    Returns
    -------
    rlnMicrographName, nphBatch, rlnDefocusU/V (A), rlnDefocusAngle (degrees), rlnCtfMaxResolution (NaN: not known), nphKeep,
    nphReason. A micrograph whose mean defocus is no underfocus is not kept, with that reason.
    """
    u, v, angle = (table[name].to_numpy(dtype=np.float64) for name in DEFOCUS)
    vector = 0.5 * (u - v) * np.exp(2j * np.deg2rad(angle))
    parts = pd.DataFrame(
        {"name": table["rlnMicrographName"].astype(str), "mean": 0.5 * (u + v), "x": vector.real, "y": vector.imag}
    )
    means = parts.groupby("name").mean().reindex(list(batches))
    if means["mean"].isna().any():
        raise InputError(f"{source}: micrograph {means.index[means['mean'].isna()][0]} has no particles")
    mean, x, y = (means[name].to_numpy(dtype=np.float64) for name in ("mean", "x", "y"))
    half = np.hypot(x, y)
    keep = (mean - half > 0) | overfocus
    optics = {}
    if with_optics:
        groups = table.groupby(table["rlnMicrographName"].astype(str))["rlnOpticsGroup"].first().reindex(list(batches))
        optics["rlnOpticsGroup"] = groups.to_numpy(dtype=np.int64)
    return pd.DataFrame(
        {
            "rlnMicrographName": list(batches),
            "nphBatch": list(batches.values()),
            "rlnDefocusU": np.round(mean + half, 3),
            "rlnDefocusV": np.round(mean - half, 3),
            "rlnDefocusAngle": np.round(0.5 * np.degrees(np.arctan2(y, x)), 3),
            "rlnCtfMaxResolution": np.nan,
            "nphKeep": keep.astype(int),
            "nphReason": np.where(keep, "none", "the mean defocus of its particles is not underfocus"),
            **optics,
        }
    )


def list_particles(table: pd.DataFrame) -> pd.DataFrame:
    """The given particles as picks: name, number, coordinates where there are some, score, and all of them kept."""
    columns = ["rlnMicrographName", "nphParticleNumber", *(name for name in COORDINATES if name in table)]
    score = table.get("rlnAutopickFigureOfMerit", 0.0)
    return table[columns].assign(rlnAutopickFigureOfMerit=score, nphKeep=1, nphReason="none")


def find_stacks(table: pd.DataFrame, source: PathLike) -> pd.DataFrame:
    """The table with stack paths in rlnImageName that exist: as given (from the project folder), or from the STAR file's folder.

    The table of another project of Nephila's (a STAR file below its `results`) means stacks of that project.

    InputError names the stack that is in neither place.
    """
    folder = Path(source).parent
    parts = [split_image_name(str(name)) for name in table["rlnImageName"]]
    found: dict[str, str] = {}
    for path in dict.fromkeys(path for _, path in parts):
        places = [Path(path), folder / path, folder / Path(path).name]
        if "results" in folder.parts and not Path(path).is_absolute():
            places.insert(0, Path(*folder.parts[: folder.parts.index("results")]) / path)
        here = next((place for place in places if place.is_file()), None)
        if here is None:
            raise InputError(
                f"{source}: stack {path} is neither in the project folder nor in {folder}; copy or link it there"
            )
        found[path] = str(here)
    return table.assign(rlnImageName=[image_name(index, found[path]) for index, path in parts])


def take_windows(
    table: pd.DataFrame,
    names: Sequence[str],
    box: int,
    pixel_size: float,
    settings: ExtractionSettings,
    stack: PathLike,
    with_optics: bool = False,
) -> pd.DataFrame:
    """Write the windows of some micrographs to `stack`, flattened, inverted and normalised as `settings` say.

    table : of `find_stacks`; names : micrographs, in order; with_optics : keep the optics group with its sampling and aberrations

    Returns
    -------
    The particles with rlnImageName in `stack` and the statistics of their background, as of windows cut from micrographs;
    defoci and half-sets stay each particle's own.

    Raises
    ------
    InputError
        Images of another box or pixel size than the project's, NaN pixels, or normalisation to noise, for which there are no
        micrographs.
    """
    if settings.normalise == "noise":
        raise InputError(
            "particles.normalise: histogram needs micrographs to find noise in; use ring for particles that are given"
        )
    mine = pd.concat([table[table["rlnMicrographName"] == name] for name in names], ignore_index=True)
    images = ParticleImages(mine)
    _check_images(images, mine, box, pixel_size)
    region = Region.of(box, settings.radius)
    keep = ["rlnMicrographName", "nphParticleNumber", *COORDINATES, *DEFOCUS, "rlnRandomSubset"]
    if with_optics:
        keep += [*GROUP_COLUMNS, *SAMPLING_COLUMNS, *ABERRATION_COLUMNS]
    statistics: list[npt.NDArray[np.float64]] = []
    progress = Progress(len(mine), "windows taken")
    with stack_writer(stack, (len(mine), box, box), pixel_size, settings.dtype) as memory:
        for first in range(0, len(mine), 256):
            rows = slice(first, min(first + 256, len(mine)))
            numbers = mine["nphParticleNumber"].to_numpy(dtype=np.int64)[rows, None]
            windows, background = _prepare(images[rows], region, settings, numbers)
            memory[rows] = windows
            statistics.append(np.column_stack([background, windows.min(axis=(1, 2)), windows.max(axis=(1, 2))]))
            progress.step(rows.stop - first)
    values = np.concatenate(statistics) if statistics else np.zeros((0, 4))
    return mine[[name for name in keep if name in mine]].assign(
        rlnAutopickFigureOfMerit=mine.get("rlnAutopickFigureOfMerit", 0.0),
        rlnOpticsGroup=mine["rlnOpticsGroup"] if with_optics else 1,
        rlnOriginXAngst=0.0,
        rlnOriginYAngst=0.0,
        nphBackgroundMean=values[:, 0],
        nphBackgroundDeviation=values[:, 1],
        nphMinimum=values[:, 2],
        nphMaximum=values[:, 3],
        rlnImageName=[image_name(row, stack) for row in range(len(mine))],
    )


def _check_images(images: ParticleImages, mine: pd.DataFrame, box: int, pixel_size: float) -> None:
    first = split_image_name(str(mine["rlnImageName"].iloc[0]))[1]
    if images.n != box:
        raise InputError(f"{first}: images of {images.n} px, particle.box is {box}; set particle.box: {images.n}")
    check_stack_size(first, images.pixel_size, pixel_size, "particles", "input.pixel_size (and the table)")


def _prepare(
    windows: Float32, region: Region, settings: ExtractionSettings, keys: npt.NDArray[np.int64]
) -> tuple[Float32, npt.NDArray[np.float64]]:
    """Windows without ramp and dust, protein bright, normalised; and [m, 2] mean and deviation of the background before."""
    if settings.ramp:
        windows = remove_ramps(windows, region)
    if settings.dust_sigma > 0:
        windows = remove_dust(windows, region, settings.dust_sigma, settings.seed, keys)
    if settings.invert:
        windows = -windows
    background = windows[:, region.background].astype(np.float64)
    statistics = np.column_stack([background.mean(axis=1), background.std(axis=1)])
    return (normalise_background(windows, region) if settings.normalise == "ring" else windows), statistics
