"""The model of memory and CPU time (nephila/resources.py) beside what jobs of whole runs took.

    python tests/slurm/memory_model.py                        run small projects with boxes of 64, 128 and 256 px
    python tests/slurm/memory_model.py --threads 8            the same with as many threads as on a cluster
    python tests/slurm/memory_model.py --projects A B         finished projects of yours

Not part of the tests that run by themselves: some minutes. Prints a table, and exits with 1 where memory is off by over 30 %.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import chdir
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "workflow"), str(REPOSITORY / "tests" / "slurm")]

import same_bytes  # noqa: E402
import workflow_runs as runs  # noqa: E402

from nephila.config import load_config  # noqa: E402
from nephila.project import open_project  # noqa: E402
from nephila.resources import (  # noqa: E402
    LIGHT_MB,
    cpu_seconds,
    estimate_work,
    gridded_shell,
    peak_memory_mb,
)
from nephila.run_records import read_records  # noqa: E402

OFF = 0.3
PIXEL_SIZE_AT_64 = 3.75
"""Pixel size that gives the test's particle a box of 64 px, A."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--threads", type=int, default=1, help="of the rules that can use more than one")
    parser.add_argument("--per-micrograph", type=int, default=16, help="particles of each of the 6 micrographs")
    parser.add_argument("--projects", type=Path, nargs="+", help="finished projects, instead of running some")
    parser.add_argument("--work", type=Path, default=Path("/tmp/nephila-memory-model"))
    options = parser.parse_args()
    projects = options.projects or run_all(options.work, options.boxes, options.threads, options.per_micrograph)
    found = [measure(project) for project in projects]
    rules = sorted(
        {rule for project in found for rule in project}, key=lambda rule: -max(_peak(p, rule) for p in found)
    )
    print("rule", *(project.name for project in projects), "CPU s (model)", sep=" | ")
    off = 0
    for rule in rules:
        if max(_peak(project, rule) for project in found) < LIGHT_MB:
            continue
        cells = []
        for project in found:
            peak, model, *_ = project.get(rule, (0.0, 0.0, 0.0, 0.0))
            wrong = abs(model - peak) > OFF * peak and max(peak, model) > LIGHT_MB
            off += wrong
            cells.append(f"{peak:.0f} ({model:.0f}){' !' if wrong else ''}" if peak else "")
        cpu = ", ".join(f"{p[rule][2]:.1f} ({p[rule][3]:.1f})" for p in found if rule in p)
        print(rule, *cells, cpu, sep=" | ", flush=True)
    print(f"{off} of them off by more than {100 * OFF:.0f} %")
    return int(off > 0)


def run_all(work: Path, boxes: list[int], threads: int, particles: int) -> list[Path]:
    """Simulate and run a project of 6 micrographs for each box; those that are there already are taken as they are."""
    projects = []
    code = work / "code"
    if not code.exists():
        runs.copy_code(code)
    for box in boxes:
        project = work / f"box_{box}_particles_{6 * particles}_threads_{threads}"
        projects.append(project)
        if (project / "results" / "summary.json").is_file():
            continue
        shutil.rmtree(project, ignore_errors=True)
        tile = 256 * box // 64
        pixel_size = PIXEL_SIZE_AT_64 * 64 / box
        runs.simulate(
            project, per_micrograph=particles, pixel_size=pixel_size, particle={"box": box}, ctf={"tile": tile}
        )
        same_bytes.run(code, project, threads)
    return projects


def measure(project: Path) -> dict[str, tuple[float, float, float, float]]:
    """Of each rule's largest job: peak and model, MB; and CPU seconds, mean over its jobs, and model."""
    with chdir(project):
        config = load_config("config.yaml")
        whole = estimate_work(config, open_project(config).batches)
        jobs: dict[str, list[tuple[float, float, float, float]]] = {}
        for record in read_records(".").values():
            iteration = record["wildcards"].get("iter")
            shell = gridded_shell(int(iteration), config.box) if iteration else None
            work = whole if shell is None else whole.at_band(shell)
            rule = record["rule"]
            jobs.setdefault(rule, []).append(
                (record["peak_memory_mb"], peak_memory_mb(rule, work), record["cpu_seconds"], cpu_seconds(rule, work))
            )
    return {
        rule: (*max(rows)[:2], sum(row[2] for row in rows) / len(rows), max(rows)[3]) for rule, rows in jobs.items()
    }


def _peak(project: dict[str, tuple[float, float, float, float]], rule: str) -> float:
    return project[rule][0] if rule in project else 0.0


if __name__ == "__main__":
    sys.exit(main())
