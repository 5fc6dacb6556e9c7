"""How a run's work is cut: batches of micrographs, defocus groups, chunks of particles.

These are pure functions of small tables and of the user's edits, called while Snakemake builds its graph: the graph then
shows exactly what an edit leads to. Nothing here reads images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from nephila.config import Config
from nephila.ctf import Optics
from nephila.defocus_groups import average_groups, check_edit
from nephila.defocus_groups import propose_groups as propose_groups
from nephila.errors import InputError
from nephila.io.tables import read_table
from nephila.thresholds import propose_thresholds

BLOCK = 256
"""Particles that are always worked on together, whatever the chunk: the unit that makes results independent of chunks."""


@dataclass(frozen=True)
class Group:
    """A defocus group: its number, micrographs in order, and average defocus (A; angle in degrees)."""

    number: int
    micrographs: tuple[str, ...]
    defocus_u: float
    defocus_v: float
    angle_deg: float

    @property
    def label(self) -> str:
        """The wildcard {group}: three digits, as in SPIDER."""
        return f"{self.number:03d}"


def assign_batches(names: Sequence[str], size: int, previous: pd.DataFrame | None = None) -> dict[str, int]:
    """Batch number (from 1) of each micrograph.

    Micrographs that already had a batch keep it, so that new ones give new jobs and disturb no old one; the new ones fill
    further batches in the order given.
    """
    known: dict[str, int] = {}
    if previous is not None and len(previous):
        known = dict(zip(previous["rlnMicrographName"].astype(str), previous["nphBatch"].astype(int), strict=True))
    batches = {name: known[name] for name in names if name in known}
    new = [name for name in names if name not in known]
    first = max(known.values(), default=0) + 1
    # an even split: 13 micrographs at 12 per batch are 7 and 6, not 12 and 1
    number = -(-len(new) // size) if new else 0
    for i, name in enumerate(new):
        batches[name] = first + i * number // len(new)
    return {name: batches[name] for name in names}


def resolve_micrographs(ctf: pd.DataFrame, edit: Path | None) -> pd.DataFrame:
    """The kept micrographs' rows: those that screening keeps, or those that edits/sel_micrograph.star keeps.

    A micrograph that the edit does not name follows the proposal.
    """
    keep = ctf["nphKeep"].astype(int)
    if edit is not None:
        chosen = read_table(edit, kind="sel_micrograph")
        keep = apply_micrograph_edit(ctf, chosen, str(edit))
    kept = ctf[keep == 1].reset_index(drop=True)
    unfit = kept[~(kept["rlnDefocusU"] > 0)]
    if len(unfit):
        name = unfit["rlnMicrographName"].iloc[0]
        raise InputError(f"{edit}: {name} is kept but has no defocus ({unfit['nphReason'].iloc[0]}); drop it")
    if not len(kept):
        raise InputError(f"{edit or 'screening'}: no micrograph is kept; loosen ctf.screening or edit sel_micrograph")
    return kept


def apply_micrograph_edit(ctf: pd.DataFrame, edit: pd.DataFrame, source: str) -> pd.Series:
    """nphKeep of each row of `ctf` after the edit; InputError for a micrograph that is unknown or named twice."""
    names = edit["rlnMicrographName"].astype(str)
    known = set(ctf["rlnMicrographName"])
    for row, name in enumerate(names, 1):
        if name not in known:
            raise InputError(
                f"{source}: row {row}: micrograph {name} is not in this project; remove the row or correct the name"
            )
    twice = names[names.duplicated()]
    if len(twice):
        raise InputError(f"{source}: micrograph {twice.iloc[0]} is named twice; leave one row")
    wanted = dict(zip(names, edit["nphKeep"].astype(int), strict=True))
    for name, value in wanted.items():
        if value not in (0, 1):
            raise InputError(f"{source}: micrograph {name}: _nphKeep is {value}; 1 keeps, 0 drops")
    return ctf["rlnMicrographName"].map(wanted).fillna(ctf["nphKeep"]).astype(int)


def chunk_count(particles: int, config: Config) -> int:
    """Refinement chunks per half for so many particles (before thresholds, so that a threshold never changes the number)."""
    return max(1, -(-(particles // 2) // _chunk_rows(config)))


def _chunk_rows(config: Config) -> int:
    return BLOCK * -(-config.jobs.particles_per_chunk // BLOCK)


def chunk_rows(chunk: int, chunks: int, rows: int) -> tuple[int, int]:
    """First row and end of a chunk (from 1) when `rows` are shared out over `chunks` in whole blocks."""
    blocks = -(-rows // BLOCK)
    first = (chunk - 1) * blocks // chunks
    end = chunk * blocks // chunks
    return min(first * BLOCK, rows), min(end * BLOCK, rows)


def read_chunk_count(counts: str, micrographs: tuple[str, ...], config: Config) -> int:
    """Chunks per half for the picks in these micrographs (`counts`: rlnMicrographName, nphPicked)."""
    return chunk_count(_read_picked(counts, Path(counts).stat().st_mtime_ns, micrographs), config)


@lru_cache(maxsize=8)
def _read_picked(counts: str, stamp: int, micrographs: tuple[str, ...]) -> int:
    table = read_table(counts)
    return int(table.loc[table["rlnMicrographName"].isin(micrographs), "nphPicked"].sum())


def read_groups(micrographs: str, config: Config, selection: str | None, def_sort: str | None) -> list[Group]:
    """Defocus groups as CTF results (`micrographs`), settings and the user's edits (paths or None) make them."""
    stamps = tuple(Path(path).stat().st_mtime_ns if path else 0 for path in (micrographs, selection, def_sort))
    key = (micrographs, selection, def_sort, stamps)
    if key not in _groups:
        kept = resolve_micrographs(read_table(micrographs, kind="defocus"), Path(selection) if selection else None)
        _groups[key] = form_groups(kept, config, def_sort)
    return _groups[key]


