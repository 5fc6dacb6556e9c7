"""CTF fits as tables, and the configuration's section `ctf` as settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nephila.ctf import Optics
from nephila.defocus.fit_1d import ProfileFit
from nephila.defocus.importers import NO_RESULT
from nephila.defocus.screening import ScreeningSettings, judge, micrograph_table, screen_micrograph
from nephila.defocus.settings import DefocusFit, DefocusPlane, DefocusSettings, RingProfile, failed_fit
from nephila.errors import InputError
from nephila.spectra import MicrographSpectrum, SpectrumSettings

_CS_TOLERANCE = 0.15  # of Cs: a pixel size wrong by 4 %


def spectrum_settings(section: dict[str, Any]) -> SpectrumSettings:
    """How spectra are made, from the section `ctf`."""
    return SpectrumSettings(tile_px=section["tile"])


def defocus_settings(section: dict[str, Any]) -> DefocusSettings:
    """How spectra are fitted, from the section `ctf`."""
    return DefocusSettings(
        defocus_min=section["min_defocus"],
        defocus_max=section["max_defocus"],
        resolution_low=section["min_resolution"],
        resolution_high=None if section["max_resolution"] == "auto" else section["max_resolution"],
        astigmatism=section["max_astigmatism"] > 0,
        max_astigmatism=section["max_astigmatism"],
        phase_shift=section["fit_phase_shift"],
        tilt=section["local"] != "none",
        heights=section["local"] == "particle",
    )


def screening_settings(section: dict[str, Any]) -> ScreeningSettings:
    """When to doubt a micrograph, from the section `ctf.screening`."""
    return ScreeningSettings(**section)


NO_LIMITS = ScreeningSettings(**{field.name: 0.0 for field in dataclasses.fields(ScreeningSettings)})
"""Nothing is doubted but a failed fit."""


def defocus_table(
    names: Sequence[str], spectra: Sequence[MicrographSpectrum | None], fits: Sequence[DefocusFit]
) -> pd.DataFrame:
    """One row per micrograph with what fit and screening measured; only failed fits are not kept, with their reason."""
    screenings = [screen_micrograph(spectrum, fit, NO_LIMITS) for spectrum, fit in zip(spectra, fits, strict=True)]
    table = micrograph_table(names, fits, screenings)
    return table.assign(**plane_columns(fits)) if any(fit.plane is not None for fit in fits) else table


def plane_columns(fits: Sequence[DefocusFit]) -> dict[str, list[float]]:
    """Columns that tell the defocus across each micrograph; 0 where nothing is known."""
    none = DefocusPlane(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    planes = [fit.plane or none for fit in fits]
    return {
        "nphDefocusSlopeX": [p.slope_x for p in planes],
        "nphDefocusSlopeY": [p.slope_y for p in planes],
        "nphDefocusSlopeError": [float(np.nan_to_num(p.error)) for p in planes],
        "nphTilt": [p.tilt_deg for p in planes],
        "nphPlaneCentreX": [p.centre_x for p in planes],
        "nphPlaneCentreY": [p.centre_y for p in planes],
    }


def screen_table(table: pd.DataFrame, settings: ScreeningSettings) -> pd.DataFrame:
    """The table of `defocus_table` with nphKeep and nphReason by these limits; failed fits keep their reason."""
    # a batch without any fit has no columns for planes
    table = table.fillna({name: 0.0 for name in plane_columns([]) if name in table})
    judged = []
    for row in table.to_dict("records"):
        if not row["nphKeep"]:
            judged.append((0, row["nphReason"]))
            continue
        mean_error = float(np.hypot(row["nphDefocusUError"], row["nphDefocusVError"])) / 2
        fit = dataclasses.replace(
            failed_fit("none"),
            failed=False,
            defocus_u=row["rlnDefocusU"],
            defocus_v=row["rlnDefocusV"],
            mean_error=row.get("nphDefocusError", mean_error),
            resolution=row["rlnCtfMaxResolution"],
            score=row["nphScore"],
            gap=row["nphScoreGap"],
            runner_up=row.get("nphRunnerUpDefocus", float("nan")),
            anisotropy=row["nphRingAnisotropy"],
        )
        verdict = judge(fit, row["nphIceRing"], row["nphForeignArea"], row["nphReplacedPixels"], settings)
        judged.append((int(verdict.keep), verdict.reason))
    return table.assign(nphKeep=[keep for keep, _ in judged], nphReason=[reason for _, reason in judged])


def common_trouble(table: pd.DataFrame, optics: Optics) -> list[str]:
    """What is wrong with the data set rather than with single micrographs, in words; the screened table, and the optics in use.

    InputError where no micrograph has a result of the other program that was to be imported.
    """
    remarks = []
    reasons, number = table["nphReason"].astype(str), len(table)
    if number and reasons.str.startswith(NO_RESULT).all():
        raise InputError(
            f"ctf.import_from: none of the {number} micrographs has a result; the first: {reasons.iloc[0]}"
        )
    blind = int(reasons.str.contains(r"^(?:no rings|too few rings)|explains the rings nearly as well").sum())
    if number > 1 and 2 * blind > number:
        remarks.append(
            f"{blind} of {number} micrographs show no rings of any defocus in the range: are input.pixel_size, optics.voltage_kv, "
            "optics.cs_mm and ctf.min_defocus to max_defocus right?"
        )
    apparent = pooled_cs(table)
    if apparent is not None:
        cs, error = apparent
        if abs(cs - optics.cs_mm) > max(4 * error, _CS_TOLERANCE * max(optics.cs_mm, 2.0)):
            factor = f" (then {(optics.cs_mm / cs) ** 0.25:.3f} times it fits)" if min(cs, optics.cs_mm) > 0.1 else ""
            remarks.append(
                f"the rings bend as with a spherical aberration of {cs:.2f} +- {error:.2f} mm, optics.cs_mm is {optics.cs_mm:g}: "
                f"input.pixel_size{factor}, optics.voltage_kv or optics.cs_mm is wrong"
            )
    fitted = table.loc[table["rlnDefocusU"] > 0, "rlnPhaseShift"].to_numpy(np.float64)
    away = np.abs((fitted - optics.phase_shift_deg + 90) % 180 - 90)
    if len(away) and float(np.median(away)) > 10:
        remarks.append(
            f"phase shifts are {np.median(away):.0f} degrees (median) from optics.phase_shift_deg "
            f"({optics.phase_shift_deg:g}), which alignment and refinement use for all micrographs; set it to what fits"
        )
    return remarks


def pooled_cs(table: pd.DataFrame) -> tuple[float, float] | None:
    """Spherical aberration (mm) that the kept micrographs' rings ask for together, and its standard error; None where not known."""
    if "nphApparentCs" not in table:
        return None
    known = table[(table["nphApparentCsError"] > 0) & (table["nphKeep"] == 1)]
    if not len(known):
        return None
    weights = known["nphApparentCsError"].to_numpy(np.float64) ** -2.0
    mean = float(weights @ known["nphApparentCs"].to_numpy(np.float64) / weights.sum())
    return mean, float(weights.sum() ** -0.5)


