"""Time and memory of planning a large project: empty files in place of its micrographs and tables, then a dry run.

    python tests/slurm/large_dag.py --micrographs 10000 --particles 1000000 --groups 60 --iterations 20

Planned once before anything has run, and once after picking, when groups and chunks are known.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

from nephila.io.mrc import write_image, write_volume  # noqa: E402
from nephila.io.tables import write_table  # noqa: E402
from nephila.plan import assign_batches  # noqa: E402

GROUP_WIDTH = 500.0


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--micrographs", type=int, default=10_000)
    parser.add_argument("--particles", type=int, default=1_000_000)
    parser.add_argument("--groups", type=int, default=60)
    parser.add_argument("--iterations", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nephila-large-") as name:
        project = Path(name)
        names = start(project, options.micrographs, options.iterations)
        print("nothing run:", *plan(project))
        picked(project, names, options.particles, options.groups)
        print("picked:", *plan(project))
        print("one job:", *plan(project, "results/project/params.star"))


def start(project: Path, micrographs: int, iterations: int) -> list[str]:
    """A project that was never run."""
    (project / "micrographs").mkdir()
    names = [f"micrographs/mic_{i:06d}.mrc" for i in range(micrographs)]
    write_image(project / names[0], np.zeros((64, 64), np.float32), 1.0)
    for other in names[1:]:
        os.link(project / names[0], project / other)
    write_volume(project / "reference.mrc", np.zeros((32, 32, 32), np.float32), 1.0)
    settings = {
        "input": {"pixel_size": 1.0},
        "particle": {"diameter": 160.0, "box": 256},
        "defocus_groups": {"width": GROUP_WIDTH},
        "refinement": {"iterations": iterations},
    }
    (project / "config.yaml").write_text(yaml.safe_dump(settings))
    return names


def picked(project: Path, names: list[str], particles: int, groups: int) -> None:
    """The project after picking: empty files where nothing is read, tables where groups and chunks come from."""
    batches = assign_batches(names, 12)
    defocus = np.linspace(8000.0, 8000.0 + groups * (GROUP_WIDTH + 1) - 2, len(names))
    np.random.default_rng(1).shuffle(defocus)
    results = project / "results"
    table = pd.DataFrame({"rlnMicrographName": names, "nphBatch": list(batches.values())})
    write_table(
        results / "project/micrographs.star", table.assign(nphNumber=range(1, len(names) + 1)), kind="micrographs"
    )
    steps = [["project/reference_volume.mrc"], [], [], [], []]
    for batch in sorted(set(batches.values())):
        power = f"ctf/power/{{}}_{batch:04d}"
        steps[1] += [
            power.format("pw_avg") + ".mrcs",
            power.format("roo") + ".star",
            power.format("powdefocus") + ".star",
        ]
        steps[2] += [power.format("ctffind") + ".star", f"ctf/figures/{batch:04d}/x.png"]
        steps[4].append(f"particles/candidates/lfc_pick_{batch:04d}.star")
    steps.append(["particles/coordinates.star", "particles/candidates.star"])
    for path in (results / name for step in steps for name in step):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    table = table.assign(
        rlnDefocusU=defocus + 100, rlnDefocusV=defocus - 100, rlnDefocusAngle=30.0, rlnCtfFigureOfMerit=0.5,
        rlnCtfMaxResolution=4.0, nphDefocusUError=10.0, nphDefocusVError=10.0, nphDefocusAngleError=1.0, nphScoreGap=50.0,
        nphKeep=1, nphReason="none",
    )  # fmt: skip
    write_table(results / "ctf/micrographs.star", table, kind="defocus")
    counts = pd.DataFrame({"rlnMicrographName": names, "nphPicked": particles // len(names)})
    write_table(results / "particles/picks_by_micrograph.star", counts, block="picks")
    steps[0].append("project/micrographs.star")
    steps[3].append("ctf/micrographs.star")
    steps[5].append("particles/picks_by_micrograph.star")
    now = time.time()
    for age, step in enumerate(steps):  # each step younger than the one before, all younger than the micrographs
        for name in step:
            os.utime(results / name, (now - 3600 + 60 * age,) * 2)
            if name.endswith("x.png"):
                os.utime((results / name).parent, (now - 3600 + 60 * age,) * 2)
    for path in (project / names[0], project / "reference.mrc"):
        os.utime(path, (now - 7200,) * 2)


def plan(project: Path, *targets: str) -> tuple[str, ...]:
    """Jobs, seconds and memory of a dry run."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(REPOSITORY / "Snakefile"),
        "--directory",
        str(project),
    ]
    done = subprocess.run([*command, "--dry-run", *targets], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    jobs = re.findall(r"^total +(\d+)$", done.stdout + done.stderr, re.MULTILINE)
    return (
        f"{jobs[-1] if jobs else 0} jobs,", f"{seconds:.0f} CPU s,", f"{time.time() - began:.0f} s,",
        f"peak {after.ru_maxrss / 1024:.0f} MB (largest so far)",
    )  # fmt: skip


if __name__ == "__main__":
    main()
