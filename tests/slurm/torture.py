"""Kill runs at random moments, recover, and compare every byte with an undisturbed run.

    python tests/slurm/torture.py local --times 20      kill -9 of the head at random moments, on this machine
    python tests/slurm/torture.py slurm --times 5       the same while its jobs run on the test cluster
    python tests/slurm/torture.py faults                scancel, memory, time limit, a dead slurmd, a drained node
    python tests/slurm/torture.py disk                  a full disk (a small tmpfs; needs root)

Not part of the tests that run by themselves: minutes to hours. Prints one line per trial and ends with a summary.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "workflow"), str(REPOSITORY / "tests" / "slurm")]

import slurm_runs as cluster  # noqa: E402
import workflow_runs as runs  # noqa: E402

LIMIT_SECONDS = 900
STAGE = [*cluster.OPTIONS, "reconstruction"]
Trial = Callable[[Path], tuple[str, int]]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["local", "slurm", "faults", "disk"])
    parser.add_argument("--times", type=int, default=5, help="kills in all")
    parser.add_argument("--only", choices=list(FAULTS), help="one of the faults")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--work", type=Path, default=Path("/tmp/nephila-torture"))
    options = parser.parse_args()
    chance = random.Random(options.seed)
    print(f"seed {options.seed}")
    code, simulated, expected = prepare(options.work)
    killing = options.what in ("local", "slurm")
    trials: list[tuple[str, Trial]]
    if killing:
        cluster_options = cluster.OPTIONS if options.what == "slurm" else None
        pause = (3.0, 25.0) if options.what == "local" else (20.0, 120.0)
        trials = [("kill", lambda project: kill_until_done(code, project, chance, pause, cluster_options))]
    elif options.what == "disk":
        trials = [("disk", lambda project: (fill_disk(code, project), 1))]
    else:
        trials = [
            (name, lambda project, fault=fault: (fault(code, without_volumes(project)), 1))
            for name, fault in FAULTS.items()
            if options.only in (None, name)
        ]  # type: ignore[misc]
    failures = number = kills = 0
    while kills < options.times if killing else number < len(trials):
        name, trial = trials[number % len(trials)]
        number += 1
        source = options.work / "reference" if options.what == "faults" else simulated
        project = runs.copy_project(source, options.work / f"trial_{number}")
        began = time.time()
        try:
            said, done = trial(project)
            stages = ["reconstruction"] if options.what == "faults" else cluster.STAGES
            different = cluster.differences(
                *(
                    {k: v for k, v in sums.items() if k.split("/")[1] in stages}
                    for sums in (expected, cluster.checksums(project))
                )
            )
        except Exception as error:  # a trial that breaks is a failure of that trial, the others go on
            said, done, different = f"{type(error).__name__}: {error}", 1, ["not finished"]
        kills += done
        failures += bool(different)
        print(f"{number:3d} {name:8} {time.time() - began:5.0f} s  {said}; {different or 'same bytes'}", flush=True)
        if not different:
            shutil.rmtree(project)
    print(f"{number} runs{f', {kills} kills' if killing else ''}, {failures} failed")
    return int(failures > 0)


def prepare(work: Path) -> tuple[Path, Path, dict[str, str]]:
    """A checkout, a project, and the checksums of its undisturbed run; kept between calls."""
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "expected.json"
    code, simulated = work / "code", work / "simulated"
    if not kept.is_file():
        for folder in (code, simulated, work / "reference"):
            shutil.rmtree(folder, ignore_errors=True)
        runs.copy_code(code)
        runs.simulate(simulated)
        reference = runs.copy_project(simulated, work / "reference")
        runs.finished(runs.snakemake(code, reference))
        kept.write_text(json.dumps(cluster.checksums(reference)))
    return code, simulated, json.loads(kept.read_text())


def start(code: Path, project: Path, options: list[str] | None) -> subprocess.Popen[bytes]:
    """Start a run as a process of its own."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(code / "Snakefile"), "--directory", str(project)]
    command += (
        ["--cores", "2"] if options is None else ["--workflow-profile", str(code / "profiles" / "slurm"), *options]
    )
    log = open(project / "torture.log", "ab")  # noqa: SIM115 (the child's)
    return subprocess.Popen(command, env=cluster.environment(code), stdout=log, stderr=log, start_new_session=True)


