"""What runs again after an edit, a changed setting, a touched file or changed code, and that a dry run says so and why."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import workflow_runs as runs

from nephila import provenance
from nephila.io.mrc import write_volume
from nephila.io.tables import read_table

MOVED = "micrographs/mic_0004.mrc"  # of group 1, which also has 1 and 3; group 2 has 5 and 6, group 3 has 2
OF_GROUP = ("win2stk", "apshgrp", "average", "dftotals", "recon")
REFINEMENT = {
    "prepare": [""],
    "grploop": [f"{iteration},0001,{half}" for iteration in ("01", "02") for half in "12"],
    "mergegroups": ["01", "02"],
    "endmerge": ["0001,1", "0001,2"],
    **{
        name: [""]
        for name in ("endrefine", "checkrefine", "plotrefres", "angdisp", "angdiff", "plotmap", "summary", "report")
    },
}
END = {
    name: REFINEMENT[name]
    for name in (
        "endmerge",
        "endrefine",
        "checkrefine",
        "plotrefres",
        "angdisp",
        "angdiff",
        "plotmap",
        "summary",
        "report",
    )
}
FINAL = {name: all_of_it for name, all_of_it in END.items() if name != "angdiff"}
AFTER_RECON = {name: [""] for name in ("merge_recon", "filt", "slices", "plotres", "sel_group_cclim")} | REFINEMENT
AFTER_ALIGNMENT = {
    name: [""] for name in ("select", "average_all", "cchistogram", "ccthresh", "thresh", "plotrefviews")
} | AFTER_RECON
BY_HAND = dict.fromkeys(("defocus", "powchk", "sel_micrograph", "defsort"), [""])
GROUPS_CHANGED = {name: [""] for name in ("def_sort", "defavg", "plotgroups", "sel_by_group")} | AFTER_ALIGNMENT


def jobs(*parts: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Jobs as a dry run lists them."""
    return sorted((rule, wildcards) for part in parts for rule, all_of_it in part.items() for wildcards in all_of_it)


def of_groups(*groups: str, rules: tuple[str, ...] = OF_GROUP) -> dict[str, list[str]]:
    return {rule: list(groups) for rule in rules}


def move_micrograph(project: Path) -> None:
    """edits/def_sort.star: one micrograph goes from group 1 to group 2."""
    runs.edit_table(
        project,
        "def_sort",
        "results/ctf/def_sort.star",
        nphDefocusGroup=lambda t: t["nphDefocusGroup"].where(t["rlnMicrographName"] != MOVED, 2),
    )


def lower_threshold(project: Path, group: int = 2) -> None:
    """edits/thresh.star: a group keeps all its particles."""
    runs.edit_table(
        project,
        "thresh",
        "results/averages/thresh.star",
        nphThreshold=lambda t: t["nphThreshold"].where(t["nphDefocusGroup"] != group, -1.0),
    )


def drop_micrograph(project: Path) -> None:
    """edits/sel_micrograph.star, with one row: a micrograph of group 2 goes."""
    runs.edit_table(project, "sel_micrograph", "results/ctf/sel_micrograph.proposed.star", nphKeep=0)
    path = project / "edits" / "sel_micrograph.star"
    lines = [line for line in path.read_text().splitlines() if "mic_" not in line or "mic_0006" in line]
    path.write_text("\n".join(lines) + "\n")


def drop_particle(project: Path) -> None:
    """edits/good.star, with one row: a particle of a micrograph of group 3 goes."""
    table = read_table(project / "results" / "particles" / "good.star", kind="good")
    row = table[(table["rlnMicrographName"] == "micrographs/mic_0002.mrc") & (table["nphKeep"] == 1)].head(1)
    runs.write_table(project / "edits" / "good.star", row.assign(nphKeep=0), kind="good")


def fit_by_hand(project: Path) -> None:
    """edits/defocus.star: a micrograph of group 2 gets 40 A more."""
    table = read_table(project / "results" / "ctf" / "micrographs.star", kind="defocus")
    row = table[table["rlnMicrographName"] == "micrographs/mic_0005.mrc"]
    row = row[["rlnMicrographName", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]]
    moved = row.assign(rlnDefocusU=row["rlnDefocusU"] + 40, rlnDefocusV=row["rlnDefocusV"] + 40)
    runs.write_table(project / "edits" / "defocus.star", moved, kind="hand_defocus")


def cap_views(project: Path) -> None:
    """edits/best_per_view.star: a group keeps two particles of each view."""
    table = pd.DataFrame({"nphDefocusGroup": [2], "nphAtMost": [2]})
    runs.write_table(project / "edits" / "best_per_view.star", table, kind="best_per_view")


