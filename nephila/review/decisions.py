"""Reading, changing and undoing edits/*.star: row by row, checked as the workflow checks them, in one step, with a history.

A change says what its row held when the user looked (`was`) and what it shall hold (`now`; None: no row of its own, follow the
proposal). A file that has changed since is never written over: the caller gets both versions and what is in conflict.
"""

from __future__ import annotations

import base64
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nephila.edits import FOLDER, NAMES
from nephila.errors import InputError
from nephila.io import tables
from nephila.io.tables import read_blocks, write_blocks
from nephila.maintenance.recover import TEMPORARY
from nephila.review import history
from nephila.review.history import Change, Entry, Part
from nephila.review.journal import digest_of, finish_in, locked, write_together
from nephila.review.kinds import KINDS, Kind, Rows, group_rows, kept_micrographs, proposed_groups
from nephila.review.project import Project

COMMENT = "Written by `nephila review`; who decided what and when: edits/history.jsonl."


class Stale(InputError):
    """The file is not what the user saw."""

    def __init__(self, name: str, conflicts: list[dict[str, Any]]) -> None:
        super().__init__(f"edits/{name}.star changed in the meantime")
        self.conflicts = conflicts


@dataclass(frozen=True)
class Held:
    """What an edit holds: hash ("" : no file), its rows by key, blocks and comment of its file."""

    digest: str
    rows: Rows
    blocks: tables.Blocks
    comment: str
    content: bytes


Follower = tuple[Kind, Held, bytes | None, list[Change]]
"""An edit that follows another: what it holds, its new content, and the changes."""


