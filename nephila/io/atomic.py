"""Outputs that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_umask = os.umask(0)
os.umask(_umask)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path` (same suffix) and move it into place when the block ends without an error.

    The name holds host and process id, so that two writers never share a temporary file. After an error the
    temporary file is removed and `path` is as it was. Missing parent folders are made.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.uname().nodename}.{os.getpid()}.tmp{target.suffix}")
    try:
        yield temporary
        if target.exists() and not os.access(target, os.W_OK) and not target.is_dir():
            target.unlink()
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str, *, read_only: bool = False) -> None:
    """Write a text file in one step; `read_only` removes the write permissions (for files not meant to be edited)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        if read_only:
            temporary.chmod(0o444 & ~_umask)
