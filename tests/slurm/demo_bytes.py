"""The demo on the test cluster and on this machine: every table, map and stack must have the same bytes.

    python tests/slurm/demo_bytes.py

Not part of the tests that run by themselves: some ten minutes. The cluster has to be down; it is ended again. Prints a line.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "workflow"), str(REPOSITORY / "tests" / "slurm")]

import slurm_runs as cluster  # noqa: E402
import workflow_runs as runs  # noqa: E402


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/nephila-demo-bytes"))
    parser.add_argument("--micrographs", default="24")
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    code = runs.copy_code(options.work / "code")
    local, remote = options.work / "local", options.work / "cluster"
    nephila(code, "simulate", str(local), "--micrographs", options.micrographs)
    shutil.copytree(local, remote, symlinks=True)
    if (failed := cluster.run("up")).returncode:
        print(failed.stdout + failed.stderr)
        return 1
    try:
        nephila(code, "run", str(remote), "--profile", "slurm", *cluster.OPTIONS)
    finally:
        cluster.run("down")
    nephila(code, "run", str(local))
    expected = cluster.checksums(local)
    different = cluster.differences(expected, cluster.checksums(remote))
    print(
        f"demo of {options.micrographs} micrographs, cluster and local: {len(expected)} files, {different or 'same bytes'}"
    )
    return 1 if different else 0


def nephila(code: Path, *arguments: str) -> None:
    """A command of this checkout; CalledProcessError where it fails."""
    subprocess.run([sys.executable, "-m", "nephila", *arguments], cwd=code, env=cluster.environment(code), check=True)


if __name__ == "__main__":
    sys.exit(main())