def test_a_second_run_has_nothing_to_do(code: Path, project: Path) -> None:
    assert runs.snakemake(code, project, "-n").nothing_to_do


@pytest.mark.parametrize(
    ("edit", "expected", "why"),
    [
        (
            move_micrograph,
            jobs(GROUPS_CHANGED, of_groups("001", "002")),
            {
                ("def_sort", ""): "edits/def_sort.star",
                ("win2stk", "001"): "Params have changed",
                ("win2stk", "002"): MOVED,
                ("apshgrp", "002"): "group_002/data.mrcs",
            },
        ),
        (
            lower_threshold,
            jobs({"thresh": [""], "cchistogram": [""]}, of_groups("002", rules=("dftotals", "recon")), AFTER_RECON),
            {
                ("thresh", ""): "edits/thresh.star",
                ("dftotals", "002"): "now: -1.0",
                ("recon", "002"): "group_002/dftotals.star",
            },
        ),
        (
            drop_micrograph,
            jobs({"sel_micrograph": [""], "defsort": [""]}, GROUPS_CHANGED, of_groups("002")),
            {("sel_micrograph", ""): "edits/sel_micrograph.star", ("win2stk", "002"): "Params have changed"},
        ),
        (
            fit_by_hand,
            jobs(BY_HAND, GROUPS_CHANGED, of_groups("002")),
            {("defocus", ""): "edits/defocus.star", ("win2stk", "002"): "Params have changed"},
        ),
        (cap_views, jobs(of_groups("002", rules=("bestim", "recon")), AFTER_RECON), {("recon", "002"): "bestim.star"}),
        (
            drop_particle,
            jobs(
                {"good": [""], "renumber": [""], "sel_by_group": [""]}, AFTER_ALIGNMENT, of_groups("001", "002", "003")
            ),
            {("good", ""): "edits/good.star", ("renumber", ""): "results/particles/good.star"},
        ),
    ],
)
def test_an_edit_reruns_its_dependants_alone(code: Path, project: Path, edit, expected, why) -> None:
    edit(project)
    run = runs.snakemake(code, project, "-n")
    assert run.jobs_of() == expected
    for job, reason in why.items():
        assert reason in run.jobs[job]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (move_micrograph, jobs(GROUPS_CHANGED, of_groups("001", "002"))),
        (
            lower_threshold,
            jobs({"thresh": [""], "cchistogram": [""]}, of_groups("002", rules=("dftotals", "recon")), AFTER_RECON),
        ),
    ],
)
def test_the_removal_of_an_edit_reruns_what_the_edit_did(code: Path, project: Path, edit, expected) -> None:
    """On a project whose files are taken as made with the edit."""
    edit(project)
    runs.finished(runs.snakemake(code, project, "--touch"))
    assert runs.snakemake(code, project, "-n").nothing_to_do
    shutil.rmtree(project / "edits")
    run = runs.snakemake(code, project, "-n")
    assert run.jobs_of() == expected


def test_an_edit_with_an_old_time_counts_too(code: Path, project: Path) -> None:
    move_micrograph(project)
    os.utime(project / "edits" / "def_sort.star", (1e9, 1e9))
    run = runs.snakemake(code, project, "-n")
    assert run.jobs_of() == jobs(GROUPS_CHANGED, of_groups("001", "002"))


def test_edits_that_say_what_is_proposed_change_no_group(code: Path, project: Path) -> None:
    """Also with the columns alone that are needed, and other digits."""
    runs.edit_table(project, "def_sort", "results/ctf/def_sort.proposed.star")
    proposed = read_table(project / "results" / "averages" / "thresh.proposed.star", kind="thresh")
    rows = "".join(f"{g} {t:.8f}\n" for g, t in zip(proposed["nphDefocusGroup"], proposed["nphThreshold"], strict=True))
    (project / "edits" / "thresh.star").write_text(f"data_thresh\n\nloop_\n_nphDefocusGroup\n_nphThreshold\n{rows}")
    run = runs.snakemake(code, project, "-n")
    assert run.jobs_of(*OF_GROUP) == []
    assert ("def_sort", "") in run.jobs and ("thresh", "") in run.jobs