def kill_until_done(
    code: Path, project: Path, chance: random.Random, pause: tuple[float, float], options: list[str] | None
) -> tuple[str, int]:
    """Kill the head again and again at random moments, each time recover and start again, until a run comes to its end."""
    kills, ended = 0, 0
    while True:
        head = start(code, project, options)
        try:
            status = head.wait(timeout=chance.uniform(*pause) + 3.0 * kills)  # ever longer, so that it ends
        except subprocess.TimeoutExpired:
            os.kill(head.pid, signal.SIGKILL)
            head.wait()
            kills += 1
        else:
            if status:
                raise RuntimeError(
                    f"exit code {status}: {(project / 'torture.log').read_text(errors='replace')[-800:]}"
                )
            if runs.partial_files(project):
                raise RuntimeError(f"half-written files are left: {runs.partial_files(project)}")
            return f"{kills} kills, {ended} jobs ended or files removed by recover", kills
        done = runs.call([sys.executable, "-m", "nephila", "recover", str(project)], code)
        if done.status:
            raise RuntimeError(done.output[-800:])
        ended += sum(line.split()[0] in ("cancelled", "ended", "removed") for line in done.output.splitlines() if line)


def finish(code: Path, project: Path, options: list[str] | None) -> str:
    """Run to the end; returns what was said."""
    again = start(code, project, options)
    status = again.wait(timeout=LIMIT_SECONDS)
    text = (project / "torture.log").read_text(errors="replace")
    if status:
        raise RuntimeError(f"exit code {status}: {text[-800:]}")
    if runs.partial_files(project):
        raise RuntimeError(f"half-written files are left: {runs.partial_files(project)}")
    return text


def wait_for_job(project: Path, rule: str, seconds: float = LIMIT_SECONDS) -> str:
    """Id of a running cluster job of a rule, as soon as there is one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for line in cluster.client("squeue", "-h", "-t", "R", "-o", "%i %k %Z").stdout.splitlines():
            number, comment, folder = line.split()
            if comment.startswith(f"rule_{rule}") and Path(folder).resolve() == project.resolve():
                return number
        time.sleep(0.2)
    raise RuntimeError(f"no job of {rule} within {seconds:.0f} s")


def without_volumes(project: Path) -> Path:
    """A finished project whose first reconstruction is to be made again."""
    for stage in ("reconstruction", "refinement"):
        shutil.rmtree(project / "results" / stage)
    return project


def cancelled(code: Path, project: Path) -> str:
    """scancel of a running job: sent again by the profile's retries."""
    head = start(code, project, STAGE)
    number = wait_for_job(project, "recon")
    cluster.client("scancel", number)
    if head.wait(timeout=LIMIT_SECONDS):
        finish(code, project, STAGE)
        return f"job {number} cancelled: the run ended with an error, the next one finished"
    return f"job {number} cancelled: tried again"


def too_little(what: str, value: str, rule: str) -> Callable[[Path, Path], str]:
    """A job that gets too little of something at its first attempt."""

    def trial(code: Path, project: Path) -> str:
        head = start(code, project, [*STAGE, "--set-resources", f"{rule}:{what}={value}"])
        status = head.wait(timeout=LIMIT_SECONDS)
        text = (project / "torture.log").read_text(errors="replace")
        tries = len(re.findall(r"Trying to restart job", text))
        if status:
            finish(code, project, STAGE)
        return f"{what} {value} for {rule}: {tries} attempts more, exit code {status}"

    return trial


