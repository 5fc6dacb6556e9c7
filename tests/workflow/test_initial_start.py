"""A start without a reference: which rules make one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import workflow_runs as runs
import yaml

from benchmarks.particle_sets import SetSettings, simulate


@pytest.mark.slow
def test_particles_without_a_reference_have_one_made(code: Path, tmp_path: Path) -> None:
    simulate(tmp_path, SetSettings(n=48, count=60, snr=0.2, shift_px=2.0))
    settings = {
        "input": {"particles": "particles.star", "pixel_size": 7.5, "contrast": "bright"},
        "particle": {"diameter": 250.0, "box": 48},
        "reference": {"volume": None},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "reference.mrc").unlink()
    jobs = runs.finished(runs.snakemake(code, tmp_path, "-n")).jobs_of("initial_model", "resizevol")
    assert [rule for rule, _ in jobs] == ["initial_model", "resizevol"]
    runs.configure(tmp_path, {"reference": {"volume": "mask.mrc"}})
    given = runs.finished(runs.snakemake(code, tmp_path, "-n"))
    assert [rule for rule, _ in given.jobs_of("initial_model", "resizevol")] == ["resizevol"]
    runs.configure(tmp_path, {"reference": {"volume": None}, "input": {"particles": None}})
    refused = runs.snakemake(code, tmp_path, "-n")
    assert refused.status == 1 and refused.line("reference.volume", "picking.method: pick")
