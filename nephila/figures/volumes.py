"""Volumes: central slices in three directions (`slices`), one slice per group, projections and surfaces from three sides.

Pictures have the first row at the top, as RELION and ChimeraX's slice view show them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from nephila.errors import InputError
from nephila.figures import style
from nephila.figures.surface import main_pieces, render_surface

PathLike = str | os.PathLike[str]
_SIDES = (("xy", "x", "y"), ("xz", "x", "z"), ("yz", "y", "z"))


def plot_central_slices(volumes: Mapping[str, npt.ArrayLike], path: PathLike, *, pixel_size: float) -> None:
    """Slices through the centre in the three directions, one row for each volume, grey levels common to a row.

    Parameters
    ----------
    volumes : by name, each [n, n, n] (z, y, x)
    pixel_size : A
    """
    arrays = {name: _cube(volume, name) for name, volume in volumes.items()}
    if not arrays:
        raise InputError("there is no volume to draw")
    with style.drawing(path, 6.6, 0.2 + 2.2 * len(arrays)) as figure:
        panels = figure.subplots(len(arrays), 3, squeeze=False)
        for row, (name, volume) in zip(panels, arrays.items(), strict=True):
            centre = volume.shape[0] // 2
            slices = [volume[centre], volume[:, centre], volume[:, :, centre]]
            _three_pictures(row, slices, name, pixel_size, style.contrast(np.stack(slices)))


def plot_projections(volumes: Mapping[str, npt.ArrayLike], path: PathLike, *, pixel_size: float) -> None:
    """Sums along the three axes, one row for each volume: the map as seen from three sides.

    Parameters
    ----------
    volumes : by name, each [n, n, n] (z, y, x)
    pixel_size : A
    """
    arrays = {name: _cube(volume, name) for name, volume in volumes.items()}
    if not arrays:
        raise InputError("there is no volume to draw")
    with style.drawing(path, 6.6, 0.2 + 2.2 * len(arrays)) as figure:
        panels = figure.subplots(len(arrays), 3, squeeze=False)
        for row, (name, volume) in zip(panels, arrays.items(), strict=True):
            sums = [volume.sum(axis=axis, dtype=np.float64) for axis in (0, 1, 2)]
            _three_pictures(row, sums, name, pixel_size, style.contrast(np.stack(sums), 1.0, 99.9))


def plot_map_views(volume: npt.ArrayLike, path: PathLike, *, pixel_size: float, diameter: float) -> None:
    """The map from three sides: its shaded surface above, its projections below, cut to a little more than the particle.

    Parameters
    ----------
    volume : [n, n, n] (z, y, x)
    pixel_size : A
    diameter : of the particle, A: beyond it lies the solvent, from which the surface's level follows
    """
    whole = _cube(volume, "map")
    level = surface_level(whole, 0.5 * diameter / pixel_size)
    n = len(whole)
    side = int(np.clip(2 * np.ceil(0.58 * diameter / pixel_size), min(n, 16), n))
    first = (n - side) // 2
    cut = slice(first, first + side)
    shown = np.asarray(whole[cut, cut, cut], dtype=np.float32)
    solid = main_pieces(shown, level)
    sums = [whole.sum(axis=axis, dtype=np.float64)[cut, cut] for axis in (0, 1, 2)]
    limits = style.contrast(np.stack(sums), 1.0, 99.9)
    with style.drawing(path, 6.6, 4.5) as figure:
        panels = figure.subplots(2, 3)
        for place, (view, across, down) in enumerate(_SIDES):
            top, below = panels[:, place]
            top.imshow(render_surface(solid, level, view).picture(), interpolation="bilinear")
            top.set_title(view, loc="right", fontsize=8, fontweight="normal")
            below.imshow(sums[place], vmin=limits[0], vmax=limits[1], interpolation="bicubic")
            for panel in (top, below):
                style.frame_image(panel)
            _name_axes(below, across, down)
        panels[0, 0].set_title("surface", fontsize=9)
        panels[1, 0].set_title("projection", fontsize=9)
        style.scale_bar(panels[1, 0], side, pixel_size)


def surface_level(volume: npt.ArrayLike, reach_px: float) -> float:
    """Density at which to draw the surface: 5 robust standard deviations above the solvent beyond `reach_px` from the centre, and
    at least 0.3 of the way from the solvent to the brightest thousandth of the particle."""
    data = np.asarray(volume, dtype=np.float32)
    place = [(np.arange(side) - side // 2).astype(np.float32) ** 2 for side in data.shape]
    radius = np.sqrt(place[0][:, None, None] + place[1][:, None] + place[2])
    inside = data[radius <= reach_px]
    solvent = data[(radius > reach_px) & (radius < min(data.shape) / 2)]
    solvent = solvent if solvent.size >= 50 else data.ravel()
    middle = float(np.median(solvent))
    spread = 1.4826 * float(np.median(np.abs(solvent - middle)))
    peak = float(np.quantile(inside if inside.size else data, 0.999))
    return max(middle + 5 * spread, middle + 0.3 * (peak - middle))


def plot_group_slices(slices: Mapping[int, npt.ArrayLike], path: PathLike, *, pixel_size: float) -> None:
    """Central slices of the defocus groups' volumes side by side, each with grey levels of its own.

    Parameters
    ----------
    slices : by defocus group, [n, n] or a volume [n, n, n] whose central xy slice is taken
    pixel_size : A
    """
    if not slices:
        raise InputError("there is no group volume to draw")
    pictures = {}
    for group, array in slices.items():
        picture = np.asarray(array)
        picture = picture[picture.shape[0] // 2] if picture.ndim == 3 else picture
        if picture.ndim != 2:
            raise InputError(f"slice of group {group} has the shape {np.shape(array)}; an image or a volume is needed")
        pictures[group] = picture
    rows, columns = style.panel_grid(len(pictures), 10 if len(pictures) > 30 else 6)
    side = min(style.WIDTH / columns, 1.8)
    with style.drawing(path, max(side * columns, 3.6), rows * (side + 0.18) + 0.35, pad=0.02) as figure:
        panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for panel in panels:
            panel.set_axis_off()
        for panel, (group, picture) in zip(panels, pictures.items(), strict=False):
            low, high = style.contrast(picture)
            panel.imshow(picture, vmin=low, vmax=high)
            panel.set_title(str(group), fontsize=8, pad=2)
        first = next(iter(pictures.values()))
        width = first.shape[1] * pixel_size
        figure.supxlabel(f"defocus group; each picture is {width:.4g} Å wide, grey levels its own", fontsize=8)


def _three_pictures(
    row: npt.NDArray[np.object_],
    pictures: list[npt.NDArray[np.floating]],
    name: str,
    pixel_size: float,
    limits: tuple[float, float],
) -> None:
    for index, (panel, picture, (side, across, down)) in enumerate(zip(row, pictures, _SIDES, strict=True)):
        panel.imshow(picture, vmin=limits[0], vmax=limits[1], interpolation="bilinear")
        style.frame_image(panel)
        _name_axes(panel, across, down)
        panel.set_title(name if index == 0 else "", fontsize=9)
        panel.set_title(side, loc="right", fontsize=8, fontweight="normal")
        if index == 0:
            style.scale_bar(panel, picture.shape[1], pixel_size)


def _name_axes(axes: Axes, across: str, down: str) -> None:
    """Small arrows' worth of text: which axis runs to the right and which downwards."""
    axes.text(1.0, -0.04, f"{across} →", transform=axes.transAxes, ha="right", va="center", fontsize=7, color="#4d4d4d")
    axes.text(1.02, 0.0, f"{down} ↓", transform=axes.transAxes, ha="left", va="bottom", fontsize=7, color="#4d4d4d")


def _cube(volume: npt.ArrayLike, name: str) -> npt.NDArray[np.floating]:
    array = np.asarray(volume)
    if array.ndim != 3 or min(array.shape) < 1:
        raise InputError(f"{name}: a volume [nz, ny, nx] is needed, this one has the shape {array.shape}")
    return array
