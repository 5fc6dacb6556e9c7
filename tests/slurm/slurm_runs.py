"""Running projects on the test cluster: its commands, the profile's options for tests, checksums of results."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("cluster")
# short jobs: asked for soon; files appear at once
OPTIONS = [
    "--slurm-init-seconds-before-status-checks",
    "5",
    "--latency-wait",
    "5",
    "--jobs",
    "6",
    "--slurm-no-account",
]
SUFFIXES = (".star", ".mrc", ".mrcs")
STAGES = ("ctf", "particles", "alignment", "averages", "reconstruction", "refinement")

_loader = importlib.machinery.SourceFileLoader("nephila_test_cluster", str(SCRIPT))
_spec = importlib.util.spec_from_loader(_loader.name, _loader)
assert _spec is not None
_cluster = importlib.util.module_from_spec(_spec)
_loader.exec_module(_cluster)

why_not, folder, client = _cluster.why_not, _cluster.folder, _cluster.client


def run(action: str) -> subprocess.CompletedProcess[str]:
    """Call the cluster script."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), action], capture_output=True, text=True, check=False, timeout=120
    )


def environment(code: Path) -> dict[str, str]:
    """For a run with the package of this checkout, on the test cluster."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def checksums(project: Path) -> dict[str, str]:
    """SHA-256 of each table, map and stack of the results, by path."""
    found = {}
    for stage in STAGES:
        for path in sorted((project / "results" / stage).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                found[path.relative_to(project).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Paths that only one of two runs has, or whose content differs."""
    return sorted(path for path in first.keys() | second.keys() if first.get(path) != second.get(path))
