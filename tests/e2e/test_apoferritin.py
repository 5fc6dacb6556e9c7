"""The real micrographs: apoferritin, from micrographs to a map of symmetry O, nothing set by hand per micrograph."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nephila.io.tables import read_table


@pytest.fixture(scope="module")
def finished(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's project folder."""
    project = tmp_path_factory.mktemp("apoferritin")
    shutil.copy(Path(__file__).parent / "apoferritin" / "config.yaml", project)
    (project / "data").symlink_to(real_data / "apoferritin")
    done = subprocess.run(
        [sys.executable, "-m", "nephila", "run", str(project)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return project


def test_resolution_by_independent_halves(finished: Path) -> None:
    summary = json.loads((finished / "results" / "summary.json").read_text(encoding="utf-8"))
    assert summary["resolution"]["fsc_0143"] <= 10.0
    assert summary["particles"]["refined"] > 1500


def test_every_micrograph_has_a_fit_or_a_reason(finished: Path) -> None:
    table = read_table(finished / "results" / "ctf" / "micrographs.star", kind="defocus")
    assert len(table) == 20
    dropped = table[table["nphKeep"] == 0]
    assert dropped["rlnMicrographName"].tolist() == ["data/May08_06.09.02.mrc"]
    assert (dropped["nphReason"] != "none").all()
    mean = 0.5 * (table["rlnDefocusU"] + table["rlnDefocusV"])[table["nphKeep"] == 1]
    assert mean.between(14000, 27000).all()
