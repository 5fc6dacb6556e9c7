"""Rings along the radius at equal phase, how far they are explained, and in which directions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nephila.ctf import Optics
from nephila.defocus.model import RingData, RingFit, ring_contrast, ring_phase
from nephila.defocus.settings import RingProfile

Float64 = npt.NDArray[np.float64]

_EXPLAINED = 0.5  # correlation of measured and fitted rings below which they are no longer explained
_DIRECTIONS = 6


def ring_profile(data: RingData, fit: RingFit, optics: Optics) -> RingProfile:
    """Average of the spectrum along lines of equal CTF phase, as seen at the mean defocus, with the model's curves."""
    first, last = int(data.radius.min()), int(data.radius.max())
    equivalent = _equivalent_k(data, fit, optics) * data.tile_length - first
    count = last - first + 1
    low = np.clip(np.floor(equivalent).astype(np.int64), 0, count - 2)
    share = np.clip(equivalent - low, 0.0, 1.0)
    inside = (equivalent > -0.5) & (equivalent < count - 0.5)
    weights = np.where(inside, data.samples / fit.model**2, 0.0)

    def pool(values: Float64) -> Float64:
        total = np.bincount(low, weights=weights * (1 - share) * values, minlength=count)
        total += np.bincount(low + 1, weights=weights * share * values, minlength=count)[:count]
        return np.asarray(total)

    norm = np.maximum(pool(np.ones_like(weights)), 1e-12)
    k2 = (np.arange(first, last + 1) / data.tile_length) ** 2
    contrast = ring_contrast(k2, np.full_like(k2, np.sqrt(0.5)), data.tile_length, fit.defocus, optics)
    ctf2 = 0.5 * (1 - contrast * np.cos(2 * ring_phase(k2, fit.defocus, optics, fit.phase)))
    background, envelope = pool(fit.background) / norm, pool(fit.envelope) / norm
    measured = background + envelope * ctf2 + pool(data.power - fit.model) / norm
    level = _level(data, first, count)
    deviation = measured - background - 0.5 * envelope
    quality = local_correlation(deviation, envelope * (ctf2 - 0.5), _window(k2, data.tile_length, fit.defocus, optics))
    return RingProfile(np.sqrt(k2), measured * level, background * level, envelope * level, ctf2, quality)


def _level(data: RingData, first: int, count: int) -> Float64:
    level = np.zeros(count)
    level[data.radius - first] = data.level
    return level


def _equivalent_k(data: RingData, fit: RingFit, optics: Optics) -> Float64:
    """Frequency (1/A) at which a CTF of the mean defocus has the phase that each bin has with its local defocus."""
    local = fit.defocus + fit.a_cos * data.cos2 + fit.a_sin * data.sin2
    target = optics.k2_factor * local * data.k2 - optics.k4_factor * data.k2**2
    linear = optics.k2_factor * fit.defocus
    root = np.sqrt(np.maximum(linear**2 - 4 * optics.k4_factor * target, 0.0))
    return np.sqrt(np.maximum(2 * target / (linear + root), 0.0))


def _window(k2: Float64, tile_length: float, defocus: float, optics: Optics) -> npt.NDArray[np.int64]:
    """Half width in Fourier pixels of one and a half rings around each radius, at least 5."""
    rate = np.abs(2 * optics.wavelength * defocus - 4 * optics.k4_factor / np.pi * k2) * np.sqrt(k2) / tile_length
    return np.clip(np.rint(0.75 / np.maximum(rate, 1e-6)), 5, len(k2) // 3).astype(np.int64)


def local_correlation(measured: Float64, fitted: Float64, half: npt.NDArray[np.int64]) -> Float64:
    """Pearson correlation of two curves over windows of +-half around each point."""
    index = np.arange(len(measured))
    start, stop = np.maximum(index - half, 0), np.minimum(index + half + 1, len(measured))

    def window_mean(values: Float64) -> Float64:
        total = np.concatenate([[0.0], np.cumsum(values)])
        return (total[stop] - total[start]) / (stop - start)

    mean_m, mean_f = window_mean(measured), window_mean(fitted)
    covariance = window_mean(measured * fitted) - mean_m * mean_f
    spread = (window_mean(measured**2) - mean_m**2) * (window_mean(fitted**2) - mean_f**2)
    floor = 1e-12 * max(float(np.abs(measured).max()), 1e-12) ** 2 * max(float(np.abs(fitted).max()), 1e-12) ** 2
    return np.where(spread > floor, covariance / np.sqrt(np.maximum(spread, floor)), 0.0)


def rings_explained(profile: RingProfile) -> tuple[float, float]:
    """Resolution (A) to which measured and fitted rings agree, and their correlation down to there (over all: if nowhere)."""
    good = profile.quality >= _EXPLAINED
    below = np.flatnonzero(~good)
    # the first ring is steep and short of pixels: one bad stretch at the low end does not end the fit
    start = int(np.argmax(good)) if good.any() and np.argmax(good) < len(good) // 3 else 0
    below = below[below > start]
    end = int(below[0]) if len(below) else len(good)
    stop = max(end, min(len(good), start + 8))
    span = slice(0, stop)
    half = 0.5 * profile.envelope
    measured = (profile.measured - profile.background - half) / np.maximum(profile.background + half, 1e-30)
    fitted = profile.envelope * (profile.ctf2 - 0.5) / np.maximum(profile.background + half, 1e-30)
    a, b = measured[span] - measured[span].mean(), fitted[span] - fitted[span].mean()
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    merit = float((a * b).sum() / norm) if norm > 0 else 0.0
    if not good.any() or end <= start:
        return float(1 / profile.frequency[0]), merit
    return float(1 / profile.frequency[min(end, len(good) - 1)]), merit


def directional_anisotropy(data: RingData, fit: RingFit) -> float:
    """Ratio >= 1 of the ring strength in the best direction to that in the worst (drift: large; at most 20).

    In each of 6 directions, the amplitude of the measured rings against the model's by weighted least squares; the best is taken
    one standard error lower and the worst one higher, so that noise alone gives about 1.
    """
    if data.sectors == 0:
        return 1.0
    direction = (data.sector * _DIRECTIONS) // data.sectors
    weights = data.samples / fit.model**2
    count = np.bincount(data.radius)
    envelope = (np.bincount(data.radius, fit.envelope) / np.maximum(count, 1))[data.radius]  # of all directions alike
    rings = envelope * (fit.ctf2 - 0.5)
    measured = data.power - fit.model + fit.envelope * (fit.ctf2 - 0.5)
    top = np.bincount(direction, weights=weights * rings * measured, minlength=_DIRECTIONS)
    bottom = np.maximum(np.bincount(direction, weights=weights * rings * rings, minlength=_DIRECTIONS), 1e-12)
    amplitude, error = top / bottom, 1 / np.sqrt(bottom)
    best, worst = float((amplitude - error).max()), float((amplitude + error).min())
    return float(np.clip(best / max(worst, 0.05 * best), 1.0, 20.0)) if best > 0 else 1.0
