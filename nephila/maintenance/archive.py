"""The two archives of a project, each with checksums of all it holds.

order.tar: settings, edits, tables, records: what a person needs to see what was done (small).
project.tar: everything that cannot be made again: settings, edits, micrographs, references.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nephila.errors import InputError
from nephila.io.atomic import atomic_path
from nephila.maintenance.snakemake_state import STATE

MANIFEST = "MANIFEST.sha256"
MADE = ("results", "logs", STATE, ".nephila")
"""Folders that a run makes."""
ORDER_SUFFIXES = frozenset({".star", ".json", ".log", ".html"})
CHUNK = 1 << 20
ARCHIVES = ("order", "project")


@dataclass(frozen=True)
class Archive:
    """An archive that was made: its files, their bytes, and links that lead out of the project into nothing."""

    path: Path
    files: int
    size: int
    broken: tuple[str, ...]


def members(folder: Path, which: str) -> list[Path]:
    """Files of an archive, as paths from the project folder, sorted. InputError for an unknown archive."""
    if which not in ARCHIVES:
        raise InputError(f"archive {which!r}: give {' or '.join(ARCHIVES)}")
    own = list(_own_files(folder))
    if which == "project":
        return sorted(own)
    mine = [
        path
        for path in own
        if path.parts[0] in ("config.yaml", "edits") or path.suffix in (".md", ".txt", ".yaml", ".yml")
    ]
    made = [
        path.relative_to(folder)
        for top in ("results", "logs")
        for path in (folder / top).rglob("*")
        if path.suffix in ORDER_SUFFIXES and path.is_file() and not path.name.startswith(".")
    ]
    return sorted({*mine, *made})


def _own_files(folder: Path) -> Iterator[Path]:
    """Files that no run made; folders that are links are entered."""
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        here = Path(where).relative_to(folder)
        real = os.path.realpath(where)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not (here == Path() and name in MADE) and name != "__pycache__")
        yield from (here / name for name in names if not (here == Path() and name in (f"{a}.tar" for a in ARCHIVES)))


def make_archive(folder: Path, which: str, target: Path) -> Archive:
    """Write an archive, whole or not at all. Links are replaced by what they lead to.

    Raises
    ------
    InputError
        The target exists, or a file changed while it was read.
    """
    if target.exists():
        raise InputError(f"{target} exists already; nothing was written: give another folder, or move it away")
    sums: list[tuple[str, str]] = []
    broken, total = [], 0
    with atomic_path(target) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in members(folder, which):
            source = folder / path
            if not source.is_file():
                broken.append(str(path))
                continue
            with open(source, "rb") as stream:
                entry = tar.gettarinfo(arcname=path.as_posix(), fileobj=stream)
                entry.type, entry.linkname = tarfile.REGTYPE, ""
                entry.size = os.fstat(stream.fileno()).st_size
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
                reader = _Hashing(stream)
                try:
                    tar.addfile(entry, reader)  # type: ignore[arg-type]
                except OSError as error:
                    raise InputError(f"{source}: could not be read whole ({error}); nothing was written") from error
            sums.append((reader.digest.hexdigest(), path.as_posix()))
            total += entry.size
        text = "".join(f"{digest}  {name}\n" for digest, name in sums).encode()
        entry = tarfile.TarInfo(MANIFEST)
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return Archive(target, len(sums), total, tuple(broken))


class _Hashing:
    """A stream that is hashed while it is read."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self.stream, self.digest = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self.stream.read(size)
        self.digest.update(block)
        return block


def check_archive(path: Path) -> dict[str, str]:
    """Check every file of an archive against its manifest; returns the checksums by name.

    Raises
    ------
    InputError
        No readable archive, no manifest, a file that is missing, added or changed, or a name that leads out of the folder.
    """
    found: dict[str, str] = {}
    manifest: dict[str, str] | None = None
    try:
        with tarfile.open(path) as tar:
            for entry in tar:
                stream = tar.extractfile(entry) if entry.isfile() else None
                if stream is None or not _is_inside(entry.name):
                    raise InputError(f"{path}: {entry.name}: not a plain file inside the project; nothing was restored")
                if entry.name == MANIFEST:
                    manifest = _parse_manifest(stream.read().decode())
                    continue
                digest = hashlib.sha256()
                while block := stream.read(CHUNK):
                    digest.update(block)
                found[entry.name] = digest.hexdigest()
    except (tarfile.TarError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a whole archive ({error})") from error
    if manifest is None:
        raise InputError(f"{path}: no {MANIFEST} in it: cut short, or not made by nephila archive")
    for name in sorted(manifest.keys() | found.keys()):
        if manifest.get(name) != found.get(name):
            state = "missing" if name not in found else "not in the manifest" if name not in manifest else "changed"
            raise InputError(f"{path}: {name} is {state}; the archive is damaged")
    return found


def restore_archive(path: Path, folder: Path) -> tuple[int, int]:
    """Check an archive and unpack it; returns how many files were written and how many were there already with the same content.

    Raises
    ------
    InputError
        The archive is damaged, or a file is there with other content (nothing is written then).
    """
    sums = check_archive(path)
    same = set()
    for name, digest in sums.items():
        target = folder / name
        if not os.path.lexists(target):
            continue
        if not target.is_file() or _digest(target) != digest:
            raise InputError(
                f"{target} is there with other content; nothing was restored: give another folder, or move it away"
            )
        same.add(name)
    with tarfile.open(path) as tar:
        for entry in tar:
            stream = tar.extractfile(entry)
            if entry.name == MANIFEST or entry.name in same or stream is None:
                continue
            target = folder / entry.name
            with atomic_path(target) as temporary:
                with open(temporary, "wb") as out:
                    while block := stream.read(CHUNK):
                        out.write(block)
                os.chmod(temporary, entry.mode & 0o777)
                os.utime(temporary, (entry.mtime, entry.mtime))
                if _digest(temporary) != sums[entry.name]:
                    raise InputError(f"{target}: what was written differs from the archive: check the disk")
                if os.path.lexists(target):
                    raise InputError(f"{target} appeared meanwhile; it was left as it is")
    return len(sums) - len(same), len(same)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and bool(path.parts)


def _parse_manifest(text: str) -> dict[str, str]:
    return {name: digest for digest, _, name in (line.partition("  ") for line in text.splitlines())}


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
