"""The record that every job leaves beside its log (NAME.json): what went in and came out, settings and code, cost.

From these records come `nephila why`, the costs in results/summary.json, and the forecast of `nephila plan`.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SMALL = 1_000_000
"""Files up to this many bytes are known by their content, larger ones by size and time of change."""

Record = dict[str, Any]


def describe_file(path: str | os.PathLike[str]) -> Record:
    """bytes, modified (seconds), and for a small file sha256 of a file; of a folder the number of files and their bytes."""
    where = Path(path)
    try:
        state = where.stat()
    except OSError:
        return {"missing": True}
    if where.is_dir():
        files = [entry for entry in sorted(where.rglob("*")) if entry.is_file()]
        return {"files": len(files), "bytes": sum(entry.stat().st_size for entry in files), "modified": state.st_mtime}
    found: Record = {"bytes": state.st_size, "modified": state.st_mtime}
    if state.st_size <= SMALL:
        found["sha256"] = hashlib.sha256(where.read_bytes()).hexdigest()
    return found


def same_file(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two descriptions are of the same content, as far as they can tell."""
    if "missing" in first or "missing" in second:
        return ("missing" in first) == ("missing" in second)
    if first.get("bytes") != second.get("bytes") or first.get("files") != second.get("files"):
        return False
    if "sha256" in first and "sha256" in second:
        return bool(first["sha256"] == second["sha256"])
    return abs(float(first["modified"]) - float(second["modified"])) < 1e-3


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, MB.

    Not getrusage's, which on Linux starts with the memory of the process that started this one: Snakemake's.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def describe_files(paths: Iterable[str]) -> dict[str, Record]:
    """Descriptions by path."""
    return {str(path): describe_file(path) for path in dict.fromkeys(map(str, paths))}


def plain(value: Any) -> Any:
    """A setting as JSON knows it: tuples become lists, what JSON does not know its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)


def seed_of(settings: Any) -> int | None:
    """The first setting named `seed`, None where no random choice is involved."""
    if isinstance(settings, Mapping):
        if isinstance(settings.get("seed"), int):
            return int(settings["seed"])
        for item in settings.values():
            found = seed_of(item)
            if found is not None:
                return found
    return None


def changes(before: Record | None, now: Record) -> list[str]:
    """What differs between two runs of a job, one line each: why it ran again. Empty where nothing that is recorded does."""
    if before is None or "inputs" not in before:
        return ["first run"]
    lines = []
    if before.get("version") != now.get("version"):
        lines.append(f"nephila {before.get('version')} became {now.get('version')}")
    if before.get("code") != now.get("code"):
        lines.append(f"code behind the step changed ({before.get('code')} became {now.get('code')})")
    lines += [f"setting {line}" for line in _setting_changes(before.get("settings", {}), now.get("settings", {}))]
    old, new = before["inputs"], now["inputs"]
    lines += [f"input {path} is new" for path in new if path not in old]
    lines += [f"input {path} is no longer used" for path in old if path not in new]
    lines += [f"input {path} changed" for path in new if path in old and not same_file(old[path], new[path])]
    return lines


def _setting_changes(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [*before, *(key for key in now if key not in before)]
        return [
            line
            for key in keys
            for line in _setting_changes(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if before == now else [f"{name}: {_short(before)} became {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_record(path: str | os.PathLike[str]) -> Record | None:
    """A record, None where there is none or it cannot be read."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "rule" in content else None


def read_records(folder: str | os.PathLike[str]) -> dict[Path, Record]:
    """All records of a project by their paths."""
    found = {path: read_record(path) for path in sorted((Path(folder) / "logs").rglob("*.json"))}
    return {path: record for path, record in found.items() if record is not None}


def record_of(folder: str | os.PathLike[str], output: str) -> tuple[Path, Record] | None:
    """The record of the job that made a file (path from the project folder), or that made the folder it lies in."""
    parents = {output, *(str(parent) for parent in Path(output).parents)}
    for path, record in read_records(folder).items():
        if parents & set(record.get("outputs", ())):
            return path, record
    return None
