"""Exhaustive and local alignment of a stack of particles.

Particles are taken in batches of `BLOCK` rows (local searches: more), each wholly by one thread and padded to full
size, so that a particle's result is the same bytes for any number of threads and any cut of the table into chunks that
start at multiples of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nephila.alignment.coarse import CoarseGrid
from nephila.alignment.grids import OrientationGrid, ShiftGrid, starts_around
from nephila.alignment.result import Batch, assemble_result
from nephila.alignment.samples import CtfSource, SampleSet, is_shared
from nephila.alignment.settings import AlignmentResult, AlignmentSettings, Poses
from nephila.errors import InputError
from nephila.kernels.candidates import Plan, refine_batch
from nephila.kernels.pose import BandSamples, Limits, Particle
from nephila.projection import FourierProjector

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

BLOCK = 32
# Of a batch of a local search, whose rows share no products: more small images then share what surrounds the kernels
_LOCAL_PIXELS = 2**20


def align_exhaustively(
    images: Any,
    projector: FourierProjector,
    ctf: CtfSource = None,
    settings: AlignmentSettings | None = None,
    prior: Poses | None = None,
    *,
    weights_by_shell: npt.ArrayLike | None = None,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> AlignmentResult:
    """Align particles to a reference without (or in spite of) what is known about their poses.

    Every view, in-plane rotation and shift of the grid is matched in the low frequencies; the best few candidates are
    refined by Levenberg-Marquardt steps in rising bands (`search="continuous"`), or the best is returned (`"grid"`).

    Parameters
    ----------
    images : float32 [m, n, n], or anything whose slices are (a memory-mapped stack); protein bright
    projector : of the reference, same side n, reaching the final band
    ctf : [1 or m, n, n // 2 + 1], or a function (first, last) giving it for those rows, or `ParticleCtfs`, which is
        evaluated only where needed; none for 1
    prior : poses [m]; a further candidate for each particle (continuous search), and what `moved_*` count from
    weights_by_shell : 1 / noise power |n(k)|^2 of the images' transforms, by shell; none: white noise
    threads : batches at a time; does not change the result
    progress : called with the number of particles done

    Raises
    ------
    InputError : shapes that do not fit, bands beyond the projector, images that are not finite (with their row)
    """
    choice = settings or AlignmentSettings()
    run = _Run.prepare(images, projector, ctf, choice, prior, weights_by_shell, local=False)
    return run.execute(run.search_everywhere, threads, progress)


def align_locally(
    images: Any,
    projector: FourierProjector,
    ctf: CtfSource,
    prior: Poses,
    settings: AlignmentSettings | None = None,
    *,
    weights_by_shell: npt.ArrayLike | None = None,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> AlignmentResult:
    """Align particles starting from a known pose: continuous steps alone, or the grid's views within `range_deg`.

    Shifts stay within `shift_range_px` of the prior's, rotations within `range_deg` (none: free). Parameters and errors
    are those of `align_exhaustively`; a grid search needs `range_deg`.
    """
    choice = settings or AlignmentSettings()
    if choice.search == "grid" and choice.range_deg is None:
        raise InputError("alignment: a local search on the grid needs range_deg, or search exhaustively")
    run = _Run.prepare(images, projector, ctf, choice, prior, weights_by_shell, local=True)
    return run.execute(run.search_near_prior, threads, progress)


def band_limits(settings: AlignmentSettings, projector: FourierProjector, local: bool) -> tuple[int, ...]:
    """Rising band limits of a search, Fourier pixels."""
    highest = min(projector.max_radius, (projector.n - 1) // 2)
    if settings.search == "grid":
        bands: tuple[int, ...] = (settings.coarse_band,)
    elif settings.bands is not None:
        bands = settings.bands
    else:
        final = highest if settings.final_band is None else settings.final_band
        bands = (max(1, final // 2), final) if local else _doubling(min(settings.coarse_band, final), final)
        bands = tuple(sorted(set(bands)))
    if bands[-1] > highest or bands[0] < 1:
        raise InputError(f"alignment: bands {bands} have to lie in 1 to {highest}, what projector and box allow")
    return bands


def _doubling(first: int, final: int) -> tuple[int, ...]:
    bands = [first]
    while bands[-1] * 2 < final:
        bands.append(bands[-1] * 2)
    if len(bands) > 1 and bands[-1] * 3 >= final * 2:
        bands[-1] = final
    return tuple(dict.fromkeys([*bands, final]))


@dataclass
class _Run:
    """Everything that the batches of one alignment share."""

    images: Any
    total: int
    projector: FourierProjector
    ctf: CtfSource
    settings: AlignmentSettings
    prior: Poses | None
    samples: SampleSet
    root: Float32
    views: OrientationGrid
    plan: Plan
    coarse: CoarseGrid | None
    shared_norms: Float32 | None
    noise_known: bool
    prior_rotations: Float64
    prior_shifts: Float64
    block: int  # rows of a batch
    band: BandSamples  # where the reference is sampled: that of `samples`, or at M k
    starts: Float64  # rotations of the prior that a local search starts from [k, 3, 3], none first

    @classmethod
    def prepare(
        cls,
        images: Any,
        projector: FourierProjector,
        ctf: CtfSource,
        settings: AlignmentSettings,
        prior: Poses | None,
        weights_by_shell: npt.ArrayLike | None,
        local: bool,
    ) -> _Run:
        total = len(images)
        if prior is not None and len(prior) != total:
            raise InputError(f"{len(prior)} prior poses for {total} particles: one each is needed")
        bands = band_limits(settings, projector, local)
        # the grid is matched in the lowest band, whatever the refinement's first one is
        coarse_band = min(settings.coarse_band, bands[-1])
        levels = tuple(sorted({coarse_band, *bands}))
        samples = SampleSet.build(projector.n, levels)
        starts = starts_around(settings.start_step_deg, settings.range_deg if local else None)
        if len(starts) > 1:
            bands = (coarse_band, coarse_band, *(band for band in bands if band > coarse_band))
        counts = samples.counts[[levels.index(band) for band in bands]]
        if len(starts) > 1:
            plan = _plan_from_starts(settings, bands, counts, len(starts))
        else:
            plan = _refinement_plan(settings, bands, counts, local, prior is not None)
        root = samples.root_weights(weights_by_shell)
        views = OrientationGrid.build(settings.angular_step_deg, settings.in_plane_step_deg, settings.symmetry)
        run = cls(
            images, total, projector, ctf, settings, prior, samples, root, views, plan, None, None,
            weights_by_shell is not None,
            *(np.zeros(0), np.zeros(0)) if prior is None else (prior.matrices, prior.shifts),
            max(BLOCK, _LOCAL_PIXELS // projector.n**2) if local else BLOCK,
            samples.band if projector.magnification is None else samples.magnified(projector.magnification), starts,
        )  # fmt: skip
        if not local:
            run._prepare_coarse(int(samples.counts[levels.index(coarse_band)]))
        return run

    def _prepare_coarse(self, count: int) -> None:
        self.coarse = CoarseGrid.build(
            self.projector, self.samples, count, self.views.matrices(), shift_grid(self.settings, self.projector.n)
        )
        if is_shared(self.ctf):
            factors = self.samples.take_ctf(self.ctf, self.total, 0, 1)
            self.shared_norms = self.coarse.norms(factors * self.root, self.block)

    def execute(
        self, search: Callable[[Batch], None], threads: int, progress: Callable[[int], None] | None
    ) -> AlignmentResult:
        """Run the batches and put their results together."""

        def one(first: int) -> Batch:
            batch = self.load(first, min(first + self.block, self.total))
            search(batch)
            batch.particle = None
            return batch

        batches: list[Batch] = []
        with single_blas_thread(), ThreadPoolExecutor(max(1, threads)) as pool:
            starts = range(0, self.total, self.block)
            for batch in pool.map(one, starts) if threads > 1 else map(one, starts):
                batches.append(batch)
                if progress is not None:
                    progress(batch.first + batch.number)
        return assemble_result(batches, self.settings, self.views, self.prior, self.noise_known)

    def load(self, first: int, last: int) -> Batch:
        """Images, CTFs and priors of some rows, padded to a whole batch."""
        n = self.projector.n
        images = np.asarray(self.images[first:last], dtype=np.float32)
        if images.shape != (last - first, n, n):
            raise InputError(f"images of shape {images.shape[1:]}: the reference's box is {n}")
        ctf = self.samples.take_ctf(self.ctf, self.total, first, last)
        loaded, powers = self.samples.gather(images, ctf, self.root, first)
        factors = loaded.ctf if len(loaded.ctf) == 1 else _pad(loaded.ctf, self.block)
        particle = Particle(_pad(loaded.real, self.block), _pad(loaded.imag, self.block), factors)
        rotations, shifts = np.tile(np.eye(3), (self.block, 1, 1)), np.zeros((self.block, 2))
        if self.prior is not None:
            rotations[: last - first] = self.prior_rotations[first:last]
            shifts[: last - first] = self.prior_shifts[first:last]
        return Batch(first, last - first, particle, powers, rotations, shifts, len(self.samples.targets))

    def search_everywhere(self, batch: Batch) -> None:
        """The grid, then the continuous steps."""
        assert self.coarse is not None and batch.particle is not None
        choice = self.settings
        norms = self.shared_norms
        if norms is None:
            norms = self.coarse.norms(batch.particle.ctf, self.block)
        on_grid = choice.search == "grid"
        separation = choice.distinct_deg if on_grid else choice.separation * choice.angular_step_deg
        rotations, shifts, matches, places, number = self.coarse.search(
            batch.particle, norms, choice.candidates, separation
        )
        if on_grid:
            batch.take_grid(rotations, shifts, matches, places, number, len(self.views.psi))
            return
        if self.prior is not None:
            rotations = np.concatenate([batch.prior_rotations[:, None], rotations], axis=1)
            shifts = np.concatenate([batch.prior_shifts[:, None], shifts], axis=1)
            number = number + 1
        margin = float(np.diff(np.unique(self.coarse.shifts[:, 0])).max(initial=1.0)) / 2
        self.refine(batch, rotations, shifts, number, np.zeros((self.block, 2)), choice.shift_range_px + margin, None)

    def search_near_prior(self, batch: Batch) -> None:
        """Continuous steps from the prior, or the grid's views around it."""
        if self.settings.search == "grid":
            self.search_grid_near_prior(batch)
            return
        number = len(self.starts)
        self.refine(
            batch,
            self.starts @ batch.prior_rotations[:, None],
            np.repeat(batch.prior_shifts[:, None], number, axis=1),
            np.full(self.block, number),
            batch.prior_shifts,
            self.settings.shift_range_px,
            self.settings.range_deg,
        )
        batch.keep(self.settings.candidates)

    def refine(
        self,
        batch: Batch,
        rotations: Float64,
        shifts: Float64,
        number: npt.NDArray[np.int64],
        centre: Float64,
        shift_limit: float,
        range_deg: float | None,
    ) -> None:
        """Levenberg-Marquardt in rising bands; the kernels count shifts from pixel 0."""
        half = self.projector.n // 2
        number = np.where(np.pad(batch.powers, (0, self.block - batch.number)) > 0, number, 0)
        poses = (np.array(rotations, order="C"), np.ascontiguousarray(shifts - half), number)
        cosine = -2.0 if range_deg is None or range_deg >= 180 else float(np.cos(np.deg2rad(range_deg)))
        limits = Limits(centre - half, float(shift_limit) + 1e-6, batch.prior_rotations, cosine)
        scores = np.full(rotations.shape[:2], -np.inf)
        amplitudes = np.zeros(rotations.shape[:2])
        grid = self.projector.grid
        refine_batch(grid, self.band, self.plan, batch.particle, poses, limits, scores, amplitudes)
        batch.take(poses[0], poses[1] + half, scores, amplitudes, poses[2])

    def search_grid_near_prior(self, batch: Batch) -> None:
        """The views and in-plane rotations within `range_deg` of each particle's prior, shifts around its own."""
        choice, n = self.settings, self.projector.n
        assert choice.range_deg is not None and batch.particle is not None
        offsets = shift_grid(choice, n)
        for row in range(batch.number):
            views, matrices = self._views_near(batch.prior_rotations[row])
            shifts = ShiftGrid(offsets.shifts + batch.prior_shifts[row])
            count = len(self.samples.targets)
            coarse = CoarseGrid.build(self.projector, self.samples, count, matrices, shifts, mirrors=False)
            one = slice(row, row + 1)
            ctf = batch.particle.ctf[one] if len(batch.particle.ctf) > 1 else batch.particle.ctf
            particle = Particle(batch.particle.real[one], batch.particle.imag[one], ctf)
            found = coarse.search(particle, coarse.norms(ctf, 1), choice.candidates, choice.distinct_deg)
            batch.take_grid_row(row, *found, views, len(matrices) // len(views))

    def _views_near(self, rotation: Float64) -> tuple[npt.NDArray[np.int64], Float64]:
        """Views around a pose as 2 v, mirrored ones 2 v + 1, and the matrices of their in-plane rotations nearest to it."""
        choice = self.settings
        assert choice.range_deg is not None
        directions = self.views.directions()
        operators = np.eye(3)[None] if choice.symmetry is None else np.asarray(choice.symmetry)
        cosines = np.einsum("j,sjk,vk->sv", rotation[2], operators, directions)
        both = np.stack([cosines.max(axis=0), -cosines.min(axis=0)], axis=1).ravel()
        near = np.flatnonzero(both >= min(np.cos(np.deg2rad(choice.range_deg)), both.max()))
        matrices = self.views.matrices_of(near // 2)
        mirrored = (near % 2).astype(bool)
        matrices[mirrored] = np.diag([-1.0, 1.0, -1.0]) @ matrices[mirrored]
        number = 2 * int(np.ceil(choice.range_deg / choice.in_plane_step_deg)) + 1
        if number < len(self.views.psi):
            # nearest or, as each matrix stands for its half turn too, farthest in the plane
            plane, axis = (
                np.einsum("vpij,sij->svp", matrices[:, :, rows], (rotation @ operators)[:, rows])
                for rows in ([0, 1], [2])
            )
            nearness = (np.abs(plane) + axis).max(axis=0)
            order = np.sort(np.argsort(-nearness, axis=1, kind="stable")[:, :number], axis=1)
            matrices = np.take_along_axis(matrices, order[:, :, None, None], axis=1)
        return near, matrices.reshape(-1, 3, 3)


def shift_grid(settings: AlignmentSettings, n: int) -> ShiftGrid:
    """The grid of shifts that a search steps through."""
    step = settings.shift_step_px or n / (4 * settings.coarse_band)
    kind = ShiftGrid.centred if settings.search == "grid" else ShiftGrid.covering
    return kind(settings.shift_range_px, step)


def _refinement_plan(
    settings: AlignmentSettings, bands: tuple[int, ...], counts: npt.NDArray[np.int64], local: bool, with_prior: bool
) -> Plan:
    """How many candidates enter each band: all the first, half of them the next ..., the best and a rival the last."""
    first = 1 if local else settings.candidates + int(with_prior)
    marginal = max(1, settings.marginal)
    enter = [max(2, marginal, int(np.ceil(first / 2**level))) for level in range(len(bands))]
    enter[0] = first
    climbers = list(enter)
    if len(bands) > 1:
        enter[-1] = max(2, marginal)
        climbers[-1] = marginal
    steps = [settings.steps] * len(bands)
    if local:  # the lower band only takes away the worst of the prior's error
        steps[:-1] = [min(2, settings.steps)] * (len(bands) - 1)
    merge = 0.1 * min(settings.angular_step_deg, settings.distinct_deg)
    return Plan(
        counts=counts,
        bands=np.array(bands, dtype=np.int64),
        enter=np.array(enter, dtype=np.int64),
        climbers=np.array(climbers, dtype=np.int64),
        steps=np.array(steps, dtype=np.int64),
        merge_cosine=float(np.cos(np.deg2rad(merge))),
    )


def _plan_from_starts(
    settings: AlignmentSettings, bands: tuple[int, ...], counts: npt.NDArray[np.int64], starts: int
) -> Plan:
    """Local search from many poses: all are matched in the first band, the best climb from the second on, ever fewer."""
    level = np.arange(len(bands))
    enter = np.maximum(2, np.ceil(settings.candidates / 2.0 ** np.maximum(level - 1, 0))).astype(np.int64)
    enter[0] = starts
    climbers, steps = enter.copy(), np.full(len(bands), settings.steps)
    climbers[0] = steps[0] = 0
    if len(bands) > 2:
        climbers[-1] = 1
    merge = float(np.cos(np.deg2rad(0.1 * min(settings.start_step_deg or 1.0, settings.distinct_deg))))
    return Plan(counts, np.array(bands, dtype=np.int64), enter, climbers, steps, merge)


def _pad(values: Any, rows: int) -> Any:
    if len(values) == rows:
        return values
    padded = np.zeros((rows, *values.shape[1:]), dtype=values.dtype)
    padded[: len(values)] = values
    return padded


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Keep matrix products to one thread where threadpoolctl is there to say so (else set OPENBLAS_NUM_THREADS=1)."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(limits=1, user_api="blas"):
        yield
