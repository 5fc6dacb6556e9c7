"""How a run's work is cut: batches of micrographs, defocus groups, chunks of particles.

These are pure functions of small tables and of the user's edits, called while Snakemake builds its graph: the graph then
shows exactly what an edit leads to. Nothing here reads images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nephila.ctf import Optics
from nephila.defocus_by_hand import HandFit, fits_of, hand_fits, with_hand_fits
from nephila.defocus_groups import average_groups, check_edit
from nephila.defocus_groups import propose_groups as propose_groups
from nephila.errors import InputError
from nephila.io.tables import read_table
from nephila.thresholds import propose_thresholds

if TYPE_CHECKING:  # its checks cost every job 0.15 s
    from nephila.config import Config

BLOCK = 256
"""Particles that are always worked on together, whatever the chunk: the unit that makes results independent of chunks."""


@dataclass(frozen=True)
class Group:
    """A defocus group: its number, micrographs in order, average defocus (A; angle in degrees), and the defoci in it that were
    fitted by hand."""

    number: int
    micrographs: tuple[str, ...]
    defocus_u: float
    defocus_v: float
    angle_deg: float
    by_hand: tuple[HandFit, ...] = ()

    @property
    def label(self) -> str:
        """The wildcard {group}: three digits, as in SPIDER."""
        return f"{self.number:03d}"


def assign_batches(
    names: Sequence[str], size: int, previous: pd.DataFrame | None = None, kinds: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Batch number (from 1) of each micrograph.

    Micrographs that already had a batch keep it, so that new ones give new jobs and disturb no old one; the new ones fill
    further batches in the order given. `kinds`: number of each micrograph's optics group; none shares a batch with another's.
    """
    known: dict[str, int] = {}
    if previous is not None and len(previous):
        known = dict(zip(previous["rlnMicrographName"].astype(str), previous["nphBatch"].astype(int), strict=True))
    batches = {name: known[name] for name in names if name in known}
    new = [name for name in names if name not in known]
    first = max(known.values(), default=0) + 1
    of_kind: dict[int, list[str]] = {}
    for name in new:
        of_kind.setdefault(kinds[name] if kinds else 0, []).append(name)
    for kind in sorted(of_kind):
        # an even split: 13 micrographs at 12 per batch are 7 and 6, not 12 and 1
        mine, number = of_kind[kind], -(-len(of_kind[kind]) // size)
        for i, name in enumerate(mine):
            batches[name] = first + i * number // len(mine)
        first += number
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
    unfit = kept[kept["rlnDefocusU"].fillna(0.0) == 0]
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


def read_groups(
    micrographs: str, config: Config, selection: str | None, def_sort: str | None, defocus: str | None = None
) -> list[Group]:
    """Defocus groups as CTF results (`micrographs`), settings and the user's edits (paths or None) make them."""
    key = (micrographs, selection, def_sort, defocus)
    stamps = tuple(Path(path).stat().st_mtime_ns if path else 0 for path in key)
    if (key, stamps) not in _groups:
        table, by_hand = read_table(micrographs, kind="defocus"), list[HandFit]()
        if defocus:
            by_hand = hand_fits(table, read_table(defocus, kind="hand_defocus"), defocus)
            table = with_hand_fits(table, by_hand)
        kept = resolve_micrographs(table, Path(selection) if selection else None)
        _groups[key, stamps] = form_groups(kept, config, def_sort, by_hand)
    return _groups[key, stamps]


_groups: dict[object, list[Group]] = {}


def resolve_groups(proposal: pd.DataFrame, edit: str | None) -> pd.DataFrame:
    """The proposal, or the edit at this path after a check that it covers the same micrographs."""
    if edit is None:
        return proposal
    return check_edit(proposal, read_table(edit, kind="def_sort"), edit)


def form_groups(kept: pd.DataFrame, config: Config, edit: str | None, by_hand: Sequence[HandFit] = ()) -> list[Group]:
    """Groups of the kept micrographs (whose defoci by hand are in `kept`): the proposal's, or those of the edit."""
    optics = config.optics.model_dump()
    table = resolve_groups(propose_groups(kept, optics, config.defocus_groups.model_dump()), edit)
    averages = average_groups(table, kept, Optics(**optics))[1]
    members: dict[int, list[str]] = {}
    for name, number in zip(table["rlnMicrographName"], table["nphDefocusGroup"], strict=True):
        members.setdefault(int(number), []).append(str(name))
    _refuse_mixed_optics(members, kept, edit)
    return [
        Group(
            number=int(row["nphDefocusGroup"]),
            micrographs=tuple(sorted(members[int(row["nphDefocusGroup"])])),
            defocus_u=round(float(row["nphGroupDefocusU"]), 2),
            defocus_v=round(float(row["nphGroupDefocusV"]), 2),
            angle_deg=round(float(row["nphGroupDefocusAngle"]), 2),
            by_hand=fits_of(by_hand, members[int(row["nphDefocusGroup"])]),
        )
        for _, row in averages.iterrows()
    ]


def _refuse_mixed_optics(members: dict[int, list[str]], kept: pd.DataFrame, edit: str | None) -> None:
    """InputError where a defocus group holds micrographs of two optics groups."""
    if "rlnOpticsGroup" not in kept:
        return
    optics = dict(zip(kept["rlnMicrographName"].astype(str), kept["rlnOpticsGroup"].astype(int), strict=True))
    for group, names in members.items():
        if len({optics[name] for name in names}) > 1:
            raise InputError(
                f"{edit}: defocus group {group} holds micrographs of the optics groups "
                f"{', '.join(map(str, sorted({optics[name] for name in names})))}; give each optics group its own defocus groups"
            )


def edited_threshold(edit: str, group: int, aligned: str, share: float) -> float | None:
    """A group's threshold in edits/thresh.star, None where it is the one that would be proposed anyway.

    `aligned` is the group's table of aligned particles; `share` of them falls below the proposed threshold. A group without a
    line follows the proposal.
    """
    table = read_table(edit, kind="thresh")
    rows = table.loc[table["nphDefocusGroup"].astype(int) == group, "nphThreshold"]
    if not len(rows):
        return None
    threshold = float(rows.iloc[0])
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


def caps_by_group(edit: str | None, groups: Sequence[int], default: int | None) -> dict[int, int | None]:
    """Most particles per view of each group: of edits/best_per_view.star, else `default`; None: no cap.

    Raises
    ------
    InputError
        The edit names a group that does not exist, or one twice, or a cap that is no whole number from 0 (none) on.
    """
    caps: dict[int, int | None] = dict.fromkeys(groups, default)
    if edit is None:
        return caps
    return caps | check_caps(_read_caps(edit, Path(edit).stat().st_mtime_ns), groups, edit)


@lru_cache(maxsize=4)
def _read_caps(edit: str, stamp: int) -> pd.DataFrame:
    return read_table(edit, kind="best_per_view")


def check_caps(edit: pd.DataFrame, groups: Sequence[int], source: str) -> dict[int, int | None]:
    """The caps that an edit names, by group; InputError as in `caps_by_group`."""
    named: dict[int, int | None] = {}
    columns = (pd.to_numeric(edit[name], errors="coerce") for name in ("nphDefocusGroup", "nphAtMost"))
    for row, (group, cap) in enumerate(zip(*columns, strict=True), 1):
        if group not in groups:
            raise InputError(f"{source}: row {row}: defocus group {group:g} does not exist; remove the row")
        if int(group) in named:
            raise InputError(f"{source}: row {row}: defocus group {group:g} is named twice; leave one row")
        if not (cap >= 0 and cap == int(cap)):
            raise InputError(f"{source}: row {row}: _nphAtMost is {cap:g}: must be a whole number; 0 is no cap")
        named[int(group)] = int(cap) or None
    return named


def kept_by_hand(edit: str, micrographs: Sequence[str]) -> list[tuple[str, int]]:
    """Particles (micrograph, number) of these micrographs that edits/good.star keeps, sorted."""
    return sorted(set(_read_kept(edit, Path(edit).stat().st_mtime_ns, frozenset(micrographs))))


@lru_cache(maxsize=64)
def _read_kept(edit: str, stamp: int, micrographs: frozenset[str]) -> list[tuple[str, int]]:
    table = _read_good(edit, stamp)
    numbers, keep = (pd.to_numeric(table[name], errors="coerce") for name in ("nphParticleNumber", "nphKeep"))
    rows = zip(table["rlnMicrographName"].astype(str), numbers, keep, strict=True)
    # rows that are not right are refused where the windows are chosen
    return [(name, int(number)) for name, number, value in rows if value == 1 and number > 0 and name in micrographs]


@lru_cache(maxsize=1)
def _read_good(edit: str, stamp: int) -> pd.DataFrame:
    return read_table(edit, kind="good")
