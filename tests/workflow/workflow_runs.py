"""Running the workflow on small projects: a project to simulate, Snakemake as a subprocess, jobs of a dry run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from nephila.io.tables import read_blocks, write_table

REPOSITORY = Path(__file__).parents[2]
CODE = ("Snakefile", "config.yaml", "rules", "scripts", "nephila", "envs", "profiles")
SEED = 530
"""Gives defoci near 11000 A (micrographs 1, 3, 4), 16000 A (5, 6) and 20600 A (2): three groups, numbered in this order."""

SETTINGS: dict[str, dict[str, Any]] = {
    "ctf": {
        "tile": 256,
        "max_resolution": 8.5,
        "min_defocus": 6000.0,
        "max_defocus": 30000.0,
        "screening": {"min_gap": 0.0},
    },
    "defocus_groups": {"width": 2500.0},
    "picking": {"views": 12},
    "refinement": {"iterations": 2},
    "jobs": {"micrographs_per_batch": 3},
}


def copy_code(target: Path, source: Path = REPOSITORY) -> Path:
    """A checkout of its own, with numba's caches: what others change meanwhile does not disturb, and tests may change it."""
    target.mkdir(parents=True)
    for name in CODE:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        else:
            shutil.copy2(source / name, target / name)
    return target


def copy_project(source: Path, target: Path) -> Path:
    """A project with all its times, so that nothing in it is out of date."""
    shutil.copytree(source, target, symlinks=True)
    return target


def simulate(
    folder: Path,
    micrographs: int = 6,
    per_micrograph: int = 16,
    symmetry: str = "C1",
    pixel_size: float = 4.0,
    noise: float = 0.6,
    **changes: dict[str, Any],
) -> Path:
    """A project of small micrographs (2560 A wide) with particles of 160 A and little noise (in signals); `changes` by section."""
    from nephila.simulate.micrographs import MicrographSettings
    from nephila.simulate.project import ObjectSettings, simulate_project

    side = round(2560 / pixel_size)
    settings = MicrographSettings(
        shape=(side, side),
        pixel_size=pixel_size,
        particles=per_micrograph,
        defocus_range=(10000.0, 22000.0),
        max_astigmatism=300.0,
        noise=noise,
        structural_noise=noise / 2,
        dirt=0.0,
        ice_gradient=0.2,
    )
    simulate_project(folder, SEED, micrographs, settings, ObjectSettings(diameter=160.0, symmetry=symmetry))
    configure(folder, SETTINGS)
    return configure(folder, changes)


def configure(folder: Path, changes: dict[str, Any]) -> Path:
    """Change keys of a project's config.yaml, by section."""

    def merge(old: dict[str, Any], new: dict[str, Any]) -> None:
        for key, value in new.items():
            if isinstance(value, dict) and isinstance(old.get(key), dict):
                merge(old[key], value)
            else:
                old[key] = value

    path = folder / "config.yaml"
    content = yaml.safe_load(path.read_text())
    merge(content, changes)
    path.write_text(yaml.safe_dump(content))
    return folder


@dataclass(frozen=True)
class Run:
    """What a call of Snakemake gave."""

    status: int
    output: str

    @property
    def nothing_to_do(self) -> bool:
        return self.status == 0 and "Nothing to be done" in self.output

    @property
    def jobs(self) -> dict[tuple[str, str], str]:
        """Reason of each job by (rule, wildcards joined by a comma), as a run or dry run lists them."""
        found = {}
        for text, reason in re.findall(r"^ *Job \d+: (.*)\n *Reason: (.*)$", self.output, re.MULTILINE):
            found[_rule_of(text)] = reason
        return found

    def jobs_of(self, *rules: str) -> list[tuple[str, str]]:
        """Listed jobs of these rules, sorted; of all rules where none is named."""
        return sorted(job for job in self.jobs if not rules or job[0] in rules)

    def line(self, *parts: str) -> str:
        """The first line of the output that holds all of these."""
        lines = [line for line in self.output.splitlines() if all(part in line for part in parts)]
        assert lines, f"no line with {parts} in:\n{self.output}"
        return lines[0]


def snakemake(code: Path, project: Path, *arguments: str, cores: int = 2) -> Run:
    """Run the workflow of a checkout on a project."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(code / "Snakefile"), "--directory", str(project)]
    return call([*command, "--cores", str(cores), *arguments], code)


def call(command: list[str], code: Path) -> Run:
    """Run a command with the package of this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return Run(done.returncode, done.stdout)


def finished(run: Run) -> Run:
    """The run, after a check that it came to its end."""
    assert run.status == 0, f"the workflow failed:\n{run.output[-6000:]}"
    return run


@cache
def _messages() -> list[tuple[str, re.Pattern[str]]]:
    """Rules and the patterns of their messages."""
    text = "\n".join(path.read_text() for path in sorted((REPOSITORY / "rules").glob("*.smk")))
    rules = re.findall(
        r"^ *(?:rule|checkpoint) (\w+):\n(?:(?!^ *(?:rule|checkpoint) ).*\n)*? *message:\n *\"(.*)\"$",
        text,
        re.MULTILINE,
    )
    return [
        (name, re.compile(re.sub(r"\\\{wildcards\\\.\w+\\\}", "(.+?)", re.escape(message)) + "$"))
        for name, message in rules
    ]


def _rule_of(message: str) -> tuple[str, str]:
    for name, pattern in _messages():
        match = pattern.match(message)
        if match:
            return name, ",".join(match.groups())
    raise AssertionError(f"no rule has the message {message!r}")


def edit_table(project: Path, name: str, source: str, **changes: Any) -> pd.DataFrame:
    """Write edits/NAME.star: the table at `source` with columns changed by functions of the table."""
    (block, table), *_ = read_blocks(project / source).items()
    table = table.assign(**changes)
    write_table(project / "edits" / f"{name}.star", table, block=block)
    return table


def partial_files(project: Path) -> list[str]:
    """Files that a job left half-written."""
    return sorted(str(path.relative_to(project)) for path in (project / "results").rglob("*") if ".tmp" in path.name)
