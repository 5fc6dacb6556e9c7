"""The seed's way (`powdefocus`): defocus from the rotational average alone, without astigmatism."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.ctf import Optics
from nephila.defocus.fit_2d import ring_data
from nephila.defocus.model import RingData, RingModel
from nephila.defocus.profile import ring_profile, rings_explained
from nephila.defocus.search import search
from nephila.defocus.settings import DefocusFit, DefocusSettings, RingProfile, failed_fit
from nephila.spectra import MicrographSpectrum

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ProfileFit:
    """Fit to the rotational average.

    fit: as from the 2D fit, with defocus_u = defocus_v; cutoff: spatial frequency (1/A) to which rings are explained; and, for
    SPIDER's `ctf` file, [radii] each: frequency (1/A), background (power), subtracted (power - background), envelope (power).
    """

    fit: DefocusFit
    cutoff: float
    frequency: Float64
    background: Float64
    subtracted: Float64
    envelope: Float64


def fit_profile(spectrum: MicrographSpectrum, optics: Optics, settings: DefocusSettings | None = None) -> ProfileFit:
    """Fit background + envelope * CTF^2 to the rotational average of a spectrum; `fit.failed` tells where that is impossible."""
    settings = settings or DefocusSettings()
    settings = DefocusSettings(**{**vars(settings), "astigmatism": False})
    empty = np.zeros(0)
    if spectrum.problem is not None:
        return ProfileFit(failed_fit(spectrum.problem), 0.0, empty, empty, empty, empty)
    data = ring_data(spectrum, settings)
    if isinstance(data, str):
        return ProfileFit(failed_fit(data), 0.0, empty, empty, empty, empty)
    pooled = rotational_data(data)
    starts, elsewhere = search(pooled, optics, settings)
    if not starts:
        return ProfileFit(failed_fit("no rings: the profile is smooth"), 0.0, empty, empty, empty, empty)
    model = RingModel(pooled, optics)
    fits = [model.fit((c.defocus, 0.0, 0.0, c.phase), False, settings.phase_shift) for c in starts + elsewhere]
    fits.sort(key=lambda f: f.deviance)
    best = fits[0]
    score = model.null_deviance() - best.deviance
    others = [f for f in fits[1:] if abs(f.defocus - best.defocus) > settings.gap_distance]
    gap = score - max((model.null_deviance() - f.deviance for f in others), default=0.0)
    if score < settings.min_score:
        reason = f"no rings: score {score:.0f} below {settings.min_score:.0f}"
        return ProfileFit(failed_fit(reason, score, gap), 0.0, empty, empty, empty, empty)
    profile = ring_profile(pooled, best, optics)
    resolution, merit = rings_explained(profile)
    scaled = best.jacobian * np.sqrt(best.weights)
    matrix = scaled @ scaled.T
    matrix[np.diag_indices_from(matrix)] *= 1 + 1e-9
    error = np.sqrt(np.diag(np.linalg.inv(matrix))[-best.free :])
    fit = DefocusFit(
        defocus_u=best.defocus,
        defocus_v=best.defocus,
        angle_deg=0.0,
        phase_shift_deg=(optics.phase_shift_deg + float(np.degrees(best.phase))) % 180,
        defocus_u_error=float(error[0]),
        defocus_v_error=float(error[0]),
        angle_error=0.0,
        phase_shift_error=float(np.degrees(error[1])) if settings.phase_shift else 0.0,
        mean_error=float(error[0]),
        figure_of_merit=merit,
        resolution=resolution,
        score=score,
        gap=gap,
        runner_up=others[0].defocus if others else float("nan"),
        anisotropy=1.0,
        profile=profile,
        optics=optics,
    )
    return ProfileFit(fit, 1 / resolution, *_columns(profile))


def _columns(profile: RingProfile) -> tuple[Float64, Float64, Float64, Float64]:
    return profile.frequency, profile.background, profile.measured - profile.background, profile.envelope


def rotational_data(data: RingData) -> RingData:
    """Pool the sectors of each radius."""
    radius, index = np.unique(data.radius, return_inverse=True)
    samples = np.asarray(np.bincount(index, data.samples), dtype=np.float64)

    def mean(values: Float64) -> Float64:
        return np.asarray(np.bincount(index, data.samples * values) / samples)

    k2 = mean(data.k2)
    return RingData(
        power=mean(data.power),
        level=mean(data.level),
        samples=samples,
        s=np.sqrt(k2),
        k2=k2,
        cos2=np.full(len(k2), np.sqrt(0.5)),  # the taper's effect, averaged over directions
        sin2=np.zeros(len(k2)),
        radius=radius,
        sector=np.zeros(len(k2), dtype=np.int64),
        tile_length=data.tile_length,
        s_range=data.s_range,
        sectors=0,
    )
