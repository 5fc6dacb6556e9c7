"""Even and odd aberrations of an optics group, as Zernike coefficients.

Sums over particles are kept for every Fourier pixel. Even ones turn the CTF's phase, sin(p - f) = sin p cos f - cos p sin f, so
a 2 x 2 system for (cos f, sin f) holds all that the images say of f; odd ones turn the image. Phases are never unwrapped pixel
by pixel: the coefficients are fitted to the sums themselves. Even fits begin with a search over all defoci and spherical
aberrations that a pixel size wrong by up to 12 % would call for, so that phases of many turns are found too.
Zivanov, Nakane, Scheres 2020, IUCrJ 7, 253.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.aberrations import tilt_scale
from nephila.errors import InputError
from nephila.optics_refinement.observations import Observations
from nephila.optics_refinement.spectra import Spectra

Float64 = npt.NDArray[np.float64]
Complex128 = npt.NDArray[np.complex128]

EVEN_TERMS = 9
ODD_TERMS = 6
ODD_COMA_Y, ODD_COMA_X = 3, 4
SEARCHED_RATIO = 1.12
"""Stated over true pixel size, up to which the search for Cs goes (either way)."""
SEARCH_STEP = 0.4
"""Radians at the finest frequency."""
MOST_SEARCH_STEPS = 400
_ITERATIONS = 60


@dataclass(frozen=True)
class EvenSums:
    """What all particles of a group say of the even phase, by Fourier pixel: the misfit is t.A t - 2 t.b for t = s (cos f, sin f).

    a : [3, s]: A00, A01, A11; b : [2, s]; both divided by the noise's power
    """

    a: Float64
    b: Float64


@dataclass(frozen=True)
class AberrationFit:
    """Coefficients with standard errors, and the phases that they were fitted to.

    coefficients, errors : [c], radians
    covariance : [c, c]
    observed, fitted, weight : [s], per Fourier pixel, radians; `weight` is the inverse variance of `observed`
    """

    coefficients: Float64
    covariance: Float64
    observed: Float64
    fitted: Float64
    weight: Float64

    @property
    def errors(self) -> Float64:
        """Standard errors [c]."""
        return np.sqrt(np.diag(self.covariance))


def even_sums(observations: Observations, spectra: Spectra, table: pd.DataFrame | None = None) -> EvenSums:
    """Accumulate over the particles of a group. The phases in them are those without even coefficients."""
    size = observations.band.size
    a, b = np.zeros((3, size)), np.zeros((2, size))
    for batch in observations.batches(table):
        sine, cosine = np.sin(batch.phase), -np.cos(batch.phase)
        power = np.abs(batch.predictions) ** 2
        cross = np.real(batch.images * np.conj(batch.predictions))
        for target, values in zip(a, (power * sine**2, power * sine * cosine, power * cosine**2), strict=True):
            target += values.sum(axis=0, dtype=np.float64)
        for target, values in zip(b, (cross * sine, cross * cosine), strict=True):
            target += values.sum(axis=0, dtype=np.float64)
    noise = spectra.noise[observations.band.shell]
    return EvenSums(a / noise, b / noise)


def odd_sums(
    observations: Observations, spectra: Spectra, table: pd.DataFrame | None = None
) -> tuple[Complex128, Float64]:
    """Sums of image times conjugate prediction with CTF [s], and what they are in expectation without a phase [s].

    Whatever odd phase the group states has been taken off the images.
    """
    even = observations.even_phase()
    total, expected = np.zeros(observations.band.size, dtype=np.complex128), np.zeros(observations.band.size)
    for batch in observations.batches(table):
        model = np.sin(batch.phase - even) * batch.predictions
        total += (batch.images * np.conj(model)).sum(axis=0, dtype=np.complex128)
        expected += (np.abs(model) ** 2).sum(axis=0, dtype=np.float64)
    shell = observations.band.shell
    weight = spectra.scale[shell] / spectra.noise[shell]
    return total * weight, expected * weight * spectra.scale[shell]


def fit_even(sums: EvenSums, observations: Observations, *, cs_mm: float, search: bool = True) -> AberrationFit:
    """Fit Z00, Z20, Z40 and the 2-fold and 4-fold terms to the sums, with the images' amplitude free in each shell.

    Parameters
    ----------
    cs_mm : of the group's table; sets the range of the search
    search : begin with a search over defocus and spherical aberration; else from the group's present coefficients
    """
    basis = observations.basis(EVEN_TERMS, even=True)
    powers, to_zernike = _even_powers(observations, basis)
    shell = observations.band.shell
    present = np.linalg.solve(to_zernike, _padded(observations.group.even_zernike, EVEN_TERMS))
    starts: list[Float64] = [np.asarray(present, dtype=np.float64)]
    if search:
        starts += _search(sums, observations, cs_mm)
    fits = [_climb_even(sums, powers, shell, start) for start in starts]
    best, hessian = min(fits, key=lambda fit: _even_misfit(sums, shell, fit[0] @ powers)[0])
    fitted = best @ powers
    scale = _even_misfit(sums, shell, fitted)[1]
    observed, weight = _observed_even(sums, scale, fitted)
    covariance = to_zernike @ np.linalg.pinv(hessian) @ to_zernike.T
    return AberrationFit(to_zernike @ best, covariance, observed, fitted, weight)


def fit_odd(total: Complex128, expected: Float64, observations: Observations) -> AberrationFit:
    """Fit image shift (Z11), coma and trefoil to the sums of `odd_sums`, as an increment to what the group states."""
    basis = observations.basis(ODD_TERMS, even=False)
    x, y = observations.stretched / np.hypot(*observations.stretched).max()
    r2 = x**2 + y**2
    powers = np.stack([y, x, 3 * x**2 * y - y**3, y * r2, x * r2, x**3 - 3 * x * y**2])
    to_zernike = _conversion(powers, basis)
    best = np.zeros(ODD_TERMS)
    reach = np.sqrt(r2)
    for share in (0.35, 0.55, 0.8, 1.01):  # from coarse to fine, so that no turn is missed
        inside = reach <= reach.min() + share * (1 - reach.min())
        best, hessian = _climb_odd(np.where(inside, total, 0), powers, best)
    fitted = best @ powers
    turned = total * np.exp(-1j * fitted)
    covariance = to_zernike @ np.linalg.pinv(hessian) @ to_zernike.T
    return AberrationFit(to_zernike @ best, covariance, fitted + np.angle(turned), fitted, 2 * expected)


def beam_tilt_of(coefficients: Float64, observations: Observations) -> tuple[Float64, tuple[float, float]]:
    """Odd coefficients with the coma turned into a beam tilt (x, y) in mrad, as RELION writes them.

    Z31 = (3 k^2 - 2) k_x: its k^3 part becomes the tilt, its k part goes to the shift. Without Cs coma cannot be a tilt and stays.
    """
    rest = coefficients.copy()
    scale = tilt_scale(observations.group)
    if scale == 0:
        return rest, (0.0, 0.0)
    tilt = (-3 * rest[ODD_COMA_X] / scale, -3 * rest[ODD_COMA_Y] / scale)
    rest[1] -= 2 * rest[ODD_COMA_X]
    rest[0] -= 2 * rest[ODD_COMA_Y]
    rest[ODD_COMA_X] = rest[ODD_COMA_Y] = 0.0
    return rest, (float(tilt[0]), float(tilt[1]))


def _padded(values: tuple[float, ...], length: int) -> Float64:
    return np.array([*values, *[0.0] * length])[:length]


def _even_powers(observations: Observations, basis: Float64) -> tuple[Float64, Float64]:
    """The span of the even terms as powers of k, scaled to 1 at the rim (well conditioned), and the way back to coefficients."""
    x, y = observations.stretched / np.hypot(*observations.stretched).max()
    r2, c2, s2 = x**2 + y**2, x**2 - y**2, 2 * x * y
    c4, s4 = c2**2 - s2**2, 2 * c2 * s2
    powers = np.stack([np.ones_like(r2), r2, r2**2, c2, s2, c2 * r2, s2 * r2, c4, s4])
    return powers, _conversion(powers, basis)


def _conversion(powers: Float64, basis: Float64) -> Float64:
    """Matrix C with c_zernike = C c_powers for equal phases everywhere."""
    scale = np.sqrt((basis**2).mean(axis=1))
    solution, *_ = np.linalg.lstsq((basis / scale[:, None]).T, powers.T, rcond=None)
    matrix: Float64 = solution / scale[:, None]
    return matrix


def _even_misfit(sums: EvenSums, shell: npt.NDArray[np.int64], phase: Float64) -> tuple[float, Float64]:
    """Misfit of a phase [s], with the best amplitude (not negative) of each shell, and those amplitudes by pixel [s]."""
    cosine, sine = np.cos(phase), np.sin(phase)
    along = np.bincount(shell, sums.b[0] * cosine + sums.b[1] * sine)
    power = np.bincount(shell, sums.a[0] * cosine**2 + 2 * sums.a[1] * cosine * sine + sums.a[2] * sine**2)
    scale = np.maximum(along, 0) / np.maximum(power, 1e-30)
    return float(-(scale * np.maximum(along, 0)).sum()), scale[shell]


def _climb_even(
    sums: EvenSums, powers: Float64, shell: npt.NDArray[np.int64], start: Float64
) -> tuple[Float64, Float64]:
    """Levenberg-Marquardt from `start`; the coefficients of the powers and the Hessian of half the chi square there."""
    best, damping = start, 1e-3
    misfit, scale = _even_misfit(sums, shell, best @ powers)
    for _ in range(_ITERATIONS):
        cosine, sine = np.cos(best @ powers), np.sin(best @ powers)
        a, b = sums.a, sums.b
        slope = scale**2 * (a[1] * (cosine**2 - sine**2) + (a[2] - a[0]) * cosine * sine) - scale * (
            b[1] * cosine - b[0] * sine
        )
        curvature = scale**2 * (a[0] * sine**2 - 2 * a[1] * sine * cosine + a[2] * cosine**2)
        hessian = (powers * (2 * curvature)) @ powers.T
        gradient = powers @ (2 * slope)
        step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian) + 1e-30), -gradient)
        tried, new_scale = _even_misfit(sums, shell, (best + step) @ powers)
        if tried <= misfit:
            gain, misfit, scale, best = misfit - tried, tried, new_scale, best + step
            damping = max(0.2 * damping, 1e-9)
            if gain < 1e-6 and np.abs(step).max() < 1e-6:
                break
        else:
            damping *= 8
            if damping > 1e8:
                break
    # the misfit is |residual|^2 over the variance of a complex number, so it is a log likelihood without a half
    return best, hessian


def _search(sums: EvenSums, observations: Observations, cs_mm: float) -> list[Float64]:
    """The best rotationally symmetric phases a r^2 + c r^4 on a grid, r = k over the finest; their powers' coefficients."""
    shell = observations.band.shell
    finest = float(np.hypot(*observations.stretched).max())
    wavelength = observations.group.wavelength
    most = 0.5 * np.pi * max(abs(cs_mm), 0.1) * 1e7 * wavelength**3 * finest**4 * (SEARCHED_RATIO**4 - 1)
    steps = int(min(np.ceil(most / SEARCH_STEP), MOST_SEARCH_STEPS // 2))
    used = np.unique(shell)
    radius2 = np.bincount(shell, np.hypot(*observations.stretched) ** 2)[used] / np.bincount(shell)[used] / finest**2
    a = np.stack([np.bincount(shell, row)[used] for row in sums.a])
    b = np.stack([np.bincount(shell, row)[used] for row in sums.b])
    grid = np.linspace(-most, most, 2 * steps + 1)
    best: list[tuple[float, float, float]] = []
    for fourth in grid:
        # a defocus that was fitted before makes up for part of it; what is over lies within as much again
        second = -fourth + np.linspace(-most, most, 2 * steps + 1)[:, None]
        phase = second * radius2 + fourth * radius2**2
        cosine, sine = np.cos(phase), np.sin(phase)
        along = np.maximum(b[0] * cosine + b[1] * sine, 0)
        power = a[0] * cosine**2 + 2 * a[1] * cosine * sine + a[2] * sine**2
        gain = (along**2 / np.maximum(power, 1e-30)).sum(axis=1)
        top = int(gain.argmax())
        best.append((float(gain[top]), float(second[top, 0]), float(fourth)))
    best.sort(reverse=True)
    return [np.array([0.0, second, fourth, *[0.0] * 6]) for _, second, fourth in best[:4]]


def _observed_even(sums: EvenSums, scale: Float64, fitted: Float64) -> tuple[Float64, Float64]:
    """Phase of each Fourier pixel near the fitted one, and its weight."""
    determinant = sums.a[0] * sums.a[2] - sums.a[1] ** 2
    t0 = sums.a[2] * sums.b[0] - sums.a[1] * sums.b[1]
    t1 = sums.a[0] * sums.b[1] - sums.a[1] * sums.b[0]
    apart = np.angle(np.exp(1j * (np.arctan2(t1, t0) - fitted)))
    cosine, sine = np.cos(fitted), np.sin(fitted)
    curvature = sums.a[0] * sine**2 - 2 * sums.a[1] * sine * cosine + sums.a[2] * cosine**2
    usable = determinant > 1e-9 * (sums.a[0] + sums.a[2]) ** 2
    return np.where(usable, fitted + apart, np.nan), 2 * scale**2 * curvature


def _climb_odd(total: Complex128, powers: Float64, start: Float64) -> tuple[Float64, Float64]:
    best, damping = start, 1e-3
    gain = float(np.real(total * np.exp(-1j * (best @ powers))).sum())
    if gain == 0 and not np.abs(total).any():
        raise InputError("no signal in the band of the odd aberrations; widen the range of resolutions")
    for _ in range(_ITERATIONS):
        turned = total * np.exp(-1j * (best @ powers))
        hessian = 2 * (powers * np.abs(turned)) @ powers.T
        gradient = 2 * powers @ turned.imag
        step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian) + 1e-30), gradient)
        tried = float(np.real(total * np.exp(-1j * ((best + step) @ powers))).sum())
        if tried >= gain:
            gain, best, damping = tried, best + step, max(0.2 * damping, 1e-9)
            if np.abs(step).max() < 1e-7:
                break
        else:
            damping *= 8
            if damping > 1e8:
                break
    return best, 2 * (powers * np.maximum(turned.real, 0)) @ powers.T
