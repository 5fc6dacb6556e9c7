"""Figures that judge a map: its resolution by place, and its resolution against the number of particles."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.colors import Normalize

from nephila.errors import InputError
from nephila.figures import style
from nephila.resolution_by_particles import BFactorFit

PathLike = str | os.PathLike[str]


def plot_local_resolution(
    resolution: npt.ArrayLike, volume: npt.ArrayLike, mask: npt.ArrayLike, path: PathLike, *, pixel_size: float
) -> None:
    """Central slices of the map coloured by the resolution there, and how the mask's voxels are distributed over resolutions.

    Parameters
    ----------
    resolution : A, [n, n, n]; volume : the map, whose density decides how strong the colour is; mask : 0 to 1
    """
    local, density, inside = (np.asarray(array, dtype=np.float32) for array in (resolution, volume, mask))
    if not local.shape == density.shape == inside.shape or local.ndim != 3:
        raise InputError(f"resolution, map and mask differ: {local.shape}, {density.shape}, {inside.shape}")
    values = local[(inside > 0.5) & (density > 0.2 * np.quantile(density[inside > 0.5], 0.995))]
    if values.size == 0:
        raise InputError("the mask holds no density: there is no resolution to draw")
    low, high = (float(v) for v in np.percentile(values, [1, 99]))
    high = max(high, low + 0.5)
    strength = np.clip(density / max(float(np.quantile(density[inside > 0.5], 0.995)), 1e-9), 0, 1) * inside
    colours = style.SERIES.reversed()
    centre = len(local) // 2
    reach = 1 + int(np.abs(np.argwhere(inside > 0.5) - centre).max())
    near = slice(max(centre - reach, 0), centre + reach + 1)
    with style.drawing(path, style.WIDTH, 2.6) as figure:
        panels = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.1])
        for axis, (panel, name) in enumerate(zip(panels, ("xy", "xz", "yz"), strict=False)):
            values_here, shade = (np.take(array, centre, axis=axis)[near, near, None] for array in (local, strength))
            tint = np.asarray(colours(Normalize(low, high)(values_here[..., 0])))[..., :3]
            panel.imshow(1 - shade * (1 - tint), interpolation="bilinear")
            style.frame_image(panel)
            panel.set_title(name, loc="right", fontsize=8, fontweight="normal")
        style.scale_bar(panels[0], len(range(*near.indices(len(local)))), pixel_size)
        bins = np.linspace(low, high, 25)
        counts, _ = np.histogram(np.clip(values, low, high), bins)
        middle = (bins[:-1] + bins[1:]) / 2
        panels[3].bar(
            middle, counts / counts.sum() * 100, width=np.diff(bins), color=colours(Normalize(low, high)(middle))
        )
        panels[3].axvline(float(np.median(values)), color=style.BLACK, lw=1, ls=style.DASHES[1])
        panels[3].set_xlabel("local resolution (Å)")
        panels[3].set_ylabel("voxels of the particle (%)")
        panels[3].set_title(f"median {np.median(values):.2f} Å", fontsize=9)


def plot_resolution_by_particles(table: pd.DataFrame, fit: BFactorFit | None, path: PathLike) -> None:
    """Particles (logarithmic) against 1 / resolution^2, with the line whose slope is B / 2.

    Parameters
    ----------
    table : nphParticles, nphResolution (A)
    """
    if not len(table):
        raise InputError("no subset of the particles resolved anything: there is nothing to draw")
    x = 1 / table["nphResolution"].to_numpy(dtype=float) ** 2
    y = table["nphParticles"].to_numpy(dtype=float)
    with style.drawing(path, 4.6, 3.4) as figure:
        axes = figure.subplots()
        axes.set_yscale("log")
        axes.plot(x, y, "o", color=style.BLUE)
        if fit is not None:
            line = np.array([x.min() - 0.05 * np.ptp(x), x.max() + 0.15 * np.ptp(x)])
            axes.plot(line, np.exp(fit.intercept + fit.b_factor / 2 * line), color=style.VERMILION, lw=1.2)
            error = f" ± {fit.error:.0f}" if fit.error else ""
            axes.set_title(f"B factor {fit.b_factor:.0f}{error} Å²", fontsize=9)
        axes.set_xlabel("1 / resolution² (1/Å²)")
        axes.set_ylabel("particles")
        for place, number, resolution in zip(x, y, table["nphResolution"], strict=True):
            axes.annotate(
                f"{resolution:.1f} Å", (place, number), xytext=(6, -3), textcoords="offset points", fontsize=7.5
            )