def finish_edits(code: Path, project: Path, target: str) -> None:
    """Edits of groups and thresholds together: the results follow, the edits stay, and their removal takes all back."""
    before = read_table(project / "results" / "averages" / "sel_group_cclim.star")
    move_micrograph(project)
    lower_threshold(project, 3)
    edits = {path.name: path.read_bytes() for path in sorted((project / "edits").iterdir())}
    runs.finished(runs.snakemake(code, project, target))

    stacks = [
        read_table(project / f"results/alignment/group_00{g}/sel_particles.star", kind="particles") for g in (1, 2, 3)
    ]
    names = [{name[-8:-4] for name in stack["rlnMicrographName"]} for stack in stacks]
    assert names == [{"0001", "0003"}, {"0004", "0005", "0006"}, {"0002"}]
    assert [set(stack["nphDefocusGroup"]) for stack in stacks] == [{1}, {2}, {3}]
    after = read_table(project / "results" / "averages" / "sel_group_cclim.star")
    doubts = [read_table(project / f"results/averages/group_00{g}/doubts.star", block="doubts") for g in (1, 2, 3)]
    doubted = [int((table["nphKeep"] == 0).sum()) for table in doubts]
    assert after["nphParticles"][2] == len(stacks[2]) - doubted[2] > before["nphParticles"][2]
    thresholds = read_table(project / "results" / "averages" / "thresh.star", kind="thresh").set_index(
        "nphDefocusGroup"
    )
    assert thresholds.loc[3, "nphThreshold"] == -1 and thresholds.loc[3, "nphBelow"] == 0
    # the table of thresholds and what each group kept are made apart from each other
    for above, kept, most in zip(thresholds["nphAbove"], after["nphParticles"], doubted, strict=True):
        assert above - most <= kept <= above

    for name, path in (("def_sort", "ctf/def_sort.star"), ("thresh", "averages/thresh.star")):
        resolved = project / "results" / path
        assert not resolved.stat().st_mode & 0o222
        assert f"made from edits/{name}.star" in resolved.read_text().splitlines()[0]
    assert {path.name: path.read_bytes() for path in sorted((project / "edits").iterdir())} == edits
    assert runs.snakemake(code, project, target, "-n").nothing_to_do

    for name in edits:
        (project / "edits" / name).unlink()
    run = runs.snakemake(code, project, target, "-n")
    assert run.jobs_of("win2stk", "apshgrp", "average") == jobs(
        of_groups("001", "002", rules=("win2stk", "apshgrp", "average"))
    )
    assert run.jobs_of("dftotals") == jobs({"dftotals": ["001", "002", "003"]})
    assert "Set of input files has changed" in run.jobs[("def_sort", "")]


def test_results_follow_the_edits(code: Path, project: Path) -> None:
    finish_edits(code, project, "reconstruction")


@pytest.mark.slow
def test_results_follow_the_edits_to_the_end(code: Path, project: Path) -> None:
    finish_edits(code, project, "all")


@pytest.mark.slow
def test_edits_that_are_there_before_the_first_run(code: Path, project: Path, fresh_project: Path) -> None:
    """Thresholds in the edit that happen to be the proposed ones must not rerun anything later."""
    lower_threshold(project, 2)
    shutil.copytree(project / "edits", fresh_project / "edits")
    runs.finished(runs.snakemake(code, fresh_project, "thresholds"))
    assert runs.snakemake(code, fresh_project, "thresholds", "-n").nothing_to_do


def test_forced_runs_and_deletion_leave_edits_alone(code: Path, project: Path) -> None:
    move_micrograph(project)
    drop_micrograph(project)
    path = project / "edits" / "def_sort.star"
    lines = [line for line in path.read_text().splitlines() if "mic_0006" not in line]
    path.write_text("\n".join(lines) + "\n")
    edits = {path.name: path.read_bytes() for path in (project / "edits").iterdir()}
    runs.finished(runs.snakemake(code, project, "--forceall", "defocus_groups"))
    assert {path.name: path.read_bytes() for path in (project / "edits").iterdir()} == edits
    groups = read_table(project / "results" / "ctf" / "def_sort.star", kind="def_sort").set_index("rlnMicrographName")
    assert groups.loc[MOVED, "nphDefocusGroup"] == 2 and "micrographs/mic_0006.mrc" not in groups.index
    runs.finished(runs.snakemake(code, project, "--delete-all-output"))
    assert {path.name: path.read_bytes() for path in (project / "edits").iterdir()} == edits
    assert not (project / "results" / "ctf" / "def_sort.star").exists()


