"""Defocus by particle or by micrograph, and astigmatism, against a map.

A scan over defocus comes first, so that a ring is not missed, then Gauss-Newton over defocus and, where asked for, the two
components of astigmatism. Particles of a micrograph have similar defoci, and a particle that says little is drawn towards its
micrograph's mean (the posterior mean for a normal distribution). How far defoci really spread, and how far the fits are off,
is told apart by fitting twice, to the Fourier pixels of a chessboard's two colours: what both agree on is spread, the rest
is error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics
from nephila.optics_refinement.magnification import from_matrix
from nephila.optics_refinement.observations import Observations
from nephila.optics_refinement.spectra import Spectra

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Unit = Literal["particle", "micrograph"]

BINS = 1024
SCAN_STEP = 0.35
"""Radians at the finest frequency between the scan's defoci."""
FEWEST_FOR_MEAN = 5
"""Particles of a micrograph that are drawn towards its mean."""
FEWEST_FOR_SPREAD = 20
"""Particles of a group from which the spread of defoci is estimated."""
FEWEST_MICROGRAPHS = 8
"""Micrographs of a group from which the spread of their changes is estimated."""
LEAST_SPREAD = 10.0
"""A."""
_PASSES = 4


@dataclass(frozen=True)
class DefocusPrior:
    """Normal distributions of a unit's whole change: mean [u], A, and 1 / variance [u] (0: none).

    inflation : by how much the fits' variances exceed what the noise alone calls for
    spread : A, of the changes among the particles of a micrograph, or among micrographs, without the fits' errors; None where it
        was not estimated
    """

    mean: Float64
    precision: Float64
    inflation: float = 1.0
    spread: float | None = None


@dataclass(frozen=True)
class DefocusFit:
    """Changes of defocus by particle of the group, in the order of its rows.

    change : [m], A, of the mean defocus, with those of the fits before
    error : [m], standard error, A
    table : the particle table with the new defoci
    prior : what was known before the images spoke
    """

    change: Float64
    error: Float64
    table: pd.DataFrame
    prior: DefocusPrior


def fit_defocus(
    observations: Observations,
    spectra: Spectra,
    table: pd.DataFrame | None = None,
    *,
    unit: Unit = "particle",
    reach: float = 2000.0,
    astigmatism: bool = False,
    after: DefocusFit | None = None,
) -> DefocusFit:
    """Fit the defocus of each particle or micrograph of a group.

    Parameters
    ----------
    table : particles with newer defoci, if any
    reach : A, how far to look to either side
    astigmatism : also fit both components of the unit's astigmatism
    after : an earlier fit that `table` already holds; particles are drawn to the same means as in it, not once more
    """
    source = observations.table if table is None else table
    micrographs = pd.factorize(source["rlnMicrographName"].iloc[observations.rows])[0].astype(np.int64)
    units = micrographs if unit == "micrograph" else np.arange(len(observations.rows))
    count = int(units.max()) + 1
    grid, colours = _scan(observations, spectra, source, units, reach)
    misfit = colours[0] + colours[1]
    if after is None:
        prior = _prior(grid, colours, micrographs, unit)
        drawn = prior
    else:
        prior, present = after.prior, np.zeros(count)
        present[units] = after.change
        drawn = replace(prior, mean=prior.mean - present)
    penalty = 0.5 * drawn.precision[:, None] * (grid - drawn.mean[:, None]) ** 2
    change, _ = _lowest(grid, misfit / prior.inflation + penalty)
    state = np.zeros((count, 3))
    state[:, 0] = change
    covariance = _polish(observations, spectra, source, units, state, drawn, astigmatism, float(grid[1] - grid[0]))
    return DefocusFit(
        state[units, 0] + (0.0 if after is None else after.change),
        np.sqrt(covariance)[units],
        _with_changes(source, observations.rows, state[units], astigmatism),
        prior,
    )


def _terms(observations: Observations) -> tuple[Float64, Float64, Float64, float]:
    """pi lambda k^2 [s] and its cosine and sine of twice the angle, radians per A; and the largest of the first."""
    group = observations.group
    optics = Optics(group.voltage_kv, group.cs_mm, group.amplitude_contrast)
    x, y = observations.stretched
    factor = optics.k2_factor
    return factor * (x**2 + y**2), factor * (x**2 - y**2), factor * 2 * x * y, float(factor * (x**2 + y**2).max())