def over_time(code: Path, project: Path) -> str:
    """A job that hangs until its time is over: killed by SLURM, sent again with more time."""
    rule = "merge_recon"
    head = start(code, project, [*STAGE, "--set-resources", f"{rule}:runtime=1*attempt"])
    number = wait_for_job(project, rule)
    stopped = stop_processes(number)
    if head.wait(timeout=LIMIT_SECONDS):
        finish(code, project, STAGE)
        return f"job {number} stopped: the run ended with an error, the next one finished"
    state = cluster.client("squeue", "-h", "-t", "all", "-j", number, "-o", "%T").stdout.strip()
    return f"{stopped} processes of job {number} stopped until its minute was over ({state}): tried again"


def stop_processes(number: str) -> int:
    """Stop (not end) a cluster job's processes; those of SLURM itself go on."""
    stopped: set[int] = set()
    for _ in range(3):  # one may have started another meanwhile
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
                name = (entry / "comm").read_text()
            except OSError:
                continue
            if f"SLURM_JOB_ID={number}".encode() in words and not name.startswith(("slurm", "srun")):
                os.kill(int(entry.name), signal.SIGSTOP)
                stopped.add(int(entry.name))
    return len(stopped)


def dead_node(code: Path, project: Path) -> str:
    """kill -9 of the slurmd under a running job."""
    head = start(code, project, STAGE)
    number = wait_for_job(project, "recon")
    node = cluster.client("squeue", "-h", "-j", number, "-o", "%N").stdout.strip()
    pid = int((cluster.folder() / "run" / f"slurmd.{node}.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    try:
        status = head.wait(timeout=LIMIT_SECONDS / 3)
    except subprocess.TimeoutExpired:
        os.kill(head.pid, signal.SIGKILL)
        status = head.wait()
    cluster.run("up")
    cluster.client("scontrol", "update", f"nodename={node}", "state=resume")
    runs.call([sys.executable, "-m", "nephila", "recover", str(project)], code)
    finish(code, project, STAGE)
    return f"slurmd of {node} killed under job {number}: exit code {status}"


def drained(code: Path, project: Path) -> str:
    """A node drained under a running job: the job ends, further ones go elsewhere."""
    head = start(code, project, STAGE)
    number = wait_for_job(project, "recon")
    node = cluster.client("squeue", "-h", "-j", number, "-o", "%N").stdout.strip()
    cluster.client("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        status = head.wait(timeout=LIMIT_SECONDS)
    finally:
        cluster.client("scontrol", "update", f"nodename={node}", "state=resume")
    if status:
        raise RuntimeError(f"exit code {status}")
    return f"{node} drained under job {number}"


def fill_disk(code: Path, project: Path) -> str:
    """A disk that runs full: a clear error; with room again the run finishes."""
    disk = project.parent / "small_disk"
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], check=True)
    try:
        small = runs.copy_project(project, disk / "project")
        status = start(code, small, None).wait(timeout=LIMIT_SECONDS)
        text = (small / "torture.log").read_text(errors="replace") + "".join(
            path.read_text(errors="replace") for path in small.glob("logs/**/*.log")
        )
        left = runs.partial_files(small)
        named = "No space left" in text
        subprocess.run(["mount", "-o", "remount,size=400m", str(disk)], check=True)
        runs.call([sys.executable, "-m", "nephila", "recover", str(small)], code)
        finish(code, small, None)
        shutil.copytree(small / "results", project / "results")
    finally:
        subprocess.run(["umount", str(disk)], check=False)
    said = "the error names the full disk" if named else "THE ERROR DOES NOT NAME IT"
    return f"exit code {status}, {said}, half-written: {left or 'none'}"


FAULTS: dict[str, Callable[[Path, Path], str]] = {
    "scancel": cancelled,
    # far too little at first; grows with the attempt
    "memory": too_little("mem_mb", "200*attempt", "merge_recon"),
    "time": over_time,
    "drained": drained,
    "node": dead_node,
}

if __name__ == "__main__":
    sys.exit(main())
