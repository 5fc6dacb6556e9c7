"""The project as the review page reads it: settings and tables, kept until their files change; nothing outside the folder."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pandas as pd

from nephila.config import Config, load_config
from nephila.edits import FOLDER, NAMES
from nephila.errors import InputError
from nephila.io.tables import KINDS, check_columns, read_table
from nephila.review.quick import read_plain

Stamp = tuple[int, int, int]


class Refused(InputError):
    """A file that leads out of the project."""


class NotYet(InputError):
    """A result that the run has not made yet."""


class Project:
    """A project folder. Paths given to it are relative; a link that leads out of the folder is refused.

    Micrographs are the exception: config.yaml names them, and they may lie anywhere.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._kept: dict[tuple[str, ...], tuple[Any, Any]] = {}
        self._lock = threading.Lock()

    def path(self, name: str) -> Path:
        """The file's path. Refused where it, or a link on the way, leads out of the project."""
        path = self.folder / name
        if Path(name).is_absolute() or not path.resolve().is_relative_to(self.folder):
            raise Refused(f"{name}: outside the project")
        return path

    def edit_path(self, name: str) -> Path:
        """edits/NAME.star. Refused where edits/ or the file is a link out of the project."""
        if name not in NAMES:
            raise InputError(f"{name}: no such edit; there are {', '.join(NAMES)}")
        return self.path(f"{FOLDER}/{name}.star")

    def exists(self, name: str) -> bool:
        """Whether a file or folder is there (and in the project)."""
        try:
            return self.path(name).exists()
        except Refused:
            return False

    def stamp(self, name: str) -> Stamp:
        """What tells two versions of a file apart. NotYet where there is none."""
        try:
            state = self.path(name).stat()
        except FileNotFoundError:
            raise NotYet(f"{name} is not there yet") from None
        return state.st_mtime_ns, state.st_size, state.st_ino

    def kept(self, key: tuple[str, ...], stamp: Any, make: Any) -> Any:
        """The value made earlier under this key, made anew when the stamp differs."""
        with self._lock:
            found = self._kept.get(key)
        if found is not None and found[0] == stamp:
            return found[1]
        value = make()
        with self._lock:
            self._kept[key] = (stamp, value)
        return value

    def config(self) -> Config:
        """The settings, checked."""
        path = self.folder / "config.yaml"
        return self.kept(("config",), self.stamp("config.yaml"), lambda: load_config(path))

    def table(self, name: str, kind: str | None = None, block: str | None = None) -> pd.DataFrame:
        """A table, not to be changed. NotYet where it is not there."""
        path = self.path(name)

        def read() -> pd.DataFrame:
            frame = read_plain(path) if name.startswith("results/") else None
            if frame is None:
                return read_table(path, kind=kind, block=block)
            if kind:
                check_columns(frame, KINDS[kind].required, name)
            return frame

        return self.kept(("table", name, str(kind), str(block)), self.stamp(name), read)

    def names(self, pattern: str) -> list[str]:
        """Files and folders that match, as paths from the project, sorted; those that lead out of it are left out."""
        found = (str(path.relative_to(self.folder)) for path in self.folder.glob(pattern))
        return sorted(name for name in found if self.exists(name))

    def aligned(self) -> pd.DataFrame:
        """Aligned particles of all groups: rlnImageName, rlnAnglePsi, rlnOriginXAngst, rlnOriginYAngst, nphDefocusGroup,
        nphCorrelation; rows in the order of the groups' stacks. NotYet where no group is aligned."""
        names = self.names("results/alignment/group_*/align.star")
        if not names:
            raise NotYet("no group is aligned yet")

        def read() -> pd.DataFrame:
            columns = ["rlnImageName", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"]
            columns += ["nphDefocusGroup", "nphCorrelation"]
            tables = [self.table(name, "poses")[columns] for name in names]
            return pd.concat(tables, ignore_index=True)

        return self.kept(("aligned",), tuple((name, self.stamp(name)) for name in names), read)
