"""How well each micrograph is in phase with its defocus group: by its deviation, and by its measured rings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_filter1d

from nephila.ctf import Optics, ctf_1d, phase_error_limit
from nephila.defocus_groups import defocus_vector

Float64 = npt.NDArray[np.float64]

_SMOOTHING = 1.0  # Fourier pixels, for drawing


def group_phases(
    def_avg: pd.DataFrame, micrographs: pd.DataFrame, rings: dict[str, pd.DataFrame], optics: Optics
) -> pd.DataFrame:
    """The micrographs of all groups with what sets them apart from their group.

    def_avg, micrographs: of `defocus_groups.average_groups`; rings: by micrograph, of `tables.ring_table` (may lack some).

    Returns
    -------
    rlnMicrographName, nphDefocusGroup, nphDefocusDeviation (A, in the worst direction), nphPhaseErrorLimit (A, where that makes
    90 degrees; 0: nowhere), nphInPhase (correlation of the measured rings with the group's CTF over the range that the
    micrograph's own fit explains; 0: no rings to look at); sorted by group and defocus.
    """
    columns = ["rlnMicrographName", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnCtfMaxResolution"]
    table = def_avg.merge(micrographs[columns], on="rlnMicrographName", how="left", validate="one_to_one")
    mean, vector = defocus_vector(table)
    group_mean, group_vector = defocus_vector(table, of_group=True)
    deviation = np.abs(mean - group_mean) + np.abs(vector - group_vector)
    in_phase = [
        ring_correlation(rings[name], float(defocus), float(resolution), optics) if name in rings else 0.0
        for name, defocus, resolution in zip(
            table["rlnMicrographName"], group_mean, table["rlnCtfMaxResolution"], strict=True
        )
    ]
    result = pd.DataFrame(
        {
            "rlnMicrographName": table["rlnMicrographName"],
            "nphDefocusGroup": table["nphDefocusGroup"],
            "nphDefocus": mean,
            "nphDefocusDeviation": deviation,
            "nphPhaseErrorLimit": [phase_error_limit(float(d), optics) for d in deviation],
            "nphInPhase": in_phase,
        }
    )
    return result.sort_values(["nphDefocusGroup", "nphDefocus", "rlnMicrographName"], ignore_index=True)


def ring_correlation(rings: pd.DataFrame, defocus: float, resolution: float, optics: Optics) -> float:
    """Correlation of measured rings with CTF^2 at `defocus` (A), over the fitted range to `resolution` (A); 0 without rings."""
    frequency, middle, measured, envelope = _relative(rings)
    used = (envelope > 0) & (frequency <= (1 / resolution if resolution > 0 else np.inf))
    if used.sum() < 8:
        return 0.0
    model = (envelope / middle * (ctf_1d(frequency, defocus, optics) ** 2 - 0.5))[used]
    a, b = measured[used] - measured[used].mean(), model - model.mean()
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def _relative(rings: pd.DataFrame) -> tuple[Float64, Float64, Float64, Float64]:
    """Frequency, smooth power, measured rings over it, and envelope, where the fit reaches."""
    fitted = rings[rings["nphEnvelope"] + rings["nphBackground"] > 0]
    background, envelope, subtracted, frequency = (
        fitted[name].to_numpy(np.float64)
        for name in ("nphBackground", "nphEnvelope", "nphSubtracted", "nphSpatialFrequency")
    )
    middle = background + 0.5 * envelope
    return frequency, middle, (subtracted - 0.5 * envelope) / middle, envelope


def drawn_profile(rings: pd.DataFrame, grid: Float64, resolution: float) -> Float64:
    """Measured CTF^2 on a grid of frequencies (1/A), lightly smoothed; NaN beyond what the fit explains."""
    frequency, middle, measured, envelope = _relative(rings)
    if len(frequency) < 8:
        return np.full(len(grid), np.nan)
    strength = np.maximum(envelope / middle, 1e-3 * max(float((envelope / middle).max()), 1e-30))
    weight = gaussian_filter1d(strength**2, _SMOOTHING)
    values = gaussian_filter1d(measured * strength, _SMOOTHING) / weight + 0.5
    values = np.interp(grid, frequency, values, left=np.nan, right=np.nan)
    values[grid > (1 / resolution if resolution > 0 else np.inf)] = np.nan
    return np.asarray(values)


def draw_groups(
    phases: pd.DataFrame,
    def_avg: pd.DataFrame,
    micrographs: pd.DataFrame,
    rings: dict[str, pd.DataFrame],
    optics: Optics,
    folder: Path,
) -> None:
    """A figure group_NNN.png for each group that has rings: profiles over each other, the group's CTF, the worst phase error.

    phases: of `group_phases`; the others as there.
    """
    from nephila.figures.spectra import plot_group_profiles

    limits = dict(zip(micrographs["rlnMicrographName"], micrographs["rlnCtfMaxResolution"], strict=True))
    defocus = def_avg.drop_duplicates("nphDefocusGroup").set_index("nphDefocusGroup")["nphGroupDefocus"]
    for number, members in phases.groupby("nphDefocusGroup"):
        mine = members[members["rlnMicrographName"].isin(list(rings))]
        if not len(mine):
            continue
        names = [str(name) for name in mine["rlnMicrographName"]]
        grid = max((rings[name]["nphSpatialFrequency"].to_numpy(np.float64) for name in names), key=lambda s: s[-1])
        grid = grid[grid > 0]
        profiles = {name: drawn_profile(rings[name], grid, float(limits[name])) for name in names}
        group_defocus = float(defocus.loc[number])
        plot_group_profiles(
            grid,
            profiles,
            folder / f"group_{int(str(number)):03d}.png",
            defocus=mine["nphDefocus"].to_numpy(np.float64),
            deviation=mine["nphDefocusDeviation"].to_numpy(np.float64),
            group_defocus=group_defocus,
            wavelength=optics.wavelength,
            group_ctf2=ctf_1d(grid, group_defocus, optics) ** 2,
            group=int(str(number)),
        )
