"""Exact lists of jobs: a micrograph added, an edit removed, micrographs touched without change whatever their size."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import workflow_runs as runs
from test_reruns import cap_views, drop_micrograph, drop_particle, fit_by_hand

from nephila.io.tables import read_table


def test_a_new_micrograph_lists_its_own_jobs_and_those_over_all(code: Path, project: Path) -> None:
    """What follows from groups and picks is known, and listed, once these are made."""
    shutil.copy2(project / "micrographs" / "mic_0001.mrc", project / "micrographs" / "mic_0007.mrc")
    run = runs.snakemake(code, project, "picks", "-n")
    of_new = [(rule, "0003") for rule in ("ctffind", "lfc_pick", "powdefocus")]
    of_all = [(rule, "") for rule in ("defocus", "makefilelist", "merge_coordinates", "merge_ctf", "sel_micrograph")]
    assert run.jobs_of() == sorted(of_new + of_all)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "needless"),
    [(drop_micrograph, []), (fit_by_hand, [("powchk", "")]), (cap_views, [("bestim", "002")]), (drop_particle, [])],
)
def test_an_edit_that_is_removed_reruns_what_it_reran(code: Path, project: Path, edit, needless) -> None:
    """But for what there is only with it: the picture of a fit by hand, the choice of the best by view."""
    edit(project)
    made = runs.snakemake(code, project, "-n").jobs_of()
    runs.finished(runs.snakemake(code, project, "--touch"))
    shutil.rmtree(project / "edits")
    assert set(needless) <= set(made)
    assert runs.snakemake(code, project, "-n").jobs_of() == [job for job in made if job not in needless]


def test_touched_micrographs_of_any_size_rerun_nothing_where_checksums_reach(code: Path, project: Path) -> None:
    """The limit below the file's size stands for a large file; above it the content counts."""
    for path in (project / "micrographs").iterdir():
        path.touch()
    assert path.stat().st_size < 1_000_000
    rerun = runs.snakemake(code, project, "-n", "--max-checksum-file-size", "1000").jobs_of("powdefocus")
    assert rerun == [("powdefocus", "0001"), ("powdefocus", "0002")]
    assert runs.snakemake(code, project, "-n", "--max-checksum-file-size", "500000000").nothing_to_do


def test_force_all_keeps_every_edit(code: Path, project: Path) -> None:
    for edit in (drop_micrograph, fit_by_hand, cap_views, drop_particle):
        edit(project)
    before = {path.name: path.read_bytes() for path in (project / "edits").iterdir()}
    runs.finished(runs.snakemake(code, project, "--forceall", "defocus_groups"))
    assert {path.name: path.read_bytes() for path in (project / "edits").iterdir()} == before
    by_hand = read_table(project / "results" / "ctf" / "defocus.star", kind="defocus").set_index("rlnMicrographName")
    assert by_hand.loc["micrographs/mic_0005.mrc", "nphReason"] != "none"
