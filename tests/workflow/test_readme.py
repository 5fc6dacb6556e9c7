"""Every command of the README is run: on an empty folder, then on a small project that is finished."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import workflow_runs as runs

from nephila.classes.results import class_table
from nephila.io.tables import read_blocks, read_table, write_blocks, write_table

pytestmark = pytest.mark.slow

STANDS_FOR = {
    "FILE …": "myproject/results/refinement/map.mrc myproject/results/refinement/particles.star",
    "PROJECT": "myproject",
    "MIC": "mic_0001.mrc",
    "OUT": "simulated",
    "RUN RUN …": "myproject again",
    " A B": " myproject/results/refinement/half1.mrc myproject/results/refinement/half2.mrc",
}
"""What a reader puts in place of the README's words."""
SHORTER = {"nephila simulate simulated": " --micrographs 1 --size 640", "nephila review myproject": " --no-browser"}
"""Options added where a command would take minutes, or a browser."""
RUN = "nephila run myproject"
ELSEWHERE = ("git clone ", "make ", "pip install ")
"""Installing is tested by a clone; `make docs` builds the site."""


def commands(text: str) -> Iterator[str]:
    """Command lines in blocks and between backticks, each once, with the reader's words."""
    lines = re.findall(r"^    (\S.*)$", text, re.MULTILINE) + re.findall(r"`((?:nephila|make|pip) [^`]*)`", text)
    for line in dict.fromkeys(re.sub(r"\s+#.*", "", line) for line in lines):
        if line == "nephila run":  # the name of the command
            continue
        for word, meant in STANDS_FOR.items():
            line = line.replace(word, meant) if line.startswith("nephila ") else line
        yield line + SHORTER.get(line, "")


def test_every_command_of_the_readme_runs(code: Path, finished_project: Path, repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the plugin for Slurm is not installed")
    os.symlink(code, tmp_path / "nephila")  # the README's clone
    found = [line for line in commands((repository / "README.md").read_text()) if not line.startswith(ELSEWHERE)]
    # runs that differ by a stage or a profile are asked for at once, without being done: they are done in the tutorial's test
    asked = [line.removeprefix(RUN) for line in found if line.startswith(RUN) and not line.endswith(" -n")]
    found = [line for line in found if not line.startswith(RUN) or line.endswith(" -n")]
    found.append(f"{RUN}{''.join(asked)} --dry-run")
    assert len(found) > 9 and all(line.split()[0] in ("nephila", "snakemake") for line in found)
    printed = {}
    for line in found:
        printed[line] = run_line(line, code, tmp_path)
        if line.startswith("nephila init"):
            assert (tmp_path / "myproject" / "config.yaml").is_file()
            shutil.rmtree(tmp_path / "myproject")
            runs.copy_project(finished_project, tmp_path / "myproject")
            runs.copy_project(finished_project, tmp_path / "again")
            add_classes(tmp_path / "myproject")
    assert "Nothing to be done" in printed[f"{RUN} -n"]
    assert (
        len(asked) > 3 and "local_resolution" in printed[found[-1]] and "resolution_by_particles" in printed[found[-1]]
    )
    assert printed["nephila classes myproject"].startswith("class  particles")
    assert "127.0.0.1" in printed["nephila review myproject --no-browser"]


def run_line(line: str, code: Path, folder: Path) -> str:
    """What a command printed; the review page's server is ended once it has said its address."""
    command, *words = line.split()
    call = [sys.executable, "-m", command, *words]
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        call, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    if " review " in line:
        address = process.stdout.readline()
        process.terminate()
        process.wait(20)
        return address
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, f"{line}\n{output[-3000:]}"
    return output


def add_classes(project: Path) -> list[int]:
    """Two classes, as a run with `classes.count: 2` leaves them (the small project has too few particles); their sizes."""
    results = project / "results" / "refinement"
    particles = read_blocks(results / "particles.star")["particles"]
    number = [1 + (i % 3 == 0) for i in range(len(particles))]
    particles = particles.assign(rlnClassNumber=number, nphClassProbability=0.9)
    fsc = read_table(results / "fsc.star", kind="fsc")
    table = class_table(particles, {1: fsc, 2: fsc}, 2 * (len(fsc) - 1), 4.0)
    write_blocks(results / "classes" / "particles.star", {"particles": particles})
    write_table(results / "classes" / "classes.star", table, block="classes")
    return [number.count(1), number.count(2)]


def test_the_classes_of_a_run_are_listed_and_one_is_kept(code: Path, project: Path) -> None:
    counts = add_classes(project)
    command = f"nephila classes {project.name}"
    rows = run_line(command, code, project.parent).splitlines()
    assert rows[0].split()[:2] == ["class", "particles"]
    assert [[int(word) for word in row.split()[:2]] for row in rows[1:]] == [[1, counts[0]], [2, counts[1]]]
    assert f"{counts[1]} particles dropped" in run_line(f"{command} --keep 1", code, project.parent)
    edit = read_table(project / "edits" / "good.star", kind="good")
    assert (edit["nphKeep"] == 0).sum() == counts[1]
    run = runs.snakemake(code, project, "-n")
    assert ("good", "") in run.jobs and ("ctffind", "0001") not in run.jobs  # the workflow takes the edit
