"""Defocus, astigmatism and phase shift of a micrograph from its two-dimensional spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nephila.ctf import Optics
from nephila.defocus.heights import tile_heights
from nephila.defocus.local import blurred_rings, fit_plane, tile_models
from nephila.defocus.model import RingData, RingFit, RingModel, smooth_level, taper_shift
from nephila.defocus.profile import directional_anisotropy, ring_profile, rings_explained
from nephila.defocus.search import Candidate, search
from nephila.defocus.settings import (
    START_FINEST,
    DefocusFit,
    DefocusPlane,
    DefocusSettings,
    RingProfile,
    RingStrength,
    failed_fit,
)
from nephila.errors import InputError
from nephila.spectra import MicrographSpectrum, SpectrumSettings, tile_spectra

Float64 = npt.NDArray[np.float64]

_FREQUENCY_CORRELATION = 35.0 / 18.0
_FIRST_ROUNDS = 6  # enough to rank the candidates; the best is then fitted to the end
_SHARED_STRENGTH = 0.7  # noise scores lower by that where the rings' strength is given
_TILT_ROUNDS = 2
_BEYOND = 1.5  # rings beyond what is explained still add a little
_FINEST, _COARSEST = 2.0, 10.0  # A, of the range that the data choose
_SAME_RANGE = 0.05
_WORTH_REFINING = 0.2  # candidates below this share of the best score are left as the search found them


def fit_micrograph(
    image: npt.ArrayLike,
    pixel_size: float,
    optics: Optics,
    spectrum_settings: SpectrumSettings | None = None,
    settings: DefocusSettings | None = None,
) -> tuple[MicrographSpectrum | None, DefocusFit]:
    """Spectrum and CTF of a micrograph [ny, nx]; what is wrong with the image becomes the fit's reason, not an exception."""
    try:
        spectrum = tile_spectra(image, pixel_size, spectrum_settings)
    except InputError as error:
        return None, failed_fit(str(error))
    return spectrum, fit_defocus(spectrum, optics, settings)


