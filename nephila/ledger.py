"""The ledger of pixel sizes: for every file what it states, what it really is, and how that is known.

Refinement takes particles of an optics group to the grid of the reference: it stretches them by the ratio of the *nominal* pixel
sizes, reference over group, and samples the reference at M k where a magnification M was fitted. So a group of nominal pixel size
p and true size t comes to lie on the reference's grid R with pixels of t R / p, and once its magnification m is fitted
t R m / p is the true pixel size of the map. All numbers here follow from that one equation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from nephila.errors import InputError
from nephila.given_checks import check_stack_size
from nephila.io.mrc import open_stack, read_image
from nephila.optics_groups import IDENTITY, OpticsGroup, ParticleSet
from nephila.particle_images import split_image_name
from nephila.pixel_size import (
    Calibration,
    anisotropy,
    calibrate_from_magnification,
    mean_magnification,
    sampled_pixel_size,
)
from nephila.relabelling import NEARLY, stated_before

REFERENCE = "reference"
SAME_A = 0.001
"""Pixel sizes in headers and tables that differ by less are equal, A; RELION's limit."""
AGREE = 0.002
"""Two known pixel sizes that lead to maps of sizes closer than this (relative) agree."""


@dataclass(frozen=True)
class Entry:
    """One row. Pixel sizes in A; None: not known.

    Attributes
    ----------
    file, what : path; optics group, micrographs, reference, map …
    nominal : in table or header
    relative : nominal / magnification: what the group's would be if the reference's header were right
    effective : true size of the pixels as they come to lie on the reference's grid, before a magnification is applied
    low, high : limits of the calibrated pixel size; equal where it is one number
    error : standard error of it
    how : in words
    """

    file: str
    what: str
    nominal: float
    how: str
    relative: float | None = None
    effective: float | None = None
    low: float | None = None
    high: float | None = None
    error: float | None = None

    @property
    def calibrated(self) -> float | None:
        """The calibrated pixel size, where it is one number."""
        if self.low is None or self.high is None or self.high - self.low > SAME_A:
            return None
        return 0.5 * (self.low + self.high)


