"""The run at a glance: curves against the truth as a table, lines for the terminal."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from nephila.io.atomic import write_text
from nephila.summary import cost_by_iteration, final_curves, format_summary, truth_fsc, truth_table

CURVE = np.linspace(1, 0, 17)


def test_curves_with_the_truth_become_a_table():
    table = truth_table({"truth": CURVE, "true poses": CURVE**2}, 32, 2.0)
    assert table["rlnFourierShellCorrelation"].tolist() == np.round(CURVE, 6).tolist()
    assert table["nphFscTruePoses"].tolist() == np.round(CURVE**2, 6).tolist()
    assert "nphFscTruePoses" not in truth_table({"truth": CURVE}, 32, 2.0)


def test_final_curves_have_the_names_that_figures_know():
    columns = (
        "rlnFourierShellCorrelation", "rlnFourierShellCorrelationMaskedMaps", "rlnFourierShellCorrelationUnmaskedMaps",
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
    )  # fmt: skip
    table = pd.DataFrame({column: CURVE * index for index, column in enumerate(columns)})
    found = final_curves(table)
    assert list(found) == ["corrected", "masked", "unmasked", "randomised"]
    assert found["unmasked"].tolist() == (2 * CURVE).tolist()


def test_a_map_is_its_own_truth():
    volume = np.random.default_rng(2).normal(size=(16, 16, 16)).astype(np.float32)
    assert truth_fsc(volume, volume, np.ones_like(volume)).min() > 0.99


def test_time_of_each_iteration(tmp_path):
    jobs = [
        ("grploop", {"iter": "01", "half": "1", "chunk": "1"}, 100.0, 4.0, 3.5),
        ("grploop", {"iter": "01", "half": "2", "chunk": "1"}, 101.0, 5.0, 4.5),
        ("mergegroups", {"iter": "01"}, 107.0, 2.0, 1.0), ("mergegroups", {"iter": "02"}, 120.0, 1.0, 0.5),
        ("plotrefres", {}, 130.0, 3.0, 2.0),
    ]  # fmt: skip
    for number, (rule, wildcards, started, wall, cpu) in enumerate(jobs):
        record = {
            "rule": rule, "wildcards": wildcards, "started": started, "wall_seconds": wall, "cpu_seconds": cpu,
        }  # fmt: skip
        write_text(tmp_path / rule / f"{number}.json", json.dumps(record))
    assert cost_by_iteration(tmp_path) == [
        {"iteration": 1, "jobs": 3, "cpu_seconds": 9.0, "wall_seconds": 9.0},
        {"iteration": 2, "jobs": 1, "cpu_seconds": 0.5, "wall_seconds": 1.0},
    ]


def test_the_end_of_a_run_names_the_report(tmp_path):
    summary = {
        "particles": {"picked": 3}, "resolution": {"fsc_0143": 7.0, "fsc_05": None}, "cost": {},
    }  # fmt: skip
    write_text(tmp_path / "results" / "summary.json", json.dumps(summary))
    printed = format_summary(tmp_path / "results" / "summary.json")
    assert "7.00 A (half maps, FSC 0.143), none (FSC 0.5)" in printed
    assert str(tmp_path / "results" / "report.html") in printed
