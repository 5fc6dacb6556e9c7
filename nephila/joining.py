"""Joining particle tables: groups are told apart by name, renumbered, and never merged where they differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from nephila.errors import InputError
from nephila.given_checks import check_defoci
from nephila.io.tables import read_blocks
from nephila.optics_groups import OpticsGroup, ParticleSet, stem


@dataclass(frozen=True)
class Joined:
    """A joined set; rows: particles of each input, in order."""

    particles: ParticleSet
    rows: tuple[int, ...]
    notes: tuple[str, ...]


def join_particle_sets(sets: Sequence[ParticleSet], *, rename: bool = False, overfocus: bool = False) -> Joined:
    """Join sets, in order. Groups of one name and equal values become one; new names are appended and numbered.

    Aberrations that only some groups have are filled when the set is written (`optics_frame`). Columns of particles that only
    some sets have are left out, as relion_star_handler --combine does; the notes name them.

    Parameters
    ----------
    rename : give a group whose name is taken by a different one the name `name_file` instead of stopping
    overfocus : take negative defoci

    Raises
    ------
    InputError
        Fewer than two sets, equal names with different values (the columns and the fix are named), a defocus that makes no
        sense, or a particle image that occurs twice.
    """
    if len(sets) < 2:
        raise InputError("join needs at least two particle tables")
    for one in sets:
        check_defoci(one.particles, one.source, overfocus=overfocus)
    groups: list[OpticsGroup] = []
    owner: dict[str, str] = {}
    parts: list[pd.DataFrame] = []
    notes = [note for one in sets for note in one.notes]
    for one in sets:
        numbers: dict[int, int] = {}
        for group in one.optics:
            wanted = _settle(group, groups, owner, one.source, rename)
            if wanted.name != group.name:
                notes.append(f"{one.source}: optics group {group.name} is now {wanted.name}")
            if wanted.number > len(groups):
                groups.append(wanted)
                owner[wanted.name] = one.source
            numbers[group.number] = wanted.number
        parts.append(one.particles.assign(rlnOpticsGroup=one.particles["rlnOpticsGroup"].map(numbers).astype(np.int64)))
    groups, dropped = _drop_uncommon(groups)
    notes += dropped
    common = [column for column in parts[0] if all(column in part for part in parts)]
    for one, part in zip(sets, parts, strict=True):
        lost = [f"_{column}" for column in part if column not in common]
        if lost:
            notes.append(f"{one.source}: left out, since not every table has it: {', '.join(lost)}")
    table = pd.concat([part[common] for part in parts], ignore_index=True)
    _check_images(table, [len(part) for part in parts], [one.source for one in sets])
    notes += _warn(groups, parts)
    return Joined(
        ParticleSet(tuple(groups), table, {}, "joined table"), tuple(len(part) for part in parts), tuple(notes)
    )


def _settle(
    group: OpticsGroup, groups: list[OpticsGroup], owner: dict[str, str], source: str, rename: bool
) -> OpticsGroup:
    """The group of the joined table for a group of one input: an equal one that is there, or a new one."""
    name = group.name
    while True:
        there = next((g for g in groups if g.name == name), None)
        if there is None:
            return replace(group, name=name, number=len(groups) + 1)
        differing = [column for column in group.same_optics(there) if column != "rlnOpticsGroupName"]
        if not differing:
            return there
        if not rename:
            raise InputError(
                f"optics group {name!r} is in {owner[name]} and in {source} with different "
                f"{', '.join('_' + column for column in differing)}; use --rename, or give it another _rlnOpticsGroupName"
            )
        name = f"{group.name}_{stem(source)}" if name == group.name else f"{name}_2"


def _drop_uncommon(groups: list[OpticsGroup]) -> tuple[list[OpticsGroup], list[str]]:
    """Groups without the columns that only some of them have, as relion_star_handler does; but an MTF is not dropped.

    InputError where only some groups have an MTF: RELION would leave it away for all of them.
    """
    without = [g.name for g in groups if g.mtf_file is None]
    if without and len(without) < len(groups):
        having = next(g for g in groups if g.mtf_file is not None)
        raise InputError(
            f"optics group {having.name!r} has the MTF {having.mtf_file}, {without[0]!r} has none; give _rlnMtfFileName to both "
            "or to neither"
        )
    lost = {name for g in groups for name in g.other if any(name not in h.other for h in groups)}
    changed = [replace(g, other={name: v for name, v in g.other.items() if name not in lost}) for g in groups]
    stated = [g.original_pixel_size is not None for g in groups]
    if any(stated) and not all(stated):
        lost.add("rlnMicrographOriginalPixelSize")
        changed = [replace(g, original_pixel_size=None) for g in changed]
    if not lost:
        return groups, []
    return changed, [
        f"optics: left out, since not every group has it: {', '.join(f'_{name}' for name in sorted(lost))}"
    ]


def _check_images(table: pd.DataFrame, sizes: list[int], sources: list[str]) -> None:
    if "rlnImageName" not in table:
        return
    double = np.flatnonzero(table["rlnImageName"].duplicated().to_numpy())
    if len(double):
        name = table["rlnImageName"].iloc[double[0]]
        first = int(np.flatnonzero((table["rlnImageName"] == name).to_numpy())[0])
        edges = np.cumsum(sizes)
        a, b = (sources[int(np.searchsorted(edges, row, side="right"))] for row in (first, double[0]))
        where = f"{a} and {b}" if a != b else f"{a}, twice"
        raise InputError(
            f"particle {name} is in {where} ({len(double)} such); take it out of one, or its stack needs another name"
        )


def _warn(groups: list[OpticsGroup], parts: list[pd.DataFrame]) -> list[str]:
    notes = []
    pixels = {round(g.pixel_size, 6) for g in groups if g.pixel_size is not None}
    sizes = {g.image_size for g in groups if g.image_size is not None}
    if len(pixels) > 1 or len(sizes) > 1:
        notes.append(
            f"pixel sizes {', '.join(f'{p:g}' for p in sorted(pixels))} A, boxes {', '.join(map(str, sorted(sizes)))} px: the "
            "reference's pixel size and box are the result's"
        )
    if all("rlnMicrographName" in part for part in parts):
        names = [set(part["rlnMicrographName"].astype(str)) for part in parts]
        shared = set.union(*(a & b for i, a in enumerate(names) for b in names[i + 1 :]))
        if shared:
            notes.append(
                f"{len(shared)} micrographs have the same name in several tables ({min(shared)}): they count as one"
            )
    return notes


def refuse_micrographs(path: str | os.PathLike[str]) -> None:
    """InputError where a STAR file lists micrographs or movies: those of several data sets are never merged."""
    blocks = read_blocks(path)
    listed = next((name for name in ("movies", "micrographs") if name in blocks and "particles" not in blocks), None)
    if listed is not None:
        raise InputError(
            f"{path}: lists {listed} (block data_{listed}), which must not be merged: their coordinates, trajectories and CTFs "
            "belong to one data set. Polish each data set's movies with the table of all particles, then join the polished "
            "particles"
        )
