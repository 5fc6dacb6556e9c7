"""The edits as the review page sees them: rows by key, what is proposed, and the check that the workflow itself makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nephila.defocus_by_hand import COLUMNS as DEFOCUS
from nephila.defocus_by_hand import resolve_defocus
from nephila.defocus_groups import check_edit
from nephila.errors import InputError
from nephila.io.tables import read_table
from nephila.particle_selection import apply_selection_edit
from nephila.plan import apply_micrograph_edit, check_caps, propose_groups, resolve_micrographs
from nephila.review.project import Project
from nephila.thresholds import check_threshold_edit

Value = int | float | str
"""Of a row. An edit with several columns of values has them as one text, numbers between spaces."""
Rows = dict[str, Value]
Warnings = list[str]


@dataclass(frozen=True)
class Kind:
    """An edit: its key columns and value columns, whether its file must name every row, how its proposal is found, the order
    of its rows, and the check that the workflow makes of it (InputError, or warnings)."""

    name: str
    keys: tuple[str, ...]
    values: tuple[str, ...]
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
        """A value as the file holds it (nine digits); None: no row. InputError for anything but finite numbers."""
        if given is None:
            return None
        if len(self.values) == 1:
            return self._number(given, self.values[0])
        words = given.split() if isinstance(given, str) else []
        if len(words) != len(self.values):
            raise InputError(f"{self.name}: {given!r} is not {len(self.values)} numbers: {', '.join(self.values)}")
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            raise InputError(f"{self.name}: {given!r} is not {len(self.values)} numbers") from None
        return " ".join(f"{self._number(x, name):.9g}" for x, name in zip(numbers, self.values, strict=True))

    def _number(self, given: Any, column: str) -> int | float:
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not abs(given) < 1e12:
            raise InputError(f"{self.name}: {given!r} is not a number that {column} can have")
        if self.number is int:
            if given != int(given):
                raise InputError(f"{self.name}: {column} must be a whole number, not {given!r}")
            return int(given)
        return float(f"{given:.9g}")

    def cells_of(self, value: Value) -> tuple[int | float, ...]:
        """A value's numbers, column by column."""
        return tuple(float(word) for word in value.split()) if isinstance(value, str) else (value,)

    def rows_of(self, frame: pd.DataFrame) -> Rows:
        """Values by key."""
        keys = zip(*(frame[name].tolist() for name in self.keys), strict=True)
        cells = zip(*(frame[name].tolist() for name in self.values), strict=True)
        return {
            self.key_of(key): self.value_of(" ".join(str(x) for x in cell) if len(cell) > 1 else cell[0]) or 0
            for key, cell in zip(keys, cells, strict=True)
        }


TABLE = "results/ctf/micrographs.star"


def defoci(project: Project, path: Path | None = None) -> pd.DataFrame:
    """The table of CTFs with the defoci by hand that the edit at `path` holds (by default the one in use)."""
    if path is None:
        in_use = project.edit_path("defocus")
        return project.kept(("defoci",), defoci_stamp(project), lambda: defoci(project, in_use))
    fitted = project.table(TABLE, "defocus")
    edit = read_table(path, kind="hand_defocus") if path.is_file() else None
    return resolve_defocus(fitted, edit, "edits/defocus.star")


def defoci_stamp(project: Project) -> tuple[Any, ...]:
    """Changes with the fits and with the defoci by hand."""
    edit = "edits/defocus.star"
    return project.stamp(TABLE), project.stamp(edit) if project.exists(edit) else None


def _proposed_defocus(project: Project) -> Rows:
    table = project.table(TABLE, "defocus")
    columns = (table[name].tolist() for name in ("rlnMicrographName", *DEFOCUS))
    return {str(name): f"{u:.9g} {v:.9g} {a:.9g}" for name, u, v, a in zip(*columns, strict=True)}


