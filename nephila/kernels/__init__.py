"""Compiled inner loops (numba). Private: call them through the modules that check their inputs."""

from __future__ import annotations

from typing import Any

from nephila.light_imports import import_without

# numba looks once, at its first kernel, whether np.dot would work in one; none here needs it, others' may
_arrays: Any = import_without("numba.np.arraymath", left_out="scipy.linalg.cython_blas")
if hasattr(_arrays, "_HAVE_BLAS"):
    _arrays._HAVE_BLAS = True
