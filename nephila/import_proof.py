"""Pictures that show whether an import is right: picks on their micrograph, particles as their table says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics, ctf_1d
from nephila.errors import InputError
from nephila.figures.import_checks import PowerProfile, plot_power_profiles
from nephila.figures.particles import plot_micrograph_picks, plot_particle_montage
from nephila.fourier import radial_average, rfft2
from nephila.io.micrographs import MicrographHeader, RawLayout, micrograph_header, read_micrograph
from nephila.optics_groups import OPTICS_COLUMNS, OpticsGroup, read_optics
from nephila.particle_images import ParticleImages

PathLike = str | os.PathLike[str]

PARTICLES_SHOWN = 24
PARTICLES_AVERAGED = 400
"""At most so many particles of similar defocus."""
SCALES = np.round(np.arange(0.8, 1.251, 0.01), 2)
"""Scales of the spatial frequency at which the table's CTF is tried."""


@dataclass(frozen=True)
class CtfCheck:
    """How well the power of particles follows the CTF of their table.

    Correlation as it stands, and at the best scale of the spatial frequency, which is not 1 where pixel size or defoci are
    wrong.
    """

    correlation: float
    best_scale: float
    best_correlation: float

    @property
    def advice(self) -> str:
        """What to look at where another scale fits clearly better; empty where the table's own does."""
        if self.best_correlation <= max(0.3, self.correlation + 0.05) or abs(self.best_scale - 1) <= 0.02:
            return ""
        return (
            f"the CTF fits better with {self.best_scale:g} times the spatial frequency ({self.best_correlation:.2f}): check pixel "
            "size, defocus and optics"
        )


def check_inside(table: pd.DataFrame, headers: dict[str, MicrographHeader]) -> None:
    """InputError where a pick lies outside its micrograph; most often the picks are of binned micrographs."""
    for name, rows in table.groupby("rlnMicrographName", sort=False):
        header = headers[str(name)]
        x, y = (rows[f"rlnCoordinate{axis}"].to_numpy(dtype=float) for axis in "XY")
        outside = (x < -0.5) | (x > header.nx - 0.5) | (y < -0.5) | (y > header.ny - 0.5)
        if outside.any():
            worst = int(np.flatnonzero(outside)[0])
            raise InputError(
                f"{name}: pick {worst + 1} at ({x[worst]:g}, {y[worst]:g}) lies outside the {header.nx} x {header.ny} px "
                f"({int(outside.sum())} of {len(rows)}); are these picks of binned micrographs (--binning), or of others?"
            )


def draw_picks(
    table: pd.DataFrame, path: PathLike, pixel_size: float | None, diameter: float, raw: RawLayout | None = None
) -> str:
    """Draw the micrograph with the most picks, as it is in the file, with a circle of `diameter` (A) on each. Returns its name.

    pixel_size : A; None: the header's, or 1 where it states none
    """
    name = str(table["rlnMicrographName"].value_counts(sort=True).index[0])
    rows = table[table["rlnMicrographName"] == name]
    micrograph = read_micrograph(name, pixel_size, contrast="bright", raw=raw)
    plot_micrograph_picks(
        micrograph.image,
        rows["rlnCoordinateX"].to_numpy(dtype=float),
        rows["rlnCoordinateY"].to_numpy(dtype=float),
        path,
        pixel_size=micrograph.pixel_size or 1.0,
        diameter=diameter,
        score=rows["rlnAutopickFigureOfMerit"].to_numpy(dtype=float) if "rlnAutopickFigureOfMerit" in rows else None,
        title=Path(name).name,
    )
    return name


def read_headers(names: list[str], raw: RawLayout | None = None) -> dict[str, MicrographHeader]:
    """Header of each micrograph."""
    return {name: micrograph_header(name, raw) for name in names}


def draw_particles(table: pd.DataFrame, folder: PathLike, path: PathLike, pixel_size: float) -> int:
    """Draw particles evenly spread over the table, with their defocus; returns how many. Stacks are relative to `folder`."""
    rows = np.unique(np.linspace(0, len(table) - 1, PARTICLES_SHOWN).round().astype(int))
    shown = table.iloc[rows]
    images = ParticleImages(shown, folder)[:]
    labels = None
    if {"rlnDefocusU", "rlnDefocusV"} <= set(shown.columns):
        means = 0.5 * (shown["rlnDefocusU"] + shown["rlnDefocusV"]).to_numpy(dtype=float)
        labels = [f"{row + 1}: {1e-4 * mean:.2f} µm" for row, mean in zip(rows, means, strict=True)]
    plot_particle_montage(
        images, path, pixel_size=pixel_size, labels=labels, title="particles as given: row and defocus"
    )
    return len(rows)