@pytest.mark.parametrize(
    ("iterations", "expected"),
    [
        (3, {"grploop": ["03,0001,1", "03,0001,2"], "mergegroups": ["03"]}),
        (1, {}),
    ],
)
def test_another_number_of_iterations_runs_the_new_ones_alone(
    code: Path, project: Path, iterations: int, expected: dict[str, list[str]]
) -> None:
    runs.configure(project, {"refinement": {"iterations": iterations}})
    run = runs.snakemake(code, project, "-n")
    assert run.jobs_of() == jobs(expected, END)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mask": {"diameter": 200.0}}, jobs(REFINEMENT)),
        pytest.param({"mask": {"file": "mask.mrc"}}, jobs(REFINEMENT), marks=pytest.mark.slow),
        ({"b_factor": -50.0}, jobs(FINAL)),
    ],
)
def test_the_mask_reruns_the_refinement_and_the_sharpening_its_end(
    code: Path, project: Path, changes: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    write_volume(project / "mask.mrc", np.ones((60, 60, 60), np.float32), 4.0)
    runs.configure(project, {"refinement": changes})
    assert runs.snakemake(code, project, "-n").jobs_of() == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("results/averages/group_002/dftotals.star", jobs()),
        ("results/refinement/map_filtered.mrc", jobs(FINAL)),
        ("results/refinement/figures/angdiff.png", jobs({name: [""] for name in ("angdiff", "summary", "report")})),
    ],
)
def test_a_result_that_is_gone_is_made_again_what_only_led_to_it_is_not(
    code: Path, project: Path, name: str, expected: list[tuple[str, str]]
) -> None:
    (project / name).unlink()
    assert runs.snakemake(code, project, "-n").jobs_of() == expected


@pytest.mark.slow
def test_what_is_gone_is_made_again_where_a_step_needs_it(code: Path, project: Path) -> None:
    """As after `nephila clean`: the merge needs the sums of all groups, the groups' alignments and windows it does not."""
    (project / "results" / "reconstruction" / "group_001" / "sums.npz").unlink()
    (project / "results" / "alignment" / "group_001" / "align.star").unlink()
    (project / "results" / "particles" / "win" / "winser_0001.mrcs").unlink()
    lower_threshold(project)
    run = runs.snakemake(code, project, "-n")
    assert run.jobs_of("recon", "extract_windows", "win2stk") == jobs({"recon": ["001", "002"]})


def test_touched_files_count_by_content_up_to_a_megabyte(code: Path, project: Path) -> None:
    """Snakemake compares checksums of inputs below --max-checksum-file-size, 1 MB by itself; beyond it the time alone counts."""
    for name in ("reference.mrc", "micrographs/mic_0005.mrc"):
        (project / name).touch()
    assert runs.snakemake(code, project, "-n").nothing_to_do
    run = runs.snakemake(code, project, "-n", "--max-checksum-file-size", "1000")
    assert run.jobs_of("powdefocus", "ctffind") == [("ctffind", "0002"), ("powdefocus", "0002")]
    assert "mic_0005" in run.jobs[("powdefocus", "0002")]


def test_a_new_micrograph_leaves_the_batches_of_the_others_alone(code: Path, project: Path) -> None:
    shutil.copy2(project / "micrographs" / "mic_0001.mrc", project / "micrographs" / "mic_0000.mrc")
    run = runs.snakemake(code, project, "-n")
    assert run.jobs_of("powdefocus", "ctffind", "lfc_pick") == [
        ("ctffind", "0003"),
        ("lfc_pick", "0003"),
        ("powdefocus", "0003"),
    ]
    assert {"makefilelist", "merge_ctf", "merge_coordinates"} <= {rule for rule, _ in run.jobs}


@pytest.mark.slow
def test_micrographs_that_come_later_are_taken_up(code: Path, project: Path) -> None:
    """With their own jobs and those that look at all micrographs; the others' spectra, defoci and candidates stay."""
    before = {path: path.stat().st_mtime_ns for path in project.glob("results/*/*/*_000[12].*")}
    assert len(before) >= 10
    shutil.copy2(project / "micrographs" / "mic_0001.mrc", project / "micrographs" / "mic_0007.mrc")
    run = runs.finished(runs.snakemake(code, project, "picks"))
    of_new = {name: ["0003"] for name in ("powdefocus", "ctffind", "lfc_pick")}
    of_all = {name: [""] for name in ("makefilelist", "merge_ctf", "defocus", "sel_micrograph", "merge_coordinates")}
    assert run.jobs_of() == jobs(of_new, of_all)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    picks = read_table(project / "results" / "particles" / "coordinates.star")
    numbers = picks["rlnMicrographName"].value_counts()
    assert numbers["micrographs/mic_0007.mrc"] > 5
    assert runs.snakemake(code, project, "picks", "-n").nothing_to_do
    later = runs.snakemake(code, project, "-n").jobs_of("extract_windows", "win2stk", "powdefocus")
    assert ("extract_windows", "0003") in later and not [job for job in later if job[0] == "powdefocus"]


@pytest.fixture
def own_code(code: Path, tmp_path: Path) -> Path:
    """A checkout that a test may change."""
    return runs.copy_code(tmp_path / "code", code)