def _check_defocus(project: Project, edit: pd.DataFrame, path: Path) -> Warnings:
    if project.config().input.particles:
        raise InputError("edits/defocus.star: the particles were given with defoci of their own: change them there")
    resolve_defocus(project.table(TABLE, "defocus"), edit, "edits/defocus.star")
    kept_micrographs(project, defocus=path)
    return []


def _proposed_micrographs(project: Project) -> Rows:
    table = defoci(project)
    return {str(n): int(k) for n, k in zip(table["rlnMicrographName"], table["nphKeep"], strict=True)}


def _check_micrographs(project: Project, edit: pd.DataFrame, path: Path) -> Warnings:
    ctf = defoci(project)
    apply_micrograph_edit(ctf, edit, "edits/sel_micrograph.star")
    resolve_micrographs(ctf, path)
    return []


def kept_micrographs(project: Project, path: Path | None = None, defocus: Path | None = None) -> pd.DataFrame:
    """Rows of the kept micrographs, as the selection at `path` and the defoci by hand at `defocus` (by default the edits in use)
    make them."""
    edit = path or project.edit_path("sel_micrograph")
    return resolve_micrographs(defoci(project, defocus), edit if edit.is_file() else None)


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
    table = project.table(TABLE, "defocus")
    sums = table["rlnDefocusU"] + table["rlnDefocusV"]
    return [name for _, name in sorted(zip(sums.fillna(0), table["rlnMicrographName"].astype(str), strict=True))]


def _check_def_sort(project: Project, edit: pd.DataFrame, path: Path) -> Warnings:
    check_edit(proposed_groups(project), edit, "edits/def_sort.star")
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
    aligned, groups = project.aligned(), groups_in_use(project)
    for number in edit["nphDefocusGroup"].astype(int):
        if number not in groups:
            raise InputError(f"edits/thresh.star: group {number} does not exist; remove the line")
    return check_threshold_edit(
        proposal,
        edit,
        "edits/thresh.star",
        correlation=aligned["nphCorrelation"],
        group=aligned["nphDefocusGroup"],
    )


def groups_in_use(project: Project) -> list[int]:
    """Numbers of the defocus groups as the edits make them."""
    path = project.edit_path("def_sort")
    table = project.table("edits/def_sort.star", "def_sort") if path.is_file() else proposed_groups(project)
    return sorted(set(table["nphDefocusGroup"].astype(int)))


def _proposed_caps(project: Project) -> Rows:
    usual = project.config().thresholds.best_per_view or 0
    return {str(group): usual for group in groups_in_use(project)}


def _check_caps(project: Project, edit: pd.DataFrame, path: Path) -> Warnings:
    check_caps(edit, groups_in_use(project), "edits/best_per_view.star")
    return []


_MICROGRAPH = ("rlnMicrographName",)
_PARTICLE = ("rlnMicrographName", "nphParticleNumber")
_GROUP = ("nphDefocusGroup",)
_KEEP = ("nphKeep",)
_ALL: dict[str, tuple[tuple[str, ...], tuple[str, ...], bool, type[int] | type[float], Any, Any, Any]] = {
    "defocus": (_MICROGRAPH, DEFOCUS, False, float, _proposed_defocus, _proposed_defocus, _check_defocus),
    "sel_micrograph": (
        _MICROGRAPH, _KEEP, False, int, _proposed_micrographs, _proposed_micrographs, _check_micrographs
    ),
    "def_sort": (_MICROGRAPH, ("nphDefocusGroup",), True, int, _proposed_def_sort, _by_defocus, _check_def_sort),
    "good": (_PARTICLE, _KEEP, False, int, _proposed_good, _proposed_good, _check_good),
    "thresh": (_GROUP, ("nphThreshold",), False, float, _proposed_thresholds, _proposed_thresholds, _check_thresholds),
    "best_per_view": (_GROUP, ("nphAtMost",), False, int, _proposed_caps, _proposed_caps, _check_caps),
}  # fmt: skip
KINDS = {name: Kind(name, *rest) for name, rest in _ALL.items()}
"""By the name of their files, edits/NAME.star."""
