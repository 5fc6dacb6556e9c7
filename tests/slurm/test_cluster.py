"""The whole workflow on a real SLURM of four virtual nodes, byte for byte the same as on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_runs as cluster
import workflow_runs as runs
from torture import start, wait_for_job

pytestmark = [pytest.mark.e2e]


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[None]:
    """The test cluster; it is stopped afterwards where it did not run before."""
    reason = cluster.why_not()
    if reason:
        pytest.skip(f"no SLURM here: {reason}")
    before = (cluster.folder() / "run" / "slurmctld.pid").exists()
    done = cluster.run("up")
    assert done.returncode == 0, done.stderr
    yield
    if not before:
        cluster.run("down")


def nephila(code: Path, *arguments: str) -> runs.Run:
    """Call the command line of a checkout; it must be the current folder to come before an installed package."""
    done = subprocess.run(
        [sys.executable, "-m", "nephila", *arguments], cwd=code, env=cluster.environment(code), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return runs.Run(done.returncode, done.stdout)


def test_starting_again_and_status(running_cluster: None) -> None:
    assert cluster.run("up").returncode == 0
    status = cluster.run("status")
    assert status.returncode == 0 and status.stdout.count("slurmd") == 4


def test_a_run_on_the_cluster_gives_the_same_bytes(
    running_cluster: None, code: Path, finished_project: Path, fresh_project: Path
) -> None:
    done = runs.finished(nephila(code, "run", str(fresh_project), "--profile", "slurm", *cluster.OPTIONS))
    assert "submitted with SLURM jobid" in done.output
    expected = cluster.checksums(finished_project)
    assert len(expected) > 60
    assert cluster.differences(expected, cluster.checksums(fresh_project)) == []
    assert not runs.partial_files(fresh_project)
    said = nephila(code, "why", str(fresh_project / "results/refinement/map.mrc"))
    assert "SLURM job " in said.output and "leaves it as it is" in said.output


def test_a_killed_run_is_recovered(running_cluster: None, code: Path, project: Path) -> None:
    """kill -9 of the head while jobs of the refinement run; recover cancels them, and the next run ends with the same bytes."""
    expected = cluster.checksums(project)
    refinement = project / "results" / "refinement"
    for path in [*refinement.glob("iter_0[12]/*"), *refinement.glob("*.*"), project / "results" / "summary.json"]:
        path.unlink()
    head = start(code, project, cluster.OPTIONS)
    number = wait_for_job(project, "grploop", 120)
    refused = nephila(code, "recover", str(project))
    assert refused.status == 2 and "Snakemake still runs" in refused.output
    os.kill(head.pid, signal.SIGKILL)
    head.wait()
    recovered = nephila(code, "recover", str(project))
    assert recovered.status == 0, recovered.output
    assert f"cluster job {number} (grploop" in recovered.output and "unlocked" in recovered.output
    assert not cluster.client("squeue", "-h", "-t", "R,PD,CG", "-o", "%Z").stdout.count(str(project))
    runs.finished(runs.snakemake(code, project))
    assert cluster.differences(expected, cluster.checksums(project)) == []
