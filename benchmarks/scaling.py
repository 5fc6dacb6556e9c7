"""How time and memory grow: with particles streamed from a stack, with threads, and what a fresh process costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.kernels import Setting
from benchmarks.measure import child_seconds
from benchmarks.phantom import FIELD_A, OPTICS, ParticleSet, Phantom
from nephila.alignment import BLOCK, AlignmentSettings, ParticleCtfs, Poses, align_exhaustively, align_locally
from nephila.backprojection import PENDING_BYTES, Backprojector
from nephila.finishing import finish
from nephila.fourier import centred_rfft2
from nephila.io.mrc import open_stack
from nephila.projection import FourierProjector

CHUNK = 16 * BLOCK
DISTINCT = 512  # particles on disk, which a stream reads again and again


@dataclass
class CyclicStack:
    """`length` particles read from a stack on disk over and over; slices are read when asked for."""

    path: Path
    length: int

    def __post_init__(self) -> None:
        self._stack = open_stack(self.path)
        self.distinct = len(self._stack)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.length)
        parts = []
        while first < last:
            place = first % self.distinct
            size = min(last - first, self.distinct - place)
            parts.append(np.asarray(self._stack[place : place + size], dtype=np.float32))
            first += size
        return np.concatenate(parts) if parts else np.zeros((0,), np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length, *np.shape(self._stack[0:1])[1:])


def prepare(folder: Path, n: int, distinct: int = DISTINCT) -> Path:
    """Write a stack of distinct particles at SNR 0.05, its table and the reference's map."""
    particles = ParticleSet.simulate(Phantom.random(n), distinct, 0.05)
    particles.write(folder)
    np.savez(folder / "poses.npz", angles=particles.angles, shifts=particles.shifts, u=particles.ctfs.defocus_u,
             v=particles.ctfs.defocus_v, angle=particles.ctfs.angle_deg)  # fmt: skip
    return folder


def stream(folder: Path, n: int, particles: int, threads: int, local: bool) -> dict[str, float]:
    """One refinement pass over a stream: align each chunk, add it to the sums with its own CTFs, finish at the end.

    Returns CPU and wall seconds of alignment, gridding and finish, and the process's peak memory (GB) at the end.
    """
    phantom = Phantom.random(n)
    stored = np.load(folder / "poses.npz")
    stack = CyclicStack(folder / "particles.mrcs", particles)
    row = np.arange(particles) % stack.distinct
    pixel = FIELD_A / n
    projector = FourierProjector.from_volume(phantom.volume(), threads=threads)
    band = Setting(n, folder).count("band")
    settings = AlignmentSettings(bands=(band // 2, band) if local else (8, band), candidates=6)
    sums = Backprojector(n, data_scale=float(np.std(stack[0:16])) * n, pending_bytes=PENDING_BYTES)
    spent = {"align": 0.0, "grid": 0.0, "finish": 0.0}
    wall = {f"{name}_wall": 0.0 for name in spent}

    def timed(name: str, start: tuple[float, float]) -> None:
        spent[name] += time.process_time() - start[0]
        wall[f"{name}_wall"] += time.perf_counter() - start[1]

    for first in range(0, particles, CHUNK):
        part = row[first : min(first + CHUNK, particles)]
        images = stack[first : first + len(part)]
        ctfs = ParticleCtfs(stored["u"][part], stored["v"][part], stored["angle"][part], OPTICS, pixel)
        start = time.process_time(), time.perf_counter()
        if local:
            prior = Poses(*(stored["angles"][part] + 0.5).T, *stored["shifts"][part].T)
            found = align_locally(images, projector, ctfs, prior, settings, threads=threads)
        else:
            found = align_exhaustively(images, projector, ctfs, settings, threads=threads)
        timed("align", start)
        start = time.process_time(), time.perf_counter()
        for block in range(0, len(part), 64):
            rows = slice(block, min(block + 64, len(part)))
            planes = ctfs.planes(rows, n)
            poses = found.poses
            sums.insert(
                centred_rfft2(images[rows]), poses.matrices[rows], planes, shifts_px=poses.shifts[rows], threads=threads
            )
        timed("grid", start)
        print(f"{first + len(part)} of {particles}, peak {peak_memory_gb():.2f} GB", file=sys.stderr, flush=True)
    start = time.process_time(), time.perf_counter()
    finish(sums.partial_sum(), threads=threads)
    timed("finish", start)
    return {**spent, **wall, "peak_gb": peak_memory_gb()}


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far, without pages of files that are only mapped."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def in_fresh_process(folder: Path, n: int, particles: int, threads: int = 1, local: bool = False) -> dict[str, float]:
    """`stream` in a process of its own, so that its peak memory is its own."""
    arguments = json.dumps([str(folder), n, particles, threads, local])
    command = [sys.executable, "-m", "benchmarks.scaling", arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-800:])
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def start_up() -> tuple[float, float]:
    """CPU and wall seconds from `python` to a first projection, alignment and gridding of one 32-pixel particle, with
    warm caches of compiled kernels; for a script that needs them all."""
    code = (
        "import numpy as np\n"
        "from nephila.projection import FourierProjector\n"
        "from nephila.alignment import align_exhaustively\n"
        "from nephila.backprojection import Backprojector\n"
        "from nephila.fourier import centred_rfft2\n"
        "v = np.zeros((32, 32, 32), np.float32); v[12:20, 14:17, 10:24] = 1\n"
        "p = FourierProjector.from_volume(v)\n"
        "x = p.project(np.eye(3)[None])\n"
        "align_exhaustively(x, p)\n"
        "Backprojector(32).insert(centred_rfft2(x), np.eye(3)[None])\n"
    )
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", code]
    child_seconds(command, root)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        times.append((child_seconds(command, root), time.perf_counter() - start))
    return min(t[0] for t in times), min(t[1] for t in times)


def particles_and_threads(folder: Path, n: int, counts: tuple[int, ...], threads: tuple[int, ...]) -> Iterator[str]:
    """Lines of the scaling table."""
    prepare(folder, n, min(DISTINCT, max(counts)))
    yield "| box | particles | threads | align, CPU s | wall s | grid, CPU s | wall s | finish, wall s | peak GB |"
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    cores = os.cpu_count() or 1
    for count in counts:
        for number in threads if count == counts[-1] else threads[:1]:
            if number > cores:
                continue
            r = in_fresh_process(folder, n, count, number)
            yield (
                f"| {n} | {count:,} | {number} | {r['align']:.1f} | {r['align_wall']:.1f} | {r['grid']:.1f} "
                f"| {r['grid_wall']:.1f} | {r['finish_wall']:.1f} | {r['peak_gb']:.2f} |"
            )


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(stream(Path(given[0]), *given[1:])))