def _scan(
    observations: Observations, spectra: Spectra, table: pd.DataFrame, units: Int64, reach: float
) -> tuple[Float64, Float64]:
    """Defocus changes [d] and the misfit [2, u, d] of each unit there, to the Fourier pixels of either colour of a chessboard.

    sin^2 and sin of the CTF's phase are summed over narrow rings once; after that a change of defocus turns each ring as a whole.
    """
    per_a, _, _, most = _terms(observations)
    step = SCAN_STEP / most
    steps = int(np.ceil(reach / step))
    grid = np.asarray(step * np.arange(-steps, steps + 1), dtype=np.float64)
    bins = np.minimum((per_a / most * BINS).astype(np.int64), BINS - 1)
    colour = observations.band.points.sum(axis=0) % 2
    used, ring = np.unique(2 * bins + colour, return_inverse=True)
    centre = np.bincount(ring, per_a) / np.bincount(ring)
    turn = np.exp(1j * centre[:, None] * grid[None, :])
    order = np.argsort(ring, kind="stable")
    starts = np.searchsorted(ring[order], np.arange(len(used)))
    shell = observations.band.shell
    scale, noise = spectra.scale[shell], spectra.noise[shell]
    even = observations.even_phase()
    misfit = np.zeros((2, int(units.max()) + 1, len(grid)))
    parts = [np.flatnonzero(used % 2 == c) for c in (0, 1)]
    done = 0
    for batch in observations.batches(table):
        phase = batch.phase - even
        power = np.abs(batch.predictions) ** 2 * (scale**2 / noise)
        cross = np.real(batch.images * np.conj(batch.predictions)) * (scale / noise)
        doubled = np.add.reduceat((power * np.exp(2j * phase))[:, order], starts, axis=1)
        single = np.add.reduceat((cross * np.exp(1j * phase))[:, order], starts, axis=1)
        for c, part in enumerate(parts):
            values = -0.5 * np.real(doubled[:, part] @ turn[part] ** 2) - 2 * np.imag(single[:, part] @ turn[part])
            np.add.at(misfit[c], units[done : done + len(batch.rows)], values)
        done += len(batch.rows)
    return grid, misfit


def _lowest(grid: Float64, misfit: Float64) -> tuple[Float64, Float64]:
    """Place of the least misfit of each row, between the grid's points, and its standard error from the curvature."""
    best = np.clip(misfit.argmin(axis=1), 1, len(grid) - 2)
    rows = np.arange(len(misfit))
    low, middle, high = (misfit[rows, best + offset] for offset in (-1, 0, 1))
    step = grid[1] - grid[0]
    curvature = np.maximum((low - 2 * middle + high) / step**2, 1e-12)
    shift = np.clip(0.5 * (low - high) / (step**2 * curvature), -1, 1) * step
    return grid[best] + shift, 1 / np.sqrt(curvature)


def _prior(grid: Float64, colours: Float64, micrographs: Int64, unit: Unit) -> DefocusPrior:
    """What is known of a unit's change before its own images speak.

    Micrographs belong to a distribution about the median change of all of them, particles to one about their micrograph's.
    colours : misfits [2, u, d] of the units
    """
    names, sizes = np.unique(micrographs, return_counts=True)
    whole = np.zeros((2, len(names), len(grid)))
    if unit == "micrograph":
        whole[:] = colours
    else:
        for colour in (0, 1):
            np.add.at(whole[colour], micrographs, colours[colour])
    change, error = _lowest(grid, whole.sum(axis=0))
    middle, spread2, inflation = float(np.median(change)), np.inf, 1.0
    if len(names) >= FEWEST_MICROGRAPHS:
        spread2, inflation = _spread(error, *(_lowest(grid, colour)[0] for colour in whole))
    share = 1 / (1 + inflation * error**2 / spread2)
    drawn = middle + share * (change - middle)
    if unit == "micrograph":
        precision = np.full(len(names), 1 / spread2)
        return DefocusPrior(
            np.full(len(names), middle), precision, inflation, float(np.sqrt(spread2)) if np.isfinite(spread2) else None
        )
    count = len(micrographs)
    if count < FEWEST_FOR_SPREAD:
        return DefocusPrior(np.zeros(count), np.zeros(count))
    centre = _lowest(grid, colours.sum(axis=0))
    first, second = (_lowest(grid, colour)[0] for colour in colours)
    medians = np.array([np.median((first + second)[micrographs == name]) for name in names])
    spread2, inflation = _spread(centre[1], first, second, medians[micrographs])
    known = sizes[micrographs] >= FEWEST_FOR_MEAN
    precision = np.where(known, 1 / spread2, 0.0)
    return DefocusPrior(np.where(known, drawn[micrographs], 0.0), precision, inflation, float(np.sqrt(spread2)))


