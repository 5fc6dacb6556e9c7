"""A project as the workflow sees it before any job has run: its micrographs, their batches, settings by iteration."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nephila.config import Config
from nephila.errors import InputError
from nephila.io.tables import read_table
from nephila.plan import assign_batches
from nephila.refinement.settings import enhances, iteration_settings
from nephila.resources import FIGURE_BATCHES

LIST = "results/project/micrographs.star"
"""Table of micrographs and their batches, which keeps batches stable when micrographs are added."""
MOVED_DEG = 2.25
"""With the automatic schedule, whose steps follow from the data, figures call a particle moved beyond this change."""


FINAL_MASK = "results/refinement/mask.mrc"


@dataclass(frozen=True)
class ProjectPlan:
    """Micrographs by name (path from the project folder, in natural order) with their batch, and what settings follow."""

    config: Config
    batches: dict[str, int]
    sources: tuple[str, ...]

    @cached_property
    def batch_labels(self) -> list[str]:
        """Wildcards {batch}, in order."""
        return [f"{number:04d}" for number in sorted(set(self.batches.values()))]

    @cached_property
    def figure_parts(self) -> dict[str, list[str]]:
        """Batches that one job draws, by wildcard {part}: drawing is quick, and a job per batch would cost more than it does."""
        parts: dict[str, list[str]] = {}
        for label in self.batch_labels:
            parts.setdefault(f"{(int(label) - 1) // FIGURE_BATCHES + 1:04d}", []).append(label)
        return parts

    def names_of(self, batch: str) -> list[str]:
        """Micrographs of a batch."""
        return self._members[int(batch)]

    def micrographs_of(self, batch: str) -> list[str]:
        """Files of a batch's micrographs."""
        return self.names_of(batch)

    @cached_property
    def _members(self) -> dict[int, list[str]]:
        members: dict[int, list[str]] = {}
        for name, number in self.batches.items():
            members.setdefault(number, []).append(name)
        return members

    def batches_of(self, names: Sequence[str]) -> list[str]:
        """Labels of the batches that hold some of these micrographs."""
        return [f"{number:04d}" for number in sorted({self.batches[name] for name in names})]

    def iteration_settings(self, iteration: int) -> dict[str, Any]:
        """Settings of a refinement iteration, from 1."""
        return iteration_settings(self.config, iteration)

    @property
    def moved_by_deg(self) -> float:
        """Change of direction from which the figures call a particle moved, degrees: 1.5 of the last listed steps, as in SPIDER."""
        return 1.5 * self.last_settings["angular_step_deg"] or MOVED_DEG

    @property
    def last_settings(self) -> dict[str, Any]:
        """Settings of the last iteration."""
        return self.iteration_settings(self.config.refinement.iterations)

    def mask_files(self, iteration: int) -> list[str]:
        """The user's mask in an iteration, where there is one."""
        given = self.iteration_settings(iteration)["mask_file"]
        return [given] if given else []

    def enhances(self, iteration: int) -> bool:
        """Whether the references of an iteration have their amplitudes enhanced."""
        return enhances(self.config, iteration)

    @property
    def start_settings(self) -> dict[str, Any]:
        """What preparing the refinement depends on."""
        return self.iteration_settings(1)

    @property
    def initial_model_settings(self) -> dict[str, Any]:
        """What an initial model depends on."""
        initial = self.config.reference.initial
        return {
            "diameter": self.config.particle.diameter,
            "symmetry": self.config.particle.symmetry,
            "tries": initial.tries,
            "rounds": initial.rounds,
            "particles": initial.particles,
            "resolution": initial.resolution,
            "shift_range": self.config.alignment.shift_range,
            "seed": self.config.project.seed,
        }

    @property
    def result_settings(self) -> dict[str, Any]:
        """Settings of the last iteration, for what judges its map: with the mask that the final volumes had."""
        settings = self.last_settings
        automatic = settings["mask_shape"] == "auto" and settings["mask_file"] is None
        return settings | {"mask_file": FINAL_MASK} if automatic else settings

    @property
    def final_settings(self) -> dict[str, Any]:
        """What the final volumes depend on."""
        refinement = self.config.refinement
        options = self.config.reconstruction.options_of(refinement.end_method)
        return {
            "method": refinement.end_method,
            "options": options,
            "b_factor": refinement.b_factor,
            "sharpening": refinement.sharpening,
        }

    @property
    def reconstruction_settings(self) -> dict[str, Any]:
        """What solving for the first volumes depends on."""
        chosen = self.config.reconstruction
        return {"method": chosen.method, "snr": chosen.snr, "options": chosen.options_of(chosen.method)}


