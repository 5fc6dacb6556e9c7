"""CTFs of another program instead of fits, as files of CTFFIND and of RELION have them, and the groups made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import workflow_runs as runs

from nephila.config import parse_config
from nephila.ctf_results import check_results, result_file, result_files
from nephila.errors import InputError
from nephila.io.tables import read_table, write_blocks

CTFFIND = """\
# Output from CTFFind version 4.1.14, run on 2026-11-20 10:00:00
# Input file: {name} ; Number of micrographs: 1
# Pixel size: 4.000 Angstroms ; acceleration voltage: 300.0 keV ; spherical aberration: 2.70 mm ; amplitude contrast: 0.10
# Box size: 256 pixels ; min. res.: 30.0 Angstroms ; max. res.: 8.5 Angstroms ; min. def.: 5000.0 um; max. def. 50000.0 um
# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; #4 - azimuth of astigmatism; #5 - additional \
phase shift [radians]; #6 - cross correlation; #7 - spacing (in Angstroms) up to which CTF rings were fit successfully
1.000000 {u:.6f} {v:.6f} {angle:.6f} 0.000000 0.081234 9.876543
"""
TEXT = {"ctf": {"method": "import", "import_from": "ctf/*_ctf.txt"}}
TABLE = {"ctf": {"method": "import", "import_from": "ctf/micrographs_ctf.star"}}


def truth(project: Path) -> pd.DataFrame:
    return read_table(project / "truth" / "micrographs.star", block="micrographs")


def write_ctffind(project: Path) -> pd.DataFrame:
    """The true values, but that of the second is far off, and the third has no file."""
    table = truth(project)
    (project / "ctf").mkdir()
    for i, row in enumerate(table.to_dict("records")):
        name, wrong = row["rlnMicrographName"], 9000.0 if i == 1 else 0.0
        text = CTFFIND.format(
            name=name, u=row["rlnDefocusU"] - wrong, v=row["rlnDefocusV"] - wrong, angle=row["rlnDefocusAngle"]
        )
        if i != 2:
            (project / "ctf" / f"{Path(name).stem}_ctf.txt").write_text(text)
    return table


def test_ctffind_results_take_the_place_of_fits(code: Path, fresh_project: Path) -> None:
    true = write_ctffind(fresh_project)
    runs.configure(fresh_project, TEXT | {"ctf": TEXT["ctf"] | {"screening": {"min_gap": 0.01}}})
    runs.finished(runs.snakemake(code, fresh_project, "defocus_groups"))
    results = fresh_project / "results" / "ctf"
    table = read_table(results / "micrographs.star", kind="defocus")
    assert table["nphKeep"].tolist() == [1, 0, 0, 1, 1, 1]
    assert "explains the rings nearly as well" in table["nphReason"][1] and table["nphScoreGap"][1] < 0
    assert table["nphReason"][2] == "no CTF result: there is no file ctf/mic_0003_ctf.txt"
    kept = table["nphKeep"] == 1
    np.testing.assert_allclose(table.loc[kept, "rlnDefocusU"], true.loc[kept, "rlnDefocusU"], atol=0.01)
    assert table.loc[1, "rlnDefocusU"] == pytest.approx(true.loc[1, "rlnDefocusU"] - 9000, abs=0.01)  # told, not lost
    assert (table.loc[kept, "nphScoreGap"] > 0).all() and (table.loc[kept, "rlnCtfFigureOfMerit"] > 0.5).all()
    assert (table["nphDefocusUError"] == 0).all()
    assert not list((results / "power").glob("ctffind_*"))
    assert len(list((results / "figures").glob("*/*.png"))) == 6
    phases = read_table(results / "group_phases.star", block="group_phases")
    groups = read_table(results / "sel_group.star", kind="sel_group")
    assert len(phases) == 4 and (phases["nphInPhase"] > 0.5).all()
    for number, members in phases.groupby("nphDefocusGroup"):
        row = groups[groups["nphDefocusGroup"] == number].iloc[0]
        assert members["nphPhaseErrorLimit"].max() == pytest.approx(row["nphPhaseErrorLimit"], rel=1e-6, abs=1e-6)
        assert (results / "group_figures" / f"group_{number:03d}.png").stat().st_size > 5000
    assert (results / "group_figures" / "groups.png").is_file()
    # one more result reruns its batch alone
    (fresh_project / "ctf" / "mic_0003_ctf.txt").write_text(CTFFIND.format(name="x", u=11000, v=10900, angle=0))
    run = runs.snakemake(code, fresh_project, "ctf", "-n")
    assert run.jobs_of("powdefocus", "import_ctf") == [("import_ctf", "0001"), ("powdefocus", "0001")]


def test_a_relion_table_gives_the_same_jobs_and_picks_use_it(code: Path, fresh_project: Path) -> None:
    table = truth(fresh_project).assign(
        rlnMicrographName=lambda t: [f"MotionCorr/job002/{Path(name).name}" for name in t["rlnMicrographName"]]
    )
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["a"], "rlnVoltage": [300.0]})
    (fresh_project / "ctf").mkdir()
    write_blocks(fresh_project / "ctf" / "micrographs_ctf.star", {"optics": optics, "micrographs": table})
    runs.configure(fresh_project, TABLE)
    run = runs.snakemake(code, fresh_project, "-n", "results/particles/candidates/lfc_pick_0002.star")
    assert run.jobs_of("powdefocus", "ctffind", "import_ctf") == [("import_ctf", "0002"), ("powdefocus", "0002")]


def test_missing_results_are_named_before_anything_runs(code: Path, fresh_project: Path) -> None:
    runs.configure(fresh_project, TEXT)
    run = runs.snakemake(code, fresh_project, "ctf")
    lines = [line for line in run.output.splitlines() if line.startswith("nephila: ")]
    assert run.status != 0 and len(lines) == 1, run.output
    assert all(part in lines[0] for part in ("ctf.import_from", "none of the 6 micrographs", "ctf/mic_0001_ctf.txt"))
    assert not (fresh_project / "results").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "import"}, "ctf.import_from and ctf.method: import belong together"),
        ({"import_from": "ctf/*.txt"}, r"belong together.*ctf/\*\.txt"),
        ({"method": "import", "import_from": "ctf"}, "'ctf' is neither a table .* nor a pattern with one"),
        ({"method": "powdefocus", "local": "tilt"}, "ctf.local: tilt needs ctf.method: ctffind"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config({"ctf": settings})


def test_files_are_found_by_the_name_without_ending(tmp_path: Path) -> None:
    pattern = str(tmp_path / "*_ctf.txt")
    assert result_file(pattern, "micrographs/a.b.mrc.gz") == str(tmp_path / "a.b_ctf.txt")
    assert result_file("all.star", "micrographs/a.mrc") == "all.star"
    with pytest.raises(InputError, match=r"a_ctf\.txt"):
        check_results(pattern, ["a.mrc", "b.mrc"])
    (tmp_path / "b_ctf.txt").write_text("")
    check_results(pattern, ["a.mrc", "b.mrc"])
    with pytest.raises(InputError, match="no such file: lost.star"):
        check_results("lost.star", ["a.mrc"])
    assert result_files(pattern, ["a.mrc", "b.mrc"]) == [str(tmp_path / "b_ctf.txt")]


@pytest.mark.slow
def test_a_second_fit_with_the_strength_of_the_data_set(code: Path, fresh_project: Path) -> None:
    runs.configure(fresh_project, {"ctf": {"method": "ctffind_pooled", "local": "tilt"}})
    runs.finished(runs.snakemake(code, fresh_project, "defocus_groups"))
    results = fresh_project / "results" / "ctf"
    table, true = read_table(results / "micrographs.star", kind="defocus"), truth(fresh_project)
    mean, true_mean = (0.5 * (t["rlnDefocusU"] + t["rlnDefocusV"]) for t in (table, true))
    np.testing.assert_allclose(mean, true_mean, atol=200)
    assert (table["nphTilt"] < 15).all() and len(read_table(results / "ring_strength.star", block="ring_strength")) > 30
    assert runs.snakemake(code, fresh_project, "defocus_groups", "-n").nothing_to_do
    run = runs.snakemake(code, fresh_project, "-n", "results/particles/candidates/lfc_pick_0002.star", "-F")
    assert {"ring_strength", "ctffind_pooled", "ctffind"} <= {rule for rule, _ in run.jobs}
