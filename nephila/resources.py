"""What a job will need: memory and time by rule, from the work that it has to do.

The model is a few terms per rule (arrays that are alive together), checked against the peaks that jobs record beside their logs.
Measured: docs/cluster.md. Requests add what Snakemake needs inside a cluster's job and a margin, and grow with each attempt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from nephila.config import Config

BASE_MB = 250.0
"""Python with the libraries that a computing job loads."""
LIGHT_MB = 190.0
"""The same for jobs that only read and write tables."""
ROW_MB = 2.5e-3
"""A row of a particle table while tables are read and joined."""
VIEWS = 83
FIGURE_BATCHES = 10
"""Batches whose picks one job draws (`ProjectPlan.figure_parts`)."""
SNAKEMAKE_MB = 350.0
"""On a cluster the job's memory also holds the Snakemake processes that run it."""
MARGIN = 1.25
STEP_MB = 250
LIKELY_BAND = 0.7
"""Share of Nyquist to which the refinement is taken to grid while no iteration has said more."""
PADDING = 2
COUNTS = "results/particles/picks_by_micrograph.star"
GROUPS = "results/ctf/def_sort.star"
MODEL = "results/refinement/iter_{:02d}/model.star"


@dataclass(frozen=True)
class Work:
    """Size of a project's work.

    box: px; micrograph_px: pixels of a micrograph as given; micrographs: all; batch: micrographs of a job; particles: all;
    groups: defocus groups; group_share: share of the particles of the largest group, or of a job's own; chunk: particles of a
    refinement job; band: finest shell that the refinement grids, Fourier px; decimate: binning of the micrographs;
    truth: whether the truth is known; listed_seconds: see `listed_seconds`; first_rounds, end_rounds: of an iterative method in the
    first reconstruction and at the end, 0 for the direct one; tries, rounds, tried: of the initial model, from `tried` particles.
    """

    box: int
    micrograph_px: float
    micrographs: int
    batch: int
    particles: int
    groups: int
    group_share: float
    chunk: int
    band: int
    decimate: int = 1
    itemsize: int = 4
    truth: bool = False
    listed_seconds: float = 0.0
    first_rounds: int = 0
    end_rounds: int = 5
    tries: int = 4
    rounds: int = 60
    tried: int = 1000

    @property
    def group_particles(self) -> float:
        """Particles of the group."""
        return self.particles * self.group_share

    @property
    def chunks(self) -> int:
        """Chunks per half."""
        return max(1, math.ceil(self.particles / 2 / self.chunk))

    @property
    def chunk_particles(self) -> float:
        """Particles of a refinement job."""
        return self.particles / 2 / self.chunks

    @property
    def groups_per_chunk(self) -> float:
        """Groups that a chunk holds: particles are sorted by group."""
        return float(self.groups) if self.chunks == 1 else min(self.groups, math.ceil(self.groups / self.chunks) + 1)

    def of_group(self, micrographs: Collection[str]) -> Work:
        """The same work for a job of one group, which holds these micrographs; as it is before picking."""
        picked = _picked(*_stamp(COUNTS))
        total = sum(picked.values())
        return replace(self, group_share=sum(picked.get(name, 0) for name in micrographs) / total) if total else self

    def at_band(self, band: int) -> Work:
        """The same work where the refinement grids to this shell."""
        return replace(self, band=min(band, self.box // 2))


def _half_transform(work: Work) -> float:
    """Millions of cells of the padded half transform of a volume."""
    side = PADDING * work.box
    return side * side * (side / 2 + 1) / 1e6


def fourier_cells(work: Work, radius: float | None = None) -> float:
    """Millions of cells of a gridded sum, up to Nyquist or to a radius in Fourier px; 24 bytes each in memory, 12 on disk."""
    cells = (work.box / 2 if radius is None else radius) * PADDING + 2
    return 2 / 3 * math.pi * cells**3 / 1e6


def _block(work: Work, particles: float = math.inf) -> float:
    """Images and transforms of the block that is being added, and weighted values that wait to be added together, MB."""
    image = 16 * work.box * (work.box // 2 + 1)
    waiting, block = (min(number * image, 256 * 2**20) for number in (particles, min(512, particles)))
    return (waiting + 2 * block) / 1e6


def _stack(work: Work, particles: float) -> float:
    """Particle images that a job has mapped, MB."""
    return particles * work.box**2 * work.itemsize / 1e6


def _projector(work: Work) -> float:
    """Reading the reference and transforming it, MB."""
    return 215 + 11 * _half_transform(work)


def _batch_particles(work: Work) -> float:
    return work.particles / max(work.micrographs, 1) * work.batch


def _micrograph(work: Work) -> float:
    return work.micrograph_px / 1e6


def _views(work: Work, bytes_per_px: float) -> float:
    return VIEWS * work.box**2 * bytes_per_px / 1e6


def _rows(work: Work) -> float:
    return work.particles * ROW_MB


_PEAK_MB: dict[str, Callable[[Work], float]] = {
    "resizevol": lambda w: 190 + 7.5 * w.box**3 / 1e6,
    "powdefocus": lambda w: 265 + 21 * _micrograph(w),
    "ctffind": lambda w: 320 + 1.0 * w.batch,
    "ctffind_pooled": lambda w: 320 + 1.0 * w.batch,
    "import_ctf": lambda w: 320 + 1.0 * w.batch,
    "ring_strength": lambda w: 200 + 0.08 * w.micrographs,
    "plotgroups": lambda w: 260 + 0.08 * w.micrographs,
    "powchk": lambda w: 280 + 0.02 * w.micrographs,
    "noise": lambda w: 180 + 16 * _micrograph(w),
    "pick": lambda w: 340 + 21 * _micrograph(w),
    "lfc_pick": lambda w: 330 + 45 * _micrograph(w),
    "extract_windows": lambda w: 215 + 4 * _micrograph(w) + 7.7e-3 * w.box**2 + 1.5 * _stack(w, _batch_particles(w)),
    "picking_figures": lambda w: 245 + 38 * _micrograph(w) + 1.2 * _stack(w, _batch_particles(w)),
    "merge_coordinates": lambda w: 290 + 2 * _rows(w),
    "makefilelist": lambda w: LIGHT_MB + 0.005 * w.micrographs,
    "nat2stk": lambda w: LIGHT_MB + 2 * _rows(w) + _stack(w, w.particles),
    "merge_ctf": lambda w: 200 + 0.08 * w.micrographs,
    "pfilt": lambda w: LIGHT_MB + 3 * _stack(w, _batch_particles(w)),
    "dftotals": lambda w: 180 + w.group_particles * ROW_MB,
    "bestim": lambda w: 180 + w.group_particles * ROW_MB,
    "propose_good": lambda w: 180 + 2 * _rows(w),
    "good": lambda w: 180 + 2 * _rows(w),
    "renumber": lambda w: 240 + 2 * _rows(w),
    "sel_by_group": lambda w: 180 + 2 * _rows(w),
    "win2stk": lambda w: 125 + 1.5 * _rows(w) + _stack(w, w.group_particles + 256),
    "initial_model": lambda w: 290 + 40 * w.tries + 7.5 * w.box**3 / 1e6 + 0.02 * w.tried,
    "refproj": lambda w: 230 + 10 * _half_transform(w),
    "refproj_ctf": lambda w: 230 + _views(w, 20),
    "apshgrp": lambda w: max(270.0, _projector(w)) + _stack(w, w.group_particles),
    "select": lambda w: 180 + _rows(w),
    "average": lambda w: 245 + _views(w, 30) + _stack(w, w.group_particles) + 4e-3 * w.group_particles,
    "average_all": lambda w: 240 + _views(w, 130),
    "cchistogram": lambda w: 180 + _rows(w),
    "ccthresh": lambda w: 180 + _rows(w),
    "thresh": lambda w: 180 + _rows(w),
    "sel_group_cclim": lambda w: 180 + _rows(w),
    "recon": lambda w: (
        BASE_MB
        + 48 * fourier_cells(w)
        + max(28 * _half_transform(w), _block(w, w.group_particles))
        + _stack(w, w.group_particles)
    ),
    "filt": lambda w: 200 + 17 * w.box**3 / 1e6,
    "plotmap": lambda w: 115 + 11.4 * w.box**3 / 1e6,
    "slices": lambda w: 75 + 16 * w.box**3 / 1e6,
    "merge_recon": lambda w: BASE_MB + 72 * fourier_cells(w) + 28 * _half_transform(w) + 16 * w.box**3 / 1e6,
    "prepare": lambda w: BASE_MB + 13 * _half_transform(w) + 2 * _rows(w),
    "grploop": lambda w: max(
        _projector(w),
        BASE_MB
        + (24 * w.groups_per_chunk + 46) * fourier_cells(w, w.band)
        + _block(w, w.chunk_particles)
        + _stack(w, w.chunk_particles)
        + (_rows(w) if w.chunks == 1 else 0.0),
    ),
    "mergegroups": lambda w: BASE_MB + 72 * fourier_cells(w, w.band) + 28 * _half_transform(w) + 2 * _rows(w),
    "enhance": lambda w: BASE_MB + 16 * w.box**3 / 1e6,
    "endmerge": lambda w: BASE_MB + 32 * fourier_cells(w) + _block(w, w.chunk_particles) + _stack(w, w.chunk_particles),
    "endrefine": lambda w: BASE_MB + 117 * _half_transform(w) + 2 * _rows(w),
    "checkrefine": lambda w: (
        BASE_MB
        + 40 * _half_transform(w)
        + _block(w, min(w.particles, 3000))
        + _stack(w, min(w.particles, 3000))
        + _rows(w)
    ),
    "local_resolution": lambda w: BASE_MB + 64 * w.box**3 / 1e6,
    "assign_classes": lambda w: (
        BASE_MB + 60 * _half_transform(w) / 8 + 14 * _rows(w) + _stack(w, min(w.particles, 4096))
    ),
    "class_maps": lambda w: (
        BASE_MB + 117 * _half_transform(w) + _block(w, w.particles) + _stack(w, min(w.particles, 4096)) + 2 * _rows(w)
    ),
    "compare_classes": lambda w: BASE_MB + 60 * w.box**3 / 1e6 + _rows(w),
    "resolution_by_particles": lambda w: (
        BASE_MB
        + 96 * fourier_cells(w)
        + 60 * _half_transform(w)
        + _block(w, w.particles)
        + _stack(w, w.particles)
        + 2 * _rows(w)
    ),
    "angdiff": lambda w: 180 + 2 * _rows(w),
    "angdisp": lambda w: 180 + _rows(w),
    "summary": lambda w: 260 + (44 * _half_transform(w) if w.truth else 0.0) + 2 * _rows(w),
}
"""Peak resident memory of a job in MB. Rules that are not named need LIGHT_MB."""

_CPU_SECONDS: dict[str, Callable[[Work], float]] = {
    "powdefocus": lambda w: w.batch * (0.05 + 0.06 * _micrograph(w)),
    "ctffind": lambda w: 0.6 * w.batch,
    "ctffind_pooled": lambda w: 0.6 * w.batch,
    "import_ctf": lambda w: 0.6 * w.batch,
    "resizevol": lambda w: 0.2 + 3 * w.box**3 / 1e8,
    "makefilelist": lambda w: 1e-3 * w.micrographs,
    "nat2stk": lambda w: 1e-3 * w.particles * (w.box / 128) ** 2,
    "ring_strength": lambda w: 0.01 * w.micrographs,
    "merge_ctf": lambda w: 3e-3 * w.micrographs,
    "plotgroups": lambda w: 0.5 * w.groups + 2e-3 * w.micrographs,
    "powchk": lambda w: 0.5 * w.micrographs,
    "noise": lambda w: 3 * (0.5 + 0.2 * _micrograph(w)),
    "pick": lambda w: w.batch * (1.0 + 0.15 * _micrograph(w)),
    "lfc_pick": lambda w: w.batch * (0.3 + 0.15 * _micrograph(w)),
    "extract_windows": lambda w: w.batch * (0.2 + 0.05 * _micrograph(w)),
    "picking_figures": lambda w: FIGURE_BATCHES * w.batch * (0.5 + 0.15 * _micrograph(w)),
    "pfilt": lambda w: _batch_particles(w) * 1e-3 * (w.box / 128) ** 2,
    "merge_coordinates": lambda w: 1e-4 * w.particles,
    "propose_good": lambda w: 1e-4 * w.particles,
    "good": lambda w: 5e-5 * w.particles,
    "renumber": lambda w: 1.5e-4 * w.particles,
    "win2stk": lambda w: 5e-5 * w.particles + w.group_particles * 5e-4 * (w.box / 128) ** 2,
    "initial_model": lambda w: 2.0 + w.tries * w.rounds * (0.1 + 4e-4 * w.tried),
    "sel_by_group": lambda w: 1e-4 * w.particles,
    "refproj": lambda w: 0.1 * _half_transform(w) + VIEWS * 1e-3 * (w.box / 128) ** 2,
    "refproj_ctf": lambda w: VIEWS * 1e-3 * (w.box / 128) ** 2,
    "apshgrp": lambda w: w.group_particles * _seconds_per_particle(w) + 0.02 * _half_transform(w),
    "average": lambda w: w.group_particles * 1.5e-3 * (w.box / 128) ** 2,
    "select": lambda w: 1e-4 * w.particles,
    "average_all": lambda w: 2.0 + w.groups * VIEWS * 2e-3 * (w.box / 128) ** 2,
    "cchistogram": lambda w: 1.0 + 1e-4 * w.particles,
    "ccthresh": lambda w: 1e-4 * w.particles,
    "thresh": lambda w: 1e-4 * w.particles,
    "dftotals": lambda w: 1e-4 * w.group_particles,
    "bestim": lambda w: 1e-4 * w.group_particles,
    "sel_group_cclim": lambda w: 1e-4 * w.particles,
    "slices": lambda w: 1.0 + 3 * w.box**3 / 1e8,
    "enhance": lambda w: 0.5 * _half_transform(w) / 8,
    "angdiff": lambda w: 1.0 + 1e-4 * w.particles,
    "angdisp": lambda w: 1.0 + 1e-4 * w.particles,
    "recon": lambda w: w.group_particles * _seconds_per_particle(w) + (0.2 + 0.1 * w.first_rounds) * _half_transform(w),
    "merge_recon": lambda w: (0.25 + 0.15 * w.first_rounds) * _half_transform(w) + 0.05 * fourier_cells(w) * w.groups,
    "grploop": lambda w: (
        w.chunk_particles * (_seconds_per_particle(w) + w.listed_seconds)
        + 0.02 * _half_transform(w)
        + 0.05 * fourier_cells(w, w.band) * w.groups_per_chunk
    ),
    "mergegroups": lambda w: 0.25 * _half_transform(w) + 0.1 * fourier_cells(w, w.band) * (w.groups + 2 * w.chunks),
    "prepare": lambda w: 0.07 * _half_transform(w),
    "endmerge": lambda w: w.chunk_particles * 1.2e-3 * (w.box / 128) ** 2 + 0.1 * fourier_cells(w),
    "endrefine": lambda w: (0.75 + 0.15 * w.end_rounds) * _half_transform(w) + 5e-5 * w.particles,
    "checkrefine": lambda w: 15.0 + 1200 * _seconds_per_particle(w) + 1.0 * _half_transform(w),
    "local_resolution": lambda w: 3.0 * _half_transform(w),
    "assign_classes": lambda w: 20.0 + w.particles * (0.05 + 5e-4 * (w.box / 128) ** 2),
    "class_maps": lambda w: w.particles * 1.2e-3 * (w.box / 128) ** 2 + 1.5 * _half_transform(w),
    "compare_classes": lambda w: 2.0 + 2.0 * _half_transform(w),
    "resolution_by_particles": lambda w: w.particles * 3e-3 * (w.box / 128) ** 2 + 18 * _half_transform(w),
    "summary": lambda w: 6.0 + w.particles * 6e-3 * (w.box / 128) ** 2 if w.truth else 2.0,
}
"""CPU seconds of a job beyond starting it."""


def _seconds_per_particle(work: Work) -> float:
    """CPU seconds for an exhaustive search and backprojection of one particle."""
    return 1e-3 + 1.6e-3 * (work.box / 128) ** 2


START_SECONDS = 1.0
"""CPU seconds of starting a job: imports, compiled kernels."""


def peak_memory_mb(rule: str, work: Work) -> float:
    """Expected peak resident memory of a job of this rule, MB."""
    return _PEAK_MB[rule](work) if rule in _PEAK_MB else LIGHT_MB


def cpu_seconds(rule: str, work: Work) -> float:
    """Expected CPU seconds of a job of this rule."""
    return START_SECONDS + (_CPU_SECONDS[rule](work) if rule in _CPU_SECONDS else 0.0)


def request_mb(rule: str, work: Work, attempt: int = 1) -> int:
    """Memory to ask a cluster for, MB; each further attempt asks for twice as much."""
    wanted = (SNAKEMAKE_MB + MARGIN * peak_memory_mb(rule, work)) * 2 ** (attempt - 1)
    return STEP_MB * math.ceil(wanted / STEP_MB)


def request_minutes(rule: str, work: Work, threads: int = 1, attempt: int = 1) -> int:
    """Time limit to ask a cluster for, minutes: four times what is expected, at least 30; twice as much at each further attempt."""
    wanted = 20 + 4 * cpu_seconds(rule, work) / 60 / max(1, threads)
    return 15 * math.ceil(max(30.0, wanted) / 15) * 2 ** (attempt - 1)


def estimate_work(config: Config, micrographs: Collection[str]) -> Work:
    """The work of the project in the current folder: what is known already, and guesses for the rest. Cheap to call again.

    Before picking a particle is expected on each 2 x 2 boxes of a micrograph, before sorting 20 groups.
    """
    pixels = 0.0
    if micrographs and not config.input.particles:
        pixels = _micrograph_pixels(str(Path(next(iter(micrographs))).resolve()))
    area = pixels / config.input.decimate**2
    picked, (groups, share) = sum(_picked(*_stamp(COUNTS)).values()), _groups(*_stamp(GROUPS))
    particles = picked or int(len(micrographs) * max(1.0, area / (2 * config.box) ** 2))
    if not groups:
        groups = min(20, max(1, len(micrographs)))
        share = 2.0 / (groups + 1)
    return Work(
        box=config.box,
        micrograph_px=pixels,
        micrographs=len(micrographs),
        batch=min(config.jobs.micrographs_per_batch, max(1, len(micrographs))),
        particles=particles,
        groups=groups,
        group_share=share,
        chunk=config.jobs.particles_per_chunk,
        band=max(1, int(LIKELY_BAND * config.box / 2)),
        decimate=config.input.decimate,
        itemsize=2 if config.particles.dtype == "float16" else 4,
        truth=config.truth.map is not None,
        listed_seconds=listed_seconds(config),
        first_rounds=config.reconstruction.options_of(config.reconstruction.method).get("rounds", 0),
        end_rounds=config.reconstruction.options_of(config.refinement.end_method).get("rounds", 0),
        tries=config.reference.initial.tries,
        rounds=config.reference.initial.rounds,
        tried=min(config.reference.initial.particles, particles),
    )


def listed_seconds(config: Config) -> float:
    """CPU seconds that a particle takes longer in the slowest listed iteration than in one of the automatic schedule.

    What is counted: poses of the whole grid times shifts, poses around the last one that a continuous search starts from, or
    poses of the grid around it.
    """
    from nephila.refinement.settings import iteration_settings
    from nephila.symmetry import point_group_matrices

    slowest = 0.0
    for iteration in range(1, config.refinement.iterations + 1):
        chosen = iteration_settings(config, iteration)
        if chosen["schedule"] != "lists":
            continue
        step, reach = chosen["angular_step_deg"], chosen["search_range_deg"]
        if reach == 0:
            poses = 3.7e6 / step**3 / len(point_group_matrices(chosen["symmetry"]))
            shifts = (
                math.ceil(2 * chosen["shift_range"] / (chosen["shift_step"] or config.box * config.pixel_size / 40))
                ** 2
            )
            seconds = poses * (2e-7 + 1.4e-8 * shifts)
        elif chosen["search"] == "continuous":
            seconds = 8e-6 * 4.2 * (reach / step) ** 3
        else:
            seconds = 2e-4 * 3.2 * (reach / step + 1) ** 2 * min(2 * reach / step + 1, 180 / step)
        slowest = max(slowest, seconds)
    return slowest


def gridded_shell(iteration: int, box: int) -> int | None:
    """Finest shell that an iteration grids, where the one before has said how to go on."""
    path, stamp = _stamp(MODEL.format(iteration - 1))
    return _gridded_shell(path, stamp, box) if stamp else None


@cache
def _gridded_shell(path: str, stamp: int, box: int) -> int:
    from nephila.refinement.model import read_model
    from nephila.refinement.schedule import grid_radius

    return grid_radius(read_model(path).next.band, box)


def _stamp(path: str) -> tuple[str, int]:
    """A path and its time of change, 0 where there is no such file: what a cached reading depends on."""
    try:
        return str(Path(path).resolve()), Path(path).stat().st_mtime_ns
    except FileNotFoundError:
        return path, 0


@cache
def _micrograph_pixels(path: str) -> float:
    from nephila.errors import InputError
    from nephila.io.micrographs import micrograph_header

    try:
        header = micrograph_header(path)
    except InputError:
        return 4096.0**2  # raw scanner files, or one that the run will name as unreadable
    return float(header.ny * header.nx)


@cache
def _picked(path: str, stamp: int) -> dict[str, int]:
    """Picked particles by micrograph; empty where they are not known yet."""
    from nephila.io.tables import read_table

    if not stamp:
        return {}
    table = read_table(path)
    return dict(zip(table["rlnMicrographName"].astype(str), table["nphPicked"].astype(int), strict=True))


@cache
def _groups(path: str, stamp: int) -> tuple[int, float]:
    """Number of defocus groups and the largest one's share of the micrographs; 0 groups where they are not known yet."""
    from nephila.io.tables import read_table

    if not stamp:
        return 0, 0.0
    sizes = read_table(path, kind="def_sort")["nphDefocusGroup"].value_counts()
    return len(sizes), float(sizes.max() / sizes.sum())
