"""Several files that change as one: what they shall hold is written down before the first of them is touched.

A decision may take further edits along (a dropped micrograph leaves the groups too). One without the other would be refused by the
workflow, so a save that broke off between two files is ended by whoever comes next: the review page or `nephila run`.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from nephila.edits import FOLDER, NAMES
from nephila.io.atomic import atomic_path

NAME = ".decision.json"
"""Of the journal in edits/: there only while several files are being written."""


def digest_of(content: bytes | None) -> str:
    """Hash of a file's bytes; "" for no file."""
    return "" if content is None else hashlib.sha256(content).hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer in edits/ at a time, also among processes, where the file system can tell. folder: edits/, which must exist."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_together(folder: Path, contents: Mapping[str, bytes | None]) -> None:
    """Bring edits (by name; None: no file) to these bytes, all or none. To be called under `locked`.

    After an error (a full disk) they are as they were. After a kill, `finish` ends what was begun.
    """
    if len(contents) == 1:
        for name, content in contents.items():
            _put(folder / f"{name}.star", content)
        return
    before = {name: _held(folder / f"{name}.star") for name in contents}
    journal = folder / NAME
    steps = [
        {"name": name, "before": digest_of(before[name]), "content": None if content is None else _text(content)}
        for name, content in contents.items()
    ]
    _put(journal, json.dumps(steps).encode())
    try:
        for name, content in contents.items():
            _put(folder / f"{name}.star", content)
    except OSError:
        for name, content in before.items():
            if _held(folder / f"{name}.star") != content:
                _put(folder / f"{name}.star", content)
        journal.unlink(missing_ok=True)
        raise
    journal.unlink(missing_ok=True)


def finish(folder: Path) -> list[str]:
    """End a save that broke off between two files; names of the edits that it wrote. folder: edits/.

    Where a file is neither as it was nor as it shall be, another hand was there, and all stay as they are.
    """
    journal = folder / NAME
    if not journal.is_file():
        return []
    with locked(folder):
        try:
            steps = [(str(s["name"]), str(s["before"]), s["content"]) for s in json.loads(journal.read_text())]
            contents = {n: None if c is None else base64.b64decode(c) for n, _, c in steps if n in NAMES}
        except (OSError, ValueError, TypeError, KeyError):
            steps, contents = [], {}
        now = {name: _held(folder / f"{name}.star") for name in contents}
        known = all(
            digest_of(now[name]) in (before, digest_of(contents[name])) for name, before, _ in steps if name in now
        )
        open_ones = [name for name in contents if known and now[name] != contents[name]]
        for name in open_ones:
            _put(folder / f"{name}.star", contents[name])
        journal.unlink(missing_ok=True)
    return open_ones


def finish_in(project: Path) -> list[str]:
    """`finish` for a project's folder, unless its edits/ leads elsewhere."""
    folder = project / FOLDER
    return finish(folder) if folder.is_dir() and not folder.is_symlink() else []


def _put(path: Path, content: bytes | None) -> None:
    """Write a file in one step, or remove it."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _held(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
