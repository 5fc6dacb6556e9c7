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
from nephila.io.spider import is_spider, read_title

LARGEST_CHANGE = 0.02
"""Relabelling by more needs a fit of Cs or a calibration first."""
FINEST_RESOLUTION = 3.0
"""A; finer than that spherical aberration tells even small changes."""
SMALL_CS = 0.1
"""mm; below it (corrected microscopes) the fitted defocus absorbs nearly all."""
REFITTED_SHARE = 0.25
"""Of a k^4 phase, what the best k^2 leaves at the rim of the disk of frequencies that was fitted."""
NEARLY = 0.06
"""A reference whose pixel size is this close to the particles' but not equal was relabelled or calibrated, not resampled."""
SAME = 0.001
"""Pixel sizes that differ by less (relative) are one: headers and tables round them."""
LARGEST_CALIBRATION = 0.15
"""A header changed by more was wrong, not calibrated."""
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
    change = true / stated - 1
    large, fine = abs(change) > LARGEST_CHANGE + 1e-9, resolution < FINEST_RESOLUTION
    start = f"{stated:g} to {true:g} A/px is a change of {100 * change:+.2f} %, more than {100 * LARGEST_CHANGE:g} %: "
    if abs(optics.cs_mm) < SMALL_CS:
        note = f"make sure that it is meant; with Cs {optics.cs_mm:g} mm the fitted defocus absorbs it, the CTF stays right"
        return [start + note] if large else []
    error = expected_phase_error(stated, true, resolution, optics)
    reason = (
        f"the defocus was fitted at {stated:g} A/px and absorbs the error, Cs ({optics.cs_mm:g} mm) was not and would have to "
        f"be {error.ratio**4:.4f} times that; the CTF's phase is off by up to {error.phase_deg:.1f} degrees at "
        f"{resolution:.2f} A, by {error.refitted_deg:.1f} where the defocus was refitted to there"
    )
    if large:
        return [f"{start}{reason}. Fit 4th order aberrations and the defocus anew at {stated:g} A/px first"]
    if fine:
        return [
            f"the map is finer than {FINEST_RESOLUTION:g} A and Cs is not small: {reason}. If that matters, fit 4th order "
            "aberrations first"
        ]
    return []


def relabelling_mark(stated: float, true: float) -> str:
    """Text for the header of a map whose pixel size was changed from `stated` to `true` (A) without resampling."""
    return f"relabelled from {stated:.6g} to {true:.6g} A/px; not for use as reference"


def stated_before(path: str | os.PathLike[str]) -> tuple[float, float] | None:
    """Pixel sizes (A) before and after relabelling, from the header of a map (MRC or SPIDER); None where it was not relabelled."""
    for label in (read_title(path),) if is_spider(path) else read_labels(path):
        found = _MARK.search(label)
        if found:
            return float(found[1]), float(found[2])
    return None


def mark_for(path: str | os.PathLike[str], stated: float, written: float) -> str:
    """The mark for a volume made of the one in `path` without resampling: what it carries already, or what a change from the
    pixel size `stated` to `written` (A) makes necessary; empty where the volume is, or is again, on its own scale.

    A header of exactly 1 A is what programs write that do not know, and one that is far off was wrong, not calibrated.
    """
    before = stated_before(path)
    own = stated if before is None else before[0]
    if abs(written / own - 1) <= SAME if own > 0 else True:
        return ""
    if before is None and not states_pixel_size(own, written):
        return ""
    if before is None and abs(written / own - 1) > LARGEST_CALIBRATION:
        return ""
    return relabelling_mark(own, written)


def states_pixel_size(header: float, expected: float) -> bool:
    """Whether a header's pixel size (A) is a statement: 0 is none, nor is exactly 1 where about 1 (0.9 to 1.1) is not expected."""
    return header > 0 and (header != 1.0 or 0.9 <= expected <= 1.1)


def refuse_near_miss(
    path: str | os.PathLike[str], pixel_size: float, side: int, wanted: float, wanted_side: int, way_out: str
) -> None:
    """InputError where a reference has the particles' box and nearly, but not quite, their pixel size: it was relabelled.

    pixel_size, wanted : of the reference and of the particles, A; side, wanted_side : px; way_out : what to do, in words
    """
    off = abs(pixel_size / wanted - 1)
    if side != wanted_side or off <= SAME or off > NEARLY:
        return
    raise InputError(
        f"{path}: {side} px of {pixel_size:.6g} A, the particles have {wanted_side} px of {wanted:.6g} A: a map of the same box "
        "and a pixel size so near was relabelled (postprocessed with another pixel size), not resampled; particles would be "
        f"stretched onto it and the map, labelled {pixel_size:.6g} A, would in truth have {pixel_size * pixel_size / wanted:.4f} "
        f"A. {way_out}"
    )


def refuse_relabelled(
    path: str | os.PathLike[str], given_pixel_size: float | None = None, way_out: str | None = None
) -> None:
    """InputError where a map was relabelled: as a reference it would scale the particles a second time.

    given_pixel_size : of the reference, from the configuration; the pixel size before relabelling makes the map what it was
    way_out : what to do, in words, where that is not to set reference.pixel_size
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
        f"onto it and the result, labelled {after:g} A, would in truth have {after * after / before:.4g} A. "
        + (way_out or f"Give the map from before relabelling, or set reference.pixel_size: {before:g}")
    )
