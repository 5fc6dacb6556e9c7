"""jobs.lean: what only a later change would need goes when nothing needs it any more, and a finished run stays finished."""

from __future__ import annotations

from pathlib import Path

import pytest
import workflow_runs as runs

from nephila.config import parse_config
from nephila.errors import InputError
from nephila.maintenance.cleaning import removable

PASSING = (
    "results/particles/win/winser_*.mrcs",
    "results/averages/group_*/*.mrcs",
    "results/reconstruction/group_*/sums.npz",
    "results/reconstruction/group_*/*.mrc",
    "results/refinement/iter_00/*.mrc",
    "results/refinement/iter_01/*.mrc",
)
STAYING = (
    "results/alignment/group_*/data.mrcs",
    "results/particles/win/winser_*.star",
    "results/refinement/iter_01/model.star",
    "results/refinement/iter_02/vol.mrc",
    "results/refinement/iter_02/reference_half[12].mrc",
    "results/averages/averages.mrcs",
    "results/refinement/map.mrc",
)
REPORT = [("report", "")]
"""It states the configuration."""


def files(project: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in project.glob(pattern)]


def test_a_finished_run_without_what_passes_has_nothing_to_do(code: Path, project: Path) -> None:
    runs.configure(project, {"jobs": {"lean": True}})
    assert runs.snakemake(code, project, "-n").jobs_of() == REPORT
    for pattern in PASSING:
        assert list(project.glob(pattern)), pattern
    for path in files(project, PASSING):
        path.unlink()
    assert runs.snakemake(code, project, "-n").jobs_of() == REPORT
    # and a further iteration starts from the last one's volumes
    runs.configure(project, {"refinement": {"iterations": 3}})
    rules = runs.snakemake(code, project, "-n").jobs_of("grploop", "mergegroups", "prepare", "recon", "extract_windows")
    assert rules == [("grploop", "03,0001,1"), ("grploop", "03,0001,2"), ("mergegroups", "03")]


def test_nothing_else_is_lost_than_cleaning_would_remove(project: Path) -> None:
    cleaned = {path for kind in removable(project, "intermediate") for path in kind.paths}
    assert set(files(project, PASSING)) <= cleaned


@pytest.mark.slow
def test_a_lean_run_leaves_what_stays_and_is_finished(code: Path, fresh_project: Path) -> None:
    runs.configure(fresh_project, {"jobs": {"lean": True}})
    runs.finished(runs.snakemake(code, fresh_project))
    assert files(fresh_project, PASSING) == []
    for pattern in STAYING:
        assert list(fresh_project.glob(pattern)), pattern
    assert runs.snakemake(code, fresh_project, "-n").nothing_to_do


def test_lean_and_keeping_everything_contradict_each_other() -> None:
    with pytest.raises(InputError, match="jobs.lean"):
        parse_config({"jobs": {"lean": True, "keep_intermediate": True}})