def _spread(
    error: Float64, first: Float64, second: Float64, middle: float | Float64 | None = None
) -> tuple[float, float]:
    """Variance (A^2) of the true changes, and by how much the fits' variances exceed their quoted ones (at least 1).

    first, second : changes [u] fitted to the two colours; their errors are independent, the truth is common
    middle : of their sum; its median where not given
    """
    total = first + second
    common = _robust_variance(total - (np.median(total) if middle is None else middle))
    apart = _robust_variance(first - second)
    spread2 = max(0.25 * (common - apart), LEAST_SPREAD**2)
    return spread2, max(1.0, 0.25 * apart / float(np.median(error)) ** 2)


def _robust_variance(values: Float64) -> float:
    return (1.4826 * float(np.median(np.abs(values - np.median(values))))) ** 2


def _polish(
    observations: Observations,
    spectra: Spectra,
    table: pd.DataFrame,
    units: Int64,
    state: Float64,
    prior: DefocusPrior,
    astigmatism: bool,
    longest: float,
) -> Float64:
    """Gauss-Newton from `state` [u, 3] (changed in place); the variance [u] of the defocus."""
    size = 3 if astigmatism else 1
    terms = np.stack(_terms(observations)[:size])
    shell = observations.band.shell
    scale, noise = spectra.scale[shell], spectra.noise[shell]
    even = observations.even_phase()
    for _ in range(_PASSES):
        hessian, gradient = np.zeros((len(state), size, size)), np.zeros((len(state), size))
        done = 0
        for batch in observations.batches(table):
            rows = units[done : done + len(batch.rows)]
            done += len(batch.rows)
            phase = batch.phase - even + state[rows, :size] @ terms
            slope = scale * np.cos(phase)
            power = np.abs(batch.predictions) ** 2 / noise
            cross = np.real(batch.images * np.conj(batch.predictions)) / noise
            first = slope * (power * scale * np.sin(phase) - cross)
            second = slope**2 * power
            np.add.at(gradient, rows, 2 / prior.inflation * first @ terms.T)
            curvature = np.einsum("ms,is,js->mij", second, terms, terms, optimize=True)
            np.add.at(hessian, rows, 2 / prior.inflation * curvature)
        gradient[:, 0] += prior.precision * (state[:, 0] - prior.mean)
        hessian[:, 0, 0] += prior.precision
        hessian[:, range(size), range(size)] += 1e-12
        step: Float64 = np.asarray(-np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0], dtype=np.float64)
        state[:, :size] += np.clip(step, -longest, longest)
        if np.abs(step).max() < 0.1:
            break
    return np.asarray(np.linalg.inv(hessian)[:, 0, 0], dtype=np.float64)


def _with_changes(table: pd.DataFrame, rows: Int64, state: Float64, astigmatism: bool) -> pd.DataFrame:
    u, v, angle = (table[f"rlnDefocus{name}"].to_numpy(dtype=float).copy() for name in ("U", "V", "Angle"))
    if not astigmatism:
        u[rows] += state[:, 0]
        v[rows] += state[:, 0]
        return table.assign(rlnDefocusU=u, rlnDefocusV=v)
    mean, half, twice = 0.5 * (u[rows] + v[rows]) + state[:, 0], 0.5 * (u[rows] - v[rows]), 2 * np.deg2rad(angle[rows])
    cosine, sine = half * np.cos(twice) + state[:, 1], half * np.sin(twice) + state[:, 2]
    d = np.empty((len(rows), 2, 2))
    d[:, 0, 0], d[:, 1, 1] = mean + cosine, mean - cosine
    d[:, 0, 1] = d[:, 1, 0] = sine
    u[rows], v[rows], angle[rows] = from_matrix(d, angle[rows])
    return table.assign(rlnDefocusU=u, rlnDefocusV=v, rlnDefocusAngle=angle)