def open_project(config: Config) -> ProjectPlan:
    """Find the project's micrographs in the current folder and give them batches.

    Raises
    ------
    InputError
        No micrograph matches, or a file that the configuration names does not exist (its key is named).
    """
    for key, path in (
        ("reference.volume", config.reference.volume),
        ("input.coordinates", config.input.coordinates),
        *(("input.particles", table) for table in config.input.particle_tables),
        ("refinement.mask.file", config.refinement.mask.file),
        *(("refinement.changes.mask.file", item.mask.file) for item in config.refinement.changes if item.mask),
        ("refinement.scattering", config.refinement.scattering),
        *(("classes.references", path) for path in config.classes.references),
        ("truth.map", config.truth.map),
        ("truth.particles", config.truth.particles),
        ("truth.micrographs", config.truth.micrographs),
    ):
        made = key == "input.particles" and path is not None and is_made(path)
        if path is not None and not made and not Path(path).is_file():
            hint = "; leave it empty to have an initial model made" if key == "reference.volume" else ""
            raise InputError(
                f"{key}: no such file: {path} (paths are relative to the project folder, {Path.cwd()}){hint}"
            )
    if config.input.particles:
        if config.input.decimate != 1:
            raise InputError(
                f"input.decimate: {config.input.decimate} is for micrographs; particles are taken as they are: set it to 1, and "
                "input.pixel_size to theirs"
            )
        tables = config.input.particle_tables
        overfocus = config.input.overfocus
        names = sorted(set.union(*(given_micrographs(table, overfocus) for table in tables)), key=_natural)
        sources: tuple[str, ...] = tuple(tables)
    else:
        names = find_micrographs(config.input.micrographs)
        sources = tuple(names)
    previous = read_table(LIST, kind="micrographs") if Path(LIST).is_file() else None
    kinds = None
    if config.input.particles and config.input.optics_groups == "several":
        from nephila.import_particles import optics_of_micrographs

        tables = [table for table in config.input.particle_tables if not is_made(table)]
        kinds = optics_of_micrographs(tables, overfocus=config.input.overfocus)
    batches = assign_batches(names, config.jobs.micrographs_per_batch, previous, kinds)
    return ProjectPlan(config, batches, sources)


def refuse_hand_fits(config: Config, edit: Path) -> None:
    """InputError where defoci were fitted by hand though the particles were given with their own."""
    if config.input.particles and edit.exists():
        raise InputError(
            f"{edit}: the particles were given with defoci of their own (input.particles): change them there and remove {edit}"
        )


def is_made(particles: str) -> bool:
    """Whether the workflow makes this table itself (rule nat2stk), from a folder of the Nature Protocols layout."""
    return Path(particles).name == "particles.star" and Path(particles).with_name("order_select.dat").is_file()


def given_micrographs(particles: str, overfocus: bool = False) -> set[str]:
    """Names of the micrographs that particles are given of; overfocus : take negative defoci."""
    if is_made(particles):
        from nephila.nature_protocols import group_name, read_order

        order = read_order(Path(particles).with_name("order_select.dat"))
        return {group_name(int(group)) for group in order["group"]}
    from nephila.import_particles import read_given_particles

    return set(read_given_particles(particles, overfocus=overfocus)["rlnMicrographName"].astype(str))


def find_micrographs(pattern: str) -> list[str]:
    """Paths that match the pattern, in natural order (2 before 10). InputError where there are none."""
    names = [name for name in glob.glob(pattern) if Path(name).is_file()]
    if not names:
        folder = Path(pattern).parent
        state = "is empty or holds no matching file" if folder.is_dir() else "does not exist"
        raise InputError(f"input.micrographs: nothing matches {pattern!r}: the folder {folder} {state}")
    return sorted(names, key=_natural)


def _natural(text: str) -> list[tuple[int, int, str]]:
    from nephila.io.micrographs import natural_key

    return natural_key(text)
