"""Each kernel beside its peer, on the same particles in turn (A B A B); every rate is per CPU second of one thread."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import relion
from benchmarks.measure import Row, child_seconds, cpu_seconds, in_turn
from benchmarks.phantom import ParticleSet, Phantom
from nephila.alignment import AlignmentSettings, Poses, align_exhaustively, align_locally
from nephila.alignment.coarse import CoarseGrid
from nephila.alignment.grids import OrientationGrid
from nephila.alignment.samples import SampleSet
from nephila.alignment.search import shift_grid
from nephila.backprojection import Backprojector
from nephila.fourier import centred_rfft2, frequency_radius_2d, irfft2, rfft2
from nephila.fsc import fourier_shell_correlation
from nephila.geometry import angular_distance, matrix_to_euler, rotation_vector_to_matrix
from nephila.io.mrc import stack_writer
from nephila.kernels.pose import Particle, evaluate_pose
from nephila.kernels.taps import CHUNK
from nephila.masks import apply_mask, spherical_mask
from nephila.projection import FAST_PADDING, PRECISE_PADDING, FourierProjector, slice_samples

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# particles at box 64, 128, 256, and the highest frequency of an alignment (what SNR 0.05 supports); interpolated
_COUNTS = {
    "project": {64: 4000, 128: 1000, 256: 600},
    "align": {64: 2000, 128: 1000, 256: 300},
    "grid": {64: 4000, 128: 1000, 256: 200},
    "band": {64: 20, 128: 32, 256: 48},
    "relion_align": {64: 100, 128: 40, 256: 12},
}
_TAP_FLOPS = 4 * 64  # a complex tap times a real weight, added
_TAP_BYTES = 8 * 64
_SLOPE_FLOPS = 4 * 64 + 4 * 64 + 2 * 8 * (4 + 4 + 1) + 80  # two sums per tap row, one per plane, inner products
_SCATTER_BYTES = 2 * 8 * 16  # eight cells of four 32-bit numbers, read and written


@dataclass(frozen=True)
class Setting:
    """What one box is measured with.

    rounds : how often A B are run in turn; share : of the usual particle numbers; relion : whether RELION is run
    """

    n: int
    folder: Path
    rounds: int = 2
    share: float = 1.0
    relion: bool = True

    def count(self, kind: str) -> int:
        sizes = sorted(_COUNTS[kind])
        numbers = [np.log(_COUNTS[kind][size]) for size in sizes]
        value = float(np.exp(np.interp(np.log(self.n), np.log(sizes), numbers)))
        return min(round(value), (self.n - 1) // 2) if kind == "band" else max(8, int(self.share * value))


def rotate_poses(particles: ParticleSet, turn_deg: float, move_px: float) -> Poses:
    """The true poses, displaced by turns and moves of the given size in random directions."""
    rng = np.random.default_rng(17)
    axes = rng.normal(size=(len(particles.shifts), 3))
    axes *= np.deg2rad(turn_deg) / np.linalg.norm(axes, axis=1, keepdims=True)
    moves = rng.normal(size=particles.shifts.shape)
    moves *= move_px / np.linalg.norm(moves, axis=1, keepdims=True)
    return Poses(*matrix_to_euler(rotation_vector_to_matrix(axes) @ particles.matrices), *(particles.shifts + moves).T)


def relative_error(images: Float32, truth: Float32) -> float:
    """L2 norm of the difference over that of the truth."""
    return float(np.linalg.norm(images - truth) / np.linalg.norm(truth))


def projection(setting: Setting) -> Iterator[Row]:
    """Fast and precise projections in memory, and to a stack on disk as relion_project does it; error: relative L2."""
    n, m = setting.n, setting.count("project")
    phantom = Phantom.random(n)
    volume = phantom.volume()
    # without shifts: RELION is faster then, ours the same
    particles = ParticleSet.simulate(phantom, m, None, ctf=False, shift_px=0.0)
    matrices, shifts = particles.matrices, particles.shifts
    # what lies beyond Nyquist's circle no slice can hold
    truth = irfft2(rfft2(particles.images) * (frequency_radius_2d(n) <= n // 2), n)
    samples = slice_samples(n, n // 2).targets.size
    work = {"flops": float(_TAP_FLOPS * samples), "bytes": float(_TAP_BYTES * samples)}
    projectors = {name: FourierProjector.from_volume(volume, p) for name, p in _PADDINGS.items()}
    for projector in projectors.values():
        projector.project(matrices[:4], shifts[:4])

    def to_memory(name: str) -> Callable[[], float]:
        return lambda: cpu_seconds(lambda: projectors[name].project(matrices, shifts))

    def to_disk() -> float:
        def run() -> None:
            with stack_writer(setting.folder / "ours.mrcs", truth.shape, phantom.pixel_size, "float32") as stack:
                for first in range(0, m, 256):
                    part = slice(first, first + 256)
                    stack[part] = projectors["fast"].project(matrices[part], shifts[part])

        return cpu_seconds(run)

    functions = [to_memory("fast"), to_memory("precise"), to_disk]
    small = max(2, m // 20)
    if setting.relion:
        particles.write(setting.folder)
        functions += [
            lambda: relion.project(setting.folder, particles, small),
            lambda: relion.project(setting.folder, particles, m),
        ]
    seconds = in_turn(functions, setting.rounds)
    errors = {name: relative_error(p.project(matrices, shifts), truth) for name, p in projectors.items()}
    rates = [m / s for s in seconds[:3]]
    peer: dict[str, float | str] = {}
    if setting.relion:
        peer = {
            "peer": "relion_project",
            "peer_rate": (m - small) / max(seconds[4] - seconds[3], 1e-3),
            "peer_error": relative_error(relion.projections(setting.folder), truth),
        }
    yield Row("projection fast", n, rates[0], error=errors["fast"], **work, **peer)
    yield Row("projection precise", n, rates[1], error=errors["precise"], **work, **peer)
    yield Row("projection fast, to disk", n, rates[2], error=errors["fast"], **work, **peer)


_PADDINGS = {"fast": FAST_PADDING, "precise": PRECISE_PADDING}


def alignment(setting: Setting) -> Iterator[Row]:
    """Exhaustive alignment, and local from 2 degrees and 0.5 px off, at SNR 0.05; error: median rotation, degrees."""
    n, m = setting.n, setting.count("align")
    phantom = Phantom.random(n)
    particles = ParticleSet.simulate(phantom, m, 0.05)
    projector = FourierProjector.from_volume(phantom.volume(), FAST_PADDING)
    settings = AlignmentSettings(bands=(8, setting.count("band")), candidates=6)
    nearby = AlignmentSettings(final_band=setting.count("band"))
    prior = rotate_poses(particles, 2.0, 0.5)
    images, ctfs = particles.images, particles.ctfs
    few = replace(ctfs, **{k: getattr(ctfs, k)[:4] for k in ("defocus_u", "defocus_v", "angle_deg")})
    align_exhaustively(images[:4], projector, few, settings)
    results = {}

    def everywhere() -> None:
        results["exhaustive"] = align_exhaustively(images, projector, ctfs, settings)

    def near() -> None:
        results["local"] = align_locally(images, projector, ctfs, prior, nearby)

    functions = [lambda: cpu_seconds(everywhere), lambda: cpu_seconds(near)]
    many, less = setting.count("relion_align"), max(4, setting.count("relion_align") // 5)
    errors: list[float] = []
    if setting.relion:
        particles.write(setting.folder)

        def refine(count: int) -> float:
            seconds, error = relion.align(setting.folder, particles, count)
            errors.append(error)
            return seconds

        functions += [lambda: refine(less), lambda: refine(many)]
    seconds = in_turn(functions, setting.rounds)
    medians = {
        name: float(np.median(angular_distance(r.poses.matrices, particles.matrices))) for name, r in results.items()
    }
    peer: dict[str, float | str] = {}
    if setting.relion:
        rate = (many - less) / max(seconds[3] - seconds[2], 1e-3)
        peer = {"peer": "relion_refine, one E-step", "peer_rate": rate, "peer_error": errors[-1]}
    flops = _search_flops(n, projector, settings)
    yield Row("alignment exhaustive", n, m / seconds[0], error=medians["exhaustive"], flops=flops, **peer)
    yield Row("alignment local", n, m / seconds[1], error=medians["local"])
    yield _evaluation(n, projector, particles, setting.count("band"))


def weak_signal(setting: Setting) -> Iterator[Row]:
    """Exhaustive alignment at SNR 0.02, box 64; error: share of view directions beyond 20 degrees, the largest of three
    phantoms'."""
    seconds, wrong = dict.fromkeys(_WEAK, 0.0), dict.fromkeys(_WEAK, 0.0)
    m = max(64, int(1000 * setting.share))
    for seed in range(3):
        phantom = Phantom.random(64, seed)
        particles = ParticleSet.simulate(phantom, m, 0.02, seed=seed)
        projector = FourierProjector.from_volume(phantom.volume(), FAST_PADDING)
        for name, settings in _WEAK.items():
            start = time.process_time()
            found = align_exhaustively(particles.images, projector, particles.ctfs, settings)
            seconds[name] += time.process_time() - start
            cosines = np.einsum("mi,mi->m", found.poses.matrices[:, 2], particles.matrices[:, 2])
            wrong[name] = max(wrong[name], float((cosines < np.cos(np.deg2rad(20.0))).mean()))
    for name in _WEAK:
        yield Row(f"alignment, SNR 0.02, {name}", 64, 3 * m / seconds[name], error=wrong[name])


