"""Looking after a project: recover, clean, archive, plan, why, without Snakemake."""

from __future__ import annotations

import base64
import importlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from nephila.cli import main
from nephila.config import parse_config
from nephila.errors import InputError
from nephila.maintenance import recover as recovery
from nephila.maintenance.archive import MANIFEST, check_archive, make_archive, restore_archive
from nephila.maintenance.cleaning import CleanError, removable, remove
from nephila.maintenance.explain import explain
from nephila.maintenance.forecast import complete_jobs, disk_bytes, folder_bytes, forecast
from nephila.maintenance.snakemake_state import cluster_log_ids, incomplete_outputs
from nephila.resources import Work
from nephila.stages import STAGES, last_stage

WORK = Work(64, 1e6, 10, 5, 1000, 3, 0.4, 256, 22)


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder as after a run."""
    folder = tmp_path / "mine"
    for name in (
        "config.yaml", "edits/thresh.star", "micrographs/a.mrc", "reference.mrc", "results/ctf/micrographs.star",
        "results/ctf/power/spectra_0001.npz", "results/particles/win/winser_0001.mrcs", "results/refinement/map.mrc",
        "results/refinement/iter_01/reference_half1.mrc", "results/refinement/iter_01/model.star",
        "results/refinement/iter_02/reference_half1.mrc", "results/reconstruction/group_001/sums.npz", "logs/recon/001.log",
        ".snakemake/log/x.log",
    ):  # fmt: skip
        write(folder / name, name)
    (folder / "results/.hidden").mkdir()
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def incomplete(folder: Path, name: str, content: str) -> None:
    encoded = base64.b64encode(name.encode(), altchars=b"-_").decode()
    parts = [f"@{encoded[:200]}", encoded[200:]] if len(encoded) > 200 else [encoded]
    write(folder.joinpath(".snakemake", "incomplete", *parts), content)


def test_unfinished_outputs_and_their_jobs(tmp_path: Path) -> None:
    long = "results/" + "a" * 180 + ".star"
    incomplete(tmp_path, "results/x.mrc", '{"external_jobid": "41"}')
    incomplete(tmp_path, long, '{"external_jobid": null}')
    incomplete(tmp_path, "results/y.mrc", "")
    write(tmp_path / ".snakemake" / "incomplete" / "not base64!", "")
    write(tmp_path / ".snakemake" / "slurm_logs" / "rule_recon" / "001" / "42.log")
    assert incomplete_outputs(tmp_path) == {"results/x.mrc": "41", long: None, "results/y.mrc": None}
    assert list(cluster_log_ids(tmp_path)) == ["42"]


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A queue in place of SLURM's: lines of squeue; scancel takes jobs out of it."""
    lines: list[str] = []

    def client(command: list[str]) -> subprocess.CompletedProcess[str]:
        if command[0] == "scancel":
            lines[:] = [line for line in lines if line.split("|")[0] not in command[1:]]
        return subprocess.CompletedProcess(command, 0, "".join(f"{line}\n" for line in lines), "")

    monkeypatch.setattr(recovery, "_client", client)
    monkeypatch.setattr(recovery.shutil, "which", lambda name: name)
    return lines


def test_recover_cancels_the_projects_jobs_alone(project: Path, tmp_path: Path, queue: list[str]) -> None:
    queue += [
        f"1|RUNNING|rule_recon_001|{project}", f"2|PENDING|rule_pick|{tmp_path}", f"3|RUNNING|mine|{project}",
        f"4|PENDING|(null)|{project}",
    ]  # fmt: skip
    incomplete(project, "results/x.mrc", '{"external_jobid": "4"}')
    write(project / ".snakemake/locks/0.output.lock")
    done = recovery.recover(project)
    assert [job.number for job in done.cluster_jobs] == ["1", "4"]
    assert [line[0] for line in queue] == ["2", "3"]
    assert done.locks == 1 and not (project / ".snakemake/locks/0.output.lock").exists()
    assert done.incomplete == ("results/x.mrc",)


def test_recover_stops_where_the_cluster_does_not_answer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery.shutil, "which", lambda name: name)
    monkeypatch.setattr(recovery, "_client", lambda command: subprocess.CompletedProcess(command, 124, "", "no reply"))
    assert recovery.cluster_jobs(project) == []
    write(project / ".snakemake/slurm_logs/rule_a/5.log")
    write(project / ".snakemake/locks/0.output.lock")
    with pytest.raises(recovery.RecoverError, match="squeue does not answer"):
        recovery.recover(project)
    assert (project / ".snakemake/locks/0.output.lock").exists()


