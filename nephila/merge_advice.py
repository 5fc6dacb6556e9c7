"""Whether joining data sets gains: each refined alone, then added one at a time, the best first; what does not gain is left
out again.

A data set of thin ice is often better alone than with others of which there are simply more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nephila.config import Config
from nephila.config.render import default_yaml
from nephila.errors import InputError
from nephila.fsc import resolution_at
from nephila.io.atomic import write_text
from nephila.io.tables import read_table, write_table
from nephila.optics_groups import stem

FOLDER = "merge"
"""In the project's folder: a project for each combination, and the table of what they reached."""
LEAST_GAIN = 0.01
"""Share by which the resolution must become finer to count as a gain: less is within what other half-sets would give."""
_PATHS = (
    ("reference", "volume"), ("refinement", "mask", "file"), ("refinement", "scattering"), ("truth", "map"),
    ("truth", "particles"), ("truth", "micrographs"),
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """What a combination of data sets reached; datasets: tables; resolutions in A, at 0.143 and 0.5 (inf: none)."""

    datasets: tuple[str, ...]
    particles: int
    resolution: float
    resolution_half: float


def advise(
    config: Config, project: Path, run: Callable[[Path], None], told: Callable[[str], None] = print
) -> list[Trial]:
    """Refine all combinations that the advice needs, and write `merge/advice.star`.

    Parameters
    ----------
    config : of the project, with a list of tables in `input.particles`
    run : runs the project in a folder to its end; raises where that fails
    told : called with a line after each combination

    Raises
    ------
    InputError
        Fewer than two data sets, or a run without results.
    """
    datasets = config.input.particle_tables
    if len(datasets) < 2:
        raise InputError(
            f"input.particles: {len(datasets)} tables; merge-advice needs a list of two or more, one for each data set"
        )
    done: list[Trial] = []
    while (chosen := next_combination(done, datasets)) is not None:
        folder = prepare(config, project, chosen)
        run(folder)
        done.append(read_trial(folder, chosen))
        told(describe(done[-1], done))
    write_table(project / FOLDER / "advice.star", advice_table(done), block="merge_advice", comment=verdict(done))
    return done


def next_combination(done: Sequence[Trial], datasets: Sequence[str]) -> tuple[str, ...] | None:
    """The combination to refine next: each alone, then the kept ones with the next best; None at the end."""
    alone = [trial for trial in done if len(trial.datasets) == 1]
    if len(alone) < len(datasets):
        return (datasets[len(alone)],)
    order = sorted(alone, key=lambda trial: (trial.resolution, trial.resolution_half))
    kept = order[0]
    joined = [trial for trial in done if len(trial.datasets) > 1]
    for position, candidate in enumerate(order[1:]):
        if position == len(joined):
            return (*kept.datasets, *candidate.datasets)
        if gains(joined[position], kept):
            kept = joined[position]
    return None


def kept_of(done: Sequence[Trial]) -> Trial:
    """The combination that the advice is for: the best data set, with all that gained."""
    kept = min(
        (trial for trial in done if len(trial.datasets) == 1),
        key=lambda trial: (trial.resolution, trial.resolution_half),
    )
    for trial in done:
        if len(trial.datasets) > 1 and gains(trial, kept):
            kept = trial
    return kept


def gains(trial: Trial, kept: Trial) -> bool:
    """Whether a combination is finer than what was kept by LEAST_GAIN."""
    return trial.resolution < (1 - LEAST_GAIN) * kept.resolution


def name_of(datasets: Sequence[str]) -> str:
    """The folder's name of a combination: the tables' names, with the folder's where names repeat."""
    names = [stem(path) for path in datasets]
    if len(set(names)) < len(names) or any(name == "particles" for name in names):
        names = ["_".join(Path(path).with_suffix("").parts[-2:]).replace("..", "") for path in datasets]
    return "+".join(names)


def prepare(config: Config, project: Path, datasets: Sequence[str]) -> Path:
    """A project for a combination: the configuration with these tables alone; written anew only where it changes."""
    folder = project / FOLDER / name_of(datasets)
    content = config.model_dump()
    content["input"]["particles"] = [_from(folder, project, path) for path in datasets]
    content["project"]["name"] = f"{config.project.name}.{name_of(datasets).replace('+', '.')}"
    for path in _PATHS:
        section: Any = content
        for key in path[:-1]:
            section = section[key]
        if section[path[-1]]:
            section[path[-1]] = _from(folder, project, section[path[-1]])
    text = default_yaml(content, title="One combination of data sets, for nephila merge-advice; rewritten by it.")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "config.yaml"
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        write_text(target, text)
    return folder


def _from(folder: Path, project: Path, path: str) -> str:
    """A path of the project as it is called from a folder."""
    return path if os.path.isabs(path) else os.path.relpath(project / path, folder)


def read_trial(folder: Path, datasets: Sequence[str]) -> Trial:
    """What the run in a folder reached. InputError where it has no results."""
    summary, curve = folder / "results" / "summary.json", folder / "results" / "refinement" / "fsc.star"
    if not (summary.is_file() and curve.is_file()):
        raise InputError(f"{folder}: the run has no results (results/summary.json); look at its logs, and start again")
    facts = json.loads(summary.read_text(encoding="utf-8"))
    fsc = read_table(curve, kind="fsc")["rlnFourierShellCorrelation"].to_numpy(dtype=float)
    fine, half = (resolution_at(fsc, at, facts["box"], facts["pixel_size"], interpolate=True) for at in (0.143, 0.5))
    return Trial(tuple(datasets), int(facts["particles"]["refined"]), fine or float("inf"), half or float("inf"))


def _before(trial: Trial, done: Sequence[Trial]) -> Trial:
    """What a combination is compared with: what was kept before it."""
    return kept_of(done[: list(done).index(trial)])


def describe(trial: Trial, done: Sequence[Trial]) -> str:
    """A line on a combination."""
    reached = f"{trial.resolution:.2f} A at 0.143, {trial.resolution_half:.2f} at 0.5"
    line = f"{name_of(trial.datasets)}: {trial.particles} particles, {reached}"
    if len(trial.datasets) == 1:
        return line
    kept = _before(trial, done)
    word = "gains" if gains(trial, kept) else "does not gain"
    return f"{line}; adding {name_of(trial.datasets[-1:])} {word} ({kept.resolution:.2f} A without)"


def verdict(done: Sequence[Trial]) -> str:
    """The advice in a sentence."""
    kept = kept_of(done)
    used = name_of(kept.datasets)
    left = [trial for trial in done if len(trial.datasets) == 1 and trial.datasets[0] not in kept.datasets]
    if not left:
        return f"Join all: {used}, {kept.resolution:.2f} A."
    names = ", ".join(name_of(trial.datasets) for trial in left)
    return f"Use {used}, {kept.resolution:.2f} A; leave out {names}: no gain."


def advice_table(done: Sequence[Trial]) -> pd.DataFrame:
    """A row per combination, in the order in which they were refined."""
    rows = []
    for trial in done:
        joined = len(trial.datasets) > 1
        gain = gains(trial, _before(trial, done)) if joined else False
        rows.append(
            {
                "nphDatasets": name_of(trial.datasets),
                "nphParticles": trial.particles,
                "nphResolution": round(trial.resolution, 4) if trial.resolution < float("inf") else 0.0,
                "nphResolutionHalf": round(trial.resolution_half, 4) if trial.resolution_half < float("inf") else 0.0,
                "nphAdvice": ("gains" if gain else "no_gain") if joined else "alone",
            }
        )
    return pd.DataFrame(rows)
