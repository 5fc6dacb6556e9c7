"""Defocus groups: who is in which, their averages, and the profiles of their spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics
from nephila.defocus_groups import average_groups, group_table
from nephila.review.kinds import Rows, group_rows, kept_micrographs, proposed_groups
from nephila.review.pages import micrographs
from nephila.review.pages.micrographs import numbers
from nephila.review.project import Project

Float64 = npt.NDArray[np.float64]

PROFILES = "results/ctf/power/roo_*.star"
MARGIN = 1.15
"""Profiles are shown to this multiple of the frequency at which the rings end; beyond it they are noise."""
COARSEST = 50.0
"""A; where a profile without a fit begins: nearer to the origin the power is that of the particles."""
FAINT = 0.06
"""Rings fainter than this share of the strongest ones are not shown."""


def groups(project: Project, rows: Rows) -> dict[str, Any]:
    """Micrographs in use with defocus, group and proposed group, and a row per group, as the edit's `rows` make them."""
    kept = kept_micrographs(project)
    proposal = proposed_groups(project, kept)
    proposed = group_rows(proposal)
    names = [str(name) for name in kept["rlnMicrographName"]]
    mean = (0.5 * (kept["rlnDefocusU"] + kept["rlnDefocusV"])).to_numpy(dtype=float)
    chosen = [int(rows.get(name, proposed[name])) for name in names]
    config = project.config()
    optics = Optics(**config.optics.model_dump())
    averages = average_groups(group_table(names, mean, chosen), kept, optics)[1]
    all_names = project.table("results/ctf/micrographs.star", "defocus")["rlnMicrographName"].tolist()
    place = {name: i for i, name in enumerate(all_names)}
    order = sorted(range(len(names)), key=lambda i: (chosen[i], mean[i], names[i]))
    return {
        "micrographs": [
            {
                "name": names[i],
                "index": place[names[i]],
                "defocus": round(float(mean[i]), 1),
                "astigmatism": round(float(kept["rlnDefocusU"].iloc[i] - kept["rlnDefocusV"].iloc[i]), 1),
                "angle": round(float(kept["rlnDefocusAngle"].iloc[i]), 1),
                "group": chosen[i],
                "proposed": proposed[names[i]],
            }
            for i in order
        ],
        "groups": [
            {
                "group": int(row["nphDefocusGroup"]),
                "defocus": round(float(row["nphGroupDefocus"]), 1),
                "micrographs": int(row["nphMicrographs"]),
                "spread": round(float(row["nphDefocusSpread"]), 1),
                "worst": round(float(row["nphWorstDeviation"]), 1),
                "limit": round(float(row["nphPhaseErrorLimit"]), 2),
            }
            for _, row in averages.iterrows()
        ],
        "particles": particles_of(project),
        "optics": micrographs.optics(project)["optics"],
    }


def particles_of(project: Project) -> dict[str, int]:
    """Selected particles by micrograph, where they are known."""
    if not project.exists("results/particles/ngood.star"):
        return {}
    table = project.table("results/particles/ngood.star", "particles")
    return {str(name): int(n) for name, n in table["rlnMicrographName"].value_counts().items()}


def profiles(project: Project) -> dict[str, Any]:
    """Rings of all micrographs with a spectrum: spatial frequencies (1/A), and by micrograph the first index, the height of its
    rings over the envelope (0 to 1 like CTF^2, with noise), the envelope over its maximum, and whether a fit gave it.

    Where the fit failed, background and envelope are smooth curves through the rotational profile.
    """
    names = project.names(PROFILES)
    stamp = tuple((name, project.stamp(name)) for name in (*names, micrographs.TABLE))
    return project.kept(("profiles",), stamp, lambda: _read(project, names))


def _read(project: Project, names: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"frequency": [], "rings": {}}
    fits = project.table(micrographs.TABLE, "defocus")
    resolution = {}
    if "rlnCtfMaxResolution" in fits.columns:
        ends = zip(fits["rlnMicrographName"].astype(str), fits["rlnCtfMaxResolution"].astype(float), strict=True)
        resolution = {name: end for name, end in ends if end > 0}
    for name in names:
        table = project.table(name, block="profiles")
        for micrograph, rows in table.groupby("rlnMicrographName", sort=False):
            frequency = rows["nphSpatialFrequency"]
            if len(frequency) > len(found["frequency"]):
                found["frequency"] = numbers(frequency)
            envelope = rows["nphEnvelope"].to_numpy(dtype=float)
            last = MARGIN / resolution.get(str(micrograph), 1e-3)
            fitted = np.flatnonzero((envelope > FAINT * envelope.max()) & (frequency.to_numpy(dtype=float) <= last))
            if len(fitted):
                part = slice(int(fitted[0]), int(fitted[-1]) + 1)
                height = rows["nphSubtracted"].to_numpy(dtype=float)[part] / np.maximum(envelope[part], 1e-30)
                weights = envelope[part] / envelope.max()
            else:
                bare = bare_rings(
                    frequency.to_numpy(dtype=float), rows["nphPower"].to_numpy(dtype=float), micrographs.finest(project)
                )
                if bare is None:
                    continue
                part, height, weights = bare
            found["rings"][str(micrograph)] = {
                "first": part.start,
                "weights": numbers(pd.Series(weights), 2),
                "heights": numbers(pd.Series(np.clip(height, -1, 2)), 3),
                "fitted": bool(len(fitted)),
            }
    return found


def bare_rings(frequency: Float64, power: Float64, resolution: float) -> tuple[slice, Float64, Float64] | None:
    """Rings of a rotational profile [k] without a fit, from 1 / `COARSEST` to 1 / resolution (A): the part of the profile, their
    height (mean 0.5, as strong everywhere as CTF^2 is), and their strength over the largest. None where there is no power.

    The background is the logarithm of the power smoothed over about two rings, the strength the deviation from it.
    """
    from scipy.ndimage import gaussian_filter1d

    inside = np.flatnonzero((power > 0) & (frequency >= 1 / COARSEST) & (frequency <= 1 / resolution))
    if len(inside) < 16:
        return None
    part = slice(int(inside[0]), int(inside[-1]) + 1)
    curve = np.log(np.maximum(power[part], 1e-30))
    width = max(2.0, len(curve) / 14)
    # a straight line first: the fall of the power must not bend the ends
    places = np.arange(len(curve))
    curve = curve - np.polyval(np.polyfit(places, curve, 1), places)
    curve = curve - gaussian_filter1d(curve, width)
    strength = np.sqrt(gaussian_filter1d(curve**2, width))
    if not strength.max() > 0:
        return None
    height = 0.5 + np.sqrt(0.125) * curve / np.maximum(strength, 1e-6 * strength.max())
    return part, height, strength / strength.max()
