"""Which data sets are worth joining; the runs themselves are stood in for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nephila.config import load_config, parse_config
from nephila.errors import InputError
from nephila.fsc import fsc_table
from nephila.io.tables import read_table, write_table
from nephila.merge_advice import Trial, advise, name_of, next_combination, prepare, verdict

BOX, PIXEL = 40, 2.0
TABLES = ["day1/a.star", "day2/b.star", "day3/c.star"]


def config_of(tables: list[str] = TABLES):
    return parse_config(
        {
            "input": {"particles": tables, "optics_groups": "several", "pixel_size": PIXEL},
            "particle": {"diameter": 60, "box": BOX},
            "reference": {"volume": "reference.mrc"},
        }
    )


class Runs:
    """Stands for the workflow: a resolution for each set of tables, from the configuration that it finds."""

    def __init__(self, resolutions: dict[str, float]) -> None:
        self.resolutions, self.seen = resolutions, []

    def __call__(self, folder: Path) -> None:
        tables = load_config(folder / "config.yaml").input.particle_tables
        key = "".join(sorted(Path(table).stem for table in tables))
        self.seen.append(key)
        shell = BOX * PIXEL / self.resolutions[key]
        curve = np.clip(0.143 + (shell - np.arange(BOX // 2 + 1)) * 0.2, -0.05, 1)
        (folder / "results/refinement").mkdir(parents=True, exist_ok=True)
        write_table(folder / "results/refinement/fsc.star", fsc_table(curve, BOX, PIXEL), kind="fsc")
        facts = {"box": BOX, "pixel_size": PIXEL, "particles": {"refined": 100 * len(tables)}}
        (folder / "results/summary.json").write_text(json.dumps(facts))


def test_what_gains_is_kept_and_what_does_not_is_left_out(tmp_path: Path) -> None:
    """c is the best; b gains with it, a does not."""
    runs = Runs({"a": 9.0, "b": 8.0, "c": 7.0, "bc": 6.0, "abc": 5.98})
    lines: list[str] = []
    done = advise(config_of(), tmp_path, runs, lines.append)
    assert runs.seen == ["a", "b", "c", "bc", "abc"]
    assert verdict(done).startswith("Use c+b, 6.00 A; leave out a")
    assert "adding b gains (7.00 A without)" in lines[3] and "adding a does not gain (6.00 A without)" in lines[4]
    table = read_table(tmp_path / "merge/advice.star")
    assert list(table["nphAdvice"]) == ["alone", "alone", "alone", "gains", "no_gain"]
    assert table["nphResolution"].to_numpy() == pytest.approx([9, 8, 7, 6, 5.98], abs=0.01)


def test_a_worse_one_is_passed_over_and_the_next_tried(tmp_path: Path) -> None:
    runs = Runs({"a": 6.0, "b": 6.5, "c": 7.0, "ab": 6.2, "ac": 5.5})
    done = advise(config_of(), tmp_path, runs, lambda line: None)
    assert runs.seen == ["a", "b", "c", "ab", "ac"] and verdict(done).startswith("Use a+c")
    everything = [Trial(("a",), 1, 6.0, 8.0), Trial(("b",), 1, 6.5, 8.0), Trial(("a", "b"), 2, 5.0, 6.0)]
    assert verdict(everything) == "Join all: a+b, 5.00 A."
    assert next_combination(everything, ["a", "b"]) is None


def test_the_projects_of_combinations(tmp_path: Path) -> None:
    folder = prepare(config_of(), tmp_path, TABLES[:2])
    assert folder == tmp_path / "merge" / "a+b"
    config = load_config(folder / "config.yaml")
    assert config.input.particle_tables == ["../../day1/a.star", "../../day2/b.star"]
    assert config.reference.volume == "../../reference.mrc" and config.input.optics_groups == "several"
    stamp = (folder / "config.yaml").stat().st_mtime_ns
    prepare(config_of(), tmp_path, TABLES[:2])
    assert (folder / "config.yaml").stat().st_mtime_ns == stamp
    assert name_of(["x/particles.star", "y/particles.star"]) == "x_particles+y_particles"


def test_too_few_tables_and_runs_without_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="list of two or more"):
        advise(config_of(TABLES[:1]), tmp_path, lambda folder: None)
    with pytest.raises(InputError, match="no results"):
        advise(config_of(), tmp_path, lambda folder: None)