def fit_defocus(
    spectrum: MicrographSpectrum,
    optics: Optics,
    settings: DefocusSettings | None = None,
    strength: RingStrength | None = None,
) -> DefocusFit:
    """Fit the CTF to a spectrum: exhaustive search, then maximum likelihood (model in `nephila.defocus.model`).

    strength: what `pool_strength` found in a first pass over the data set; it steadies the fit where rings are weak.
    Never raises for what the data are like: `failed` and `reason` tell.
    """
    settings = settings or DefocusSettings()
    if spectrum.problem is not None:
        return failed_fit(spectrum.problem)
    data = ring_data(spectrum, settings)
    if isinstance(data, str):
        return failed_fit(data)
    starts, elsewhere = search(data, optics, settings, strength)
    if not starts:
        return failed_fit("no rings: the spectrum is smooth")
    worth, left = worth_refining(starts, elsewhere)
    fits = refine_candidates(data, optics, settings, starts + worth, strength)
    best_score, model, best = fits[0]
    gap, runner_up = lead(best_score, best.defocus, [(s, f.defocus) for s, _, f in fits[1:]] + left, settings)
    least = settings.min_score * (1.0 if strength is None else _SHARED_STRENGTH)
    if best_score < least:
        return failed_fit(f"no rings: score {best_score:.0f} below {least:.0f}", best_score, gap)
    model.shift = taper_shift(data, best, optics)
    best = model.fit((best.defocus, best.a_cos, best.a_sin, best.phase), settings.astigmatism, settings.phase_shift)
    if settings.resolution_high is None:
        data, model, best = fit_in_own_range(spectrum, data, model, best, settings, strength)
    plane = None
    if settings.tilt:
        plane, best = fit_tilt(spectrum, data, model, best, settings)
    heights = None
    if settings.heights:
        heights = tile_heights(spectrum, data, model, best, plane or DefocusPlane(0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    profile = ring_profile(data, best, optics)
    resolution, merit = rings_explained(profile)
    expected = tile_models(spectrum, data, model, best, plane) if plane is not None and not plane.level else None
    covariance = geometry_covariance(spectrum, data, model, best, expected)
    fit = _result(data, best, covariance, settings, profile, resolution, merit, best_score, gap, runner_up, optics)
    apparent, error = apparent_cs(data, model, best)
    return replace(fit, plane=plane, heights=heights, apparent_cs=apparent, apparent_cs_error=error)


def fit_in_own_range(
    spectrum: MicrographSpectrum,
    data: RingData,
    model: RingModel,
    fit: RingFit,
    settings: DefocusSettings,
    strength: RingStrength | None,
) -> tuple[RingData, RingModel, RingFit]:
    """The fit again over the range that its own rings choose: half as far again as they are explained, no finer than `_FINEST`
    and 95 % of Nyquist, no coarser than `_COARSEST`. As it is where that is the range it has."""
    explained = rings_explained(ring_profile(data, fit, model.optics))[0]
    finest = float(np.clip(explained / _BEYOND, _FINEST, _COARSEST))
    own = ring_data(spectrum, replace(settings, resolution_high=finest))
    if isinstance(own, str) or abs(own.s_range[1] / data.s_range[1] - 1) < _SAME_RANGE:
        return data, model, fit
    again = RingModel(own, model.optics, strength)
    start = (fit.defocus, fit.a_cos, fit.a_sin, fit.phase)
    astigmatism = settings.astigmatism and own.sectors > 0
    found = again.fit(start, astigmatism, settings.phase_shift, _FIRST_ROUNDS)
    again.shift = taper_shift(own, found, model.optics)
    start = (found.defocus, found.a_cos, found.a_sin, found.phase)
    return own, again, again.fit(start, astigmatism, settings.phase_shift)


def fit_tilt(
    spectrum: MicrographSpectrum, data: RingData, model: RingModel, fit: RingFit, settings: DefocusSettings
) -> tuple[DefocusPlane, RingFit]:
    """The plane of the specimen, and the fit of the whole micrograph that knows how the plane blurs its rings."""
    level, tilted = fit, fit
    plane = fit_plane(spectrum, data, model, fit)
    for _ in range(_TILT_ROUNDS):
        if plane.level:
            break
        model.blur = blurred_rings(spectrum, data, plane, model.optics)
        start = (tilted.defocus, tilted.a_cos, tilted.a_sin, tilted.phase)
        tilted = model.fit(start, settings.astigmatism, settings.phase_shift)
        plane = fit_plane(spectrum, data, model, tilted)
    if plane.level:
        model.blur = 1.0
        return plane, level
    return plane, tilted


def ring_data(spectrum: MicrographSpectrum, settings: DefocusSettings) -> RingData | str:
    """The spectrum's bins inside the fitted range, divided by a smooth level; a text where the range holds too little."""
    length = spectrum.tile_px * spectrum.pixel_size
    nyquist = 0.5 / spectrum.pixel_size
    finest = START_FINEST if settings.resolution_high is None else settings.resolution_high
    s_low, s_high = 1 / settings.resolution_low, min(1 / finest, 0.95 * nyquist)
    first, last = max(4, int(np.ceil(s_low * length))), int(s_high * length)
    if last - first < 16:
        return (
            f"too few rings can be seen: {1 / s_low:.0f} to {1 / s_high:.1f} A holds {max(0, last - first)} Fourier pixels "
            "(is the pixel size right?)"
        )
    chosen = np.arange(first, min(last + 1, spectrum.samples.shape[1]))
    counts = spectrum.samples[:, chosen]
    mean = spectrum.sector_mean[:, chosen]
    rotational = (mean * counts).sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    if not np.all(rotational > 0):
        return "the spectrum is empty at some radii: the micrograph was filtered, or has no contrast"
    level = smooth_level(chosen / length, rotational, counts.sum(axis=0))
    sector, column = np.nonzero((counts > 0) & (mean > 0))
    radius = chosen[column]
    share = spectrum.effective_samples[sector, radius]
    return RingData(
        power=mean[sector, column] / level[column],
        level=level[column],
        samples=share,
        s=np.sqrt(spectrum.k2[sector, radius]),
        k2=spectrum.k2[sector, radius],
        cos2=spectrum.cos2[sector, radius],
        sin2=spectrum.sin2[sector, radius],
        radius=radius,
        sector=sector,
        tile_length=length,
        s_range=(first / length, (chosen[-1] + 0.5) / length),
        sectors=len(counts),
    )


def refine_candidates(
    data: RingData,
    optics: Optics,
    settings: DefocusSettings,
    candidates: list[Candidate],
    strength: RingStrength | None = None,
) -> list[tuple[float, RingModel, RingFit]]:
    """Each candidate's maximum of the likelihood with its score, best first; solutions out of range come last with score 0."""
    model = RingModel(data, optics, strength)
    fits: list[tuple[float, RingModel, RingFit]] = []
    for candidate in candidates:
        start = (candidate.defocus, candidate.a_cos, candidate.a_sin, candidate.phase)
        fit = model.fit(start, settings.astigmatism and data.sectors > 0, settings.phase_shift, _FIRST_ROUNDS)
        score = model.null_deviance() - fit.deviance
        margin = settings.gap_distance
        inside = settings.defocus_min - margin <= fit.defocus <= settings.defocus_max + margin
        fits.append((score if inside else 0.0, model, fit))
    fits.sort(key=lambda item: -item[0])
    return fits


def worth_refining(
    starts: Sequence[Candidate], elsewhere: Sequence[Candidate]
) -> tuple[list[Candidate], list[tuple[float, float]]]:
    """Of the solutions elsewhere those that might win, and (score, defocus) of the others as the search found them."""
    least = _WORTH_REFINING * starts[0].score
    worth = [c for c in elsewhere if c.score > least]
    return worth, [(c.score, c.defocus) for c in elsewhere if c.score <= least]


def lead(
    score: float, defocus: float, others: Sequence[tuple[float, float]], settings: DefocusSettings
) -> tuple[float, float]:
    """Score less that of the best of the `others` (score, defocus) more than `gap_distance` away, and where (A) that is."""
    elsewhere = [o for o in others if abs(o[1] - defocus) > settings.gap_distance]
    return (score - max(elsewhere)[0], max(elsewhere)[1]) if elsewhere else (score, float("nan"))


def apparent_cs(data: RingData, model: RingModel, fit: RingFit) -> tuple[float, float]:
    """Spherical aberration (mm) that the rings themselves ask for, and its standard error, to first order about the fit.

    With a wrong pixel size, voltage or Cs the phase's k^4 term is wrong: a pixel r times too large shows as Cs r^4.
    """
    slope = 0.5 * np.pi * 1e7 * model.optics.wavelength**3 * data.k2**2
    by_cs = -fit.envelope * model.rings(fit.defocus, fit.a_cos, fit.a_sin, fit.phase)[1] * slope
    root = np.sqrt(fit.weights)
    scaled = np.concatenate([(by_cs * root)[None], fit.jacobian * root])
    matrix = scaled @ scaled.T
    matrix[np.diag_indices_from(matrix)] *= 1 + 1e-9
    last = np.arange(len(matrix) - len(fit.precision), len(matrix))
    matrix[last, last] += fit.precision
    inverse = np.linalg.inv(matrix)
    gradient = scaled @ (root * (data.power - fit.model))
    gradient[1:] = 0.0  # the fit is at its maximum
    return model.optics.cs_mm + float(inverse[0] @ gradient), float(np.sqrt(inverse[0, 0]))


def geometry_covariance(
    spectrum: MicrographSpectrum, data: RingData, model: RingModel, fit: RingFit, expected: Float64 | None = None
) -> Float64:
    """Covariance of the free geometric parameters: that of the scatter between tiles, variances averaged with Fisher's.

    The scatter is the bootstrap over tiles to first order: each tile's pull on the parameters, H^-1 sum_t g_t g_t^T H^-1.
    expected [tiles, bins]: what a tilt makes of each tile, which is no scatter.
    """
    scaled = fit.jacobian * np.sqrt(fit.weights)
    matrix = scaled @ scaled.T
    matrix[np.diag_indices_from(matrix)] *= 1 + 1e-9
    last = np.arange(len(matrix) - len(fit.precision), len(matrix))
    matrix[last, last] += fit.precision
    inverse = np.linalg.inv(matrix)
    fisher = inverse[-fit.free :, -fit.free :]
    tiles = spectrum.tiles
    if tiles < 6:
        return np.asarray(fisher)
    values = spectrum.sector_tiles[:, data.sector, data.radius] / data.level
    if expected is not None:
        values = values - expected
    lever = inverse[-fit.free :] @ (fit.jacobian * fit.weights) / tiles
    pulls = (values - values.mean(axis=0)) @ lever.T
    counted = float(spectrum.effective_samples.sum() / spectrum.samples.sum()) * _FREQUENCY_CORRELATION**2
    scatter = pulls.T @ pulls * (tiles / (tiles - 1)) * (tiles / counted)
    # a few tiles tell a variance poorly; what counting predicts steadies it
    ratio = np.sqrt(0.5 * (1 + np.diag(fisher) / np.maximum(np.diag(scatter), 1e-300)))
    return np.asarray(scatter * ratio[:, None] * ratio[None, :])


def _result(
    data: RingData,
    fit: RingFit,
    covariance: Float64,
    settings: DefocusSettings,
    profile: RingProfile,
    resolution: float,
    merit: float,
    score: float,
    gap: float,
    runner_up: float,
    optics: Optics,
) -> DefocusFit:
    half = float(np.hypot(fit.a_cos, fit.a_sin))
    angle = 0.5 * float(np.degrees(np.arctan2(fit.a_sin, fit.a_cos)))
    error_u = error_v = float(np.sqrt(covariance[0, 0]))
    angle_error = phase_error = 0.0
    if settings.astigmatism and data.sectors:
        unit = np.array([fit.a_cos, fit.a_sin]) / half if half > 0 else np.array([1.0, 0.0])
        along_u, along_v = np.array([1.0, *unit]), np.array([1.0, *-unit])
        error_u = float(np.sqrt(along_u @ covariance[:3, :3] @ along_u))
        error_v = float(np.sqrt(along_v @ covariance[:3, :3] @ along_v))
        across = np.array([-unit[1], unit[0]])
        turn = np.sqrt(across @ covariance[1:3, 1:3] @ across) / max(2 * half, 1e-9)
        angle_error = float(min(np.degrees(turn), 52.0))  # 52 degrees: any angle
    if settings.phase_shift:
        phase_error = float(np.degrees(np.sqrt(covariance[-1, -1])))
    return DefocusFit(
        defocus_u=fit.defocus + half,
        defocus_v=fit.defocus - half,
        angle_deg=(angle + 90) % 180 - 90,
        phase_shift_deg=(optics.phase_shift_deg + float(np.degrees(fit.phase))) % 180,
        defocus_u_error=error_u,
        defocus_v_error=error_v,
        angle_error=angle_error,
        phase_shift_error=phase_error,
        mean_error=float(np.sqrt(covariance[0, 0])),
        figure_of_merit=merit,
        resolution=resolution,
        score=score,
        gap=gap,
        runner_up=runner_up,
        anisotropy=directional_anisotropy(data, fit),
        profile=profile,
        optics=optics,
    )
