"""Whole runs with other numbers of threads and other chunks: every table, map and stack must keep its bytes.

    python tests/slurm/same_bytes.py              1, 2 and 4 threads; 2 threads with chunks of 256 too

The first run goes from micrographs to the end. The others make again all that follows from the first alignment on, and it:
steps before that have one thread in every profile and know no chunks. --whole runs them from the micrographs too.

Not part of the tests that run by themselves: some minutes. Prints a line per run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import resource
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "workflow"), str(REPOSITORY / "tests" / "slurm")]

import slurm_runs as cluster  # noqa: E402
import workflow_runs as runs  # noqa: E402

from nephila.run_records import read_records  # noqa: E402

THREADED = (
    "apshgrp", "recon", "merge_recon", "grploop", "mergegroups", "endmerge", "endrefine", "checkrefine", "summary",
)  # fmt: skip
"""Rules of such a run to which the profile for a cluster gives more than one thread."""
CHUNK = re.compile(r"(results/refinement/iter_\d\d/half[12])_\d{4}\.star$")
RUNS = ((1, 10240), (2, 10240), (4, 10240), (2, 256))
"""Threads and particles per chunk."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/nephila-same-bytes"))
    parser.add_argument(
        "--per-micrograph", type=int, default=110, help="particles; more than 512 in all make two chunks"
    )
    parser.add_argument("--whole", action="store_true", help="every run from the micrographs")
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    code = runs.copy_code(options.work / "code")
    simulated = runs.simulate(options.work / "simulated", per_micrograph=options.per_micrograph)
    runs.configure(simulated, {"input": {"coordinates": "truth/particles.star"}})  # too crowded to be picked
    expected: dict[str, str] = {}
    failures = 0
    for threads, chunk in RUNS:
        first = options.work / f"threads_{RUNS[0][0]}_chunk_{RUNS[0][1]}"
        project = options.work / f"threads_{threads}_chunk_{chunk}"
        if not expected or options.whole:
            runs.copy_project(simulated, project)
        else:
            without_alignment(runs.copy_project(first, project))
        runs.configure(project, {"jobs": {"particles_per_chunk": chunk}})
        seconds = run(code, project, threads)
        found = contents(project)
        expected = expected or found
        different = cluster.differences(expected, found)
        failures += bool(different)
        chunks = len(list(project.glob("results/refinement/iter_01/half1_*.star")))
        used = {record["threads"] for record in read_records(project).values() if record["rule"] in THREADED}
        print(
            f"threads {used}, chunks of {chunk} ({chunks} per half): {seconds:.0f} CPU s, {len(found)} files, "
            f"{different or 'same bytes'}",
            flush=True,
        )
    return int(failures > 0)


def without_alignment(project: Path) -> None:
    """Take away what the first alignment and all later steps made."""
    results = project / "results"
    for folder in (results / "averages", results / "reconstruction", results / "refinement", project / "logs"):
        shutil.rmtree(folder)
    for path in (*results.glob("alignment/group_*/align.star"), *results.glob("*.*")):
        path.unlink()


def run(code: Path, project: Path, threads: int) -> float:
    """Run a project with so many threads in each rule that can use them; returns CPU seconds."""
    os.environ["NUMBA_NUM_THREADS"] = str(threads)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    given = ["--set-threads", *(f"{rule}={threads}" for rule in THREADED)]
    runs.finished(runs.snakemake(code, project, *given, cores=max(2, threads)))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def contents(project: Path) -> dict[str, str]:
    """Checksums by path; the tables of an iteration's chunks count together, by half, as the rows of one table."""
    found = cluster.checksums(project)
    pieces: dict[str, list[str]] = {}
    for name in [name for name in found if CHUNK.search(name)]:
        del found[name]
        pieces.setdefault(CHUNK.sub(r"\1", name), []).append(name)
    for half, names in pieces.items():
        rows = [row for name in sorted(names) for row in rows_of(project / name)]
        found[half] = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    return found


def rows_of(path: Path) -> list[str]:
    """A STAR table's rows, without its header and the widths of its columns."""
    lines = path.read_text().splitlines()
    return [" ".join(line.split()) for line in lines if line and not line.startswith(("#", "_", "data_", "loop_"))]


if __name__ == "__main__":
    sys.exit(main())
