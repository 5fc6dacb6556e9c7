"""The edits as the review page sees them: rows by key, what is proposed, and the check that the workflow itself makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nephila.defocus_groups import check_edit
from nephila.errors import InputError
from nephila.particle_selection import apply_selection_edit
from nephila.plan import apply_micrograph_edit, propose_groups, resolve_micrographs
from nephila.review.project import Project
from nephila.thresholds import check_threshold_edit

Value = int | float
Rows = dict[str, Value]
Warnings = list[str]


@dataclass(frozen=True)
class Kind:
    """An edit: its key columns and value column, whether its file must name every row, how its proposal is found, the order
    of its rows, and the check that the workflow makes of it (InputError, or warnings)."""

    name: str
    keys: tuple[str, ...]
    value: str
    whole: bool
    number: type[int] | type[float]
    proposal: Callable[[Project], Rows]
    order: Callable[[Project], Iterable[str]]
    check: Callable[[Project, pd.DataFrame, Path], Warnings]

    def key_of(self, row: tuple[Any, ...]) -> str:
        """The key as text: parts joined by #, which names cannot hold."""
        return "#".join(str(part) if isinstance(part, str) else str(int(part)) for part in row)

    def parts_of(self, key: str) -> tuple[Any, ...]:
        """The key's columns; InputError for text that is no key."""
        parts = key.split("#")
        if len(parts) != len(self.keys):
            raise InputError(f"{key!r} is not a key of {self.name}")
        try:
            return tuple(
                part if name.startswith("rln") else int(part) for name, part in zip(self.keys, parts, strict=True)
            )
        except ValueError:
            raise InputError(f"{key!r} is not a key of {self.name}") from None

    def value_of(self, given: Any) -> Value | None:
        """A value as the file holds it (nine digits); None: no row. InputError for anything but a finite number."""
        if given is None:
            return None
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not abs(given) < 1e12:
            raise InputError(f"{self.name}: {given!r} is not a number that {self.value} can have")
        if self.number is int:
            if given != int(given):
                raise InputError(f"{self.name}: {self.value} must be a whole number, not {given!r}")
            return int(given)
        return float(f"{given:.9g}")

    def rows_of(self, frame: pd.DataFrame) -> Rows:
        """Values by key."""
        columns = [frame[name].tolist() for name in self.keys]
        return {
            self.key_of(key): self.value_of(value) or 0
            for key, value in zip(zip(*columns, strict=True), frame[self.value].tolist(), strict=True)
        }


def _proposed_micrographs(project: Project) -> Rows:
    table = project.table("results/ctf/micrographs.star", "defocus")
    return {str(n): int(k) for n, k in zip(table["rlnMicrographName"], table["nphKeep"], strict=True)}


def _check_micrographs(project: Project, edit: pd.DataFrame, path: Path) -> Warnings:
    ctf = project.table("results/ctf/micrographs.star", "defocus")
    apply_micrograph_edit(ctf, edit, "edits/sel_micrograph.star")
    resolve_micrographs(ctf, path)
    return []


def kept_micrographs(project: Project, path: Path | None = None) -> pd.DataFrame:
    """Rows of the kept micrographs, as the edit at `path` (by default the one in use) makes them."""
    edit = path or project.edit_path("sel_micrograph")
    ctf = project.table("results/ctf/micrographs.star", "defocus")
    return resolve_micrographs(ctf, edit if edit.is_file() else None)


def proposed_groups(project: Project, kept: pd.DataFrame | None = None) -> pd.DataFrame:
    """The proposed `def_sort` table of the kept micrographs, as the workflow forms it while it plans."""
    config = project.config()
    micrographs = kept_micrographs(project) if kept is None else kept
    return propose_groups(micrographs, config.optics.model_dump(), config.defocus_groups.model_dump())


def _proposed_def_sort(project: Project) -> Rows:
    return group_rows(proposed_groups(project))


def group_rows(table: pd.DataFrame) -> Rows:
    """Groups by micrograph."""
    return {str(n): int(g) for n, g in zip(table["rlnMicrographName"], table["nphDefocusGroup"], strict=True)}


def _by_defocus(project: Project) -> list[str]:
    """All micrographs by defocus, then name, as the proposal sorts them, whichever are kept."""
    table = project.table("results/ctf/micrographs.star", "defocus")
    sums = table["rlnDefocusU"] + table["rlnDefocusV"]
    return [name for _, name in sorted(zip(sums.fillna(0), table["rlnMicrographName"].astype(str), strict=True))]


def _check_def_sort(project: Project, edit: pd.DataFrame, path: Path) -> Warnings:
    check_edit(proposed_groups(project), edit, "edits/def_sort.star")
    thresholds = project.edit_path("thresh")
    if thresholds.is_file():
        named = set(project.table("edits/thresh.star", "thresh")["nphDefocusGroup"].astype(int))
        if named != set(edit["nphDefocusGroup"].astype(int)):
            return ["edits/thresh.star names other groups: look at Thresholds once the groups are aligned"]
    return []


def _proposed_good(project: Project) -> Rows:
    source = "results/particles/good.proposed.star"

    def make() -> Rows:
        table = project.table(source, "good")
        columns = (table[c].tolist() for c in ("rlnMicrographName", "nphParticleNumber", "nphKeep"))
        return {f"{name}#{number}": int(keep) for name, number, keep in zip(*columns, strict=True)}

    return dict(project.kept(("proposed good",), project.stamp(source), make))


def _check_good(project: Project, edit: pd.DataFrame, path: Path) -> Warnings:
    table = apply_selection_edit(project.table("results/particles/good.proposed.star", "good"), edit)
    if not table["nphKeep"].sum():
        raise InputError("edits/good.star: no particle is left; keep some")
    return []


def _proposed_thresholds(project: Project) -> Rows:
    table = project.table("results/averages/thresh.proposed.star", "thresh")
    return {str(int(g)): float(t) for g, t in zip(table["nphDefocusGroup"], table["nphThreshold"], strict=True)}


def _check_thresholds(project: Project, edit: pd.DataFrame, path: Path) -> Warnings:
    proposal = project.table("results/averages/thresh.proposed.star", "thresh")
    aligned = project.aligned()
    return check_threshold_edit(
        proposal,
        edit,
        "edits/thresh.star",
        correlation=aligned["nphCorrelation"],
        group=aligned["nphDefocusGroup"],
    )


_MICROGRAPH = ("rlnMicrographName",)
_PARTICLE = ("rlnMicrographName", "nphParticleNumber")
_GROUP = ("nphDefocusGroup",)
_ALL: dict[str, tuple[tuple[str, ...], str, bool, type[int] | type[float], Any, Any, Any]] = {
    "sel_micrograph": (
        _MICROGRAPH, "nphKeep", False, int, _proposed_micrographs, _proposed_micrographs, _check_micrographs
    ),
    "def_sort": (_MICROGRAPH, "nphDefocusGroup", True, int, _proposed_def_sort, _by_defocus, _check_def_sort),
    "good": (_PARTICLE, "nphKeep", False, int, _proposed_good, _proposed_good, _check_good),
    "thresh": (_GROUP, "nphThreshold", True, float, _proposed_thresholds, _proposed_thresholds, _check_thresholds),
}  # fmt: skip
KINDS = {name: Kind(name, *rest) for name, rest in _ALL.items()}
"""By the name of their files, edits/NAME.star."""
