"""edits/history.jsonl: who decided what and when, a line per decision, and what can be undone and redone.

A line is written before its files are, so that no change is without one. A line whose change never came about (the server was
killed in between) is known by its hashes and left out of account.
"""

from __future__ import annotations

import getpass
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Change = tuple[str, Any, Any]
"""A row's key, its value before and after; None: no row."""


@dataclass(frozen=True)
class Part:
    """What a decision does to one edit: hashes before and after ("" : no file), changed rows, and where the file was written by
    another hand, what it held (base64 of zlib)."""

    name: str
    before: str
    after: str
    changes: tuple[Change, ...]
    held: str | None = None


@dataclass(frozen=True)
class Entry:
    """A decision. `page` names the edit that it was about; `undoes` is the number of the entry that it takes back."""

    number: int
    when: str
    who: str
    what: str
    page: str
    parts: tuple[Part, ...]
    undoes: int | None = None


def now() -> str:
    """Local time with its zone, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def whoever() -> str:
    """The user and the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"


def append(path: Path, entry: Entry) -> None:
    """Add a line, and have it on the disk before returning; a line that was torn off is ended first."""
    line = json.dumps(asdict(entry), ensure_ascii=False, separators=(",", ":")) + "\n"
    with open(path, "ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                line = "\n" + line
        stream.write(line.encode())
        stream.flush()
        os.fsync(stream.fileno())


def read(path: Path) -> list[Entry]:
    """All entries; lines that cannot be read (torn off) are left out."""
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(line)
            parts = tuple(
                Part(**{**part, "changes": tuple((key, was, then) for key, was, then in part["changes"])})
                for part in content["parts"]
            )
            entries.append(Entry(**{**content, "parts": parts}))
        except (ValueError, TypeError, KeyError):
            continue
    return entries


def effective(entries: Sequence[Entry], hashes: dict[str, str]) -> list[Entry]:
    """Entries that came about, given the files' present hashes by name: later lines, or the file, show the state before."""
    found: list[Entry] = []
    following = dict(hashes)
    for entry in reversed(entries):
        first = entry.parts[0] if entry.parts else None
        if first is None:
            continue
        came = following.get(first.name, "") != first.before or first.before == first.after
        if came:
            found.append(entry)
            for part in entry.parts:
                following[part.name] = part.before
    return found[::-1]


def former(entries: Sequence[Entry], name: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Of the rows of an edit that say what the last decision about them said: what they were before it; None: no row."""
    before: dict[str, tuple[Any, Any]] = {}
    for entry in entries:
        for part in entry.parts:
            if part.name == name:
                before |= {key: (was, then) for key, was, then in part.changes}
    return {key: before[key][0] for key, value in rows.items() if key in before and before[key][1] == value}


def stacks(entries: Sequence[Entry], page: str) -> tuple[list[Entry], list[Entry]]:
    """Entries of a page that can be undone and redone, the next one last."""
    done: list[Entry] = []
    undone: list[Entry] = []
    for entry in entries:
        if entry.page != page:
            continue
        if done and entry.undoes == done[-1].number:
            done.pop()
            undone.append(entry)
        elif undone and entry.undoes == undone[-1].number:
            undone.pop()
            done.append(entry)
        else:
            done.append(entry)
            undone = []
    return done, undone
