"""Amplitudes of a map: matched to a scattering curve (SPIDER's enhance), sharpened by a B factor, and the B factor
itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fourier import filter_shells, frequency_radius_3d, half_weights, irfftn, rfftn, shell_index_3d
from nephila.kernels.shells import shell_products

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

LEVEL_FROM = 10.0
"""A: proteins scatter evenly beyond this resolution, on average over shells."""


def rotational_power(volume: npt.ArrayLike, threads: int = 1) -> Float64:
    """Mean |F|^2 of a volume over shells 0 to n // 2."""
    data = _check(volume)
    n = data.shape[0]
    transform = rfftn(data, threads)
    shells = n // 2 + 1
    power = shell_products(transform, transform, shell_index_3d(n), half_weights(n), shells)[1]
    counts = np.bincount(
        shell_index_3d(n).ravel(), weights=np.broadcast_to(half_weights(n), transform.shape).ravel(), minlength=shells
    )
    return np.asarray(power / counts[:shells])


def rotational_amplitude(volume: npt.ArrayLike, threads: int = 1) -> Float64:
    """Mean |F| of a volume over shells 0 to n // 2: what a Guinier plot shows."""
    data = _check(volume)
    n = data.shape[0]
    size = np.abs(rfftn(data, threads)).ravel()
    weights = np.broadcast_to(half_weights(n), (n, n, n // 2 + 1)).ravel()
    index = shell_index_3d(n).ravel()
    total, counts = (np.bincount(index, weights=w, minlength=n // 2 + 1) for w in (size * weights, weights))
    return np.asarray((total / counts)[: n // 2 + 1])


def enhance_amplitudes(
    volume: npt.ArrayLike,
    frequency: npt.ArrayLike,
    intensity: npt.ArrayLike,
    pixel_size: float,
    limit: float,
    cosine_shells: float = 3.0,
    normalise_at: float | None = None,
) -> Float32:
    """Give a map's rotationally averaged power the form of a small-angle scattering curve, up to a resolution.

    The amplitude of shell s is multiplied by sqrt(I(s) / P(s)), I scaled to the map's power around `normalise_at`;
    beyond `limit` the factor falls to zero over a cosine edge.

    Args:
        frequency: 1/A, increasing; intensity: scattering intensity there, positive. Interpolated on a logarithmic
            scale; beyond the ends the end values hold.
        limit: A, the resolution up to which the map is trusted.
        normalise_at: A, where map and curve agree; three times the limit where it is None.

    Raises:
        InputError: a curve that is not increasing or not positive, or a limit beyond Nyquist.
    """
    data = _check(volume)
    n = data.shape[0]
    s, values = np.asarray(frequency, dtype=np.float64), np.asarray(intensity, dtype=np.float64)
    if s.ndim != 1 or s.shape != values.shape or len(s) < 2 or not (np.diff(s) > 0).all():
        raise InputError("scattering curve: frequencies (1/A) must increase, with one intensity each, two or more")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise InputError("scattering curve: intensities must be positive numbers")
    if limit < 2 * pixel_size * 0.999:
        raise InputError(f"limit {limit} A is finer than Nyquist ({2 * pixel_size:g} A)")
    shells = np.arange(n // 2 + 1)
    k = shells / (n * pixel_size)
    curve = np.exp(np.interp(k, s, np.log(values)))
    power = rotational_power(data)
    known = power > 1e-12 * power.max()
    factor = np.zeros(len(shells))
    factor[known] = np.sqrt(curve[known] / power[known])
    middle = int(np.clip(np.rint(n * pixel_size / (normalise_at or 3.0 * limit)), 1, n // 2))
    around = slice(max(1, middle - 1), middle + 2)
    scale = float(np.sqrt((power[around] * known[around]).sum() / max(float(curve[around].sum()), 1e-300)))
    factor *= scale
    factor[0] = 1.0  # the mean density is not the curve's business
    edge = n * pixel_size / limit
    fall = np.clip((shells - edge) / max(cosine_shells, 1e-6), 0.0, 1.0)
    return filter_shells(data, factor * (0.5 + 0.5 * np.cos(np.pi * fall)))


def apply_b_factor(volume: npt.ArrayLike, b_factor: float, pixel_size: float, limit: float | None = None) -> Float32:
    """Multiply amplitudes by exp(-B k^2 / 4); a negative B (A^2) sharpens. Beyond `limit` (A) nothing is left."""
    data = _check(volume)
    n = data.shape[0]
    k = frequency_radius_3d(n) / (n * pixel_size)
    reach = 1.0 / limit if limit else 0.5 / pixel_size * np.sqrt(3.0)
    # the exponent stays at its value at the limit, so that a strongly negative B cannot overflow
    factor = np.exp(-0.25 * b_factor * np.minimum(k, reach) ** 2)
    if limit:
        factor = factor * (0.5 + 0.5 * np.cos(np.pi * np.clip((k - reach) * n * pixel_size / 3.0, 0.0, 1.0)))
    return irfftn(rfftn(data) * factor.astype(np.float32), n)


def level_amplitudes(
    volume: npt.ArrayLike,
    power: npt.ArrayLike,
    fsc: npt.ArrayLike,
    pixel_size: float,
    limit: float,
    start: float = LEVEL_FROM,
    cosine_shells: float = 3.0,
) -> Float32:
    """Noise-based sharpening: from `start` to `limit` the map gets a level spectrum, as far as its signal exceeds the noise.

    The amplitude of shell s is multiplied by `C_ref(s) sqrt(P(s0) / P(s))`, C_ref = sqrt(2 F / (1 + F)), s0 the shell of `start`:
    proteins scatter evenly from there on (Wilson), so what falls was lost, and what stays down is what noise hides. Coarser
    shells get C_ref alone, for they hold the particle's shape; beyond the limit all falls to zero over a cosine edge.

    Args:
        volume: without a filter, signal and noise.
        power: mean |F|^2 by shell 0 to n // 2 of the same map inside its mask (`rotational_power`), smoothed here over five shells.
        fsc: of the half maps, in [0, 1].
        limit: A, finer than `start`.

    Raises:
        InputError: curves of the wrong length, or a limit not finer than `start` or beyond Nyquist.
    """
    data = _check(volume)
    n = data.shape[0]
    shells = np.arange(n // 2 + 1)
    spectrum, curve = np.asarray(power, dtype=np.float64), np.clip(np.asarray(fsc, dtype=np.float64), 0.0, 1.0)
    if spectrum.shape != shells.shape or curve.shape != shells.shape:
        raise InputError(f"power and FSC of {n // 2 + 1} shells are needed for side {n}")
    if not 2 * pixel_size * 0.999 <= limit < start:
        raise InputError(f"limit {limit:g} A: must lie between {start:g} A, where levelling starts, and Nyquist")
    logarithm = np.log(np.maximum(spectrum, 1e-30 * spectrum.max() + 1e-300))
    smooth = np.convolve(np.pad(logarithm, 2, mode="edge"), np.full(5, 0.2), "valid")
    first = n * pixel_size / start
    raised = np.interp(first, shells, smooth) - np.interp(np.maximum(shells, first), shells, smooth)
    fall = np.clip((shells - n * pixel_size / limit) / max(cosine_shells, 1e-6), 0.0, 1.0)
    factor = np.sqrt(2 * curve / (1 + curve)) * np.exp(0.5 * raised)
    return filter_shells(data, np.where(fall < 1, factor * (0.5 + 0.5 * np.cos(np.pi * fall)), 0.0))


def estimate_b_factor(
    volume: npt.ArrayLike, pixel_size: float, limit: float, start: float = 10.0, fsc: npt.ArrayLike | None = None
) -> tuple[float, float]:
    """B factor from a Guinier plot: the slope of ln <|F|> against k^2 between `start` and `limit` (A) is -B / 4.

    Args:
        fsc: of the half maps; amplitudes are then weighted by C_ref = sqrt(2 F / (1 + F)) first (Rosenthal &
            Henderson).

    Returns:
        (B in A^2, positive for a map that fades; the fit's coefficient of correlation). Sharpen with
        `apply_b_factor(-B)`.

    Raises:
        InputError: fewer than 3 shells between the limits.
    """
    data = _check(volume)
    n = data.shape[0]
    shells = np.arange(n // 2 + 1)
    k2 = (shells / (n * pixel_size)) ** 2
    amplitude = rotational_amplitude(data)
    if fsc is not None:
        curve = np.clip(np.asarray(fsc, dtype=np.float64), 0.0, 1.0)
        amplitude = amplitude * np.sqrt(2 * curve / (1 + curve))
    used = (k2 >= start**-2.0) & (k2 <= limit**-2.0) & (amplitude > 0) & (shells > 0)
    if np.count_nonzero(used) < 3:
        raise InputError(
            f"B factor: fewer than 3 shells between {start:g} A and {limit:g} A; give a coarser start or leave it out"
        )
    slope, _ = np.polyfit(k2[used], np.log(amplitude[used]), 1)
    correlation = float(np.corrcoef(k2[used], np.log(amplitude[used]))[0, 1])
    return float(-4.0 * slope), correlation


def _check(volume: npt.ArrayLike) -> Float32:
    data = np.asarray(volume, dtype=np.float32)
    if data.ndim != 3 or len(set(data.shape)) != 1 or not np.isfinite(data).all():
        raise InputError(f"a cubic volume of finite values is needed, this one has the shape {data.shape}")
    return data