class Decisions:
    """The edits of a project. All methods may be called from several threads; another server is kept out while one writes."""

    def __init__(self, project: Project, who: str | None = None) -> None:
        self.project = project
        self.who = who or history.whoever()
        self._lock = threading.RLock()
        _tidy(project.path(FOLDER))
        finish_in(project.folder)

    def state(self, name: str, *, proposal_too: bool = True) -> dict[str, Any]:
        """hash, rows, proposal, problem (why the workflow would refuse the file, or None), strangers (rows of nothing that
        exists), what would be undone and redone next, and of thresholds `former`, what rows were before their last decision."""
        kind = KINDS[name]
        with self._lock:
            held = self._read(kind)
            proposal = kind.proposal(self.project)
            problem = None
            if held.digest:
                try:
                    kind.check(self.project, held.blocks[_block(kind, held.blocks)], self.project.edit_path(name))
                except InputError as error:
                    problem = str(error)
            entries = self._entries()
            done, undone = history.stacks(entries, name)
            return {
                "hash": held.digest,
                "rows": held.rows,
                "proposal": proposal if proposal_too else None,
                "problem": problem,
                "strangers": [key for key in held.rows if key not in proposal],
                "former": history.former(entries, name, held.rows) if name == "thresh" else {},
                "undo": _shown(done),
                "redo": _shown(undone),
            }

    def decide(self, name: str, base: str, changes: Sequence[Change], what: str) -> dict[str, Any]:
        """Write a decision; returns the new hash, warnings, and the other edits that had to follow.

        Raises
        ------
        Stale
            The file is not the one with the hash `base`, or a row is not what the change says.
        InputError
            The workflow would refuse the result.
        """
        kind = KINDS[name]
        wanted = [(key, kind.value_of(was), kind.value_of(now)) for key, was, now in changes]
        with self._writing():
            held = self._read(kind)
            conflicts = _conflicts(held.rows, wanted)
            if held.digest != base or conflicts:
                raise Stale(name, conflicts)
            return self._carry_out(kind, held, wanted, " ".join(what.split())[:200])

    def undo(self, name: str, *, redo: bool = False) -> dict[str, Any]:
        """Take back the last decision about an edit, or with `redo` the last taking back. Stale: its rows were changed since."""
        with self._writing():
            done, undone = history.stacks(self._entries(), name)
            stack = undone if redo else done
            if not stack:
                raise InputError(f"nothing to {'redo' if redo else 'undo'} in edits/{name}.star")
            entry = stack[-1]
            parts, plans, conflicts = [], [], []
            proposal: Rows | None = None
            contents: dict[str, bytes | None] = {}
            for part in entry.parts:
                kind = KINDS[part.name]
                held = self._read(kind)
                back = [(key, now, was) for key, was, now in part.changes]
                conflicts += _conflicts(held.rows, back)
                if held.digest == part.after and (part.before == "" or part.held is not None):
                    content = _former(part)
                else:
                    content = self._changed(kind, held, back, proposal if kind.name == "def_sort" else None)
                parts.append(self._part(kind, held, content, back))
                plans.append((kind, content))
                contents[kind.name] = content
                if kind.name in ("defocus", "sel_micrograph"):
                    proposal = self._groups_after(contents)[1]
            if conflicts:
                raise Stale(name, conflicts)
            what = f"{'Redo' if redo else 'Undo'}: {entry.what.removeprefix('Undo: ')}"
            self._write(parts, plans, what, name, undoes=entry.number)
            return {"hash": digest_of(plans[0][1]), "what": what, "warnings": [], "followed": []}

    def mend(self, name: str) -> dict[str, Any]:
        """Bring an edit in line with what there is now: rows of nothing that exists go, missing ones follow the proposal."""
        kind = KINDS[name]
        with self._writing():
            held = self._read(kind)
            proposal = kind.proposal(self.project)
            changes: list[Change] = [(key, value, None) for key, value in held.rows.items() if key not in proposal]
            return self._carry_out(kind, held, changes, "Removed rows of nothing that exists")

    def _carry_out(self, kind: Kind, held: Held, changes: list[Change], what: str) -> dict[str, Any]:
        content = self._changed(kind, held, changes)
        warnings = self._check(kind, content)
        parts, plans, followed = [self._part(kind, held, content, changes)], [(kind, content)], []
        for other, other_held, other_content, other_changes in self._followers(kind.name, content):
            parts.append(self._part(other, other_held, other_content, other_changes))
            plans.append((other, other_content))
            followed.append(f"edits/{other.name}.star: {len(other_changes)} rows followed")
        if digest_of(content) != held.digest or len(parts) > 1:
            self._write(parts, plans, what, kind.name)
        return {"hash": digest_of(content), "what": what, "warnings": warnings, "followed": followed}

    def _followers(self, name: str, content: bytes | None) -> Iterator[Follower]:
        """Edits that a decision about micrographs or groups takes along."""
        if name not in ("defocus", "sel_micrograph", "def_sort"):
            return
        contents = {name: content}
        if name != "def_sort":
            follow = self._follow_selection(contents)
            if follow is not None:
                contents["def_sort"] = follow[2]
                yield follow
        wanted = [kind for kind in (KINDS["thresh"], KINDS["best_per_view"]) if self._read(kind).digest]
        groups = self._numbers_after(contents) if wanted else set()
        for kind in wanted:
            held = self._read(kind)
            gone: list[Change] = [(key, value, None) for key, value in held.rows.items() if key not in groups]
            if gone:
                yield kind, held, self._changed(kind, held, gone), gone

    def _numbers_after(self, contents: dict[str, bytes | None]) -> set[str]:
        """Groups, as keys, when the edits hold this."""
        kind = KINDS["def_sort"]
        content = contents["def_sort"] if "def_sort" in contents else self._read(kind).content or None
        if content is None:
            return {str(group) for group in self._groups_after(contents)[1].values()}
        with self._as_file(kind.name, content) as path:
            blocks = read_blocks(path)
            return {str(group) for group in kind.rows_of(blocks[_block(kind, blocks)]).values()}

    def _follow_selection(self, contents: dict[str, bytes | None]) -> Follower | None:
        """def_sort must name the kept micrographs: rows of dropped ones go, new ones join the group nearest in defocus."""
        kind = KINDS["def_sort"]
        held = self._read(kind)
        if not held.digest:
            return None
        kept, proposal = self._groups_after(contents)
        defocus = dict(zip(kept["rlnMicrographName"], kept["rlnDefocusU"] + kept["rlnDefocusV"], strict=True))
        old = {name: defocus[name] for name in held.rows if name in defocus}
        changes: list[Change] = [(name, value, None) for name, value in held.rows.items() if name not in defocus]
        for name in defocus.keys() - old.keys():
            nearest = min(old, key=lambda other: (abs(old[other] - defocus[name]), other), default=None)
            changes.append((name, None, 1 if nearest is None else held.rows[nearest]))
        if not changes:
            return None
        return kind, held, self._changed(kind, held, changes, proposal), changes

    def _groups_after(self, contents: dict[str, bytes | None]) -> tuple[pd.DataFrame, Rows]:
        """Kept micrographs and proposed groups when the edits hold this; those that are not named, what they hold now."""
        with ExitStack() as files:
            paths = {
                name: files.enter_context(self._as_file(name, contents[name])) if name in contents else None
                for name in ("sel_micrograph", "defocus")
            }
            kept = kept_micrographs(self.project, paths["sel_micrograph"], paths["defocus"])
        return kept, group_rows(proposed_groups(self.project, kept))

    def _changed(self, kind: Kind, held: Held, changes: Sequence[Change], proposal: Rows | None = None) -> bytes | None:
        """The file's bytes after changes; None: no file. Rows are in the project's order; other columns and blocks stay."""
        proposed = kind.proposal(self.project) if proposal is None else proposal
        rows: dict[str, Any] = dict(held.rows)
        for key, _, now in changes:
            if now is None:
                rows.pop(key, None)
            else:
                rows[key] = now
        if kind.whole:
            rows = {**proposed, **rows}
            if rows == proposed:
                return None
        if not rows:
            return None
        place = {key: i for i, key in enumerate(kind.order(self.project))}
        order = sorted(rows, key=lambda key: (place.get(key, len(place)), key))
        cells = [(*kind.parts_of(key), *kind.cells_of(rows[key])) for key in order]
        frame = pd.DataFrame(cells, columns=[*kind.keys, *kind.values])
        blocks = dict(held.blocks)
        block = _block(kind, blocks)
        old = blocks.get(block)
        if old is not None and len(old.columns) > len(frame.columns):
            extra = old.drop(columns=list(kind.values)).drop_duplicates(list(kind.keys))
            frame = frame.merge(extra, on=list(kind.keys), how="left")[list(old.columns)]
        blocks[block] = frame
        with self._as_file(kind.name, None) as path:
            write_blocks(path, blocks, held.comment)
            return path.read_bytes()

    def _part(self, kind: Kind, held: Held, content: bytes | None, changes: Sequence[Change]) -> Part:
        """What a decision does to a file; its former content is kept where it is not what the page would write."""
        foreign = bool(held.digest) and self._changed(kind, held, ()) != held.content
        kept = base64.b64encode(zlib.compress(held.content, 9)).decode() if foreign else None
        return Part(kind.name, held.digest, digest_of(content), tuple(changes), kept)

    def _check(self, kind: Kind, content: bytes | None) -> list[str]:
        if content is None:
            if kind.name in ("defocus", "sel_micrograph"):
                self._groups_after({kind.name: None})
            return []
        with self._as_file(kind.name, content) as path:
            blocks = read_blocks(path)
            try:
                return kind.check(self.project, blocks[_block(kind, blocks)], path)
            except InputError as error:
                raise InputError(str(error).replace(str(path), f"edits/{kind.name}.star")) from None

    @contextmanager
    def _as_file(self, name: str, content: bytes | None) -> Iterator[Path]:
        """A file beside the edits that is gone afterwards, with this content where there is any."""
        target = self.project.edit_path(name)
        target.parent.mkdir(exist_ok=True)
        path = target.with_name(f".{name}.{os.uname().nodename}.{os.getpid()}.tmp.star")
        try:
            if content is not None:
                path.write_bytes(content)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _read(self, kind: Kind) -> Held:
        path = self.project.edit_path(kind.name)
        if not path.is_file():
            return Held("", {}, {}, COMMENT, b"")
        content = path.read_bytes()
        blocks = read_blocks(path)
        frame = blocks[_block(kind, blocks)]
        tables.check_columns(frame, (*kind.keys, *kind.values), f"edits/{kind.name}.star")
        head = []
        for line in content.decode("utf-8", "replace").splitlines():
            if line.startswith("#"):
                head.append(line.lstrip("#").strip())
            elif line.strip():
                break
        return Held(digest_of(content), kind.rows_of(frame), blocks, "\n".join(head) or COMMENT, content)

    def _entries(self) -> list[Entry]:
        hashes = {}
        for name in NAMES:
            path = self.project.edit_path(name)
            hashes[name] = digest_of(path.read_bytes() if path.is_file() else None)
        name = f"{FOLDER}/history.jsonl"
        path = self.project.path(name)
        if not path.is_file():
            return []
        entries = self.project.kept(("history",), self.project.stamp(name), lambda: history.read(path))
        return history.effective(entries, hashes)

    def _write(
        self,
        parts: list[Part],
        plans: list[tuple[Kind, bytes | None]],
        what: str,
        page: str,
        undoes: int | None = None,
    ) -> None:
        """History first, then the files, each in one step; several of them together or not at all."""
        path = self.project.path(f"{FOLDER}/history.jsonl")
        path.parent.mkdir(exist_ok=True)
        number = max((entry.number for entry in history.read(path)), default=0) + 1
        history.append(path, Entry(number, history.now(), self.who, what, page, tuple(parts), undoes))
        for kind, _ in plans:
            self.project.edit_path(kind.name)  # refused where it leads elsewhere
        write_together(path.parent, {kind.name: content for kind, content in plans})

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time, also among servers on the same project, where the file system can tell."""
        folder = self.project.path(FOLDER)
        folder.mkdir(exist_ok=True)
        with self._lock:
            finish_in(self.project.folder)  # another server may have died meanwhile
            with locked(folder):
                yield


def _block(kind: Kind, blocks: tables.Blocks) -> str:
    """The block that the workflow reads: that of the edit's name, or the only one."""
    return next(iter(blocks)) if len(blocks) == 1 else kind.name


def _former(part: Part) -> bytes | None:
    """The bytes that a file had before a decision: none, or those of another hand."""
    return None if part.held is None else zlib.decompress(base64.b64decode(part.held))


def _conflicts(rows: Rows, changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Changes whose row is neither what the user saw nor what the user wants."""
    return [
        {"key": key, "was": was, "yours": now, "theirs": rows.get(key)}
        for key, was, now in changes
        if rows.get(key) != was and rows.get(key) != now
    ]


def _shown(entries: list[Entry]) -> dict[str, Any] | None:
    if not entries:
        return None
    last = entries[-1]
    return {"number": last.number, "what": last.what, "when": last.when, "who": last.who}


def _tidy(folder: Path) -> None:
    """Remove what a server that was killed in the middle of a save left half-written."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = TEMPORARY.match(path.name)
        here = match is not None and match["host"] == os.uname().nodename
        if match and here and not Path(f"/proc/{match['pid']}").exists():
            path.unlink(missing_ok=True)
