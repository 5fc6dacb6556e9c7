"""What may be removed from a project, by level; only files that the workflow made, and can make again, are ever touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nephila.errors import NephilaError
from nephila.maintenance.recover import TEMPORARY
from nephila.maintenance.snakemake_state import STATE, locks

LEVELS = ("scratch", "intermediate", "results")
"""Each level includes those before it."""


class CleanError(NephilaError):
    """The project cannot be cleaned now."""


@dataclass(frozen=True)
class Removable:
    """Files of one kind: why they can go, and their bytes."""

    level: str
    what: str
    paths: tuple[Path, ...]
    size: int


KINDS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "scratch": (
        ("logs of cluster jobs that failed", (f"{STATE}/slurm_logs",)),
        ("Snakemake's own logs", (f"{STATE}/log",)),
        ("scripts of jobs that died", (f"{STATE}/scripts",)),
        ("thumbnails of the review page", (".nephila/review",)),
    ),
    "intermediate": (
        ("windows by micrograph (the stacks by group hold them too)",
            ("results/particles/win/*.mrcs", "results/particles/flt/*.mrcs")),
        ("power spectra", ("results/ctf/power/*.npz", "results/ctf/power/*.mrcs")),
        ("candidates of picking", ("results/particles/candidates",)),
        ("sums and half volumes by group", ("results/reconstruction/group_*/sums.npz", "results/reconstruction/group_*/*.mrc")),
        ("averages by group", ("results/averages/group_*/*.mrcs",)),
        ("partial sums of the refinement", ("results/refinement/*/*_sums.npz",)),
    ),
    "results": (("results", ("results",)), ("logs and records", ("logs",)), ("Snakemake's memory", (STATE,))),
}  # fmt: skip


def removable(folder: Path, level: str) -> list[Removable]:
    """What the given level and those before it would remove, each file once. CleanError for an unknown level."""
    if level not in LEVELS:
        raise CleanError(f"level {level!r}: give {', '.join(LEVELS)}")
    found, seen = [], set[Path]()
    for name in LEVELS[: LEVELS.index(level) + 1]:
        kinds = [(what, _files(folder, patterns)) for what, patterns in KINDS[name]]
        if name == "scratch":
            kinds.insert(0, ("files half-written by a job that died", _half_written(folder)))
        if name == "intermediate":
            kinds.append(("earlier iterations of the refinement", _earlier_iterations(folder)))
        for what, files in kinds:
            paths = tuple(path for path in files if path not in seen)
            seen.update(paths)
            if paths:
                found.append(Removable(name, what, paths, sum(os.lstat(path).st_size for path in paths)))
    return found


def remove(folder: Path, chosen: list[Removable]) -> int:
    """Remove files, then folders left empty; returns the bytes freed.

    Raises
    ------
    CleanError
        Snakemake runs on the project, or died on it.
    """
    if locks(folder):
        raise CleanError(
            f"{folder} is locked: Snakemake runs on it, or was killed (then first: nephila recover {folder})"
        )
    freed = 0
    for kind in chosen:
        for path in kind.paths:
            size = os.lstat(path).st_size
            path.unlink()
            freed += size
    for top in ("results", "logs", STATE, ".nephila"):
        _remove_empty(folder / top)
    return freed


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for path in folder.glob(pattern) for file in _below(path)})


def _below(path: Path) -> Iterator[Path]:
    """The file itself, or all files below a folder; links are not followed."""
    if path.is_symlink() or path.is_file():
        yield path
    elif path.is_dir():
        for where, folders, names in os.walk(path):
            links = [name for name in folders if (Path(where) / name).is_symlink()]
            yield from (Path(where) / name for name in [*names, *links])


def _half_written(folder: Path) -> list[Path]:
    return sorted(
        path for path in (folder / "results").rglob(".*.tmp*") if TEMPORARY.match(path.name) and path.is_file()
    )


def _earlier_iterations(folder: Path) -> list[Path]:
    """Volumes of all iterations but the last, when the refinement has ended; models and tables stay (figures are made of them)."""
    if not (folder / "results/refinement/map.mrc").is_file():
        return []
    iterations = sorted(path for path in folder.glob("results/refinement/iter_[0-9][0-9]") if path.is_dir())
    return sorted(file for path in iterations[:-1] for file in path.glob("*.mrc"))


def _remove_empty(top: Path) -> None:
    for where, _, _ in sorted(os.walk(top), key=lambda entry: -len(entry[0])):
        if not os.listdir(where):
            shutil.rmtree(where, ignore_errors=True)
