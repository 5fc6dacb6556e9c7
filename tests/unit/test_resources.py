"""The model of memory and time: against peaks measured in whole runs, and how requests grow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nephila import resources
from nephila.config import parse_config
from nephila.resources import Work, cpu_seconds, estimate_work, peak_memory_mb, request_mb, request_minutes

SMALL = Work(64, 466489, 6, 3, 89, 3, 0.5, 10240, 32, truth=True)
MIDDLE = Work(128, 1863225, 6, 3, 89, 3, 0.5, 10240, 50, truth=True)
LARGE = Work(256, 7458361, 6, 3, 88, 3, 0.5, 10240, 51, truth=True)
BIG = Work(256, 4096.0**2, 10000, 12, 1_000_000, 60, 0.02, 10240, 90)

MEASURED = {  # peak resident MB of whole runs with few particles (tests/slurm/memory_model.py)
    "resizevol": (189, 203, 315),
    "powdefocus": (276, 305, 421),
    "ctffind": (311, 313, 320),
    "lfc_pick": (353, 415, 671),
    "extract_windows": (251, 352, 742),
    "picking_figures": (264, 325, 536),
    "renumber": (237, 237, 237),
    "win2stk": (131, 137, 164),
    "refproj": (252, 296, 897),
    "apshgrp": (274, 310, 963),
    "average": (255, 283, 406),
    "average_all": (286, 414, 914),
    "recon": (320, 708, 3779),
    "merge_recon": (326, 843, 4721),
    "filt": (201, 233, 487),
    "slices": (81, 108, 342),
    "prepare": (271, 360, 981),
    "grploop": (349, 534, 865),
    "mergegroups": (338, 619, 2248),
    "endmerge": (287, 437, 1519),
    "endrefine": (377, 1226, 7753),
    "summary": (330, 656, 3177),
}


@pytest.mark.parametrize("rule", MEASURED)
def test_the_model_is_within_30_percent_of_measured_peaks(rule: str) -> None:
    for work, peak in zip((SMALL, MIDDLE, LARGE), MEASURED[rule], strict=True):
        assert peak_memory_mb(rule, work) == pytest.approx(peak, rel=0.3)


def test_a_rule_that_is_not_named_is_light() -> None:
    assert peak_memory_mb("makeparams", BIG) == resources.LIGHT_MB
    assert cpu_seconds("makeparams", BIG) == resources.START_SECONDS


AT_64 = {  # a run of 300 particles of 64 px with initial model (2 tries, 30 rounds), classes and what is on request: MB, CPU s
    "initial_model": (312, 7.6),
    "checkrefine": (291, 6.8),
    "local_resolution": (241, 1.9),
    "resolution_by_particles": (364, 2.4),
    "assign_classes": (294, 11.1),
    "class_maps": (366, 2.4),
    "compare_classes": (279, 1.8),
    "plotmap": (127, 1.8),
}


@pytest.mark.parametrize("rule", AT_64)
def test_the_model_of_rules_beside_the_usual_run(rule: str) -> None:
    work = Work(64, 0.0, 1, 1, 300, 1, 1.0, 10240, 22, tries=2, rounds=30, tried=300)
    memory, seconds = AT_64[rule]
    assert peak_memory_mb(rule, work) == pytest.approx(memory, rel=0.3)
    assert seconds / 2 < cpu_seconds(rule, work) < 10 * seconds  # times are asked for with room


@pytest.mark.parametrize("rule", MEASURED)
def test_requests_cover_the_peak_and_double_with_each_attempt(rule: str) -> None:
    first, second, third = (request_mb(rule, BIG, attempt) for attempt in (1, 2, 3))
    assert first >= peak_memory_mb(rule, BIG) + resources.SNAKEMAKE_MB
    assert first % resources.STEP_MB == 0
    assert 2 * first - resources.STEP_MB <= second <= 2 * first and third >= 2 * second - resources.STEP_MB


def test_time_grows_with_the_attempt_and_shrinks_with_threads() -> None:
    assert request_minutes("makeparams", BIG) == 30
    assert request_minutes("makeparams", BIG, attempt=3) == 120
    assert request_minutes("grploop", BIG, threads=8) <= request_minutes("grploop", BIG, threads=1)


def test_no_job_holds_all_particles() -> None:
    """Ten times the particles leave the images in memory of a refinement job as they are."""
    few, many = (Work(256, 1.0, 1000, 12, n, 60, 0.02, 10240, 90) for n in (100_000_000, 1_000_000_000))
    assert peak_memory_mb("grploop", many) == pytest.approx(peak_memory_mb("grploop", few), rel=0.05)
    assert peak_memory_mb("endmerge", many) == pytest.approx(peak_memory_mb("endmerge", few), rel=0.05)


def test_chunks_and_their_groups() -> None:
    assert BIG.chunks == 49 and BIG.groups_per_chunk == 3
    assert SMALL.chunks == 1 and SMALL.groups_per_chunk == 3
    assert BIG.at_band(500).band == 128


def test_an_estimate_without_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from nephila.io.mrc import write_image

    monkeypatch.chdir(tmp_path)
    write_image("a.mrc", np.zeros((1024, 2048), np.float32), 1.0)
    config = parse_config({"input": {"pixel_size": 1.0}, "particle": {"diameter": 64.0, "box": 64}})
    work = resources.estimate_work(config, ["a.mrc", "b.mrc"])
    assert work.micrograph_px == 1024 * 2048 and work.particles == 2 * 128
    assert work.groups == 2 and work.batch == 2
    assert resources.gridded_shell(1, 64) is None


def test_an_estimate_follows_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    from nephila.io.tables import write_table

    monkeypatch.chdir(tmp_path)
    config = parse_config({})
    for numbers, share in ((["1", "1", "2"], 2 / 3), (["1", "2", "3"], 1 / 3)):
        table = pd.DataFrame({"rlnMicrographName": list("abc"), "nphDefocusGroup": [int(n) for n in numbers]})
        write_table(resources.GROUPS, table, kind="def_sort")
        write_table(
            resources.COUNTS, pd.DataFrame({"rlnMicrographName": list("abc"), "nphPicked": [5, 6, 7]}), block="picks"
        )
        work = resources.estimate_work(config, list("abc"))
        assert (work.particles, work.groups) == (18, len(set(numbers)))
        assert work.group_share == pytest.approx(share)
        assert work.of_group(["a", "b"]).group_particles == pytest.approx(11)
        assert request_mb("win2stk", work.of_group(["a"])) <= request_mb("win2stk", work.of_group(["a", "b", "c"]))
    Path(resources.COUNTS).unlink()
    assert work.of_group(["a"]) == work  # not known before picking


def test_a_small_group_asks_for_less_than_the_largest() -> None:
    large, small = (Work(256, 1.0, 100, 12, 1_000_000, 60, share, 10240, 90) for share in (0.2, 0.002))
    for rule in ("win2stk", "apshgrp", "average", "recon"):
        assert request_mb(rule, small) < request_mb(rule, large)


def test_lean_volumes_do_not_grow_with_the_iterations() -> None:
    from nephila.maintenance.forecast import disk_bytes

    sizes = [
        [
            disk_bytes(parse_config({"jobs": {"lean": lean}, "refinement": {"iterations": i}}), BIG)["volumes"]
            for i in (5, 20)
        ]
        for lean in (False, True)
    ]
    assert sizes[0][1] > 2 * sizes[0][0] and sizes[1][1] == sizes[1][0] < sizes[0][0]


def test_lists_and_rounds_ask_for_their_time() -> None:
    def seconds(rule: str, **sections: dict[str, Any]) -> float:
        return cpu_seconds(rule, replace(estimate_work(parse_config(sections), []), particles=20000, box=384))

    usual = seconds("grploop")
    assert seconds("grploop", refinement={"schedule": "lists"}) > 3 * usual
    fast = {"schedule": "lists", "angular_step_deg": [15.0, 10.0]}
    assert seconds("grploop", refinement=fast) < 2 * usual
    assert seconds("grploop", refinement=fast | {"small_angle": [False, True]}) > seconds("grploop", refinement=fast)
    assert seconds("grploop", refinement=fast, particle={"symmetry": "O"}) < seconds("grploop", refinement=fast)
    assert seconds("endrefine", refinement={"end_method": "richardson"}) > 4 * seconds("endrefine")
    assert seconds("recon", reconstruction={"method": "richardson"}) > 2 * seconds("recon")
