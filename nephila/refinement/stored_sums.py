"""The chunks' sums as they lie on disk: each defocus group is added up over the chunks when it is asked for, and not kept.

With many groups the sums of all of them do not fit into memory; the merge needs one group of both halves at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from nephila.errors import InputError
from nephila.partial_sum import GridShape, PartialSum
from nephila.refinement.sums import ChunkSums, add_noise


class StoredGroups(Mapping[int, PartialSum]):
    """Sums by group over the files of several chunks, read at each access.

    Raises
    ------
    InputError
        A file is not one of sums (when it is opened), or grids differ (when a group is read).
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self.noise = ChunkSums({}, None)  # of all groups together, without their grids
        self._files: dict[int, list[str | os.PathLike[str]]] = {}
        self._headers: dict[str | os.PathLike[str], dict[str, dict[str, object]]] = {}
        for path in paths:
            try:
                with np.load(path, allow_pickle=False) as archive:
                    header = json.loads(str(archive["header"]))
                    add_noise(self.noise, archive, header)
                    self._headers[path] = header["groups"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise _unreadable(path, error) from error
            for key in header["groups"]:
                self._files.setdefault(int(key), []).append(path)

    def __getitem__(self, number: int) -> PartialSum:
        total: PartialSum | None = None
        for path in self._files[number]:
            part = self._read(path, number)
            total = part if total is None else total.add(part)
        assert total is not None
        return total

    def _read(self, path: str | os.PathLike[str], number: int) -> PartialSum:
        entry = self._headers[path][str(number)]
        try:
            with np.load(path, allow_pickle=False) as archive:
                sums = archive[f"group_{number}"].astype(np.int64)
            return PartialSum(GridShape(**entry["grid"]), sums, entry["particles"], entry["weight_units"])  # type: ignore[arg-type]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _unreadable(path, error) from error

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._files))

    def __len__(self) -> int:
        return len(self._files)


def open_chunks(paths: Iterable[str | os.PathLike[str]]) -> ChunkSums:
    """The sum over chunks as `add_chunks` gives it, its groups read one at a time."""
    groups = StoredGroups(paths)
    return replace(groups.noise, groups=groups)  # type: ignore[arg-type]


def _unreadable(path: str | os.PathLike[str], error: Exception) -> InputError:
    return InputError(f"{path}: not a file of partial sums ({error}); delete it and run again")
