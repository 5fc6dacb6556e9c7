"""Settings and results of CTF fits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.ctf import Optics
from nephila.errors import InputError

Float64 = npt.NDArray[np.float64]


START_FINEST = 3.5
"""Fine end of the range over which rings are searched where the data choose it, A."""


@dataclass(frozen=True)
class DefocusSettings:
    """What is searched, and over which rings.

    defocus_min, defocus_max: range of the mean defocus, A; resolution_low: rings used from here, A; resolution_high: to here, A
    (or 95 % of Nyquist), None: from the data, half as far again as the rings are explained, after a search to START_FINEST;
    astigmatism: fit it (False: defocus_u = defocus_v); max_astigmatism: largest defocus_u - defocus_v, A;
    phase_shift: fit the phase shift of a phase plate; tilt: fit the plane of a tilted specimen; heights: find what its tiles tell
    beyond that plane; gap_distance: solutions this far (A) from the best are "elsewhere"; min_score: least drop of the deviance by
    the rings, below it the fit fails (noise alone reaches 20, rarely 35).
    """

    defocus_min: float = 3000.0
    defocus_max: float = 50000.0
    resolution_low: float = 30.0
    resolution_high: float | None = 3.5
    astigmatism: bool = True
    max_astigmatism: float = 3000.0
    phase_shift: bool = False
    tilt: bool = False
    heights: bool = False
    gap_distance: float = 1500.0
    min_score: float = 36.0

    def __post_init__(self) -> None:
        if not 100 <= self.defocus_min < self.defocus_max <= 200000:
            raise InputError(
                f"defocus range {self.defocus_min} to {self.defocus_max} A: needs 100 <= min < max <= 200000 A (is it in um?)"
            )
        if self.resolution_high is not None and not 0 < self.resolution_high < self.resolution_low:
            raise InputError(
                f"resolution range {self.resolution_low} to {self.resolution_high} A: the first must be the larger number"
            )
        if not 0 <= self.max_astigmatism <= 20000:
            raise InputError(f"largest astigmatism {self.max_astigmatism} A: must lie in 0 to 20000 A")


@dataclass(frozen=True)
class RingProfile:
    """Rings along the radius, averaged at equal phase so that astigmatism does not blur them [radii].

    frequency: 1/A; measured: power with astigmatism taken out; background, envelope: model power = background + envelope * CTF^2;
    ctf2: the model's CTF^2, damped by the tile's taper; quality: local correlation of measured and fitted rings, -1 to 1.
    """

    frequency: Float64
    measured: Float64
    background: Float64
    envelope: Float64
    ctf2: Float64
    quality: Float64


@dataclass(frozen=True)
class RingStrength:
    """Strength of the rings over the background by frequency (1/A), as a data set's micrographs share it; its scale is free."""

    frequency: Float64
    strength: Float64

    def at(self, s: Float64) -> Float64:
        """Strength at frequencies `s`, highest value 1."""
        return np.interp(s, self.frequency, self.strength) / max(float(self.strength.max()), 1e-30)


@dataclass(frozen=True)
class DefocusPlane:
    """Defocus across a micrograph: defocus(x, y) = that of the fit + slope_x (x - centre_x) + slope_y (y - centre_y).

    slope_x, slope_y: A of defocus per A, 0 where no tilt is clear; error: standard error of either; gain: drop of the deviance by
    the plane; centre_x, centre_y: A from the centre of the first pixel.
    """

    slope_x: float
    slope_y: float
    error: float
    gain: float
    centre_x: float
    centre_y: float

    @property
    def level(self) -> bool:
        """Whether there is no slope."""
        return self.slope_x == self.slope_y == 0

    @property
    def tilt_deg(self) -> float:
        """Angle between specimen and image plane, degrees."""
        return float(np.degrees(np.arctan(np.hypot(self.slope_x, self.slope_y))))


@dataclass(frozen=True)
class TileHeights:
    """Offsets of defocus from the micrograph's plane by tile [tiles].

    x, y: centres, A from the centre of the first pixel; side: of the tiles, A; height: offset that the tile's rings ask for, A of
    defocus; error: its standard error.
    """

    x: Float64
    y: Float64
    side: float
    height: Float64
    error: Float64


@dataclass(frozen=True)
class DefocusFit:
    """CTF of one micrograph.

    defocus_u >= defocus_v: A, underfocus positive; angle_deg: of defocus_u from x towards y (row index), in [-90, 90);
    phase_shift_deg; *_error: standard errors from the scatter between tiles and from counting; figure_of_merit:
    correlation of measured and fitted rings over the explained range; resolution: to which rings are explained, A; score: drop of
    the deviance (-2 log likelihood) by the rings; gap: how much more that is than the best solution elsewhere (small: perhaps a
    wrong peak); anisotropy: strength of the rings in the best direction over that in the worst, from 1 (none); profile: the rings;
    optics: what the fit assumed; plane: of a tilted specimen, heights: of its tiles about the plane, where asked for;
    apparent_cs: spherical aberration (mm) that the rings ask for, with its standard error; failed, reason: why there is no fit
    ("none" otherwise).
    """

    defocus_u: float
    defocus_v: float
    angle_deg: float
    phase_shift_deg: float
    defocus_u_error: float
    defocus_v_error: float
    angle_error: float
    phase_shift_error: float
    mean_error: float
    figure_of_merit: float
    resolution: float
    score: float
    gap: float
    runner_up: float
    anisotropy: float
    profile: RingProfile | None
    optics: Optics | None = None
    plane: DefocusPlane | None = None
    heights: TileHeights | None = None
    apparent_cs: float = float("nan")
    apparent_cs_error: float = float("nan")
    failed: bool = False
    reason: str = "none"

    @property
    def defocus(self) -> float:
        """Mean defocus, A."""
        return 0.5 * (self.defocus_u + self.defocus_v)

    @property
    def astigmatism(self) -> float:
        """defocus_u - defocus_v, A."""
        return self.defocus_u - self.defocus_v


def failed_fit(reason: str, score: float = 0.0, gap: float = 0.0) -> DefocusFit:
    """A row for a micrograph whose CTF could not be fitted: NaN with a reason."""
    nan = float("nan")
    return DefocusFit(
        defocus_u=nan,
        defocus_v=nan,
        angle_deg=nan,
        phase_shift_deg=nan,
        defocus_u_error=nan,
        defocus_v_error=nan,
        angle_error=nan,
        phase_shift_error=nan,
        mean_error=nan,
        figure_of_merit=0.0,
        resolution=nan,
        score=score,
        gap=gap,
        runner_up=nan,
        anisotropy=nan,
        profile=None,
        failed=True,
        reason=reason,
    )
