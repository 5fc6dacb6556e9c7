"""CTF fits as tables, and the configuration's section `ctf` as settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nephila.defocus.fit_1d import ProfileFit
from nephila.defocus.screening import ScreeningSettings, judge, micrograph_table, screen_micrograph
from nephila.defocus.settings import DefocusFit, DefocusSettings, failed_fit
from nephila.spectra import MicrographSpectrum, SpectrumSettings


def spectrum_settings(section: dict[str, Any]) -> SpectrumSettings:
    """How spectra are made, from the section `ctf`."""
    return SpectrumSettings(tile_px=section["tile"])


def defocus_settings(section: dict[str, Any]) -> DefocusSettings:
    """How spectra are fitted, from the section `ctf`."""
    return DefocusSettings(
        defocus_min=section["min_defocus"],
        defocus_max=section["max_defocus"],
        resolution_low=section["min_resolution"],
        resolution_high=section["max_resolution"],
        astigmatism=section["max_astigmatism"] > 0,
        max_astigmatism=section["max_astigmatism"],
        phase_shift=section["fit_phase_shift"],
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
    return micrograph_table(names, fits, screenings)


def screen_table(table: pd.DataFrame, settings: ScreeningSettings) -> pd.DataFrame:
    """The table of `defocus_table` with nphKeep and nphReason by these limits; failed fits keep their reason."""
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
