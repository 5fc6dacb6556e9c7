"""What a wrong pixel size does to the CTF, and how the true one is found from it.

With r = nominal / true pixel size, an image whose spatial frequencies are counted with the nominal pixel size has the CTF of
defocus x r^2 and Cs x r^4 exactly: k^2 and k^4 are the only powers in it. The pixel size in a table is therefore never edited
once a CTF was fitted; the fitted numbers belong to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.ctf import Optics, ctf_1d, electron_wavelength
from nephila.errors import InputError

Float64 = npt.NDArray[np.float64]

MM = 1e7  # A
Z20, Z40 = 2, 6
"""Places of the coefficients of defocus and spherical aberration in rlnEvenZernike, counted from 0."""
_SAMPLES = 2000


def absorbed(defocus: float, cs_mm: float, nominal: float, true: float) -> tuple[float, float]:
    """Defocus (A) and Cs (mm) that a fit of both finds at the nominal pixel size: they absorb the error exactly."""
    ratio = _ratio(nominal, true)
    return defocus * ratio**2, cs_mm * ratio**4


def refit_defocus(defocus: float, optics: Optics, nominal: float, true: float, finest: float) -> float:
    """Defocus (A) that a fit finds at the nominal pixel size while Cs is held.

    Least squares between the CTFs, equally weighted over spatial frequencies from 0 to 1 / `finest` (A, as the nominal pixel size
    counts). It depends on that range, because the defocus stands in for a term in k^4.
    """
    from scipy.optimize import minimize_scalar

    ratio = _ratio(nominal, true)
    if not 0 < finest < np.inf:
        raise InputError(f"the fit's range ends at {finest} A: it must be positive")
    k = np.linspace(0, 1 / finest, _SAMPLES)
    wanted = ctf_1d(k * ratio, defocus, optics)
    start = defocus * ratio**2

    def misfit(value: float) -> float:
        return float(np.mean((ctf_1d(k, value, optics) - wanted) ** 2))

    # beyond a turn of the phase at the end of the range, another ring would be taken for this one
    reach = 2 * finest**2 / optics.wavelength
    trial = start + np.linspace(-reach, reach, 401)
    best = float(trial[np.argmin([misfit(value) for value in trial])])
    step = float(trial[1] - trial[0])
    found = minimize_scalar(misfit, bounds=(best - step, best + step), method="bounded", options={"xatol": 1e-4})
    return float(found.x)


def phase_error(
    k: npt.ArrayLike,
    defocus: float,
    optics: Optics,
    nominal: float,
    true: float,
    used_defocus: float,
    used_cs_mm: float,
) -> Float64:
    """Phase (radians) of the CTF that is used less the true one's, at nominal spatial frequencies `k` (1/A)."""
    ratio = _ratio(nominal, true)
    k2 = np.asarray(k, dtype=np.float64) ** 2
    wavelength = optics.wavelength
    error: Float64 = (
        np.pi * wavelength * (defocus * ratio**2 - used_defocus) * k2
        + 0.5 * np.pi * wavelength**3 * MM * (used_cs_mm - optics.cs_mm * ratio**4) * k2**2
    )
    return error


def resolution_of_phase(
    limit: float, defocus: float, optics: Optics, nominal: float, true: float, used_defocus: float, used_cs_mm: float
) -> float | None:
    """Resolution (A, nominal) at which the phase error first exceeds `limit` (radians); None: nowhere before Nyquist."""
    k = np.linspace(0, 0.5 / nominal, _SAMPLES)[1:]
    over = np.abs(phase_error(k, defocus, optics, nominal, true, used_defocus, used_cs_mm)) > limit
    return None if not over.any() else float(1 / k[int(np.argmax(over))])


def resolutions_in_phase(
    defocus: float, optics: Optics, nominal: float, true: float, used_defocus: float, used_cs_mm: float
) -> list[float]:
    """Resolutions (A, nominal) at which the used CTF is a whole number of turns off: there it fits again."""
    k = np.linspace(0, 0.5 / nominal, 20 * _SAMPLES)[1:]
    turns = phase_error(k, defocus, optics, nominal, true, used_defocus, used_cs_mm) / (2 * np.pi)
    whole = np.floor(turns)
    crossings = np.flatnonzero(np.diff(whole) != 0)
    reached = [int(max(whole[i], whole[i + 1])) for i in crossings]
    return [float(1 / k[i]) for i, turn in zip(crossings, reached, strict=True) if turn != 0]


def apparent_cs(cs_mm: float, z40: float, voltage_kv: float) -> float:
    """Cs (mm) that the images show, where a coefficient Z40 (radians) was fitted on top of `cs_mm`.

    Z40 = 6 k^4 - 6 k^2 + 1; its k^4 part is 12 Z40 / (pi lambda^3) of Cs. The other two parts are the business of Z20 and Z00,
    which must have been fitted with it.
    """
    return cs_mm + cs_per_radian(voltage_kv) * z40


def cs_per_radian(voltage_kv: float) -> float:
    """Cs (mm) that one radian of Z40 stands for: 0.05006 at 300 kV."""
    return float(12 / (np.pi * electron_wavelength(voltage_kv) ** 3) / MM)


def left_over_defocus(z20: float, z40: float, voltage_kv: float) -> float:
    """Defocus (A) that Z20 and Z40 hold on top of the table's; Z20 = 2 k^2 - 1."""
    return float(-(2 * z20 - 6 * z40) / (np.pi * electron_wavelength(voltage_kv)))