def draw_given(table: pd.DataFrame, folder: PathLike, pixel_size: float) -> list[str]:
    """Draw given particles of each optics group, and how their power follows the CTF; returns a line on each picture.

    Pictures are `particles_N.png` and `ctf_N.png` for optics group N; the latter where the group has six particles or more of
    different defoci.

    Parameters
    ----------
    table : of `read_given_tables`, with stacks that exist
    pixel_size : A, where the table states none
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    numbers = table.get("rlnOpticsGroup", pd.Series(1, index=table.index))
    lines = []
    for number in sorted(numbers.unique()):
        mine = table[numbers == number].assign(rlnOpticsGroup=int(number)).reset_index(drop=True)
        if "rlnImagePixelSize" not in mine:
            mine = mine.assign(rlnImagePixelSize=pixel_size)
        size = float(mine["rlnImagePixelSize"].iloc[0])
        shown = draw_particles(mine, "", Path(folder, f"particles_{number}.png"), size)
        lines.append(f"optics group {number}: {shown} particles are drawn")
        if not {"rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"} <= set(mine.columns):
            continue
        group = read_optics(mine[[name for name in OPTICS_COLUMNS if name in mine]].iloc[:1], "particles")[0]
        check = draw_ctf(mine, "", Path(folder, f"ctf_{number}.png"), group)
        if check is not None:
            lines.append(
                f"optics group {number}: correlation of the particles' power with the table's CTF {check.correlation:.2f}"
                + (f"; {check.advice}" if check.advice else "")
            )
    return lines


def draw_ctf(table: pd.DataFrame, folder: PathLike, path: PathLike, group: OpticsGroup) -> CtfCheck | None:
    """Draw how the power of the particles changes with defocus, beside how their table's CTF does.

    The differences between particles of low, middle and high defocus hold the rings and nothing of the particle's own
    spectrum. None, and no picture, where the table states no defoci or pixel size, or defoci that are all alike.

    Parameters
    ----------
    table : particles; stacks in rlnImageName relative to `folder`
    group : optics group to look at
    """
    if group.pixel_size is None or not {"rlnDefocusU", "rlnDefocusV"} <= set(table.columns):
        return None
    mine = table[table["rlnOpticsGroup"] == group.number]
    defocus = 0.5 * (mine["rlnDefocusU"] + mine["rlnDefocusV"]).to_numpy(dtype=np.float64)
    if len(mine) < 6 or np.ptp(defocus) < 500:
        return None
    phase = mine["rlnPhaseShift"].to_numpy(dtype=np.float64) if "rlnPhaseShift" in mine else np.zeros(len(mine))
    number = min(3, len(np.unique(np.round(defocus, -2))))
    parts = [np.sort(rows[:PARTICLES_AVERAGED]) for rows in np.array_split(np.argsort(defocus, kind="stable"), number)]
    images = ParticleImages(mine, folder)
    shells = np.arange(max(3, images.n // 32), int(0.45 * images.n))
    k = shells / (images.n * group.pixel_size)
    power = _differences([np.log(np.maximum(_power(images, rows)[shells], 1e-30)) for rows in parts])

    def expected(scale: float) -> npt.NDArray[np.float64]:
        return _differences([_mean_ctf2(scale * k, defocus[rows], phase[rows], group) for rows in parts])

    found = {float(scale): float(np.corrcoef(power.ravel(), expected(scale).ravel())[0, 1]) for scale in SCALES}
    best = max(found, key=lambda scale: found[scale])
    profiles = [
        PowerProfile(float(defocus[rows].mean()), len(rows), k, measured, wanted)
        for rows, measured, wanted in zip(parts, power, expected(1.0), strict=True)
    ]
    plot_power_profiles(profiles, path, found[1.0])
    return CtfCheck(found[1.0], best, found[best])


def _differences(curves: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Each curve less the mean of all, and less its own mean."""
    values = np.array(curves) - np.mean(curves, axis=0)
    return np.asarray(values - values.mean(axis=1, keepdims=True))


def _power(images: ParticleImages, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Rotational average of the mean power of some images."""
    total = np.zeros((images.n, images.n // 2 + 1))
    for row in rows:
        image = images[int(row)]
        total += np.abs(rfft2(image - image.mean())) ** 2
    return radial_average(total / len(rows), images.n)


def _mean_ctf2(
    k: npt.NDArray[np.float64], defocus: npt.NDArray[np.float64], phase_deg: npt.NDArray[np.float64], group: OpticsGroup
) -> npt.NDArray[np.float64]:
    """Mean over the particles of CTF squared at k (1/A); equal defoci are computed once."""
    kinds, counts = np.unique(np.column_stack([np.round(defocus, -1), phase_deg]), axis=0, return_counts=True)
    constants = group.voltage_kv, group.cs_mm, group.amplitude_contrast
    curves = [ctf_1d(k, dz, Optics(*constants, phase_shift_deg=phase)) ** 2 for dz, phase in kinds]
    return np.average(curves, axis=0, weights=counts)
