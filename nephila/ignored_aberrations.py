"""What is lost where the aberrations of particles are ignored: beam tilt, Zernike terms, magnification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nephila.aberrations import even_term, odd_term, tilt_scale, zernike
from nephila.optics_groups import IDENTITY, OpticsGroup

Float64 = npt.NDArray[np.float64]
RIGHT_ANGLE = 0.5 * np.pi


@dataclass(frozen=True)
class Ignored:
    """An effect of one optics group.

    Attributes
    ----------
    group, what : name of the group; name of the effect
    resolution : A, where its phase error reaches 90 degrees; None: nowhere before Nyquist
    phase_deg : largest phase error before Nyquist
    """

    group: str
    what: str
    resolution: float | None
    phase_deg: float

    def __str__(self) -> str:
        reach = (
            f"90 degrees at {self.resolution:.2f} A" if self.resolution else f"{self.phase_deg:.2g} degrees at Nyquist"
        )
        return f"optics group {self.group}: {self.what}, a phase error of {reach}"


def ignored_aberrations(groups: Sequence[OpticsGroup], pixel_size: float, diameter: float) -> list[Ignored]:
    """Effects that the groups state and that are not 0, with the phase error that comes of ignoring them.

    Parameters
    ----------
    pixel_size : A, of the images
    diameter : of the particle, A; at its rim a magnification moves it most
    """
    k = np.linspace(0, 0.5 / pixel_size, 257)[1:]
    found = []
    for group in groups:
        phases = {
            "even aberrations (_rlnEvenZernike)": _zernike_phase(group.even_zernike, k, even=True),
            "odd aberrations (_rlnOddZernike)": _zernike_phase(group.odd_zernike, k, even=False),
            "beam tilt": _beam_tilt_phase(group, k),
            "magnification (_rlnMagMat00 …)": _magnification_phase(group, k, 0.5 * diameter),
        }
        for what, phase in phases.items():
            if phase.max() > 0:
                over = np.flatnonzero(phase >= RIGHT_ANGLE)
                resolution = float(1 / k[over[0]]) if len(over) else None
                found.append(Ignored(group.name, what, resolution, float(np.degrees(phase.max()))))
    return found


def ignored_mtf(groups: Sequence[OpticsGroup], box: int, pixel_size: float) -> list[str]:
    """What is said of detectors' MTFs, which refinement does not correct: lines for the log.

    They fade amplitudes and turn no phase. What all groups share is divided out at the end (`nephila postprocess --mtf`); groups
    whose MTFs differ enter the map with different fall-offs, and the line says by how much.

    Parameters
    ----------
    groups : with `mtf_file` (relative to the project) and `original_pixel_size` (A), which the MTF counts in
    box, pixel_size : of the map, px and A
    """
    from nephila.postprocessing import read_mtf

    named = [group for group in groups if group.mtf_file is not None]
    if not named:
        return []
    lines = ["_rlnMtfFileName is not used in refinement: give it to nephila postprocess --mtf at the end"]
    if len({(group.mtf_file, group.original_pixel_size) for group in groups}) == 1:
        return lines
    curves = {}
    for group in groups:
        detector = group.original_pixel_size or group.pixel_size or pixel_size
        path = group.mtf_file
        if path is not None and not Path(path).is_file():
            return [*lines, f"optics groups have different MTFs, and {path} is not in the project folder: not compared"]
        curves[group.name] = np.ones(box // 2 + 1) if path is None else read_mtf(path, box, pixel_size, detector)
    values = np.array(list(curves.values()))
    ratio = values.max(axis=0) / values.min(axis=0)
    worst = int(ratio.argmax())
    low, high = (list(curves)[int(find(values[:, worst]))] for find in (np.argmin, np.argmax))
    if ratio[worst] > 1.02:
        lines.append(
            f"MTFs of optics groups {high} and {low} differ by a factor of up to {ratio[worst]:.2f} "
            f"({box * pixel_size / worst:.3g} A), which is not corrected: the map's amplitudes lie between, its phases are right"
        )
    return lines


def _zernike_phase(coefficients: Sequence[float], k: Float64, *, even: bool) -> Float64:
    """Largest size of the phase (radians) over directions, at each k (1/A)."""
    phi = np.linspace(0, 2 * np.pi, 72, endpoint=False)[:, None]
    total = np.zeros((len(phi), len(k)))
    for index, value in enumerate(coefficients):
        if value:
            total += value * zernike(*(even_term(index) if even else odd_term(index)), k[None, :], phi)
    phase: Float64 = np.abs(total).max(axis=0)
    return phase


def _beam_tilt_phase(group: OpticsGroup, k: Float64) -> Float64:
    """2 pi Cs lambda^2 k^2 (k . tilt), radians, in the direction of the tilt."""
    return abs(tilt_scale(group)) * k**3 * float(np.hypot(*group.beam_tilt))


def _magnification_phase(group: OpticsGroup, k: Float64, radius: float) -> Float64:
    """2 pi k |M - 1| radius, radians, with the largest stretch of the matrix."""
    difference = np.array(group.magnification) - np.array(IDENTITY)
    return 2 * np.pi * k * radius * float(np.linalg.norm(difference.reshape(2, 2), 2))