@dataclass(frozen=True)
class Calibration:
    """A pixel size and where it comes from.

    Attributes
    ----------
    pixel_size : A
    error : standard error, A; None where it is not known
    how : in a few words
    caveats : what else would give the same measurement, one line each
    """

    pixel_size: float
    error: float | None
    how: str
    caveats: tuple[str, ...] = ()

    def __str__(self) -> str:
        spread = "" if self.error is None else f" +- {self.error:.4g}"
        return f"{self.pixel_size:.5g}{spread} A/px ({self.how})"


def calibrate_from_cs(
    nominal: float,
    apparent_cs_mm: float,
    true_cs_mm: float,
    voltage_kv: float,
    *,
    apparent_error_mm: float | None = None,
    true_error_mm: float = 0.0,
    voltage_error_percent: float = 0.0,
) -> Calibration:
    """True pixel size from the Cs that the images show: nominal (Cs_true / Cs_apparent)^(1/4).

    Parameters
    ----------
    nominal : A, at which the aberrations were fitted
    apparent_cs_mm, true_cs_mm : fitted; the manufacturer's
    apparent_error_mm, true_error_mm, voltage_error_percent : standard errors; they add in squares
    """
    _ratio(nominal, nominal)
    if true_cs_mm <= 0:
        raise InputError(
            f"the true Cs is {true_cs_mm:g} mm: without spherical aberration it cannot tell the pixel size; "
            "use a model or a standard"
        )
    if apparent_cs_mm <= 0:
        raise InputError(
            f"the apparent Cs is {apparent_cs_mm:.4g} mm, which no pixel size explains; is the fit good, and the Cs "
            "in the table right?"
        )
    pixel = nominal * (true_cs_mm / apparent_cs_mm) ** 0.25
    slope = voltage_slope(voltage_kv)
    relative = [0.25 * true_error_mm / true_cs_mm, slope * 0.01 * voltage_error_percent]
    error = None
    if apparent_error_mm is not None:
        relative.append(0.25 * apparent_error_mm / apparent_cs_mm)
        error = float(pixel * np.sqrt(np.sum(np.square(relative))))
    caveats = (
        f"the same phase comes of a true Cs of {apparent_cs_mm:.4g} mm at the nominal pixel size; "
        f"1 % of Cs is {0.0025 * pixel:.4f} A/px",
        f"a voltage 1 % higher than stated makes the true pixel size {100 * abs(0.01 * slope):.2f} % "
        f"{'larger' if slope > 0 else 'smaller'} than this ({0.01 * abs(slope) * pixel:.4f} A/px)",
    )
    how = f"from Cs: {apparent_cs_mm:.4g} mm apparent, {true_cs_mm:g} mm true"
    return Calibration(float(pixel), error, how, caveats)


def voltage_slope(voltage_kv: float) -> float:
    """d ln(calibrated pixel size) / d ln(true voltage), at a fixed measured k^4 phase: 3/4 of lambda's own slope."""
    step = 1e-4
    low, high = (electron_wavelength(voltage_kv * (1 + sign * step)) for sign in (-1, 1))
    return float(0.75 * (np.log(high) - np.log(low)) / (2 * step))


def sampled_pixel_size(true: float, nominal: float, reference_nominal: float, magnification: float = 1.0) -> float:
    """True size (A) of the reference's pixel as particles of a group see it.

    Refinement stretches particles by reference_nominal / nominal, so that their true pixel size is scaled with it; a magnification
    that was fitted (reference sampled at M k) scales it once more.
    """
    _ratio(nominal, true)
    return true * reference_nominal / nominal * magnification


def expected_magnification(true: float, nominal: float, reference_true: float, reference_nominal: float) -> float:
    """Magnification that a fit of a group against a reference finds; the reference is sampled at M k, larger pixels need less."""
    _ratio(nominal, true)
    return reference_true / sampled_pixel_size(true, nominal, reference_nominal)


def calibrate_from_magnification(
    nominal: float, magnification: float, reference_true: float, reference_nominal: float, error: float | None = None
) -> Calibration:
    """True pixel size of a group from its magnification against a reference whose true pixel size is known.

    nominal (reference_true / reference_nominal) / magnification; `error` is the magnification's.
    """
    _ratio(nominal, reference_true)
    if not 0.25 < magnification < 4:
        raise InputError(f"a magnification of {magnification:g}: it must be near 1")
    pixel = nominal * (reference_true / reference_nominal) / magnification
    spread = None if error is None else pixel * error / magnification
    return Calibration(pixel, spread, f"from magnification {magnification:.5g} against {reference_true:.5g} A/px")


def mean_magnification(matrix: npt.ArrayLike) -> float:
    """The one number of a magnification matrix (M00, M01, M10, M11): the square root of its determinant."""
    m = np.asarray(matrix, dtype=np.float64).reshape(2, 2)
    return float(np.sqrt(np.linalg.det(m)))


def anisotropy(matrix: npt.ArrayLike) -> tuple[float, float]:
    """Anisotropy of a magnification matrix in percent, and the direction (degrees from x) that it stretches most."""
    m = np.asarray(matrix, dtype=np.float64).reshape(2, 2)
    values, vectors = np.linalg.eigh(0.5 * (m + m.T))
    angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))) % 180.0
    return float(200 * (values[1] - values[0]) / (values[1] + values[0])), angle


def _ratio(nominal: float, true: float) -> float:
    for name, value in (("nominal", nominal), ("true", true)):
        if not 0.01 <= value <= 1000:
            raise InputError(f"the {name} pixel size is {value} A: it must lie in 0.01 to 1000 A")
    return nominal / true