def ring_table(name: str, fit: DefocusFit) -> pd.DataFrame:
    """Rings of a 2D fit along the radius with astigmatism taken out, in the columns of `profile_table`; no rows without a fit."""
    empty = np.zeros(0)
    profile = fit.profile or RingProfile(empty, empty, empty, empty, empty, empty)
    return pd.DataFrame(
        {
            "rlnMicrographName": [name] * len(profile.frequency),
            "nphSpatialFrequency": np.round(profile.frequency, 8),
            "nphPower": profile.measured,
            "nphBackground": profile.background,
            "nphSubtracted": profile.measured - profile.background,
            "nphEnvelope": profile.envelope,
        }
    )


def profile_table(name: str, spectrum: MicrographSpectrum, fit: ProfileFit) -> pd.DataFrame:
    """SPIDER's `roo` and `ctf` of a micrograph: rotational average, background, subtracted power, envelope by frequency.

    Beyond the fitted range background, subtracted power and envelope are 0.
    """
    frequency = spectrum.frequency
    table = pd.DataFrame(
        {"rlnMicrographName": name, "nphSpatialFrequency": np.round(frequency, 8), "nphPower": spectrum.roo}
    )
    for column, values in (
        ("nphBackground", fit.background),
        ("nphSubtracted", fit.subtracted),
        ("nphEnvelope", fit.envelope),
    ):
        table[column] = np.interp(frequency, fit.frequency, values, left=0.0, right=0.0) if len(values) else 0.0
    return table
