"""Exhaustive search over defocus, astigmatism and phase shift by look-up tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from nephila.ctf import Optics
from nephila.defocus.model import RingData, ring_contrast, ring_phase, spline_basis
from nephila.defocus.settings import DefocusSettings, RingStrength

Float64 = npt.NDArray[np.float64]

_BANDS = 6
_SMOOTH_TERMS = 7
_STARTS = 4


@dataclass(frozen=True)
class Candidate:
    """A solution of the search: dz(theta) = defocus + a_cos cos 2 theta + a_sin sin 2 theta (A), added phase (rad), score."""

    defocus: float
    a_cos: float
    a_sin: float
    phase: float
    score: float


@dataclass(frozen=True)
class _Grid:
    """Power - 1 and its weights on [sectors, radii]; first: Fourier radius of the first column."""

    values: Float64
    weights: Float64
    first: int


@dataclass(frozen=True)
class _Shapes:
    """Astigmatisms that are tried: offsets of local defocus in steps [shapes, sectors], and the parts a_cos, a_sin (A)."""

    offsets: npt.NDArray[np.int32]
    a_cos: Float64
    a_sin: Float64


def search(
    data: RingData, optics: Optics, settings: DefocusSettings, strength: RingStrength | None = None
) -> tuple[list[Candidate], list[Candidate]]:
    """Starts for the continuous fit around the best solution, and the best solutions elsewhere (`gap_distance` away).

    Both best first. Several starts, because next to a weak peak there are maxima of nearly its height with another astigmatism.
    With `strength` its curve is the filter's weight; otherwise each of six bands has an amplitude of its own.
    """
    grid = _sector_grid(data)
    step = _step(optics, data.s_range[1])
    shapes = _shapes(settings, max(data.sectors, 1), step)
    phases = np.deg2rad(np.arange(0.0, 180.0, 15.0)) if settings.phase_shift else np.zeros(1)
    starts: list[Candidate] = []
    peaks: list[Candidate] = []
    for phase in phases:
        scores = _scores(data, grid, optics, settings, shapes, step, float(phase), strength)
        near, apart = _peaks(scores, settings, shapes, step, float(phase))
        starts += near
        peaks += near[:1] + apart
    starts.sort(key=lambda c: -c.score)
    peaks.sort(key=lambda c: -c.score)
    if not starts:
        return [], []
    near = [c for c in starts if abs(c.defocus - starts[0].defocus) <= settings.gap_distance]
    elsewhere: list[Candidate] = []
    for peak in peaks:
        if all(abs(peak.defocus - c.defocus) > settings.gap_distance for c in [near[0], *elsewhere]):
            elsewhere.append(peak)
    return near[:_STARTS], elsewhere[:2]


def _step(optics: Optics, s_high: float) -> float:
    """Defocus step (A): at most 0.6 rad of phase at the finest ring."""
    return float(min(200.0, 0.6 / (optics.k2_factor * s_high**2)))


def _sector_grid(data: RingData) -> _Grid:
    sectors, first = max(data.sectors, 1), int(data.radius.min())
    shape = (sectors, int(data.radius.max()) - first + 1)
    values, weights = np.zeros(shape), np.zeros(shape)
    where = (data.sector, data.radius - first)
    values[where], weights[where] = data.power - 1, data.samples
    return _Grid(values, weights, first)


def _shapes(settings: DefocusSettings, sectors: int, step: float) -> _Shapes:
    if not settings.astigmatism or sectors == 1:
        return _Shapes(np.zeros((1, sectors), dtype=np.int32), np.zeros(1), np.zeros(1))
    halves = np.arange(0, 0.5 * settings.max_astigmatism + 1, 1.5 * step)
    polar = [(0.0, 0.0)] + [(h, a) for h in halves[1:] for a in np.arange(_angles(h, step)) * np.pi / _angles(h, step)]
    half, angle = np.array(polar).T
    theta = np.arange(sectors) * np.pi / sectors
    offsets = np.rint(half[:, None] * np.cos(2 * (theta[None, :] - angle[:, None])) / step).astype(np.int32)
    return _Shapes(offsets, half * np.cos(2 * angle), half * np.sin(2 * angle))


def _angles(half: float, step: float) -> int:
    """Angles over 180 degrees at which an astigmatism is tried: neighbours differ by about 1.5 steps of local defocus."""
    return int(np.clip(np.ceil(2 * np.pi * half / (1.5 * step)), 6, 36))


@lru_cache(maxsize=16)
def _ring_table(
    first: int, last: int, tile_length: float, optics: Optics, phase: float, z_low: float, step: float, count: int
) -> Float64:
    """Oscillating part of CTF^2 [defoci, radii]: -A cos(2 gamma) / 2."""
    s = np.arange(first, last + 1) / tile_length
    z = (z_low + step * np.arange(count))[:, None]
    k2 = (s**2)[None, :]
    contrast = ring_contrast(k2, np.full_like(k2, np.sqrt(0.5)), tile_length, z, optics)
    return np.asarray(-0.5 * contrast * np.cos(2 * ring_phase(k2, z, optics, phase)))


def _scores(
    data: RingData,
    grid: _Grid,
    optics: Optics,
    settings: DefocusSettings,
    shapes: _Shapes,
    step: float,
    phase: float,
    strength: RingStrength | None,
) -> npt.NDArray[np.float32]:
    """Drop of chi square [shapes, mean defoci] by rings of that shape and defocus."""
    from nephila.kernels.ctf_scan import scan_table

    radii = grid.values.shape[1]
    s = (grid.first + np.arange(radii)) / data.tile_length
    reach = int(np.abs(shapes.offsets).max())
    means = int(np.ceil((settings.defocus_max - settings.defocus_min) / step)) + 1
    lowest = settings.defocus_min - reach * step
    last = grid.first + radii - 1
    table = _ring_table(grid.first, last, data.tile_length, optics, phase, lowest, step, means + 2 * reach)
    root = np.sqrt(grid.weights.mean(axis=0))
    background, _ = np.linalg.qr(spline_basis(s, data.s_range, _SMOOTH_TERMS) * root[:, None])
    rings = table * (root if strength is None else root * strength.at(s))
    rings = rings - (rings @ background) @ background.T  # what a smooth background could explain is taken out
    measured = np.where(root > 0, grid.weights * grid.values / np.maximum(root, 1e-9), 0.0)
    edges = np.linspace(0, radii, (_BANDS if strength is None else 1) + 1).astype(int)
    bands = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    signal = np.stack([measured[:, band] @ rings[:, band].T for band in bands], axis=-1).astype(np.float32)
    norm = np.stack([(rings[:, band] ** 2).sum(axis=1) for band in bands], axis=-1).astype(np.float32)
    return scan_table(signal, norm, shapes.offsets, (reach + np.arange(means)).astype(np.int32))


def _peaks(
    scores: npt.NDArray[np.float32], settings: DefocusSettings, shapes: _Shapes, step: float, phase: float
) -> tuple[list[Candidate], list[Candidate]]:
    """Starts around the highest score, and the highest local maxima elsewhere."""
    best = scores.max(axis=0)

    def candidate(mean: int, shape: int) -> Candidate:
        z = settings.defocus_min + mean * step
        return Candidate(z, float(shapes.a_cos[shape]), float(shapes.a_sin[shape]), phase, float(scores[shape, mean]))

    around = np.lib.stride_tricks.sliding_window_view(np.pad(best, 4, constant_values=-1), 9).max(axis=1)
    remaining = np.where(best >= around, best, 0)  # local maxima only: the flank of a high peak is no other solution
    window = int(settings.gap_distance / step)
    peaks: list[int] = []
    while len(peaks) < 4 and remaining.max() > 0:
        mean = int(remaining.argmax())
        peaks.append(mean)
        remaining[max(0, mean - window) : mean + window + 1] = 0
    if not peaks:
        return [], []
    low = max(0, peaks[0] - window)
    local = scores[:, low : peaks[0] + window + 1].copy()
    z = step * np.arange(local.shape[1])
    near: list[Candidate] = []
    for _ in range(_STARTS):
        shape, mean = (int(x) for x in np.unravel_index(int(local.argmax()), local.shape))
        if local[shape, mean] < 0.75 * best[peaks[0]]:
            break
        near.append(candidate(low + mean, shape))
        across = (shapes.a_cos - shapes.a_cos[shape]) ** 2 + (shapes.a_sin - shapes.a_sin[shape]) ** 2
        local[(z[None, :] - z[mean]) ** 2 + across[:, None] < (4 * step) ** 2] = 0
    return near, [candidate(mean, int(scores[:, mean].argmax())) for mean in peaks[1:]]
