"""The model of a power spectrum, and its fit by maximum likelihood.

    P(s, theta) = B(s, theta) + S(s) CTF^2(s, theta)

B: spline in s plus a smooth part in cos 2 theta, sin 2 theta. S: spline, times exp(-s (|f| + f_c cos 2 theta + f_s sin 2 theta))
for motion, which takes the rings away in one direction and would pull the defocus if the model did not know.
CTF^2 = (1 - A cos 2 gamma) / 2, where A is what averaging over the tile's taper, the radial bin and the sector leaves of the rings:
the taper's autocorrelation at the distance over which the CTF spreads density, 2 lambda dz s. Power averaged over n independent
values follows a gamma distribution, so its deviance 2 n (P / M + log M) is minimised (Whittle 1953): weights come from the model,
not from the noisy data, which would bias the fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.interpolate import BSpline

from nephila.ctf import Optics
from nephila.defocus.settings import RingStrength
from nephila.spectra import taper_autocorrelation

Float64 = npt.NDArray[np.float64]

_FLOOR = 0.02  # least model power, in units of the smooth spectrum
_FADING_PRIOR = 10.0  # A: wide for real motion, but weak rings do not wander off
_ASTIGMATISM_PRIOR = 800.0  # A, each part of half the astigmatism


@dataclass(frozen=True)
class RingData:
    """Binned spectrum inside the fitted range, flat over bins.

    power: divided by the smooth curve `level`, so near 1; samples: independent values behind each; s, k2, cos2, sin2: of each bin;
    radius: index of its Fourier radius; sector: its index; tile_length: tile side in A; s_range: fitted range, 1/A;
    sectors: their number (0: rotational average, no angles).
    """

    power: Float64
    level: Float64
    samples: Float64
    s: Float64
    k2: Float64
    cos2: Float64
    sin2: Float64
    radius: npt.NDArray[np.int64]
    sector: npt.NDArray[np.int64]
    tile_length: float
    s_range: tuple[float, float]
    sectors: int

    def limited(self, s_high: float) -> RingData:
        """The same without the bins beyond `s_high` (1/A)."""
        keep = self.s <= s_high
        names = ("power", "level", "samples", "s", "k2", "cos2", "sin2", "radius", "sector")
        return replace(self, **{n: getattr(self, n)[keep] for n in names}, s_range=(self.s_range[0], s_high))


@dataclass(frozen=True)
class RingFit:
    """A maximum of the likelihood.

    defocus, a_cos, a_sin: dz(theta) = defocus + a_cos cos 2 theta + a_sin sin 2 theta, A; phase: added phase shift, radians;
    fading: directional part of the envelope's exponent, f_c and f_s, A;
    background, envelope, ctf2, model: at each bin, in units of the level; deviance: of the fit; jacobian [parameters, bins] with
    the geometric parameters last (their number: free); weights: n / model^2; precision: prior inverse
    variances of the last parameters (fading and geometry).
    """

    defocus: float
    a_cos: float
    a_sin: float
    phase: float
    fading: tuple[float, float]
    coefficients: Float64
    background: Float64
    envelope: Float64
    ctf2: Float64
    model: Float64
    deviance: float
    jacobian: Float64
    weights: Float64
    free: int
    precision: Float64


def spline_basis(s: Float64, s_range: tuple[float, float], count: int) -> Float64:
    """Values [len(s), count] of `count` B-splines on s_range: cubic, or of lower degree where count < 4.

    Knots are even in sqrt(s): power falls steeply at low frequency, where rings are wide and few.
    """
    degree = min(3, count - 1)
    low, high = np.sqrt(s_range)
    inner = np.linspace(low, high, count - degree + 1)
    knots = np.concatenate([[low] * degree, inner, [high] * degree])
    return np.asarray(BSpline(knots, np.eye(count), degree)(np.clip(np.sqrt(s), low, high)))


def smooth_level(s: Float64, power: Float64, samples: Float64, degree: int = 5) -> Float64:
    """A smooth positive curve through `power`: polynomial of its logarithm, so that what is fitted is near 1 everywhere."""
    x = 2 * (s - s[0]) / max(s[-1] - s[0], 1e-12) - 1
    weights = np.sqrt(np.maximum(samples, 1e-9))
    logarithm = np.log(np.maximum(power, 1e-12 * power.max()))
    return np.exp(
        np.polynomial.chebyshev.Chebyshev.fit(x, logarithm, min(degree, len(s) - 2), w=weights, domain=[-1, 1])(x)
    )


def ring_phase(k2: Float64, defocus: npt.ArrayLike, optics: Optics, phase: float = 0.0) -> Float64:
    """-gamma of the CTF, radians, at k2 = k^2 (1/A^2)."""
    return optics.k2_factor * np.asarray(defocus) * k2 - optics.k4_factor * k2**2 + optics.constant_phase + phase


def ring_contrast(k2: Float64, cos2: Float64, tile_length: float, defocus: npt.ArrayLike, optics: Optics) -> Float64:
    """What taper and radial bins leave of rings: 1 where they are wide, 0 where they are finer than a tile resolves."""
    spread = (
        np.abs(2 * optics.wavelength * np.asarray(defocus) - 4 * optics.k4_factor / np.pi * k2)
        * np.sqrt(k2)
        / tile_length
    )
    along_x, along_y = np.sqrt(np.maximum(0.5 * (1 + cos2), 0)), np.sqrt(np.maximum(0.5 * (1 - cos2), 0))
    taper = taper_autocorrelation(spread * along_x) * taper_autocorrelation(spread * along_y)
    return np.asarray(taper * np.sinc(spread))


def taper_shift(data: RingData, fit: RingFit, optics: Optics) -> Float64:
    """Phase (radians, of 2 gamma) by which the taper shifts rings whose strength falls with s, and rings of growing density.

    Smoothing S exp(i psi) by the taper's power spectrum w leaves, to second order, the phase
    -(S' / S) (a' / a) / (2 pi) - (lambda dz / 2 pi) a'' / a, where a is the taper's autocorrelation at the lag psi' / 2 pi.
    Without it the defocus comes out 1e-4 too small, a fifth of a good micrograph's standard error.
    """
    lag = (
        np.abs(2 * optics.wavelength * fit.defocus - 4 * optics.k4_factor / np.pi * data.k2) * data.s / data.tile_length
    )
    first = int(data.radius.min())
    count = np.maximum(np.bincount(data.radius - first), 1)
    strength = np.bincount(data.radius - first, fit.envelope * data.level) / count
    slope = np.gradient(strength, 1 / data.tile_length) / np.maximum(strength, 0.01 * strength.max() + 1e-30)
    limit = 2 / data.s_range[0]
    along = np.clip(slope, -limit, limit)[data.radius - first]
    gradient, curvature = np.zeros_like(lag), np.zeros_like(lag)
    for part in (np.sqrt(np.maximum(0.5 * (1 + data.cos2), 0)), np.sqrt(np.maximum(0.5 * (1 - data.cos2), 0))):
        u = np.minimum(lag * part, 0.6)  # beyond, the rings are too faint to matter
        a = taper_autocorrelation(u)
        turn = 2 * np.pi * u
        rise = (np.cos(turn) - 1) * 2 / 3 - (1 - u) * np.sin(turn) * 2 * np.pi / 3
        bend = -np.sin(turn) * 2 * np.pi / 3 - (1 - u) * np.cos(turn) * 4 * np.pi**2 / 3
        gradient += part * rise / a / data.tile_length
        curvature += bend / a / data.tile_length**2
    return -along * gradient / (2 * np.pi) - optics.wavelength * fit.defocus / (2 * np.pi) * curvature


class RingModel:
    """The linear part of the model on given data: splines, and the fit of everything by Gauss-Newton.

    Bases are kept as rows [terms, bins]: X X^T of a wide matrix is several times faster than X^T X of a tall one.
    """

    def __init__(
        self,
        data: RingData,
        optics: Optics,
        strength: RingStrength | None = None,
        background_terms: int = 8,
        envelope_terms: int = 5,
    ) -> None:
        self.data = data
        self.optics = optics
        smooth = [spline_basis(data.s, data.s_range, background_terms)]
        if data.sectors:
            angular = spline_basis(data.s, data.s_range, 3)
            smooth += [angular * data.cos2[:, None], angular * data.sin2[:, None]]
        self.smooth = np.ascontiguousarray(np.concatenate(smooth, axis=1).T)
        if strength is None:
            self.envelope = np.ascontiguousarray(spline_basis(data.s, data.s_range, envelope_terms).T)
        else:  # the shared curve, free to fall off faster or slower
            self.envelope = strength.at(data.s) * np.ascontiguousarray(spline_basis(data.s, data.s_range, 2).T)
        self.fading_limit = 40.0 / data.s_range[1]
        # inverse variances of f_c, f_s, defocus, a_cos, a_sin, phase
        self.prior = (
            np.array([_FADING_PRIOR, _FADING_PRIOR, np.inf, _ASTIGMATISM_PRIOR, _ASTIGMATISM_PRIOR, np.inf]) ** -2.0
        )
        self.shift: Float64 | float = 0.0  # added to 2 gamma: `taper_shift`
        self.blur: Float64 | float = 1.0  # what a tilted specimen leaves of the rings' contrast: `local.blurred_rings`
        self._null: float | None = None

    def deviance(self, model: Float64) -> float:
        """-2 log likelihood, without its constant."""
        return float(2 * np.dot(self.data.samples, self.data.power / model + np.log(model)))

    def null_deviance(self) -> float:
        """Deviance of the best model without rings."""
        if self._null is None:
            model = np.ones_like(self.data.power)
            for _ in range(4):
                model = self._project(self.smooth, model)[1]
            self._null = self.deviance(model)
        return self._null

    def _project(self, basis: Float64, model: Float64) -> tuple[Float64, Float64]:
        """Coefficients and values of the weighted least-squares fit with the weights that `model` implies."""
        root = np.sqrt(self.data.samples) / model
        scaled = basis * root
        matrix = scaled @ scaled.T
        matrix[np.diag_indices_from(matrix)] += 1e-9 * np.diag(matrix) + 1e-12 * np.trace(matrix)
        coefficients = np.linalg.solve(matrix, scaled @ (root * self.data.power))
        return np.asarray(coefficients), np.asarray(np.maximum(coefficients @ basis, _FLOOR))

    def rings(self, defocus: float, a_cos: float, a_sin: float, phase: float) -> tuple[Float64, Float64]:
        """CTF^2 of each bin, and its derivative by the phase -gamma."""
        data = self.data
        local = defocus + a_cos * data.cos2 + a_sin * data.sin2
        angle = 2 * ring_phase(data.k2, local, self.optics, phase) + self.shift
        contrast = self.blur * ring_contrast(data.k2, data.cos2, data.tile_length, local, self.optics)
        if data.sectors:
            turn = 2 * self.optics.wavelength * data.k2 * (a_sin * data.cos2 - a_cos * data.sin2)
            contrast = contrast * np.sinc(turn * np.pi / data.sectors)
        return np.asarray(0.5 * (1 - contrast * np.cos(angle))), np.asarray(contrast * np.sin(angle))

    def fit(
        self,
        start: tuple[float, float, float, float],
        astigmatism: bool,
        fit_phase: bool,
        rounds: int = 20,
        held: bool = False,
    ) -> RingFit:
        """Nearest maximum of the likelihood from `start` (defocus, a_cos, a_sin, phase); `held` keeps these as they are."""
        # fading first, then geometry: the covariance of the geometry is read from the end
        geometry = np.array([0.0, 0.0, *start])
        free = np.array([self.data.sectors > 0, self.data.sectors > 0, True, astigmatism, astigmatism, fit_phase])
        if held:
            free[2:] = False
        prior = self.prior[free]
        state = self._linear(geometry, np.ones_like(self.data.power), 3)
        damping = 1e-3
        for _ in range(rounds):
            root = np.sqrt(self.data.samples) / state.model
            scaled = self._jacobian(geometry, state, free) * root
            matrix = scaled @ scaled.T
            gradient = scaled @ (root * (self.data.power - state.model))
            last = np.arange(len(matrix) - len(prior), len(matrix))
            matrix[last, last] += prior
            gradient[last] -= prior * geometry[free]
            scale = np.diag(matrix) + 1e-9 * np.trace(matrix)
            improved = False
            for _ in range(6):
                step = np.linalg.solve(matrix + np.diag(damping * scale), gradient)
                trial = geometry.copy()
                trial[free] += step[-int(free.sum()) :]
                trial[:2] *= min(1.0, self.fading_limit / max(float(np.hypot(*trial[:2])), 1e-12))
                new = self._linear(trial, state.model, 1)
                if new.deviance < state.deviance + 1e-7:
                    improved = True
                    break
                damping *= 8
            if not improved:
                break
            gain = state.deviance - new.deviance
            geometry, state, damping = trial, new, max(damping / 8, 1e-7)
            if gain < 1e-4:
                break
        return replace(
            state,
            jacobian=self._jacobian(geometry, state, free),
            weights=self.data.samples / state.model**2,
            free=int(free[2:].sum()),
            precision=prior,
        )

    def _linear(self, geometry: Float64, model: Float64, rounds: int) -> RingFit:
        """Best background and envelope (not negative) for a given defocus."""
        f_cos, f_sin, defocus, a_cos, a_sin, phase = (float(x) for x in geometry)
        ctf2, _ = self.rings(defocus, a_cos, a_sin, phase)
        fading = self._fading(f_cos, f_sin)
        faded = ctf2 * fading
        terms = len(self.smooth)
        active = np.ones(len(self.envelope), dtype=bool)
        while True:
            used = np.flatnonzero(active)
            basis = np.concatenate([self.smooth, self.envelope[used] * faded])
            coefficients, values = self._project(basis, model)
            negative = coefficients[terms:] < 0
            if negative.any():
                active[used[negative]] = False
                continue
            model = values
            rounds -= 1
            if rounds <= 0:
                break
        amplitude = np.zeros(len(active))
        amplitude[used] = coefficients[terms:]
        background, envelope = coefficients[:terms] @ self.smooth, amplitude @ self.envelope * fading
        model = np.maximum(background + envelope * ctf2, _FLOOR)
        everything = np.concatenate([coefficients[:terms], amplitude])
        empty = np.zeros(0)
        return RingFit(
            defocus, a_cos, a_sin, phase, (f_cos, f_sin), everything, background, envelope, ctf2, model,
            self.deviance(model) + float(self.prior @ geometry**2), empty, empty, 0, empty,
        )  # fmt: skip

    def _fading(self, f_cos: float, f_sin: float) -> Float64 | float:
        if f_cos == 0 and f_sin == 0:
            return 1.0
        size = float(np.hypot(f_cos, f_sin))
        return np.exp(-self.data.s * (size + f_cos * self.data.cos2 + f_sin * self.data.sin2))

    def _jacobian(self, geometry: Float64, state: RingFit, free: npt.NDArray[np.bool_]) -> Float64:
        data = self.data
        _, slope = self.rings(*(float(x) for x in geometry[2:]))
        by_phase = state.envelope * slope
        by_defocus = by_phase * self.optics.k2_factor * data.k2
        by_fading = -data.s * state.envelope * state.ctf2
        size = max(float(np.hypot(geometry[0], geometry[1])), 1e-12)
        columns = [by_fading * (data.cos2 + geometry[0] / size), by_fading * (data.sin2 + geometry[1] / size)]
        columns += [by_defocus, by_defocus * data.cos2, by_defocus * data.sin2, by_phase]
        fading = self._fading(float(geometry[0]), float(geometry[1]))
        used = self.envelope[state.coefficients[len(self.smooth) :] > 0] * (state.ctf2 * fading)
        return np.concatenate([self.smooth, used, np.stack([c for c, f in zip(columns, free, strict=True) if f])])
