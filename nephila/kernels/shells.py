"""Sums over Fourier shells of half transforms."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def shell_products(a, b, shell_index, column_weights, shells):
    """Sums of Re(a b*), |a|^2 and |b|^2 over shells: three float64 [shells]; samples count as `column_weights` says."""
    cross, power_a, power_b = np.zeros(shells), np.zeros(shells), np.zeros(shells)
    for z in range(a.shape[0]):
        for y in range(a.shape[1]):
            for x in range(a.shape[2]):
                shell = shell_index[z, y, x]
                if shell < shells:
                    w = column_weights[x]
                    p, q = a[z, y, x], b[z, y, x]
                    pr, pi, qr, qi = float(p.real), float(p.imag), float(q.real), float(q.imag)
                    cross[shell] += w * (pr * qr + pi * qi)
                    power_a[shell] += w * (pr * pr + pi * pi)
                    power_b[shell] += w * (qr * qr + qi * qi)
    return cross, power_a, power_b
