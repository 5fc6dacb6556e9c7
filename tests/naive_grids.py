"""The obvious slow forms of what is done with padded half transforms: shells, weights, point groups, residuals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nephila.kernels.kaiser import kaiser_bessel

Float = npt.NDArray[np.float64]
Array = npt.NDArray[np.complex128]


def whole(half: npt.ArrayLike) -> Array:
    """The whole transform [n, n, n] of a half one [n, n, n // 2 + 1]: the other half is the conjugate at -k."""
    values = np.asarray(half)
    n = len(values)
    out = np.zeros((n, n, n), dtype=np.complex128)
    for z, y, x in np.ndindex(n, n, n):
        out[z, y, x] = values[z, y, x] if x < values.shape[2] else np.conj(values[-z, -y, n - x])
    return out


def radius(n: int) -> Float:
    """|k| in cells, [n, n, n]."""
    k = np.fft.fftfreq(n, 1 / n)
    return np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)


def off_nyquist(n: int) -> npt.NDArray[np.bool_]:
    """Cells that lie on none of the planes at n / 2."""
    inner = np.abs(np.fft.fftfreq(n, 1 / n)) < n / 2
    return inner[:, None, None] & inner[None, :, None] & inner[None, None, :]


def shell_totals(values: Array, padding: float, shells: int) -> tuple[Float, Float]:
    """Sums over shells of width one Fourier pixel, and their cells, of a whole transform."""
    n = len(values)
    index = np.floor(radius(n) / padding + 0.5).astype(int)
    total, count = np.zeros(shells), np.zeros(shells)
    for shell in range(shells):
        inside = (index == shell) & off_nyquist(n)
        total[shell], count[shell] = values[inside].real.sum(), inside.sum()
    return total, count


def smoothed(values: Array) -> Array:
    """(1, 2, 1) / 4 along each axis of a whole transform, periodic."""
    for axis in range(3):
        values = (np.roll(values, 1, axis) + 2 * values + np.roll(values, -1, axis)) / 4
    return values


def balanced(denominator: Array, rounds: int) -> Array:
    """weights <- weights / (h * (weights D)), from 1."""
    weights = np.ones_like(denominator)
    for _ in range(rounds):
        total = smoothed(weights * denominator)
        weights = np.where(total.real > 0, weights / np.where(total == 0, 1, total), 0)
    return weights


def by_radius(curve: npt.ArrayLike, padding: float, n: int) -> Float:
    """A curve per Fourier pixel at the cells of a whole transform, the last value beyond its end."""
    values = np.asarray(curve, dtype=float)
    return np.interp(radius(n) / padding, np.arange(len(values)), values)


def at_point(values: Array, point: npt.ArrayLike, width: int, beta: float) -> complex:
    """A whole transform read at (x, y, z) in cells, with a Kaiser-Bessel window."""
    n = len(values)
    base = np.floor(np.asarray(point) + 1e-9).astype(int) - width // 2 + 1
    total = 0j
    for corner in np.ndindex(width, width, width):
        cell = base + corner
        total += np.prod(kaiser_bessel(point - cell, width, beta)) * values[tuple(cell[::-1] % n)]
    return complex(total)


def summed_over(values: Array, matrices: npt.ArrayLike, limit: float, width: int = 0, beta: float = 0.0) -> Array:
    """out(k) = sum over S of in(S k), for |k| <= limit; read with a window, or exactly where `width` is 0."""
    n = len(values)
    out = np.zeros_like(values)
    for cell in np.argwhere(radius(n) <= limit):
        z, y, x = np.where(cell < n / 2, cell, cell - n)
        for matrix in np.asarray(matrices):
            point = matrix @ (x, y, z)
            if width:
                out[tuple(cell)] += at_point(values, point, width, beta)
            else:
                out[tuple(cell)] += values[tuple(np.rint(point).astype(int)[::-1] % n)]
    return out


def residual_power(image: Array, model: Array, band: int, weights: Float) -> tuple[Float, Float, float, float]:
    """Power of image minus a times model, and of a times model, by shell of the whole plane, the model up to `band`; a, by least
    squares with samples weighted by shell, and the model's weighted power."""
    n = len(image)
    k = np.fft.fftfreq(n, 1 / n)
    shells = np.rint(np.hypot(k[:, None], k[None, :])).astype(int)
    used = (shells >= 1) & (shells <= band)
    weight = weights[np.where(used, shells, 0)][used]
    power = float(np.sum(weight * np.abs(model[used]) ** 2))
    amplitude = float(np.sum(weight * (model.conj() * image).real[used])) / power
    fitted = np.where(shells <= band, max(0.0, amplitude) * model, 0)
    size = n // 2 + 1
    left, signal = (
        np.bincount(shells.ravel(), weights=(np.abs(v) ** 2).ravel())[:size] for v in (image - fitted, fitted)
    )
    return left, signal, amplitude, power
