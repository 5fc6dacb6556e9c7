"""Fourier transforms: FFTW by way of pyfftw, planned in three ways, beside scipy's pocketfft."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyfftw
import scipy.fft

from benchmarks.measure import Row, cpu_seconds
from nephila.fourier import rfftn


def _least(function: Callable[[], object], repeats: int = 4) -> float:
    return min(cpu_seconds(function) for _ in range(repeats))


def image_transforms(n: int) -> Iterator[Row]:
    """Real images forward, one at a time as `nephila.fourier` makes them; peer: scipy on the whole stack."""
    m = max(4, 2**21 // n**2)
    images = np.random.default_rng(0).standard_normal((m, n, n), dtype=np.float32)
    peer = m / _least(lambda: scipy.fft.rfft2(images))
    flops = 2.5 * n * n * np.log2(n * n)
    for effort in ("ESTIMATE", "MEASURE"):
        plan = _plan((n, n), (n, n // 2 + 1), effort)

        def run(plan: pyfftw.FFTW = plan) -> None:
            for image in images:
                plan.input_array[:] = image
                plan.execute()

        yield Row(f"FFT of images, {effort}", n, m / _least(run), "scipy", peer, flops=flops)


def volume_transforms(n: int) -> Iterator[Row]:
    """Real volumes of side 2 n forward as `nephila.fourier` makes them, section by section by FFTW; peer: scipy."""
    side = 2 * n
    volume = np.random.default_rng(0).standard_normal((side,) * 3, dtype=np.float32)
    rfftn(volume)
    peer = 1 / _least(lambda: scipy.fft.rfftn(volume), 2)
    rate = 1 / _least(lambda: rfftn(volume), 2)
    yield Row("FFT of padded volume", n, rate, "scipy", peer, flops=2.5 * side**3 * np.log2(side**3))


def _plan(real: tuple[int, ...], half: tuple[int, ...], effort: str) -> pyfftw.FFTW:
    pyfftw.forget_wisdom()
    a, b = pyfftw.empty_aligned(real, dtype="float32"), pyfftw.empty_aligned(half, dtype="complex64")
    return pyfftw.FFTW(a, b, axes=tuple(range(len(real))), flags=(f"FFTW_{effort}",))
