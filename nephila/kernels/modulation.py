"""Images and CTFs at chosen frequencies only, for many particles."""

from __future__ import annotations

import numpy as np
from numba import njit

_TURN = 2.0 * np.pi
# sin(2 pi t) / t as a polynomial in t^2 for |t| <= 1/2, least squares at Chebyshev nodes; error 4e-7
_NODES = 0.5 * np.cos(np.pi * (np.arange(64) + 0.5) / 128)
_SINE = tuple(np.polyfit(_NODES**2, np.sin(_TURN * _NODES) / _NODES, 6).tolist())


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[misc]
def ctf_at_samples(k2, cos2, sin2, defocus, factors, out):  # type: ignore[no-untyped-def]
    """`sin(pi lambda dz k^2 - (pi / 2) Cs lambda^3 k^4 + phase)`, as `nephila.ctf.ctf_2d`.

    k2, cos2, sin2 : float64 [s], k^2 (1/A^2), cosine and sine of twice the azimuth
    defocus : float64 [b, 3], mean, half the astigmatism times cos and sin of twice its angle, A
    factors : float64 [3], pi lambda, (pi / 2) Cs lambda^3, constant phase; out : float32 [b, s]
    """
    per_turn = 1.0 / _TURN
    a, c, phase = factors[0] * per_turn, factors[1] * per_turn, factors[2] * per_turn
    for b in range(len(defocus)):
        mean, along, across = defocus[b, 0], defocus[b, 1], defocus[b, 2]
        for s in range(len(k2)):
            turns = a * (mean + along * cos2[s] + across * sin2[s]) * k2[s] - c * k2[s] * k2[s] + phase
            t = np.float32(turns - np.rint(turns))
            u = t * t
            value = np.float32(_SINE[0])
            value = value * u + np.float32(_SINE[1])
            value = value * u + np.float32(_SINE[2])
            value = value * u + np.float32(_SINE[3])
            value = value * u + np.float32(_SINE[4])
            value = value * u + np.float32(_SINE[5])
            value = value * u + np.float32(_SINE[6])
            out[b, s] = value * t


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[misc]
def gather_samples(transforms, targets, root, real, imag):  # type: ignore[no-untyped-def]
    """Real and imaginary parts of transforms complex64 [b, s'] at places `targets` [s], times `root` [s]."""
    for b in range(len(transforms)):
        for s in range(len(targets)):
            value = transforms[b, targets[s]]
            real[b, s] = value.real * root[s]
            imag[b, s] = value.imag * root[s]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"}, error_model="numpy")  # type: ignore[misc]
def row_powers(values, out):  # type: ignore[no-untyped-def]
    """Add the sum of squares of each row of float32 [b, s] to float64 [b]."""
    for b in range(len(values)):
        total = np.float32(0.0)
        for s in range(values.shape[1]):
            total += values[b, s] * values[b, s]
        out[b] += total
