"""Maps whose pixel size was only written anew: what that leaves wrong, the mark that they carry, and their refusal as
references.

A pixel size that is r times too large (r = stated / true) is absorbed exactly by a defocus r^2 and a spherical aberration
r^4 times the true ones. The defocus was fitted, so it is right; Cs was stated, so it is not.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.io.mrc import read_labels

LARGEST_CHANGE = 0.02
"""Relabelling by more needs a fit of Cs or a calibration first."""
FINEST_RESOLUTION = 3.0
"""A; finer than that spherical aberration tells even small changes."""
SMALL_CS = 0.1
"""mm; below it (corrected microscopes) the fitted defocus absorbs nearly all."""
REFITTED_SHARE = 0.25
"""Of a k^4 phase, what the best k^2 leaves at the rim of the disk of frequencies that was fitted."""
_MARK = re.compile(r"relabelled from ([0-9.eE+-]+) to ([0-9.eE+-]+) A/px")


@dataclass(frozen=True)
class PhaseError:
    """Phase of the CTF that relabelling leaves wrong.

    ratio : stated over true pixel size; resolution : A, on the true scale
    phase_deg : with the defocus right at low frequencies; refitted_deg : with the defocus fitted up to `resolution`
    """

    ratio: float
    resolution: float
    phase_deg: float
    refitted_deg: float


def expected_phase_error(stated: float, true: float, resolution: float, optics: Optics) -> PhaseError:
    """Error of the CTF's phase at `resolution` (A) where Cs was held while images had the wrong pixel size `stated` (A).

    (pi / 2) Cs lambda^3 k^4 (1 - r^-4), r = stated / true; a defocus fitted as far as k leaves a quarter of it there.
    """
    ratio = stated / true
    phase = np.degrees(optics.k4_factor / resolution**4 * abs(1.0 - ratio**-4.0))
    return PhaseError(ratio, resolution, float(phase), float(REFITTED_SHARE * phase))


def relabelling_warnings(stated: float, true: float, resolution: float, optics: Optics) -> list[str]:
    """What speaks against relabelling a map from `stated` to `true` (A) that reaches `resolution` (A, on the true scale)."""
    if stated == true:
        return []
    error = expected_phase_error(stated, true, resolution, optics)
    reason = (
        f"the defocus was fitted at {stated:g} A/px and absorbs the error, Cs ({optics.cs_mm:g} mm) was not and would have to "
        f"be {error.ratio**4:.4f} times that; the CTF's phase is off by up to {error.phase_deg:.1f} degrees at "
        f"{resolution:.2f} A, by {error.refitted_deg:.1f} where the defocus was refitted to there"
    )
    warnings = []
    if abs(true / stated - 1) > LARGEST_CHANGE:
        warnings.append(
            f"{stated:g} to {true:g} A/px is a change of {100 * (true / stated - 1):+.2f} %, more than "
            f"{100 * LARGEST_CHANGE:g} %: {reason}. Fit 4th order aberrations and the defocus anew at {stated:g} A/px first"
        )
    elif resolution < FINEST_RESOLUTION and abs(optics.cs_mm) >= SMALL_CS:
        warnings.append(
            f"the map is finer than {FINEST_RESOLUTION:g} A and Cs is not small: {reason}. If that matters, fit 4th order "
            "aberrations first"
        )
    return warnings


def relabelling_mark(stated: float, true: float) -> str:
    """Text for the header of a map whose pixel size was changed from `stated` to `true` (A) without resampling."""
    return f"relabelled from {stated:.6g} to {true:.6g} A/px; not for use as reference"


def stated_before(path: str | os.PathLike[str]) -> tuple[float, float] | None:
    """Pixel sizes (A) before and after relabelling, from a map's header; None where it was not relabelled."""
    for label in read_labels(path):
        found = _MARK.search(label)
        if found:
            return float(found[1]), float(found[2])
    return None


def refuse_relabelled(path: str | os.PathLike[str], given_pixel_size: float | None = None) -> None:
    """InputError where a map was relabelled: as a reference it would scale the particles a second time.

    given_pixel_size : of the reference, from the configuration; the pixel size before relabelling makes the map what it was
    """
    if not Path(path).is_file():
        return
    pair = stated_before(path)
    if pair is None:
        return
    before, after = pair
    if given_pixel_size is not None and abs(given_pixel_size / before - 1) < 1e-4:
        return
    raise InputError(
        f"{path}: its pixel size was only relabelled from {before:g} to {after:g} A; particles of {before:g} A would be stretched "
        f"onto it and the result, labelled {after:g} A, would in truth have {after * after / before:.4g} A. Give the map from "
        f"before relabelling, or set reference.pixel_size: {before:g}"
    )
