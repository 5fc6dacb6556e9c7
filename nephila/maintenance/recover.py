"""After a run that was killed: end what it left running, take its lock away, remove half-written files.

A killed Snakemake leaves its jobs running. A new one does not know them and would start them again beside the old ones.
Their ids are kept only until they start (`external_jobid` under .snakemake/incomplete); running ones are known by their
working folder and by the logs that Snakemake named after them.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nephila.errors import NephilaError
from nephila.maintenance.snakemake_state import STATE, cluster_log_ids, incomplete_outputs, locks

CLIENT_SECONDS = 15
"""SLURM's clients wait for ever when the controller is gone."""
GONE_SECONDS = 60.0
TEMPORARY = re.compile(r"^\..+\.(?P<host>[^.]+(?:\.[^.]+)*)\.(?P<pid>\d+)\.tmp(\.[A-Za-z0-9]+)?$")
"""Names that nephila.io.atomic gives to files being written."""


class RecoverError(NephilaError):
    """The project cannot be recovered now; the message says why."""


@dataclass(frozen=True)
class ClusterJob:
    """A job in SLURM's queue."""

    number: str
    state: str
    comment: str


@dataclass(frozen=True)
class Recovered:
    """What was found and done."""

    cluster_jobs: tuple[ClusterJob, ...]
    processes: tuple[int, ...]
    locks: int
    temporary: tuple[Path, ...]
    incomplete: tuple[str, ...]


def recover(folder: Path) -> Recovered:
    """Bring a project whose run died into a state from which it can be run again.

    Raises
    ------
    RecoverError
        Snakemake still runs on this project, the cluster cannot be asked, or a job will not end.
    """
    heads = [pid for pid, words in processes_in(folder) if is_head(words)]
    if heads:
        raise RecoverError(
            f"Snakemake still runs in {folder} (process {', '.join(map(str, heads))}); stop it first: kill -INT {heads[0]}"
        )
    jobs = cluster_jobs(folder)
    cancel(jobs)
    wait_until_gone(folder, jobs)
    left = end_processes(folder)
    incomplete = tuple(incomplete_outputs(folder))
    found = locks(folder)
    for path in found:
        path.unlink(missing_ok=True)
    return Recovered(tuple(jobs), left, len(found), remove_temporary(folder), incomplete)


def cluster_jobs(folder: Path) -> list[ClusterJob]:
    """The project's jobs in SLURM's queue: by working folder, confirmed by Snakemake's comment or an id that the project knows.

    Nothing where there is no SLURM. RecoverError where it does not answer although the project has jobs there.
    """
    known = {number for number in incomplete_outputs(folder).values() if number} | set(cluster_log_ids(folder))
    used = (folder / STATE / "slurm_logs").is_dir() or bool(known)
    if shutil.which("squeue") is None:
        return []
    done = _client(["squeue", "--me", "--noheader", "--format=%i|%T|%k|%Z"])
    if done.returncode:
        if not used:
            return []
        said = " ".join(done.stderr.split()) or "no reply"
        raise RecoverError(f"squeue does not answer ({said}): whether jobs still run is not known; try again later")
    here = folder.resolve()
    jobs = []
    for line in done.stdout.splitlines():
        number, state, comment, workdir = line.split("|", 3)
        same = Path(workdir).resolve() == here
        if same and (comment.startswith("rule_") or number in known):
            jobs.append(ClusterJob(number, state, comment.removeprefix("rule_")))
    return jobs


def cancel(jobs: Sequence[ClusterJob]) -> None:
    """Cancel jobs. RecoverError where scancel fails."""
    if not jobs:
        return
    done = _client(["scancel", *(job.number for job in jobs)])
    if done.returncode:
        raise RecoverError(f"scancel failed: {' '.join(done.stderr.split()) or 'no reply'}; try again later")


def wait_until_gone(folder: Path, jobs: Sequence[ClusterJob], seconds: float = GONE_SECONDS) -> None:
    """Wait until cancelled jobs have left their nodes. RecoverError where they do not in time."""
    end = time.monotonic() + seconds
    left = {job.number for job in jobs}
    while left and (left := left & {job.number for job in cluster_jobs(folder)}):
        if time.monotonic() > end:
            raise RecoverError(f"jobs {', '.join(sorted(left))} were cancelled but still end; try again in a minute")
        time.sleep(1.0)


def _client(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=CLIENT_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no reply within {CLIENT_SECONDS} s")


def processes_in(folder: Path) -> list[tuple[int, list[str]]]:
    """Processes of this user on this machine that work in the folder and belong to Snakemake, with their command lines."""
    here, found = str(folder.resolve()), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if entry.stat().st_uid != os.getuid() or os.readlink(entry / "cwd") != here:
                continue
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any("snakemake" in word for word in words):
            found.append((int(entry.name), words))
    return sorted(found)


def is_head(words: Sequence[str]) -> bool:
    """Whether a command line is that of a Snakemake which schedules, rather than of one of its jobs."""
    script = any(f"{STATE}/scripts/" in word for word in words)
    job = "--mode" in words or any(word.startswith("--mode=") for word in words)
    shell = any("--mode" in word and " " in word for word in words)
    runs = any(Path(word).name in ("snakemake", "__main__.py") or word == "snakemake" for word in words)
    return runs and not (script or job or shell)


def end_processes(folder: Path) -> tuple[int, ...]:
    """End jobs that a dead Snakemake left on this machine: asked first, then forced. Returns their process ids."""
    found = [pid for pid, words in processes_in(folder) if not is_head(words)]
    for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        left = [pid for pid, words in processes_in(folder) if not is_head(words)]
        for pid in left:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        end = time.monotonic() + seconds
        while left and time.monotonic() < end:
            left = [pid for pid, words in processes_in(folder) if not is_head(words)]
            time.sleep(0.05)
        if not left:
            break
    return tuple(found)


def remove_temporary(folder: Path) -> tuple[Path, ...]:
    """Remove files that jobs were writing when they were ended; those of another living process on this machine stay."""
    removed = []
    for path in sorted((folder / "results").rglob(".*.tmp*")):
        match = TEMPORARY.match(path.name)
        if not match or not path.is_file() or (_is_here(path.name) and Path(f"/proc/{match['pid']}").exists()):
            continue
        path.unlink(missing_ok=True)
        removed.append(path)
    return tuple(removed)


def _is_here(name: str) -> bool:
    return f".{socket.gethostname()}." in name or f".{os.uname().nodename}." in name