_groups: dict[object, list[Group]] = {}


def resolve_groups(proposal: pd.DataFrame, edit: str | None) -> pd.DataFrame:
    """The proposal, or the edit at this path after a check that it covers the same micrographs."""
    if edit is None:
        return proposal
    return check_edit(proposal, read_table(edit, kind="def_sort"), edit)


def form_groups(kept: pd.DataFrame, config: Config, edit: str | None) -> list[Group]:
    """Groups of the kept micrographs: the proposal's, or those of the edit."""
    optics = config.optics.model_dump()
    table = resolve_groups(propose_groups(kept, optics, config.defocus_groups.model_dump()), edit)
    averages = average_groups(table, kept, Optics(**optics))[1]
    members: dict[int, list[str]] = {}
    for name, number in zip(table["rlnMicrographName"], table["nphDefocusGroup"], strict=True):
        members.setdefault(int(number), []).append(str(name))
    return [
        Group(
            number=int(row["nphDefocusGroup"]),
            micrographs=tuple(sorted(members[int(row["nphDefocusGroup"])])),
            defocus_u=round(float(row["nphGroupDefocusU"]), 2),
            defocus_v=round(float(row["nphGroupDefocusV"]), 2),
            angle_deg=round(float(row["nphGroupDefocusAngle"]), 2),
        )
        for _, row in averages.iterrows()
    ]


def edited_threshold(edit: str, group: int, aligned: str, share: float) -> float | None:
    """A group's threshold in edits/thresh.star, None where it is the one that would be proposed anyway.

    `aligned` is the group's table of aligned particles; `share` of them falls below the proposed threshold. NaN where the edit
    has no line for the group.
    """
    table = read_table(edit, kind="thresh")
    rows = table.loc[table["nphDefocusGroup"].astype(int) == group, "nphThreshold"]
    threshold = float(rows.iloc[0]) if len(rows) else float("nan")
    proposed = _proposed_threshold(aligned, share)
    # to the digits that a table keeps
    return None if proposed is not None and f"{threshold:.9g}" == f"{proposed:.9g}" else threshold


def _proposed_threshold(aligned: str, share: float) -> float | None:
    """Threshold that is proposed for the particles of a group; None where there are none, or no table yet."""
    if not Path(aligned).is_file():
        return None
    key = (aligned, Path(aligned).stat().st_mtime_ns, share)
    if key not in _proposals:
        table = read_table(aligned, kind="poses")
        proposal = propose_thresholds(table["nphCorrelation"], table["nphDefocusGroup"], share) if len(table) else None
        _proposals[key] = None if proposal is None else float(proposal["nphThreshold"].iloc[0])
    return _proposals[key]


_proposals: dict[object, float | None] = {}
