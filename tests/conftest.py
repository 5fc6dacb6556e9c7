"""What the tests share: real data where there are some, and numba's caches."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in tests/relion and tests/e2e carry the marker of their folder."""
    for item in items:
        for marker in ("relion", "e2e"):
            if marker in item.path.relative_to(REPOSITORY / "tests").parts[:-1]:
                item.add_marker(marker)