def test_recover_refuses_while_snakemake_runs_and_ends_what_it_left(project: Path, queue: list[str]) -> None:
    script = write(project / ".snakemake" / "scripts" / "tmp1.py", "import time; time.sleep(60)")
    head = write(project / "snakemake", "import time; time.sleep(60)")
    lock = write(project / ".snakemake/locks/0.output.lock")
    with subprocess.Popen([sys.executable, str(head)], cwd=project) as process:
        wait_for(lambda: recovery.processes_in(project))
        with pytest.raises(recovery.RecoverError, match=f"process {process.pid}"):
            recovery.recover(project)
        process.kill()
    assert lock.exists()
    with subprocess.Popen([sys.executable, str(script)], cwd=project) as process:
        wait_for(lambda: recovery.processes_in(project))
        assert recovery.recover(project).processes == (process.pid,)
        assert process.wait(timeout=5) < 0


def wait_for(condition) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("words", "head"),
    [
        (["python", "-m", "snakemake", "--snakefile", "Snakefile"], True),
        (["/venv/bin/python", "/venv/bin/snakemake"], True),
        (["python", "-m", "snakemake", "--mode", "subprocess"], False),
        (["/bin/sh", "-c", "cd /p && python -m snakemake --mode remote"], False),
        (["python", "/p/.snakemake/scripts/tmp.recon.py"], False),
        (["vim", "snakemake.txt"], False),
    ],
)
def test_heads_and_jobs_are_told_apart(words: list[str], head: bool) -> None:
    assert recovery.is_head(words) == head


def test_half_written_files_go_those_being_written_stay(project: Path) -> None:
    host = os.uname().nodename
    dead = write(project / f"results/ctf/.a.{host}.999999999.tmp.star")
    elsewhere = write(project / "results/ctf/.a.other-host.1.tmp.mrcs")
    own = write(project / f"results/ctf/.a.{host}.{os.getpid()}.tmp.star")
    other = write(project / "results/ctf/.hidden.star")
    assert set(recovery.remove_temporary(project)) == {dead, elsewhere}
    assert own.exists() and other.exists()


def test_cleaning_never_touches_what_is_the_users(project: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "precious.mrc")
    (project / "results" / "link").symlink_to(outside.parent)
    mine = {"config.yaml", "edits/thresh.star", "micrographs/a.mrc", "reference.mrc"}
    kinds = removable(project, "intermediate")
    gone = {path.relative_to(project).as_posix() for kind in kinds for path in kind.paths}
    assert gone == {
        "results/ctf/power/spectra_0001.npz", "results/particles/win/winser_0001.mrcs", ".snakemake/log/x.log",
        "results/refinement/iter_01/reference_half1.mrc", "results/reconstruction/group_001/sums.npz",
    }  # fmt: skip
    everything = removable(project, "results")
    assert sum(kind.size for kind in everything) == remove(project, everything)
    assert files(project) == mine and outside.exists()
    assert not (project / "results").exists()


def test_cleaning_waits_for_snakemake(project: Path) -> None:
    write(project / ".snakemake/locks/0.input.lock")
    before = files(project)
    with pytest.raises(CleanError, match="nephila recover"):
        remove(project, removable(project, "results"))
    assert files(project) == before
    with pytest.raises(CleanError, match="level"):
        removable(project, "all")


def test_clean_shows_first(project: Path) -> None:
    before = files(project)
    shown = CliRunner().invoke(main, ["clean", str(project)])
    assert shown.exit_code == 0 and "nothing was removed" in shown.output and files(project) == before
    done = CliRunner().invoke(main, ["clean", str(project), "--yes"])
    assert "removed" in done.output and files(project) < before
    assert CliRunner().invoke(main, ["clean", str(project / "edits")]).exit_code == 2


def test_archives_come_back_whole(project: Path, tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "data" / "b.mrc", "linked")
    (project / "micrographs" / "b.mrc").symlink_to(elsewhere)
    (project / "micrographs" / "c.mrc").symlink_to(tmp_path / "nowhere")
    order = make_archive(project, "order", tmp_path / "order.tar")
    whole = make_archive(project, "project", tmp_path / "project.tar")
    assert whole.broken == ("micrographs/c.mrc",) and not order.broken
    assert set(check_archive(order.path)) == {
        "config.yaml", "edits/thresh.star", "results/ctf/micrographs.star", "results/refinement/iter_01/model.star",
        "logs/recon/001.log",
    }  # fmt: skip
    restored = tmp_path / "restored"
    assert restore_archive(whole.path, restored) == (5, 0)
    assert files(restored) == {
        "config.yaml",
        "edits/thresh.star",
        "micrographs/a.mrc",
        "micrographs/b.mrc",
        "reference.mrc",
    }
    assert (restored / "micrographs/b.mrc").read_text() == "linked" and not (
        restored / "micrographs/b.mrc"
    ).is_symlink()
    assert restore_archive(order.path, restored) == (3, 2)


