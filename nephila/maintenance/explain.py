"""Why a file is as it is: the job that made it, what it was made from, what differs now, and what made it run."""

from __future__ import annotations

import json
import time
from pathlib import Path

from nephila.errors import InputError
from nephila.provenance import modules_behind, source_hash
from nephila.run_records import Record, describe_file, record_of, same_file

SHOWN = 12
"""Inputs that are listed one by one."""
SCRIPT_OF_RULE = {"merge_ctf": ("merge_ctf", "import_defocus")}
"""Rules whose script depends on the kind of project; the others' scripts carry their names."""


def explain(folder: Path, name: str, scripts: Path) -> str:
    """Lines that explain an output (path from the project folder).

    Raises
    ------
    InputError
        No record says that a job made it.
    """
    found = record_of(folder, name)
    if found is None:
        raise InputError(_no_record(folder, name))
    path, record = found
    lines = [
        f"{name}",
        *_made(path, record, folder),
        *_inputs(folder, record),
        *_settings(record),
        *_code(record, scripts),
    ]
    lines += [
        "  why it ran",
        *(f"    {line}" for line in record.get("why") or ["nothing recorded differs: it was asked for"]),
    ]
    lines += [
        "  since then",
        *(f"    {line}" for line in since(folder, name, record, scripts) or ["nothing has changed"]),
    ]
    return "\n".join(lines)


def since(folder: Path, name: str, record: Record, scripts: Path) -> list[str]:
    """What differs from when the file was made: inputs, code, the file itself."""
    lines = []
    for path, before in record.get("inputs", {}).items():
        now = describe_file(folder / path)
        if "missing" in now and "missing" not in before:
            lines.append(f"input {path} is gone (removed when no longer needed, or by hand)")
        elif not same_file(before, now):
            lines.append(f"input {path} changed")
    for path, before in record.get("outputs", {}).items():
        now = describe_file(folder / path)
        if "missing" in now and path == name:
            lines.append("the file itself is gone")
        elif "missing" not in now and not same_file(before, now):
            lines.append(f"{path} was changed after it was made")
    if record.get("code") and _hashes(record, scripts) and record["code"] not in _hashes(record, scripts):
        lines.append("the code behind the step changed")
    return lines


def _made(path: Path, record: Record, folder: Path) -> list[str]:
    wildcards = ", ".join(f"{key} {value}" for key, value in record["wildcards"].items())
    where = f"{record['host']}, {record['threads']} thread{'s' if record['threads'] != 1 else ''}"
    where += f", SLURM job {record['slurm_job']}" if record.get("slurm_job") else ""
    return [
        f"  made by    {record['rule']}{' (' + wildcards + ')' if wildcards else ''}",
        f"  when       {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record['started']))}, {record['wall_seconds']:.1f} s, "
        f"{record['cpu_seconds']:.1f} CPU s, {record['peak_memory_mb']:.0f} MB",
        f"  where      {where}",
        f"  version    nephila {record['version']}, python {record.get('python', 'not recorded')}",
        f"  seed       {'none' if record.get('seed') is None else record['seed']}",
        f"  log        {path.with_suffix('.log').relative_to(folder)}",
    ]


def _inputs(folder: Path, record: Record) -> list[str]:
    inputs = record.get("inputs", {})
    lines = [f"  inputs     {len(inputs)}"]
    for path, state in list(inputs.items())[:SHOWN]:
        lines.append(f"    {path}  {describe(state)}")
    if len(inputs) > SHOWN:
        total = sum(state.get("bytes", 0) for state in inputs.values())
        lines.append(f"    … and {len(inputs) - SHOWN} more, {total / 1e6:.1f} MB together")
    return lines


def describe(state: Record) -> str:
    """A recorded file in words."""
    if "missing" in state:
        return "missing"
    if "files" in state:
        return f"folder of {state['files']} files, {state['bytes']} bytes"
    changed = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state["modified"]))
    content = f", sha256 {state['sha256'][:12]}" if "sha256" in state else ""
    return f"{state['bytes']} bytes, {changed}{content}"


def _settings(record: Record) -> list[str]:
    lines = ["  settings"]
    for key, value in record.get("settings", {}).items():
        if isinstance(value, dict):
            lines += [f"    {key}.{name}: {_short(item)}" for name, item in value.items()]
        else:
            lines.append(f"    {key}: {_short(value)}")
    return lines


def _code(record: Record, scripts: Path) -> list[str]:
    lines = [f"  code       {record.get('code') or 'not recorded'}"]
    for script in _scripts(record, scripts):
        lines.append(f"    scripts/{script.name} and {', '.join(modules_behind(str(script)))}")
    return lines


def _scripts(record: Record, scripts: Path) -> list[Path]:
    names = SCRIPT_OF_RULE.get(record["rule"], (record["rule"],))
    found = [scripts / f"{name}.py" for name in names]
    return [path for path in found if path.is_file() and path.stat().st_size]


def _hashes(record: Record, scripts: Path) -> set[str]:
    return {source_hash(path) for path in _scripts(record, scripts)}


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _no_record(folder: Path, name: str) -> str:
    if not (folder / name).exists():
        return f"{name}: no such file in {folder}, and no record of one; `nephila run -n` shows what would be made"
    if name.startswith("edits/") or not name.startswith("results/"):
        return f"{name}: not made by the workflow: it is yours"
    return f"{name}: no record of the job that made it (made by an earlier version, or its log was removed)"
