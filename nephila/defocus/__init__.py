"""CTF estimation: fits of defocus to power spectra, screening, pictures, import of other programs' results."""

from nephila.defocus.fit_1d import ProfileFit, fit_profile
from nephila.defocus.fit_2d import fit_defocus, fit_micrograph
from nephila.defocus.pooling import pool_strength
from nephila.defocus.screening import Screening, ScreeningSettings, micrograph_table, screen_micrograph
from nephila.defocus.settings import DefocusFit, DefocusSettings, RingProfile, RingStrength, failed_fit

__all__ = [
    "DefocusFit",
    "DefocusSettings",
    "ProfileFit",
    "RingProfile",
    "RingStrength",
    "Screening",
    "ScreeningSettings",
    "failed_fit",
    "fit_defocus",
    "fit_micrograph",
    "fit_profile",
    "micrograph_table",
    "pool_strength",
    "screen_micrograph",
]
