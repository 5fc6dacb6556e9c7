"""The project's parameters in one table, as SPIDER's `params` document lists them."""

from __future__ import annotations

import pandas as pd

from nephila.config import Config
from nephila.ctf import electron_wavelength


def project_parameters(config: Config) -> dict[str, str]:
    """What the configuration gives and what follows from it (wavelength, Nyquist, box), by name."""
    rows = {
        "pixel size given, A": config.input.pixel_size,
        "decimation": config.input.decimate,
        "pixel size, A": config.pixel_size,
        "contrast": config.input.contrast,
        "voltage, kV": config.optics.voltage_kv,
        "electron wavelength, A": round(electron_wavelength(config.optics.voltage_kv), 7),
        "spherical aberration, mm": config.optics.cs_mm,
        "amplitude contrast": config.optics.amplitude_contrast,
        "phase shift, degrees": config.optics.phase_shift_deg,
        "maximum spatial frequency, 1/A": round(0.5 / config.pixel_size, 6),
        "particle diameter, A": config.particle.diameter,
        "particle diameter, px": round(config.particle.diameter / config.pixel_size, 1),
        "box, px": config.box,
        "box, A": round(config.box * config.pixel_size, 2),
        "point group": config.particle.symmetry,
        "seed": config.project.seed,
    }
    return {name: str(value) for name, value in rows.items()}


def parameter_table(parameters: dict[str, str]) -> pd.DataFrame:
    """Table of nphName, nphValue."""
    return pd.DataFrame({"nphName": list(parameters), "nphValue": list(parameters.values())})
