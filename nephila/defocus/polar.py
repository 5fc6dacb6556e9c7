"""The picture of a defocus that a person gave, from the average spectrum alone (`powchk`)."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from nephila.ctf import Optics
from nephila.defocus.diagnostics import check_figure, draw_curves, save_figure
from nephila.defocus.profile import local_correlation
from nephila.spectrum_rings import BLANK, Fit, halves_of_power, polar_rings

Float64 = npt.NDArray[np.float64]


def profile_of_power(
    power: npt.ArrayLike, pixel_size: float, resolution: float, fit: Fit, optics: Optics
) -> dict[str, Float64]:
    """Rings along the radius, averaged over the directions where the CTF has the same phase, as `diagnostics.profile_curves` has
    them: frequency (1/A), measured (unit deviation of the 2D rings), fitted (2 CTF^2 - 1, scaled), local correlation."""
    polar, half = polar_rings(power, pixel_size, resolution)
    length = np.shape(power)[0] * pixel_size
    first = max(2, round(BLANK * half))
    k2 = (np.arange(first, half + 1) / length) ** 2
    theta = np.deg2rad(np.arange(0.0, 180.0, 2.0))[:, None]
    u, v, angle = fit
    mean = 0.5 * (u + v)
    local = mean + 0.5 * (u - v) * np.cos(2 * (theta - np.deg2rad(angle)))
    # the frequency at which the mean defocus has the phase that each direction has with its own
    target = optics.k2_factor * local * k2 - optics.k4_factor * k2**2
    linear = optics.k2_factor * mean
    root = np.sqrt(np.maximum(linear**2 - 4 * optics.k4_factor * target, 0.0))
    place = np.sqrt(np.maximum(2 * target / (linear + root), 0.0)) * length - first
    count = len(k2)
    low = np.clip(np.floor(place).astype(np.int64), 0, count - 2)
    share = np.clip(place - low, 0.0, 1.0)
    inside = (place > -0.5) & (place < count - 0.5)

    def pool(values: Float64) -> Float64:
        total = np.bincount(low.ravel(), ((1 - share) * inside * values).ravel(), count)
        return np.asarray(total + np.bincount(low.ravel() + 1, (share * inside * values).ravel(), count))

    measured = pool(polar[:, first : half + 1]) / np.maximum(pool(np.ones(place.shape)), 1e-9)
    phase = optics.k2_factor * mean * k2 - optics.k4_factor * k2**2 + optics.constant_phase
    wave = -np.cos(2 * phase)  # 2 CTF^2 - 1
    strength = max(float(np.sqrt(2) * measured.std()), 0.05)
    rate = np.abs(2 * optics.k2_factor * mean - 4 * optics.k4_factor * k2) * np.sqrt(k2) / (np.pi * length)
    window = np.clip(np.rint(0.75 / np.maximum(rate, 1e-6)), 5, max(5, count // 3)).astype(np.int64)
    return {
        "frequency": np.sqrt(k2),
        "measured": measured,
        "fitted": strength * wave,
        "quality": local_correlation(measured, wave, window),
    }


def draw_fit_of_power(
    power: npt.ArrayLike,
    pixel_size: float,
    resolution: float,
    fit: Fit,
    optics: Optics,
    path: str | os.PathLike[str],
    title: str = "",
) -> None:
    """The picture by which a person judges a defocus that was given by hand: like `diagnostics.ctf_figure`, from the average
    spectrum alone. resolution: A, at the edges of the picture."""
    picture = halves_of_power(power, pixel_size, resolution, fit, optics, 401)
    edge = np.shape(power)[0] * pixel_size / polar_rings(power, pixel_size, resolution)[1]
    u, v, angle = fit
    words = f"{title}  by hand: {u:.0f} / {v:.0f} A at {angle:.0f} deg".strip()
    figure, rings, quality = check_figure(picture, f"left measured, right by hand; edge {edge:.1f} A", words)
    draw_curves(rings, quality, profile_of_power(power, pixel_size, resolution, fit, optics), None)
    rings.set_ylabel("rings, unit deviation")
    save_figure(figure, path)
