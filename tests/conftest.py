"""What the tests share: real data where there are some, and one small project that is run to the end once, for copies to edit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "tests" / "workflow"))  # workflow_runs, which the cluster's tests need too


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's top folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real micrographs and of files written by SPIDER, which are not ours to distribute."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}")
    return folder


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that no one changes."""
    import workflow_runs as runs

    return runs.copy_code(tmp_path_factory.mktemp("checkout") / "code")


@pytest.fixture(scope="session")
def simulated_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with micrographs and settings, never run. Tests copy it."""
    import workflow_runs as runs

    return runs.simulate(tmp_path_factory.mktemp("simulated") / "tiny")


@pytest.fixture(scope="session")
def finished_project(code: Path, simulated_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same project after a run to the end on this machine. Tests copy it."""
    import workflow_runs as runs

    folder = runs.copy_project(simulated_project, tmp_path_factory.mktemp("finished") / "tiny")
    runs.finished(runs.snakemake(code, folder))
    return folder


@pytest.fixture
def project(finished_project: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, to be changed."""
    import workflow_runs as runs

    return runs.copy_project(finished_project, tmp_path / "tiny")


@pytest.fixture
def fresh_project(simulated_project: Path, tmp_path: Path) -> Path:
    """A copy of the project that was never run, to be changed."""
    import workflow_runs as runs

    return runs.copy_project(simulated_project, tmp_path / "fresh")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in tests/relion and tests/e2e carry the marker of their folder."""
    for item in items:
        for marker in ("relion", "e2e"):
            if marker in item.path.relative_to(REPOSITORY / "tests").parts[:-1]:
                item.add_marker(marker)