@dataclass(frozen=True)
class Ledger:
    """Rows and what is to be said about them."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """As block `ledger` of a STAR file; numbers that are not known are 0."""

        def plain(text: str) -> str:
            return text.translate({ord(mark): None for mark in "'\""})  # quotes end a text in a STAR file

        columns: dict[str, list[object]] = {
            "nphFile": [plain(entry.file) for entry in self.entries],
            "nphWhat": [plain(entry.what) for entry in self.entries],
            "nphNominalPixelSize": [entry.nominal for entry in self.entries],
            "nphRelativePixelSize": [entry.relative or 0.0 for entry in self.entries],
            "nphEffectivePixelSize": [entry.effective or 0.0 for entry in self.entries],
            "nphCalibratedPixelSizeLow": [entry.low or 0.0 for entry in self.entries],
            "nphCalibratedPixelSizeHigh": [entry.high or 0.0 for entry in self.entries],
            "nphCalibratedPixelSizeError": [entry.error or 0.0 for entry in self.entries],
            "nphHow": [plain(entry.how) for entry in self.entries],
        }
        return pd.DataFrame(columns)


def build_ledger(
    particles: ParticleSet,
    known: Mapping[str, Calibration],
    *,
    reference: tuple[str, float] | None = None,
    maps: Sequence[str | Path] = (),
) -> Ledger:
    """The ledger of a particle table, a reference and maps made from them.

    Parameters
    ----------
    known : calibrated pixel sizes by name of an optics group, or `reference` for the map that the refinement wrote
    reference : path and pixel size of its header; the first group's where not given
    maps : further maps of the same refinement: half maps, relabelled ones

    Raises
    ------
    InputError
        A name in `known` that is not there, known pixel sizes that contradict each other, or a group without pixel size.
    """
    names = particles.names
    for name in known:
        if name not in (*names, REFERENCE):
            raise InputError(f"{particles.source}: no optics group {name!r}; it has {', '.join(names)}")
    path, grid = reference or ("(reference)", _nominal(particles.optics[0], particles.source))
    groups = particles.optics
    low, high, error, how = _map_size(groups, grid, known, particles.source)
    several = len(groups) > 1 and not any(_fitted(group) for group in groups)
    entries = []
    for group in groups:
        entry = _group_entry(group, grid, particles.source, known.get(group.name), (low, high, error, how), several)
        entries.append(entry)
        if group.original_pixel_size:
            scale = group.original_pixel_size / entry.nominal
            micrographs = Entry(
                particles.source,
                f"micrographs of {group.name}",
                group.original_pixel_size,
                f"scaled from optics group {group.name}",
            )
            if entry.low is not None and entry.high is not None:
                micrographs = replace(micrographs, low=entry.low * scale, high=entry.high * scale)
            entries.append(micrographs)
    entries.append(Entry(path, "map on the grid of the reference", grid, how, low=low, high=high, error=error))
    entries += [_map_entry(str(one), grid, low, high) for one in maps]
    notes = [
        f"optics group {group.name}: magnification is {value:.2f} % anisotropic along {angle:.1f} degrees; its mean is used"
        for group in groups
        for value, angle in [anisotropy(group.magnification)]
        if value > 0.05
    ]
    if several and low is not None and high is not None and high - low > AGREE * low:
        notes.append(
            f"particles of {low:.4g} and {high:.4g} A/px are mixed in the map: refine the anisotropic magnification "
            "(nephila refine-optics), then the poses again"
        )
    if low is None:
        notes.append("nothing is calibrated: give one optics group's true pixel size, or the map's (from a model)")
    return Ledger(tuple(entries), tuple(notes))


def _nominal(group: OpticsGroup, source: str) -> float:
    if group.pixel_size is None:
        raise InputError(f"{source}: optics group {group.name!r} states no _rlnImagePixelSize")
    return group.pixel_size


def _fitted(group: OpticsGroup) -> bool:
    return group.magnification != IDENTITY


def _map_size(
    groups: Sequence[OpticsGroup], grid: float, known: Mapping[str, Calibration], source: str
) -> tuple[float | None, float | None, float | None, str]:
    """Limits of the true pixel size of a map on the grid, its standard error, and how it is known."""
    sizes: dict[str, tuple[float, float | None]] = {}
    for group in groups:
        if group.name in known:
            given, nominal = known[group.name], _nominal(group, source)
            factor = sampled_pixel_size(1.0, nominal, grid, mean_magnification(group.magnification))
            sizes[group.name] = (
                given.pixel_size * factor,
                None if given.error is None else given.error * factor,
            )
    if REFERENCE in known:
        given = known[REFERENCE]
        sizes = {**sizes, REFERENCE: (given.pixel_size, given.error)}
    if not sizes:
        return None, None, None, "not known"
    values = np.array([size for size, _ in sizes.values()])
    apart = float(values.max() / values.min() - 1)
    settled = len(groups) == 1 or REFERENCE in known or any(_fitted(group) for group in groups)
    if apart > AGREE and settled:
        text = ", ".join(f"{name} makes it {size:.5g} A" for name, (size, _) in sizes.items())
        raise InputError(
            f"{source}: the known pixel sizes contradict each other: a pixel of the map has one size, but {text}; "
            "one of them, or a magnification, is wrong"
        )
    if settled or (len(sizes) == len(groups) and apart <= AGREE):
        name = REFERENCE if REFERENCE in sizes else next(iter(sizes))
        size, error = sizes[name]
        if name == REFERENCE:
            return size, size, error, known[REFERENCE].how
        return size, size, error, f"from optics group {name} ({known[name].how})"
    if len(sizes) == len(groups):
        return float(values.min()), float(values.max()), None, "a mixture of groups whose magnification was not fitted"
    return (
        None,
        None,
        None,
        "not known: the groups' magnifications were not fitted, so one group does not tell the map's",
    )


def _group_entry(
    group: OpticsGroup,
    grid: float,
    source: str,
    given: Calibration | None,
    of_map: tuple[float | None, float | None, float | None, str],
    several: bool,
) -> Entry:
    nominal = _nominal(group, source)
    magnification = mean_magnification(group.magnification)
    entry = Entry(source, f"optics group {group.name}", nominal, "not known", relative=nominal / magnification)
    low, high, map_error, _ = of_map
    if given is None:
        if several or low is None or low != high:
            how = "not known: its magnification against the map was not fitted" if several else "not known"
            return replace(entry, how=how)
        given = calibrate_from_magnification(nominal, magnification, low, grid)
        if map_error is not None:
            given = replace(given, error=map_error * given.pixel_size / low)
        if not _fitted(group):
            given = replace(given, how=f"from the map ({low:.5g} A/px)")
    size = given.pixel_size
    return replace(
        entry,
        how=given.how,
        effective=sampled_pixel_size(size, nominal, grid),
        low=size,
        high=size,
        error=given.error,
    )


def _map_entry(path: str, grid: float, low: float | None, high: float | None) -> Entry:
    _, header = read_image(path)
    before = stated_before(path)
    stated = header if before is None else before[0]
    if abs(stated - grid) > SAME_A:
        raise InputError(
            f"{path}: its header says {header:g} A/px, the reference's {grid:g}: not a map of this refinement. "
            "Maps of other refinements have a ledger of their own"
        )
    how = (
        "as the reference" if before is None else f"relabelled from {before[0]:g} A/px: never to be used as a reference"
    )
    return Entry(path, f"map {Path(path).name}", header, how, low=low, high=high)


def expected_map(group: OpticsGroup, true: float, reference_nominal: float) -> float:
    """True pixel size (A) of the map that refinement against a reference of that header makes of one group's particles."""
    nominal = _nominal(group, group.name)
    return sampled_pixel_size(true, nominal, reference_nominal, mean_magnification(group.magnification))


