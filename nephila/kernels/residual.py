"""Power of what a model leaves of images, by shell."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def add_residual_power(
    images, slices, ctf, phase_x, phase_y, shells, column_weights, shell_weights, band, residual, signal, fit
):
    """Add, per image and shell, sum w |X p - a C P|^2 to `residual` [m, shells] and sum w |a C P|^2 to `signal` [m, shells].

    X: image, p: phases that centre it, C: CTF (one plane or one per image), P: slice, zero beyond `band`; a: the least-squares
    amplitude over 1 <= shell <= band with samples weighted by shell_weights [shells], 0 where it would be negative.
    w: column_weights, so that the whole transform is counted. fit [m, 2]: a as it came out, and sum w shell_weights |C P|^2.
    """
    for i in range(images.shape[0]):
        plane = ctf[min(i, ctf.shape[0] - 1)]
        cross = 0.0
        norm = 0.0
        for y in range(images.shape[1]):
            for x in range(images.shape[2]):
                s = shells[y, x]
                if s < 1 or s > band:
                    continue
                model = slices[i, y, x] * plane[y, x]
                value = images[i, y, x] * phase_x[i, x] * phase_y[i, y]
                weight = column_weights[x] * shell_weights[s]
                cross += weight * (model.real * value.real + model.imag * value.imag)
                norm += weight * (model.real * model.real + model.imag * model.imag)
        amplitude = cross / norm if norm > 0 else 0.0
        fit[i, 0] = amplitude
        fit[i, 1] = norm
        if amplitude < 0:
            amplitude = 0.0
        for y in range(images.shape[1]):
            for x in range(images.shape[2]):
                s = shells[y, x]
                if s >= residual.shape[1]:
                    continue
                value = images[i, y, x] * phase_x[i, x] * phase_y[i, y]
                if s <= band:
                    model = slices[i, y, x] * plane[y, x] * amplitude
                    signal[i, s] += column_weights[x] * (model.real * model.real + model.imag * model.imag)
                    value = value - model
                residual[i, s] += column_weights[x] * (value.real * value.real + value.imag * value.imag)


def shell_counts(n: int) -> np.ndarray:
    """Samples of the whole transform of an image of side n in shells 0 to n // 2."""
    from nephila.fourier import half_weights, shell_index_2d

    index = shell_index_2d(n).ravel()
    weights = np.broadcast_to(half_weights(n), shell_index_2d(n).shape).ravel()
    return np.bincount(index, weights=weights, minlength=n // 2 + 1)[: n // 2 + 1]