def test_changed_code_reruns_its_stages_alone(own_code: Path, project: Path) -> None:
    module = own_code / "nephila" / "first_reconstruction.py"
    text = module.read_text()
    module.write_text("# A remark.\n" + text.replace('"""A volume from sums', '"""A volume made from sums'))
    assert runs.snakemake(own_code, project, "-n").nothing_to_do
    module.write_text(text + "\n\nMORE = 1\n")
    run = runs.snakemake(own_code, project, "-n")
    assert run.jobs_of() == jobs(of_groups("001", "002", "003", rules=("recon",)), {
        name: all_of_it for name, all_of_it in AFTER_RECON.items() if name != "sel_group_cclim"
    })  # fmt: skip
    assert "Params have changed" in run.jobs[("recon", "001")]
    module.write_text(text)


def test_every_rule_of_a_run_is_found_by_its_message() -> None:
    rules = "\n".join(path.read_text() for path in (runs.REPOSITORY / "rules").glob("*.smk"))
    named = set(re.findall(r"^ *(?:rule|checkpoint) (\w+):", rules, re.MULTILINE))
    assert {name for name, _ in runs._messages()} == named


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of three modules, a before b before c, and a script that imports a."""
    folder = tmp_path / "nephila"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text("from nephila.b import f\n")
    (folder / "b.py").write_text('"""Doc."""\n\n\ndef f(x):\n    """Doc."""\n    return x + 1\n')
    (folder / "c.py").write_text("VALUE = 1\n")
    (tmp_path / "script.py").write_text("from nephila.a import f\n")
    monkeypatch.setattr(provenance, "PACKAGE", folder)
    return folder


def digest(folder: Path) -> str:
    for cached in (provenance._parse, provenance.modules_behind):
        cached.cache_clear()
    return provenance.source_hash(folder.parent / "script.py")


@pytest.mark.parametrize(
    ("name", "old", "new", "changes"),
    [
        ("b.py", "x + 1", "x + 2", True),
        ("b.py", "x + 1", "x + 1  # a remark", False),
        ("b.py", '"""Doc."""', '"""Other."""', False),
        ("b.py", "return x + 1", "\n    return (x + 1)", False),
        ("a.py", "import f", "import f\nX = 1", True),
        ("c.py", "1", "2", False),
        ("a.py", "import f", "import f\nimport nephila.c", True),
    ],
)
def test_the_hash_of_code_follows_imports_and_ignores_remarks(
    package: Path, name: str, old: str, new: str, changes: bool
) -> None:
    before = digest(package)
    path = package / name
    path.write_text(path.read_text().replace(old, new))
    assert (digest(package) != before) == changes
    provenance._parse.cache_clear()
    provenance.modules_behind.cache_clear()


def test_projections_with_the_ctf_of_groups_are_made_on_request(code: Path, project: Path) -> None:
    run = runs.snakemake(code, project, "-n", "group_projections")
    assert run.jobs_of() == jobs({"refproj_ctf": ["001", "002", "003"]})


def test_scripts_name_only_modules_that_exist() -> None:
    """Each script's modules are found, so that its hash covers what it imports from the package."""
    for script in sorted((runs.REPOSITORY / "scripts").glob("*.py")):
        imported = re.findall(r"^from (nephila[.\w]*) import", script.read_text(), re.MULTILINE)
        behind = provenance.modules_behind(str(script))
        assert set(imported) - provenance.NOT_RESULTS <= set(behind), script.name
        for name in imported:
            assert provenance._module_file(name) is not None, f"{script.name}: {name}"


def test_the_list_of_stages_knows_all_rules_outside_the_refinement() -> None:
    from nephila.stages import STAGE_OF_RULE

    refinement = "".join(
        (runs.REPOSITORY / "rules" / f"{n}.smk").read_text() for n in ("refinement", "classes", "validation")
    )
    known = set(re.findall(r"^ *rule (\w+):", refinement, re.MULTILINE)) | {"summary", "report", "nat2stk"}
    assert {name for name, _ in runs._messages()} == set(STAGE_OF_RULE) | known


def test_a_dry_run_shows_the_whole_plan_of_a_new_project(code: Path, fresh_project: Path) -> None:
    run = runs.snakemake(code, fresh_project, "-n")
    assert run.status == 0
    assert {"makefilelist", "powdefocus", "merge_ctf"} <= {rule for rule, _ in run.jobs}
    assert isinstance(read_table(fresh_project / "truth" / "micrographs.star", block="micrographs"), pd.DataFrame)
    assert not (fresh_project / "results").exists()