def test_nothing_is_overwritten(project: Path, tmp_path: Path) -> None:
    path = make_archive(project, "project", tmp_path / "project.tar").path
    with pytest.raises(InputError, match="exists already"):
        make_archive(project, "project", path)
    mine = write(tmp_path / "other" / "edits" / "thresh.star", "mine")
    with pytest.raises(InputError, match="nothing was restored"):
        restore_archive(path, tmp_path / "other")
    assert files(tmp_path / "other") == {"edits/thresh.star"} and mine.read_text() == "mine"


@pytest.mark.parametrize("damage", ["byte", "cut", "member", "outside", "manifest"])
def test_damaged_archives_are_refused(project: Path, tmp_path: Path, damage: str) -> None:
    path = make_archive(project, "project", tmp_path / "project.tar").path
    content = path.read_bytes()
    if damage == "byte":
        path.write_bytes(
            content.replace(b"micrographs/a.mrcmicro", b"x").replace(b"reference.mrc\0\0\0", b"reference.mrd\0\0\0")
        )
        where = content.index(b"reference.mrc", content.index(b"reference.mrc") + 512)
        path.write_bytes(content[:where] + b"R" + content[where + 1 :])
    elif damage == "cut":
        path.write_bytes(content[: content.index(MANIFEST.encode()) - 700])
    else:
        name = {"member": "new.txt", "outside": "../new.txt", "manifest": MANIFEST}[damage]
        with tarfile.open(path, "a") as tar:
            tar.add(write(tmp_path / "new.txt"), name)
    with pytest.raises(InputError, match="damaged|not a whole archive|cut short|not a plain file"):
        restore_archive(path, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_a_forecast_counts_what_is_not_planned_yet(project: Path) -> None:
    config = parse_config({"refinement": {"iterations": 4}})
    planned = {"prepare": 1, "mergegroups": 4, "win2stk": 0}
    jobs = complete_jobs(config, WORK, planned)
    assert jobs["win2stk"] == 3 and jobs["grploop"] == 2 * WORK.chunks * 4 and jobs["endmerge"] == 2 * WORK.chunks
    assert "bestim" not in jobs
    assert complete_jobs(config, WORK, {"ctffind": 2}) == {"ctffind": 2}
    write(project / "logs" / "a.json", json.dumps({"rule": "mergegroups", "cpu_seconds": 100.0}))
    found = forecast(project, config, WORK, planned, growing=True)
    assert found.cpu["mergegroups"] == 400.0 and 0 < found.recorded_share < 1
    assert found.present == folder_bytes(project / "results") > 0


def test_float16_halves_the_stacks() -> None:
    config = parse_config({})
    half = Work(64, 1e6, 10, 5, 1000, 3, 0.4, 256, 22, itemsize=2)
    assert disk_bytes(config, half)["stacks by group"] == disk_bytes(config, WORK)["stacks by group"] / 2


@pytest.mark.parametrize(("free", "status"), [(1e15, 0), (1e3, 2)])
def test_plan_refuses_a_disk_that_is_too_small(
    project: Path, monkeypatch: pytest.MonkeyPatch, free: float, status: int
) -> None:
    plan_command = importlib.import_module("nephila.cli.plan_command")
    write(project / "config.yaml", "particle: {box: 64, diameter: 60.0}\n")
    monkeypatch.setattr(plan_command, "dry_run", lambda folder, targets: ({"prepare": 1, "mergegroups": 8}, True))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    result = CliRunner().invoke(main, ["plan", str(project)])
    assert result.exit_code == status, result.output
    assert "grploop" in result.output and ("too small" in result.stderr) == bool(status)


@pytest.fixture
def small_disk(project: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A project on a disk with `free` bytes, `jobs` of a dry run, and the `calls` and `plans` that were made of Snakemake."""
    plan_command = importlib.import_module("nephila.cli.plan_command")
    run_command = importlib.import_module("nephila.cli.run")
    write(project / "config.yaml", "particle: {box: 64, diameter: 60.0}\n")
    state = SimpleNamespace(free=1e3, jobs={"prepare": 1}, calls=[], plans=[])

    def dry_run(folder: Path, targets: list[str]) -> tuple[dict[str, int], bool]:
        state.plans.append(list(targets))
        return state.jobs, False

    monkeypatch.setattr(plan_command, "dry_run", dry_run)
    monkeypatch.setattr(run_command, "_call", lambda command: state.calls.append(command) or 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=state.free))
    return state


def test_run_refuses_a_disk_that_is_too_small(project: Path, small_disk: SimpleNamespace) -> None:
    refused = CliRunner().invoke(main, ["run", str(project)])
    assert refused.exit_code == 2 and not small_disk.calls
    assert "the disk is too small" in refused.stderr and "--ignore-disk" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert CliRunner().invoke(main, ["run", str(project), "--ignore-disk"]).exit_code == 0
    assert len(small_disk.calls) == 1 and "--ignore-disk" not in small_disk.calls[0]


@pytest.mark.parametrize(
    "arguments", [["-n"], ["--unlock"], ["--list-rules"], ["--touch"], ["results/project/params.star"]]
)
def test_what_writes_little_needs_no_disk(project: Path, small_disk: SimpleNamespace, arguments: list[str]) -> None:
    assert CliRunner().invoke(main, ["run", str(project), *arguments]).exit_code == 0
    assert len(small_disk.calls) == 1 and not small_disk.plans


def test_a_finished_run_may_stand_on_a_full_disk(project: Path, small_disk: SimpleNamespace) -> None:
    small_disk.jobs = {}
    assert CliRunner().invoke(main, ["run", str(project), "--keep-going"]).exit_code == 0
    assert small_disk.plans == [["--keep-going"]] and len(small_disk.calls) == 1


def test_jobs_are_not_planned_twice_where_the_disk_is_large(project: Path, small_disk: SimpleNamespace) -> None:
    small_disk.free = 1e15
    assert CliRunner().invoke(main, ["run", str(project), "--profile", "slurm"]).exit_code == 0
    assert not small_disk.plans and len(small_disk.calls) == 1


def test_a_stage_needs_the_disk_of_what_comes_before_it() -> None:
    config = parse_config({})
    whole, spectra = disk_bytes(config, WORK), disk_bytes(config, WORK, "ctf")
    assert list(spectra) == ["spectra and figures"]
    sizes = [sum(disk_bytes(config, WORK, stage).values()) for stage in STAGES]
    assert sizes == sorted(sizes) and sizes[-1] == sum(whole.values())
    assert last_stage(["alignment", "ctf"]) == "alignment"
    assert last_stage(["--forcerun", "recon"]) is None and last_stage(["ctf", "refinement"]) is None


def test_why_explains_a_file(project: Path) -> None:
    scripts = Path(__file__).parents[2] / "scripts"
    name = "results/ctf/micrographs.star"
    state = {"bytes": 11, "modified": 0.0, "sha256": "0" * 64}
    write(
        project / "logs" / "merge_ctf.json",
        json.dumps({
            "rule": "merge_ctf", "wildcards": {}, "started": 0.0, "wall_seconds": 1.0, "cpu_seconds": 1.0, "peak_memory_mb": 170.0,
            "threads": 1, "host": "h", "version": "0.1", "python": "3.11", "code": "abc", "seed": 1,
            "settings": {"screening": {"min_gap": 5.0}}, "inputs": {"config.yaml": state, "gone.star": state},
            "outputs": {name: state}, "why": ["input config.yaml changed"],
        }),
    )  # fmt: skip
    text = explain(project, name, scripts)
    for part in (
        "made by    merge_ctf", "screening.min_gap: 5.0", "input config.yaml changed", "gone.star is gone", "seed       1",
        f"{name} was changed after it was made", "the code behind the step changed", "scripts/merge_ctf.py",
    ):  # fmt: skip
        assert part in text
    for other, said in (
        ("edits/thresh.star", "it is yours"),
        ("results/refinement/map.mrc", "no record"),
        ("results/x", "no such file"),
    ):
        with pytest.raises(InputError, match=said):
            explain(project, other, scripts)


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("Nothing to be done (all requested files are present and up to date).", 0, "leaves it as it is"),
        (
            "Job 3: Other\nReason: x\n\nJob 0: Mine\nReason: Params have changed\n",
            0,
            "makes it again: Params have changed",
        ),
        ("Job 3: Other\nReason: x\n", 0, "makes it again, after what it depends on"),
        ("WorkflowError: bad", 1, "cannot be planned: WorkflowError: bad"),
    ],
)
def test_what_the_next_run_will_do(text: str, status: int, said: str) -> None:
    import importlib

    assert importlib.import_module("nephila.cli.why").verdict(text, status) == said


def test_jobs_of_a_dry_run_are_counted() -> None:
    import importlib

    text = "x\nJob stats:\njob      count\n-----  -------\nall          1\nrecon        3\ntotal        4\n\ny"
    assert importlib.import_module("nephila.cli.recover").job_counts(text) == {"recon": 3, "total": 4}
    assert importlib.import_module("nephila.cli.recover").job_counts("nothing") == {}
