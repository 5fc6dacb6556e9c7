"""All fits of optics on a particle table, group by group, to a new table. The pixel size is never edited."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.aberrations import tilt_scale
from nephila.errors import InputError
from nephila.job import Progress
from nephila.optics_groups import OpticsGroup, ParticleSet
from nephila.optics_refinement.aberrations import (
    ODD_COMA_X,
    ODD_COMA_Y,
    ODD_TERMS,
    AberrationFit,
    beam_tilt_of,
    even_sums,
    fit_even,
    fit_odd,
    odd_sums,
)
from nephila.optics_refinement.defocus import DefocusFit, fit_defocus
from nephila.optics_refinement.magnification import MagnificationStep, magnification_step, transform_defocus
from nephila.optics_refinement.observations import Band, Observations, References
from nephila.optics_refinement.spectra import measure_spectra
from nephila.pixel_size import Z40, anisotropy, apparent_cs, calibrate_from_cs, cs_per_radian, mean_magnification

Float64 = npt.NDArray[np.float64]

CONVERGED = 2e-5
"""Largest change of the magnification matrix in the last pass."""
MOST_PASSES = 12
UNDETERMINED = 0.1
"""Error of the apparent Cs, as a share of Cs, from which on the even terms are said to be undetermined."""
EVEN_NAMES = ("Z00", "Z2-2", "Z20", "Z22", "Z4-4", "Z4-2", "Z40", "Z42", "Z44")
ODD_NAMES = ("Z1-1", "Z11", "Z3-3", "Z3-1", "Z31", "Z33")


@dataclass(frozen=True)
class OpticsSettings:
    """What is fitted and from which frequencies.

    finest, coarsest : A, at the nominal pixel size
    even, odd, magnification : fit them for each optics group
    defocus : fit it for each particle, each micrograph, or not
    astigmatism : with the defocus, of each particle or micrograph
    reach : A, how far to look for a defocus, either way
    rounds : how often all fits follow each other
    """

    finest: float
    coarsest: float = 20.0
    even: bool = False
    odd: bool = False
    magnification: bool = False
    defocus: Literal["none", "micrograph", "particle"] = "none"
    astigmatism: bool = False
    reach: float = 2000.0
    rounds: int = 2

    def __post_init__(self) -> None:
        if not (self.even or self.odd or self.magnification or self.defocus != "none"):
            raise InputError("nothing to refine: choose even or odd aberrations, magnification, or defocus")
        if self.astigmatism and self.defocus == "none":
            raise InputError("astigmatism is refined together with the defocus: choose particle or micrograph for it")
        if not 0 < self.finest < self.coarsest:
            raise InputError(
                f"frequencies from {self.coarsest:g} to {self.finest:g} A: the first must be the coarser one"
            )
        if not 0 < self.reach < np.inf:
            raise InputError(f"reach {self.reach:g} A: how far to look for a defocus must be positive")
        if self.rounds < 1:
            raise InputError(f"{self.rounds} rounds: at least 1")


@dataclass
class GroupFit:
    """What was found for one optics group; what was not fitted is None.

    passes : of the magnification
    share : of the images' power in the band that the predictions explain, before and after
    """

    group: OpticsGroup
    band: Band
    even: AberrationFit | None = None
    odd: AberrationFit | None = None
    magnification: MagnificationStep | None = None
    first_step: MagnificationStep | None = None
    defocus: DefocusFit | None = None
    passes: int = 0
    share: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class RefinedOptics:
    """The new set and the fits behind it."""

    particles: ParticleSet
    fits: tuple[GroupFit, ...]


def refine_optics(
    particles: ParticleSet,
    references: References,
    settings: OpticsSettings,
    folder: str | os.PathLike[str] = ".",
    tell: Callable[[str], None] = lambda text: None,
) -> RefinedOptics:
    """Refine the optics of every group that has particles.

    Parameters
    ----------
    folder : to which the paths of images are relative
    tell : is told of each fit in one line
    """
    table, groups, fits = particles.particles, [], []
    _check_nyquist(particles, references.pixel_size, settings.finest, tell)
    used = sum(bool((table["rlnOpticsGroup"] == group.number).any()) for group in particles.optics)
    progress = Progress(used * settings.rounds, "rounds of fits")
    for group in particles.optics:
        if not (table["rlnOpticsGroup"] == group.number).any():
            groups.append(group)
            continue
        mine = replace(particles, particles=table)
        fit, table = _refine_group(mine, group, references, settings, folder, tell, progress)
        if fit.group.pixel_size != group.pixel_size:
            raise AssertionError("the pixel size of a table must not change")
        groups.append(fit.group)
        fits.append(fit)
    return RefinedOptics(replace(particles, optics=tuple(groups), particles=table), tuple(fits))


def _check_nyquist(particles: ParticleSet, map_pixel_size: float, finest: float, tell: Callable[[str], None]) -> None:
    """InputError where the finest resolution (A) is beyond the Nyquist limit of the maps or of all images; says where of some."""
    present = set(particles.particles["rlnOpticsGroup"])
    limits = {g.name: 2 * (g.pixel_size or 0.0) for g in particles.optics if g.number in present}
    limit = max(2 * map_pixel_size, min(limits.values(), default=0.0))
    if finest < limit * (1 - 1e-4):
        raise InputError(
            f"frequencies to {finest:g} A: maps and images hold nothing beyond their Nyquist limit, {limit:.4g} A; give that or a "
            "coarser one (--finest)"
        )
    for name, own in limits.items():
        if finest < own * (1 - 1e-4):
            tell(f"{name}: fits end at its Nyquist limit, {own:.4g} A")


def _refine_group(
    particles: ParticleSet,
    group: OpticsGroup,
    references: References,
    settings: OpticsSettings,
    folder: str | os.PathLike[str],
    tell: Callable[[str], None],
    progress: Progress,
) -> tuple[GroupFit, pd.DataFrame]:
    observations = Observations(particles, group, references, settings.coarsest, settings.finest, folder)
    table = particles.particles
    fit = GroupFit(group, observations.band)
    fit.share.append(_explained(observations, table))
    for number in range(settings.rounds):
        if settings.even:
            _even(observations, table, fit, search=number == 0)
        if settings.magnification:
            table = _magnification(observations, table, fit)
        if settings.odd:
            _odd(observations, table, fit)
        if settings.even and (settings.magnification or settings.odd):
            _even(observations, table, fit, search=False)
        if settings.defocus != "none":
            spectra = measure_spectra(observations, table)
            fit.defocus = fit_defocus(
                observations,
                spectra,
                table,
                unit=settings.defocus,
                reach=settings.reach if number == 0 else min(settings.reach, 500.0),
                astigmatism=settings.astigmatism,
                after=fit.defocus,
            )
            table = fit.defocus.table
        fit.group = observations.group
        if fit.even is not None and number == settings.rounds - 1:
            _tell_undetermined(fit, tell)
        fit.share.append(_explained(observations, table))
        tell(
            f"{group.name}, round {number + 1}: {100 * fit.share[-1]:.2f} % of the power explained, {100 * fit.share[0]:.2f} before"
        )
        progress.step()
    return fit, table


def _even(observations: Observations, table: pd.DataFrame, fit: GroupFit, *, search: bool) -> None:
    group = observations.group
    spectra = measure_spectra(observations, table)
    fit.even = fit_even(even_sums(observations, spectra, table), observations, cs_mm=group.cs_mm, search=search)
    observations.group = replace(group, even_zernike=tuple(float(c) for c in fit.even.coefficients))


def _odd(observations: Observations, table: pd.DataFrame, fit: GroupFit) -> None:
    group = observations.group
    spectra = measure_spectra(observations, table)
    present = observations.odd_phase()
    found = fit_odd(*odd_sums(observations, spectra, table), observations)
    rest, tilt = beam_tilt_of(found.coefficients, observations)
    old = np.array([*group.odd_zernike, *[0.0] * ODD_TERMS])[:ODD_TERMS]
    observations.group = replace(
        group,
        odd_zernike=tuple(float(c) for c in old + rest),
        beam_tilt=(group.beam_tilt[0] + tilt[0], group.beam_tilt[1] + tilt[1]),
    )
    fit.odd = replace(found, observed=found.observed + present, fitted=found.fitted + present)


def _magnification(observations: Observations, table: pd.DataFrame, fit: GroupFit) -> pd.DataFrame:
    """Passes until the matrix stays; the picture is that of the first one."""
    for _ in range(MOST_PASSES):
        group = observations.group
        step = magnification_step(observations, measure_spectra(observations, table), table)
        matrix = step.increment @ np.array(group.magnification).reshape(2, 2)
        observations.group = replace(group, magnification=tuple(float(m) for m in matrix.ravel()))  # type: ignore[arg-type]
        table = transform_defocus(table, observations.rows, step.increment)
        fit.magnification = step
        fit.first_step = fit.first_step or step
        fit.passes += 1
        if step.size < CONVERGED:
            break
    return table


def _tell_undetermined(fit: GroupFit, tell: Callable[[str], None]) -> None:
    """Say so where the resolution does not determine the spherical aberration: beyond the band such a fit means nothing."""
    assert fit.even is not None
    group = fit.group
    error = cs_per_radian(group.voltage_kv) * float(fit.even.errors[Z40])
    if error > UNDETERMINED * max(group.cs_mm, 1.0):
        tell(
            f"{group.name}: the apparent Cs is only known to {error:.2g} mm; the even aberrations hold within the band that was "
            "used, but not beyond it: use them only if the map goes no finer"
        )


def _explained(observations: Observations, table: pd.DataFrame) -> float:
    """Share of the images' power that the predictions explain, each shell weighted by the inverse of its noise."""
    spectra = measure_spectra(observations, table)
    shell = observations.band.shell
    power, total = 0.0, 0.0
    even = observations.even_phase()
    for batch in observations.batches(table):
        expected = spectra.scale[shell] * np.sin(batch.phase - even) * batch.predictions
        power += float((np.abs(expected) ** 2 / spectra.noise[shell]).sum())
        total += float((np.abs(batch.images) ** 2 / spectra.noise[shell]).sum())
    return power / total


