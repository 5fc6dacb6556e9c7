"""The Kaiser-Bessel window: value, continuous Fourier transform, and its taps as polynomials.

Sources: Jackson et al. (1991), IEEE Trans. Med. Imaging 10, 473; beta from Beatty et al. (2005), ibid. 24, 799, eq. 5.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def kaiser_bessel_beta(width: float, padding: float) -> float:
    """Shape parameter for a window `width` grid cells wide on a grid oversampled `padding` times (Beatty, eq. 5)."""
    return float(np.pi * np.sqrt((width / padding) ** 2 * (padding - 0.5) ** 2 - 0.8))


def kaiser_bessel(x: npt.ArrayLike, width: float, beta: float) -> Float64:
    """Window `I0(beta sqrt(1 - (2x/width)^2)) / I0(beta)`, zero for |x| > width/2; `x` in grid cells."""
    inside = 1.0 - (2.0 * np.asarray(x, dtype=np.float64) / width) ** 2
    values = np.i0(beta * np.sqrt(np.maximum(inside, 0.0))) / np.i0(beta)
    return np.where(inside >= 0.0, values, 0.0)


def kaiser_bessel_transform(f: npt.ArrayLike, width: float, beta: float) -> Float64:
    """Continuous transform `integral w(x) exp(-2 pi i f x) dx` of the window; `f` in cycles per grid cell.

    Equal to `width sinh(z) / (z I0(beta))` with `z^2 = beta^2 - (pi width f)^2` (sine where z is imaginary).
    """
    z2 = beta**2 - (np.pi * width * np.asarray(f, dtype=np.float64)) ** 2
    z = np.sqrt(np.abs(z2))
    safe = np.where(z > 1e-6, z, 1.0)
    ratio = np.where(z2 > 0.0, np.sinh(safe), np.sin(safe)) / safe
    return width * np.where(z > 1e-6, ratio, 1.0) / np.i0(beta)


def weight_polynomials(width: int, beta: float, degree: int = 7) -> Float64:
    """Polynomials of the window's taps, `[degree + 1, width]`, highest power first (Horner's order).

    For a position `u = floor(u) + t` and an even `width`, tap `j` sits on grid point `floor(u) - width/2 + 1 + j`, at
    the distance `t + width/2 - 1 - j`. Row by row, `p = p * z + coefficients[i]` with `z = 2 t - 1` gives all weights.
    Fitted at Chebyshev nodes, so the error is nearly the same for all `t`.
    """
    if width % 2 or width < 2:
        raise ValueError(f"the window's width is {width}; it has to be even and at least 2")
    z = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    distance = ((z + 1.0) / 2.0)[:, None] + (width / 2 - 1) - np.arange(width)[None, :]
    return np.polyfit(z, kaiser_bessel(distance, width, beta), degree)
