"""Continuing a refinement: settings that some iterations use leave the earlier ones alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workflow_runs as runs
from test_reruns import END, jobs

from nephila.io.mrc import write_volume


@pytest.fixture
def listed_project(code: Path, project: Path) -> Path:
    """The finished project as if it had been refined by SPIDER's lists: its files are taken as made with these settings."""
    runs.configure(project, {"refinement": {"schedule": "lists", "angular_step_deg": [15.0, 7.5]}})
    runs.finished(runs.snakemake(code, project, "--touch"))
    assert runs.snakemake(code, project, "-n").nothing_to_do
    return project


@pytest.mark.slow
def test_the_last_angular_step_reruns_the_last_iteration_alone(code: Path, listed_project: Path) -> None:
    runs.configure(listed_project, {"refinement": {"angular_step_deg": [15.0, 5.0]}})
    run = runs.snakemake(code, listed_project, "-n")
    last = {"grploop": ["02,0001,1", "02,0001,2"], "mergegroups": ["02"]}
    assert run.jobs_of() == jobs(last, END)
    assert "'angular_step_deg': 5.0" in run.jobs[("grploop", "02,0001,1")]


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"snr": 3.0, "start_again": True}, {}),
        ({"mask": {"file": "mask.mrc"}}, {}),
        ({"schedule": "lists", "search": "grid", "angular_step_deg": 5.0}, {}),
        ({"enhance": True}, {"enhance": [""]}),  # of both halves: their message is the same
    ],
)
def test_settings_from_an_iteration_on_leave_the_earlier_ones_alone(
    code: Path, project: Path, change: dict[str, Any], more: dict[str, list[str]]
) -> None:
    write_volume(project / "mask.mrc", np.ones((60, 60, 60), np.float32), 4.0)
    (project / "curve.star").write_text("data_\nloop_\n_nphSpatialFrequency\n_nphIntensity\n0.0 1.0\n0.2 0.1\n")
    changes = [{"from_iteration": 2, **change}]
    runs.configure(project, {"refinement": {"changes": changes, "iterations": 2, "scattering": "curve.star"}})
    last = {"grploop": ["02,0001,1", "02,0001,2"], "mergegroups": ["02"]}
    assert runs.snakemake(code, project, "-n").jobs_of() == jobs(last, more, END)
