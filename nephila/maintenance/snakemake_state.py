"""What Snakemake keeps in a project's .snakemake folder: locks, outputs of unfinished jobs, logs of cluster jobs."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path

STATE = ".snakemake"


def locks(folder: Path) -> list[Path]:
    """Lock files: there are some while Snakemake runs, and after it was killed."""
    return sorted((folder / STATE / "locks").glob("*.lock"))


def incomplete_outputs(folder: Path) -> dict[str, str | None]:
    """Outputs of jobs that were started and have not ended, with the cluster's job id where one was kept.

    Snakemake names these records by the output's path in base64, cut into folders that begin with `@` where it is long.
    """
    top = folder / STATE / "incomplete"
    found: dict[str, str | None] = {}
    for path in sorted(top.rglob("*")):
        if not path.is_file():
            continue
        name = _decode("".join(part.removeprefix("@") for part in path.relative_to(top).parts))
        try:
            external = json.loads(path.read_text()).get("external_jobid")
        except (OSError, ValueError, AttributeError):
            external = None
        if name is not None:
            found[name] = None if external is None else str(external)
    return found


def cluster_log_ids(folder: Path) -> dict[str, Path]:
    """Ids of cluster jobs by their logs; a job that ended well leaves none."""
    top = folder / STATE / "slurm_logs"
    return {path.stem: path for path in sorted(top.rglob("*.log")) if path.stem.isdigit()}


def _decode(name: str) -> str | None:
    try:
        return base64.b64decode(name, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
