"""CPU time of our functions and of other programs, and the machine's measured peaks."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Row:
    """One line of the table. Rates are per CPU second of one core: particles, volumes or transforms.

    error : what the kernel's line in docs/benchmarks.md says
    flops, bytes : of useful arithmetic and of memory touched, per unit of the rate; 0 where not counted
    """

    kernel: str
    box: int
    rate: float
    peer: str = ""
    peer_rate: float = float("nan")
    error: float = float("nan")
    flops: float = 0.0
    bytes: float = 0.0
    peer_error: float = float("nan")

    @property
    def ratio(self) -> float:
        return self.rate / self.peer_rate if self.peer_rate > 0 else float("nan")


@dataclass(frozen=True)
class Peaks:
    """What one core of this machine reaches: matrix products (flop/s, float32) and STREAM's triad (byte/s)."""

    sgemm: float
    triad: float

    def fraction(self, row: Row) -> float:
        """The larger of a row's shares of the two; NaN where neither was counted."""
        shares = [row.rate * row.flops / self.sgemm, row.rate * row.bytes / self.triad]
        return max(shares) if max(shares) > 0 else float("nan")


def cpu_seconds(function: Callable[[], object]) -> float:
    """CPU time of this process (all threads) during one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def child_seconds(command: Sequence[str], folder: Path, timeout: float = 600.0) -> float:
    """CPU time, user and system, of a program run in `folder`.

    Raises RuntimeError with the program's last lines where it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {(done.stdout + done.stderr)[-800:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def in_turn(functions: Sequence[Callable[[], float]], rounds: int) -> list[float]:
    """Run A B A B ... and return the least time of each: what the machine's other work disturbed least."""
    times = [[function() for function in functions] for _ in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]


def measure_peaks(quick: bool = False) -> Peaks:
    """Peaks of one core: sgemm of side 2048 (numpy), triad a = b + s c over 3 x 128 MB (numba)."""
    from threadpoolctl import threadpool_limits

    side = 1024 if quick else 2048
    a, b = (np.random.default_rng(i).standard_normal((side, side), dtype=np.float32) for i in range(2))
    out = np.empty_like(a)
    with threadpool_limits(limits=1, user_api="blas"):
        np.matmul(a, b, out=out)
        product = min(cpu_seconds(lambda: np.matmul(a, b, out=out)) for _ in range(6))
    size = 2**25
    x, y, z = (np.full(size, value, dtype=np.float32) for value in (1.0, 2.0, 3.0))
    triad = _triad()
    triad(x, y, z, np.float32(0.5))
    stream = min(cpu_seconds(lambda: triad(x, y, z, np.float32(0.5))) for _ in range(6))
    return Peaks(2.0 * side**3 / product, 12.0 * size / stream)


def _triad() -> Callable[..., None]:
    from numba import njit

    @njit(fastmath=True)  # type: ignore[misc]
    def triad(x, y, z, s):  # type: ignore[no-untyped-def]
        for i in range(x.size):
            x[i] = y[i] + s * z[i]

    return triad
