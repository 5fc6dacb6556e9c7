"""Measured reasons to doubt a micrograph, and a proposal to keep or drop it. Nothing is dropped here: the table says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.defocus.settings import DefocusFit
from nephila.errors import InputError
from nephila.spectra import MicrographSpectrum


@dataclass(frozen=True)
class ScreeningSettings:
    """Thresholds beyond which a micrograph is proposed for dropping; 0 switches a test off.

    min_gap: least lead of the fit's score over the best solution elsewhere (less: perhaps a wrong peak);
    max_resolution: coarsest resolution (A) to which rings must be explained; max_defocus_error: largest standard error (A) of the
    mean defocus; max_astigmatism: A; max_anisotropy: ring strength in the best over the worst direction (drift); max_ice: power of
    the 3.7 A ice ring over its surroundings; max_foreign: share of the area much darker or brighter than the rest (contamination,
    carbon); max_replaced: share of dead or hot pixels; defocus_min, defocus_max: accepted mean defocus, A.
    """

    min_gap: float = 5.0
    max_resolution: float = 12.0
    max_defocus_error: float = 400.0
    max_astigmatism: float = 2500.0
    max_anisotropy: float = 6.0
    max_ice: float = 1.5
    max_foreign: float = 0.35
    max_replaced: float = 0.2
    defocus_min: float = 0.0
    defocus_max: float = 0.0


@dataclass(frozen=True)
class Screening:
    """Values of one micrograph: ice (NaN: hidden by Nyquist), foreign, replaced, keep, and the reason ("none" if kept)."""

    ice: float
    foreign: float
    replaced: float
    keep: bool
    reason: str


def screen_micrograph(
    spectrum: MicrographSpectrum | None, fit: DefocusFit, settings: ScreeningSettings | None = None
) -> Screening:
    """Judge a micrograph by its spectrum (None where there is none) and fit. All reasons that apply are named."""
    ice = ice_ring(spectrum) if spectrum is not None else float("nan")
    foreign = spectrum.foreign if spectrum is not None else float("nan")
    replaced = spectrum.replaced if spectrum is not None else float("nan")
    return judge(fit, ice, foreign, replaced, settings or ScreeningSettings())


def judge(fit: DefocusFit, ice: float, foreign: float, replaced: float, settings: ScreeningSettings) -> Screening:
    """Hold what was measured (NaN: not measured) against the limits."""
    reasons = [fit.reason] if fit.reason != "none" else _doubts(fit, settings)
    if settings.max_ice and ice > settings.max_ice:
        reasons.append(f"ice ring {ice:.1f} times its surroundings")
    if settings.max_foreign and foreign > settings.max_foreign:
        reasons.append(f"{100 * foreign:.0f} % of the area is contamination or carbon")
    if settings.max_replaced and replaced > settings.max_replaced and not fit.failed:
        reasons.append(f"{100 * replaced:.0f} % of the pixels are dead or hot")
    return Screening(ice, foreign, replaced, not reasons, "; ".join(reasons) or "none")


def _doubts(fit: DefocusFit, settings: ScreeningSettings) -> list[str]:
    limit = settings
    rival = f"another defocus ({fit.runner_up:.0f} A) explains the rings nearly as well (gap {fit.gap:.0f})"
    drift = f"rings fade in one direction ({fit.anisotropy:.1f} times weaker): drift"
    limits = [
        (limit.min_gap and fit.gap < limit.min_gap, rival),
        (limit.max_resolution and fit.resolution > limit.max_resolution, f"rings only to {fit.resolution:.1f} A"),
        (
            limit.max_defocus_error and fit.mean_error > limit.max_defocus_error,
            f"defocus uncertain by {fit.mean_error:.0f} A",
        ),
        (limit.max_astigmatism and fit.astigmatism > limit.max_astigmatism, f"astigmatism {fit.astigmatism:.0f} A"),
        (limit.max_anisotropy and fit.anisotropy > limit.max_anisotropy, drift),
        (
            limit.defocus_min and fit.defocus < limit.defocus_min,
            f"defocus {fit.defocus:.0f} A below {limit.defocus_min:.0f}",
        ),
        (
            limit.defocus_max and fit.defocus > limit.defocus_max,
            f"defocus {fit.defocus:.0f} A above {limit.defocus_max:.0f}",
        ),
    ]
    return [text for doubtful, text in limits if doubtful]


def ice_ring(spectrum: MicrographSpectrum) -> float:
    """Largest power in 3.55 to 3.95 A over the line through its surroundings; NaN where Nyquist or emptiness hides it."""
    s, roo = spectrum.frequency, spectrum.roo
    if s[-1] < 1 / 3.3 or not np.all(roo[s > 1 / 5.0] > 0):
        return float("nan")
    inside = (s > 1 / 3.95) & (s < 1 / 3.55)
    around = ((s > 1 / 4.6) & (s < 1 / 4.1)) | ((s > 1 / 3.45) & (s < 1 / 3.3))
    if inside.sum() < 3 or around.sum() < 6:
        return float("nan")
    line = np.polynomial.Polynomial.fit(s[around], np.log(roo[around]), 1)
    ratio = np.exp(np.log(roo[inside]) - line(s[inside]))
    return float(np.convolve(ratio, np.full(3, 1 / 3), mode="valid").max())


def micrograph_table(
    names: Sequence[str],
    fits: Sequence[DefocusFit],
    screenings: Sequence[Screening],
) -> pd.DataFrame:
    """One row per micrograph: RELION's CTF columns, standard errors, what screening measured, nphKeep (0 or 1) and nphReason.

    What a failed fit lacks is 0, not NaN, so that other programs read the table; nphKeep is 0 there.
    """
    if not len(names) == len(fits) == len(screenings):
        raise InputError(f"{len(names)} names, {len(fits)} fits, {len(screenings)} screenings: one of each is needed")

    def column(values: list[float]) -> npt.NDArray[np.float64]:
        return np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)

    return pd.DataFrame(
        {
            "rlnMicrographName": list(names),
            "rlnDefocusU": column([f.defocus_u for f in fits]),
            "rlnDefocusV": column([f.defocus_v for f in fits]),
            "rlnDefocusAngle": column([f.angle_deg for f in fits]),
            "rlnPhaseShift": column([f.phase_shift_deg for f in fits]),
            "rlnCtfFigureOfMerit": column([f.figure_of_merit for f in fits]),
            "rlnCtfMaxResolution": column([f.resolution for f in fits]),
            "nphDefocusUError": column([f.defocus_u_error for f in fits]),
            "nphDefocusVError": column([f.defocus_v_error for f in fits]),
            "nphDefocusError": column([f.mean_error for f in fits]),
            "nphDefocusAngleError": column([f.angle_error for f in fits]),
            "nphPhaseShiftError": column([f.phase_shift_error for f in fits]),
            "nphScore": column([f.score for f in fits]),
            "nphScoreGap": column([f.gap for f in fits]),
            "nphRunnerUpDefocus": column([f.runner_up for f in fits]),
            "nphApparentCs": column([f.apparent_cs for f in fits]),
            "nphApparentCsError": column([f.apparent_cs_error for f in fits]),
            "nphRingAnisotropy": column([f.anisotropy for f in fits]),
            "nphIceRing": column([s.ice for s in screenings]),
            "nphForeignArea": column([s.foreign for s in screenings]),
            "nphReplacedPixels": column([s.replaced for s in screenings]),
            "nphKeep": np.array([int(s.keep) for s in screenings], dtype=np.int64),
            "nphReason": [s.reason for s in screenings],
        }
    )