def check_reference(
    particles: ParticleSet, path: str, pixel_size: float, known: Mapping[str, Calibration], *, trust: bool = False
) -> None:
    """InputError where a reference was relabelled, or has the calibrated pixel size instead of the particles' nominal one.

    trust : believe a header that is near but not at the particles' pixel size: the map was resampled to it
    """
    before = stated_before(path) if Path(path).exists() else None
    sizes = [_nominal(group, particles.source) for group in particles.optics]
    nearest = min(sizes, key=lambda size: abs(size - pixel_size))
    off = abs(pixel_size / nearest - 1)
    if before is None and (trust or abs(pixel_size - nearest) <= SAME_A or off > NEARLY):
        return
    group = particles.optics[sizes.index(nearest)]
    true = known[group.name].pixel_size if group.name in known else pixel_size
    result = expected_map(replace(group, magnification=IDENTITY), true, pixel_size)
    raise InputError(
        f"{path}: its header says {pixel_size:g} A/px, the particles of {group.name} {nearest:g}: a relabelled map must not be a "
        f"reference. Particles would be stretched from {nearest:g} to {pixel_size:g} A once more; if they are really {true:g} A, "
        f"the map would say {pixel_size:g} and be {result:.4f}. Use the map with {nearest:g} A/px in its header, as the "
        f"refinement wrote it{'' if before else '; one that was resampled to its pixel size passes with --trust-reference'}"
    )


def check_table(particles: ParticleSet, folder: str | Path = ".") -> list[str]:
    """What could not be checked, one line for each kind; InputError where the pixel size in the table is not that of the stacks.

    CTFs, coordinates and trajectories belong to the pixel size with which they were measured: one that was edited afterwards makes
    defocus and Cs wrong (docs/pixel-size.md).
    """
    notes = []
    for group in particles.optics:
        nominal = _nominal(group, particles.source)
        rows = particles.particles.loc[particles.particles["rlnOpticsGroup"] == group.number, "rlnImageName"]
        for stack in dict.fromkeys(split_image_name(str(name))[1] for name in rows):
            path = next((place for place in (Path(folder) / stack, Path(stack)) if place.is_file()), None)
            if path is None:
                notes.append(f"{stack}: not found, its header was not compared")
                continue
            header = open_stack(path).pixel_size
            where = f"_rlnImagePixelSize of optics group {group.name!r}"
            if not check_stack_size(stack, header, nominal, particles.source, where):
                notes.append(f"{stack}: its header states no pixel size (or 1)")
    return notes


def check_micrographs(particles: ParticleSet, optics: Sequence[OpticsGroup], source: str) -> None:
    """InputError where particles were extracted with another pixel size than the CTFs of their micrographs were fitted with.

    optics : groups of a table of micrographs (micrographs_ctf.star), matched by name
    """
    theirs = {group.name: group for group in optics}
    for group in particles.optics:
        other = theirs.get(group.name)
        mine = group.original_pixel_size
        if other is None or mine is None:
            continue
        stated = other.original_pixel_size or other.pixel_size
        if stated is not None and abs(stated - mine) > SAME_A:
            raise InputError(
                f"{particles.source}: optics group {group.name!r} was extracted from micrographs of {mine:g} A/px, {source} says "
                f"{stated:g}: a pixel size must not be set by hand at extraction. CTFs, coordinates and trajectories would not "
                "belong together; extract again without it"
            )


def check_cs(particles: ParticleSet, true_cs_mm: float) -> None:
    """InputError where a group's Cs was replaced though coefficients are fitted on top of it."""
    for group in particles.optics:
        if group.even_zernike and abs(group.cs_mm - true_cs_mm) > 0.005:
            raise InputError(
                f"{particles.source}: optics group {group.name!r} says _rlnSphericalAberration {group.cs_mm:g}, the microscope has "
                f"{true_cs_mm:g} mm: do not write the apparent Cs into the table, _rlnEvenZernike already holds the difference; "
                f"put {true_cs_mm:g} back and fit the aberrations again"
            )