def fits_table(result: RefinedOptics) -> pd.DataFrame:
    """Everything that was fitted, with standard errors (0: none), as block `fits` of a STAR file."""
    rows: list[tuple[str, str, float, float, str]] = []
    for fit in result.fits:
        group, name = fit.group, fit.group.name
        if fit.even is not None:
            rows += _aberration_rows(name, EVEN_NAMES, fit.even.coefficients, fit.even.errors)
            cs = apparent_cs(group.cs_mm, float(fit.even.coefficients[Z40]), group.voltage_kv)
            error = cs_per_radian(group.voltage_kv) * float(fit.even.errors[Z40])
            rows.append((name, "apparent Cs", cs, error, "mm"))
            if group.pixel_size and group.cs_mm > 0 and cs > 0:
                found = calibrate_from_cs(group.pixel_size, cs, group.cs_mm, group.voltage_kv, apparent_error_mm=error)
                rows.append((name, "pixel size if the Cs stated is true", found.pixel_size, found.error or 0.0, "A"))
        if fit.odd is not None:
            errors, scale = fit.odd.errors.copy(), tilt_scale(group)
            coma = (ODD_COMA_X, ODD_COMA_Y)
            tilt_errors = [3 * float(errors[index]) / scale if scale else 0.0 for index in coma]
            if scale:
                errors[list(coma)] = 0.0  # they are in the tilt
            rows += _aberration_rows(name, ODD_NAMES, np.array(group.odd_zernike), errors)
            for axis, value, error in zip("xy", group.beam_tilt, tilt_errors, strict=True):
                rows.append((name, f"beam tilt {axis}", value, error, "mrad"))
        if fit.magnification is not None:
            for label, value, spread in zip(
                ("M00", "M01", "M10", "M11"), group.magnification, fit.magnification.errors.ravel(), strict=True
            ):
                rows.append((name, label, value, float(spread), "1"))
            percent, angle = anisotropy(group.magnification)
            rows.append((name, "mean magnification", mean_magnification(group.magnification), 0.0, "1"))
            rows += [(name, "anisotropy", percent, 0.0, "%"), (name, "direction of anisotropy", angle, 0.0, "degrees")]
        if fit.defocus is not None:
            change, own = fit.defocus.change, fit.defocus.prior.spread
            rows.append((name, "defocus change, mean", float(change.mean()), 0.0, "A"))
            if own is not None:
                rows.append((name, "defocus spread", own, 0.0, "A"))
            rows.append(
                (name, "defocus change, deviation", float(change.std()), float(np.median(fit.defocus.error)), "A")
            )
        rows.append((name, "power explained", 100 * fit.share[-1], 0.0, "%"))
    columns = ["rlnOpticsGroupName", "nphTerm", "nphValue", "nphValueError", "nphUnit"]
    return pd.DataFrame(rows, columns=columns)


def _aberration_rows(
    group: str, names: tuple[str, ...], values: Float64, errors: Float64
) -> list[tuple[str, str, float, float, str]]:
    return [
        (group, name, float(value), float(error), "rad")
        for name, value, error in zip(names, values, errors, strict=True)
    ]
