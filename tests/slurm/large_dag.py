"""Time and memory of planning a large project: empty files in place of its micrographs and tables, then a dry run.

    python tests/slurm/large_dag.py --micrographs 10000 --particles 1000000 --groups 60 --iterations 20

Planned once before anything has run, and once after picking, when groups and chunks are known. Then the jobs of both plans are
summed up with the model of CPU time, memory and disk (nephila/resources.py) for some boxes, as docs/cluster.md gives them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

from nephila.cli.recover import job_counts  # noqa: E402
from nephila.config import Config, load_config  # noqa: E402
from nephila.io.mrc import write_image, write_volume  # noqa: E402
from nephila.io.tables import write_table  # noqa: E402
from nephila.maintenance.forecast import disk_bytes  # noqa: E402
from nephila.plan import assign_batches  # noqa: E402
from nephila.project import open_project  # noqa: E402
from nephila.resources import LIKELY_BAND, Work, cpu_seconds, estimate_work, peak_memory_mb  # noqa: E402
from nephila.summary import STAGE_OF_RULE  # noqa: E402

GROUP_WIDTH = 500.0
STEPS = (
    ("resizevol", "makefilelist"), ("powdefocus",), ("ctffind",), ("merge_ctf",), ("lfc_pick",), ("merge_coordinates",),
)  # fmt: skip
"""Rules that have run once particles are picked, in order."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--micrographs", type=int, default=10_000)
    parser.add_argument("--particles", type=int, default=1_000_000)
    parser.add_argument("--groups", type=int, default=60)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--boxes", type=int, nargs="*", default=[128, 256, 384])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nephila-large-") as name:
        project = Path(name)
        names = start(project, options.micrographs, options.iterations)
        first, cost = plan(project)
        print("nothing run:", cost)
        picked(project, names, options.particles, options.groups)
        second, cost = plan(project)
        print("picked:", cost)
        print("one job:", plan(project, "results/project/params.star")[1])
        jobs = {rule: max(first.get(rule, 0), second.get(rule, 0)) for rule in first | second}
        print(f"together: {sum(jobs.values())} jobs\n")
        with chdir(project):
            config = load_config("config.yaml")
            work = estimate_work(config, open_project(config).batches)
        for box in options.boxes:
            band, share = int(LIKELY_BAND * box / 2), 1.0 / options.groups
            sized = replace(work, box=box, band=band, micrograph_px=4096.0**2, groups=options.groups, group_share=share)
            needs(jobs, config, sized)


def needs(jobs: dict[str, int], config: Config, work: Work) -> None:
    """CPU hours by stage, the largest jobs and the disk of such a run."""
    stages: dict[str, list[float]] = {}
    for rule, number in jobs.items():
        stage = stages.setdefault(STAGE_OF_RULE.get(rule, "refinement"), [0, 0.0])
        stage[0] += number
        stage[1] += number * cpu_seconds(rule, work) / 3600
    print(f"box {work.box}: " + ", ".join(f"{name} {n} jobs {hours:.1f} h" for name, (n, hours) in stages.items()))
    hours = {rule: number * cpu_seconds(rule, work) / 3600 for rule, number in jobs.items()}
    most = sorted(hours, key=lambda rule: -hours[rule])[:8]
    print(f"  {sum(hours.values()):.0f} h: " + ", ".join(f"{rule} {hours[rule]:.1f}" for rule in most))
    largest = sorted(jobs, key=lambda rule: -peak_memory_mb(rule, work))[:8]
    print("  GB: " + ", ".join(f"{rule} {peak_memory_mb(rule, work) / 1e3:.1f}" for rule in largest))
    disk = disk_bytes(config, work)
    print(
        f"  disk {sum(disk.values()) / 1e12:.2f} TB: "
        + ", ".join(f"{kind} {b / 1e9:.0f} GB" for kind, b in disk.items())
    )


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
    done = subprocess.run([*command(project), "--summary"], capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    steps = [[project / row[0] for row in rows if row[2] in rules and "temp" not in row[4]] for rules in STEPS]
    for path in (path for step in steps for path in step):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else path.mkdir()
    table = pd.DataFrame({"rlnMicrographName": names, "nphBatch": list(batches.values())})
    write_table(
        results / "project/micrographs.star", table.assign(nphNumber=range(1, len(names) + 1)), kind="micrographs"
    )
    table = table.assign(
        rlnDefocusU=defocus + 100, rlnDefocusV=defocus - 100, rlnDefocusAngle=30.0, rlnCtfFigureOfMerit=0.5,
        rlnCtfMaxResolution=4.0, nphDefocusUError=10.0, nphDefocusVError=10.0, nphDefocusAngleError=1.0, nphScoreGap=50.0,
        nphKeep=1, nphReason="none",
    )  # fmt: skip
    write_table(results / "ctf/micrographs.star", table, kind="defocus")
    counts = pd.DataFrame({"rlnMicrographName": names, "nphPicked": particles // len(names)})
    write_table(results / "particles/picks_by_micrograph.star", counts, block="picks")
    now = time.time()
    for age, step in enumerate(steps):  # each step younger than the one before, all younger than the micrographs
        for path in step:
            os.utime(path, (now - 3600 + 60 * age,) * 2)
    for path in (project / names[0], project / "reference.mrc"):
        os.utime(path, (now - 7200,) * 2)


def command(project: Path) -> list[str]:
    """Snakemake on a project."""
    snakefile = str(REPOSITORY / "Snakefile")
    return [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--directory", str(project)]


def plan(project: Path, *targets: str) -> tuple[dict[str, int], str]:
    """Jobs by rule of a dry run, and what planning them cost."""
    began = time.time()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([*command(project), "--dry-run", *targets], stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        said.seek(0)
        text = said.read()
    if status:
        sys.exit(text[-4000:])
    seconds = used.ru_utime + used.ru_stime
    jobs = job_counts(text)
    total = jobs.pop("total", 0)
    wall, peak = time.time() - began, used.ru_maxrss / 1024
    return jobs, f"{total} jobs, {seconds:.0f} CPU s, {wall:.0f} s, peak {peak:.0f} MB"


if __name__ == "__main__":
    main()
