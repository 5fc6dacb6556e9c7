"""What jobs import: a second of each one's start, were all of scipy loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_iteration_loads_no_scipy_and_no_configuration():
    code = """
import sys
import nephila.refinement.chunk, nephila.refinement.merge, nephila.job
import numpy as np
from nephila.backprojection import Backprojector
Backprojector(8).insert(np.zeros((1, 8, 5), np.complex64), np.eye(3)[None])  # the first kernel
print([name for name in ("scipy.linalg", "scipy.fft", "scipy.special", "pydantic") if name in sys.modules])
"""
    assert run(code) == "[]"


def test_what_was_held_back_works_afterwards():
    code = """
import nephila.kernels, nephila.fourier
import numba, numpy as np, pyfftw.interfaces.scipy_fft, scipy.fft, scipy.fftpack
@numba.njit
def product(a, b):
    return np.dot(a, b)
a = np.arange(4.0).reshape(2, 2)
print((product(a, a) == a @ a).all(), np.allclose(scipy.fft.ifft(pyfftw.interfaces.scipy_fft.fft(np.ones(4))), 1))
"""
    assert run(code) == "True True"


@pytest.mark.parametrize("first", ["import scipy.linalg, scipy.fftpack", "import pyfftw", "import numba.np.arraymath"])
def test_whatever_came_before(first):
    assert (
        run(f"{first}\nimport nephila.kernels, nephila.fourier\nimport scipy.linalg.cython_blas\nprint('fine')")
        == "fine"
    )