_WEAK = {
    "usual": AlignmentSettings(coarse_band=14, candidates=12, bands=(14, 20)),
    "thorough": AlignmentSettings(
        coarse_band=16, candidates=32, bands=(16, 24), marginal=16, angular_step_deg=10.0, in_plane_step_deg=10.0
    ),
}


def _search_flops(n: int, projector: FourierProjector, settings: AlignmentSettings) -> float:
    """Multiplications and additions of the matrix products of one particle."""
    samples = SampleSet.build(n, (settings.coarse_band,))
    rotations = OrientationGrid.build(settings.angular_step_deg, settings.in_plane_step_deg).matrices()
    shifts = shift_grid(settings, n)
    grid = CoarseGrid.build(projector, samples, len(samples.targets), rotations[:1], shifts)
    return 2.0 * 4 * len(rotations) * len(grid.pairs) * len(shifts.shifts)


def _evaluation(n: int, projector: FourierProjector, particles: ParticleSet, band: int) -> Row:
    """Model, derivatives and inner products of one pose within the last band, of which an alignment needs 3 to 20."""
    samples = SampleSet.build(n, (band,))
    ctf = particles.ctfs.at(slice(0, 1), n, samples.band.kx, samples.band.ky)
    loaded, _ = samples.gather(particles.images[:1], ctf, samples.root_weights(None), 0)
    particle = Particle(loaded.real[0], loaded.imag[0], loaded.ctf[0])
    work, sums, count = np.empty((8, CHUNK), np.float32), np.empty(25), len(samples.targets)
    matrices, shift, repeats = particles.matrices[:50], np.zeros(2), max(1, 200000 // count)

    def run() -> None:
        for matrix in matrices:
            for _ in range(repeats):
                evaluate_pose(projector.grid, samples.band, count, particle, matrix, shift, work, sums)

    run()
    seconds = min(cpu_seconds(run) for _ in range(2))
    rate = len(matrices) * repeats / seconds
    return Row("pose evaluation", n, rate, flops=float(_SLOPE_FLOPS * count), bytes=float(_TAP_BYTES * count))


def truth_correlation(volume: Float32, truth: Float32) -> Float64:
    """FSC of a map with the phantom within a soft sphere, shells 1 to n // 2 - 1."""
    n = len(truth)
    mask = spherical_mask(n, 0.42 * n, 3)
    masked = (apply_mask(v, mask, fill=0.0) for v in (volume, truth))
    return fourier_shell_correlation(*masked)[1 : n // 2]


def reconstruction(setting: Setting) -> Iterator[Row]:
    """Gridding, finishing and the whole job at SNR 0.2.

    error : of backprojection and whole job 1 - mean FSC with the phantom; of the finish the most by which that FSC is
    below RELION's in any shell
    """
    from benchmarks.whole_job import collect
    from nephila.finishing import finish

    n, m = setting.n, setting.count("grid")
    phantom = Phantom.random(n)
    particles = ParticleSet.simulate(phantom, m, 0.2)
    particles.write(setting.folder)
    transforms, ctf = centred_rfft2(particles.images), particles.ctf_planes()
    scale = float(particles.images.std()) * n
    small, folder = max(4, m // 10), setting.folder
    Backprojector(n).insert(transforms[:4], particles.matrices[:4], ctf[:4])
    finish(collect(folder / "particles.star", 4)[0].partial_sum())
    made = {}

    def insert() -> None:
        made["sums"] = Backprojector(n, data_scale=scale)
        made["sums"].insert(transforms, particles.matrices, ctf, shifts_px=particles.shifts)

    def complete() -> None:
        made["map"] = finish(made["sums"].partial_sum())

    def job() -> float:
        command = [
            sys.executable,
            "-m",
            "benchmarks.whole_job",
            str(folder / "particles.star"),
            str(folder / "our.mrc"),
        ]
        return child_seconds(command, Path(__file__).parents[1])

    functions: list[Callable[[], float]] = [
        lambda: cpu_seconds(insert),
        lambda: cpu_seconds(lambda: collect(folder / "particles.star")),
        lambda: cpu_seconds(complete),
        job,
    ]
    if setting.relion:
        functions += [
            lambda: relion.reconstruct(folder, particles, small, gridding=False),
            lambda: relion.reconstruct(folder, particles, m, gridding=False),
            lambda: relion.reconstruct(folder, particles, m),
        ]
    # RELION's finish takes minutes at 256 and more
    seconds = in_turn(functions, setting.rounds if n < 200 else 1)
    ours = truth_correlation(made["map"], phantom.volume())
    deficit, peers = float("nan"), [{}, {}, {}]
    if setting.relion:
        theirs = truth_correlation(relion.reconstruction(folder), phantom.volume())
        deficit = float((theirs - ours).max())
        per_particle = max((seconds[5] - seconds[4]) / (m - small), 1e-6)
        rates = [1 / per_particle, 1 / max(seconds[6] - m * per_particle, 1e-3), 1 / seconds[6]]
        mean = float(1 - theirs.mean())
        peers = [{"peer": "relion_reconstruct", "peer_rate": r, "peer_error": mean} for r in rates]
        peers[1]["peer_error"] = 0.0
    samples = slice_samples(n, n // 2).targets.size
    mean = float(1 - ours.mean())
    work = {"bytes": float(_SCATTER_BYTES * samples)}
    cells = 4 * n**3  # of the padded half transform; expand, four rounds of weights, division, transform
    yield Row("backprojection", n, m / seconds[0], error=mean, **work, **peers[0])
    yield Row("backprojection from files", n, m / seconds[1], error=mean, **work, **peers[0])
    yield Row("finish", n, 1 / seconds[2], error=deficit, bytes=128.0 * cells, **peers[1])
    yield Row(f"whole job, {m} particles", n, 1 / seconds[3], error=mean, **peers[2])


def iteration(setting: Setting) -> Iterator[Row]:
    """Conjugate gradients and Richardson beside division: 200 particles at SNR 0.2, 3/4 within 26 degrees of one
    view; error: 1 - mean FSC with the phantom.
    """
    from nephila.finishing import finish
    from nephila.iterative_reconstruction import conjugate_gradients, richardson

    n = setting.n
    phantom = Phantom.random(n)
    particles = ParticleSet.simulate(phantom, 200, 0.2, cone_share=0.75)
    sums = Backprojector(n, data_scale=float(particles.images.std()) * n)
    sums.insert(centred_rfft2(particles.images), particles.matrices, particles.ctf_planes(), shifts_px=particles.shifts)
    partial, truth = sums.partial_sum(), phantom.volume()
    made = {}
    methods = {"division": finish, "conjugate gradients": conjugate_gradients, "Richardson": richardson}

    def run(name: str) -> Callable[[], float]:
        def call() -> None:
            made[name] = methods[name](partial)

        return lambda: cpu_seconds(call)

    run("division")()
    seconds = in_turn([run(name) for name in methods], 1 if n > 100 else setting.rounds)
    errors = [float(1 - truth_correlation(made[name], truth).mean()) for name in methods]
    for i, name in ((1, "conjugate gradients"), (2, "Richardson")):
        yield Row(name, n, 1 / seconds[i], "division", 1 / seconds[0], errors[i], peer_error=errors[0])
