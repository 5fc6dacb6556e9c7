"""The small projects of the workflow's tests, and the marker of tests that need a cluster."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "workflow"))

import pytest
import workflow_runs as runs


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that no one changes."""
    return runs.copy_code(tmp_path_factory.mktemp("checkout") / "code")


@pytest.fixture(scope="session")
def simulated_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was never run."""
    return runs.simulate(tmp_path_factory.mktemp("simulated") / "tiny")


@pytest.fixture(scope="session")
def finished_project(code: Path, simulated_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same project after a run on this machine."""
    folder = runs.copy_project(simulated_project, tmp_path_factory.mktemp("finished") / "tiny")
    runs.finished(runs.snakemake(code, folder))
    return folder


@pytest.fixture
def project(finished_project: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, to be changed."""
    return runs.copy_project(finished_project, tmp_path / "tiny")


@pytest.fixture
def fresh_project(simulated_project: Path, tmp_path: Path) -> Path:
    """A copy of the project that was never run."""
    return runs.copy_project(simulated_project, tmp_path / "tiny")
