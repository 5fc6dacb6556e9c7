"""Particles by view on the hemisphere (`plotrefviews`), and orientations over the iterations (`angdisp`, `angdiff`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection, PolyCollection
from matplotlib.colors import Normalize
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from nephila.errors import InputError
from nephila.figures import style
from nephila.views import AngularDistribution, equal_area_position, fold_to_hemisphere

PathLike = str | os.PathLike[str]


def plot_view_counts(how_many: pd.DataFrame, path: PathLike, *, group: int = 0) -> None:
    """Number of particles per view: bars in the order of the views, and discs on the hemisphere.

    Parameters
    ----------
    how_many : nphDefocusGroup (0 = all), nphView, rlnAngleRot, rlnAngleTilt, nphParticles
    path : .png or .svg
    group : defocus group to show; 0 shows all groups together
    """
    table = _group_rows(how_many, group)
    counts = table["nphParticles"].to_numpy(dtype=np.float64)
    with style.drawing(path, style.WIDTH, 3.4) as figure:
        bars, disc = figure.subplots(1, 2, width_ratios=[1.25, 1])
        bars.bar(table["nphView"], counts, width=1.0 if len(table) > 60 else 0.85, color=style.BLUE, linewidth=0)
        mean = float(counts.mean())
        bars.axhline(mean, color=style.VERMILION, lw=1.2, ls=style.DASHES[1])
        bars.set_xlim(0.3, len(table) + 0.7)
        bars.set_ylim(0, max(float(counts.max()) * 1.06, 1))
        bars.set_xlabel("view")
        bars.set_ylabel("particles")
        bars.xaxis.set_major_locator(MaxNLocator(integer=True))
        bars.yaxis.set_major_locator(MaxNLocator(integer=True))
        name = "all groups" if group == 0 else f"group {group}"
        bars.set_title(f"{style.number_label(counts.sum())} particles, {name}", pad=14)
        empty = int(np.count_nonzero(counts == 0))
        bars.text(
            0,
            1.015,
            f"dashed: mean {mean:.3g} per view; {empty} of {len(table)} views empty",
            transform=bars.transAxes,
            fontsize=7.5,
            color="#4d4d4d",
        )
        _hemisphere(disc, labels=True)
        largest = max(float(counts.max()), 1.0)
        _count_discs(disc, table, largest)
        _disc_key(disc, largest, len(table))


def plot_view_counts_by_group(how_many: pd.DataFrame, path: PathLike) -> None:
    """Discs on the hemisphere for each defocus group, all on one scale of particles per view.

    Parameters
    ----------
    how_many : nphDefocusGroup (0 = all, not shown here), nphView, rlnAngleRot, rlnAngleTilt, nphParticles
    path : .png or .svg
    """
    groups = [int(g) for g in sorted(how_many["nphDefocusGroup"].unique()) if g != 0]
    if not groups:
        raise InputError("the table of views has no defocus group to draw")
    rows, columns = style.panel_grid(len(groups), 10 if len(groups) > 30 else 6 if len(groups) > 4 else 4)
    side = style.WIDTH / max(columns, 3)
    largest = max(float(how_many.loc[how_many["nphDefocusGroup"] != 0, "nphParticles"].max()), 1.0)
    with style.drawing(path, style.WIDTH if columns > 2 else 5.0, rows * (side + 0.12) + 0.35, pad=0.035) as figure:
        panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for panel in panels:
            panel.set_axis_off()
        for panel, group in zip(panels, groups, strict=False):
            table = _group_rows(how_many, group)
            _hemisphere(panel, labels=False)
            _count_discs(panel, table, largest)
            total = style.number_label(table["nphParticles"].sum())
            panel.set_title(f"{group}", fontsize=8, pad=2)
            panel.set_title(total, fontsize=7, loc="right", fontweight="normal", pad=2, color="#4d4d4d")
        figure.supxlabel(
            f"defocus group (bold), its particles; area of a disc = particles of the view, at most {largest:.0f}",
            fontsize=8,
        )


def plot_angular_distributions(distributions: Mapping[Any, AngularDistribution], path: PathLike) -> None:
    """Density of view directions on the hemisphere, for each iteration (or group): SPIDER's `angdisp`.

    Parameters
    ----------
    distributions : by label, in the order of drawing; whole numbers are taken as iterations
    path : .png or .svg
    """
    if not distributions:
        raise InputError("there is no angular distribution to draw")
    rows, columns = style.panel_grid(len(distributions), 4 if len(distributions) <= 12 else 6)
    side = min((style.WIDTH - 0.8) / columns, 2.8)
    # The scale covers nearly all bins; a few crowded ones are shown at its end (the arrow of the bar).
    pooled = np.concatenate([d.density for d in distributions.values()])
    limit = max(2.0, float(np.ceil(np.percentile(pooled, 99.5) * 2) / 2))
    with style.drawing(path, side * columns + 0.8, rows * (1.15 * side + 0.25) + 0.1) as figure:
        panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for panel in panels:
            panel.set_axis_off()
        for panel, (label, distribution) in zip(panels, distributions.items(), strict=False):
            drawn = PolyCollection(_bin_outlines(distribution.bins), array=distribution.density, cmap="cividis")
            drawn.set_norm(Normalize(0, limit))
            drawn.set_edgecolor("face")
            drawn.set_linewidth(0.3)
            panel.add_collection(drawn)
            _hemisphere(panel, labels=columns <= 3, rings=False)
            panel.set_title(f"iteration {label}" if isinstance(label, (int, np.integer)) else str(label), pad=4)
            text = (
                f"{style.number_label(distribution.particles)} particles\ndensest {distribution.density.max():.1f} ×\n"
                f"{distribution.share_empty:.0%} empty"
            )
            bottom = -1.28 if columns <= 3 else -1.08
            panel.text(0, bottom, text, ha="center", va="top", fontsize=7, linespacing=1.3, in_layout=False)
            panel.set_ylim(bottom - 0.6 * max(1.0, 1.5 / side), panel.get_ylim()[1])
        scale = ScalarMappable(norm=Normalize(0, limit), cmap="cividis")
        bar = figure.colorbar(
            scale, ax=panels.tolist(), label="density (1 = even)", extend="max", shrink=0.9, aspect=25
        )
        bar.outline.set_visible(False)


def plot_direction_changes(changes: Mapping[int, pd.DataFrame], path: PathLike, *, moved_by: float) -> None:
    """How orientations and centres moved, by iteration: SPIDER's `angdiff`.

    Parameters
    ----------
    changes : table of `nephila.views.direction_changes` for each iteration (change from the one before)
    path : .png or .svg
    moved_by : degrees beyond which a direction counts as moved
    """
    if not changes:
        raise InputError("there are no changes between iterations to draw")
    iterations = np.array(list(changes))
    shares = [5, 25, 50, 75, 95]
    spread = np.array(
        [np.percentile(t["nphRotationChange"], shares) if len(t) else [np.nan] * 5 for t in changes.values()]
    )
    floor = 0.01
    spread = np.maximum(spread, floor)
    with style.drawing(path, style.WIDTH, 2.7) as figure:
        turned, moved, shifted = figure.subplots(1, 3)
        turned.fill_between(
            iterations, spread[:, 0], spread[:, 4], color=style.BLUE, alpha=0.15, lw=0, label="5 to 95 %"
        )
        turned.fill_between(
            iterations, spread[:, 1], spread[:, 3], color=style.BLUE, alpha=0.3, lw=0, label="25 to 75 %"
        )
        turned.plot(iterations, spread[:, 2], "o-", color=style.BLUE, ms=4, label="median")
        turned.set_yscale("log")
        turned.set_ylim(max(floor, float(np.nanmin(spread)) / 1.5), min(250, float(np.nanmax(spread)) * 1.5))
        turned.yaxis.set_major_formatter("{x:g}")
        turned.set_title("rotation (degrees)")
        moved.plot(
            iterations, [float((t["nphDirectionChange"] > moved_by).mean()) for t in changes.values()], "o-", ms=4
        )
        moved.lines[0].set_color(style.VERMILION)
        moved.set_ylim(0, None)
        moved.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        moved.set_title(f"direction moved by > {moved_by:g}°")
        shifted.plot(iterations, [float(t["nphShiftChange"].mean()) for t in changes.values()], "o-", ms=4)
        shifted.lines[0].set_color(style.GREEN)
        shifted.set_ylim(0, None)
        shifted.set_title("mean shift (Å)")
        for panel in (turned, moved, shifted):
            panel.set_xlabel("iteration")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            panel.grid(axis="y")
        figure.legend(*turned.get_legend_handles_labels(), loc="outside lower left", ncols=3)


def _group_rows(how_many: pd.DataFrame, group: int) -> pd.DataFrame:
    for column in ("nphDefocusGroup", "nphView", "rlnAngleRot", "rlnAngleTilt", "nphParticles"):
        if column not in how_many.columns:
            raise InputError(f"table of views has no column {column}")
    table = how_many[how_many["nphDefocusGroup"] == group]
    if len(table) == 0:
        raise InputError(f"table of views has no rows of group {group}")
    return table


def _hemisphere(axes: Axes, *, labels: bool, rings: bool = True) -> None:
    """Outline of the hemisphere from above the pole, rings of tilt, and directions of rot where there is room."""
    axes.set_aspect("equal")
    axes.set_axis_off()
    room = 1.2 if labels else 1.1
    axes.set_xlim(-1.25 * room if labels else -room, 1.3 * room if labels else room)
    axes.set_ylim(-room, room)
    axes.add_patch(Circle((0, 0), 1, fill=False, ec=style.GREY, lw=0.9, zorder=0.5))
    for tilt in (30, 60) if rings else ():
        radius = float(np.hypot(*equal_area_position(0.0, tilt)))
        axes.add_patch(Circle((0, 0), radius, fill=False, ec=style.LIGHT, lw=0.7, zorder=0.4))
    if labels:
        places = ((1.15, 0, "left", "rot 0°"), (0, 1.13, "center", "90°"), (-1.15, 0, "right", "180°"))
        for x, y, side, text in (*places, (0, -1.13, "center", "270°")):
            axes.text(x, y, text, fontsize=7, ha=side, va="center", color="#4d4d4d")


def _disc_radius(count: npt.ArrayLike, largest: float, views: int) -> npt.NDArray[np.float64]:
    """Radius on the map: the largest count nearly fills its share of the hemisphere."""
    return 1.15 / np.sqrt(max(views, 12)) * np.sqrt(np.asarray(count, dtype=np.float64) / largest)


def _count_discs(axes: Axes, table: pd.DataFrame, largest: float) -> None:
    counts = table["nphParticles"].to_numpy(dtype=np.float64)
    x, y = equal_area_position(*fold_to_hemisphere(table["rlnAngleRot"], table["rlnAngleTilt"]))
    radii = _disc_radius(counts, largest, len(table))
    size = 2 * radii[counts > 0]
    discs = EllipseCollection(
        size,
        size,
        0.0 * size,
        units="xy",
        offsets=np.stack([x, y], axis=1)[counts > 0],
        offset_transform=axes.transData,
    )
    discs.set(facecolor=style.BLUE, edgecolor="white", linewidth=0.25, alpha=0.85, clip_on=False)
    axes.add_collection(discs)
    empty = counts == 0
    if empty.any():
        axes.plot(x[empty], y[empty], "x", color=style.VERMILION, ms=2.2, mew=0.6)


def _disc_key(axes: Axes, largest: float, views: int) -> None:
    """Discs of known size below the map, and the sign for empty views."""
    values = sorted({max(1, int(style.nice_length(largest * f))) for f in (1.0, 0.25)})
    place = -0.95
    for value in values:
        radius = float(_disc_radius(value, largest, views))
        axes.add_patch(Circle((place + radius, -1.38), radius, fc=style.BLUE, alpha=0.85, lw=0))
        axes.text(place + 2 * radius + 0.04, -1.38, f"{value}", fontsize=7.5, va="center")
        place += 2 * radius + 0.42
    axes.plot([place], [-1.38], "x", color=style.VERMILION, ms=3.5, mew=0.8)
    axes.text(place + 0.08, -1.38, "no particles", fontsize=7.5, va="center")
    axes.text(-0.95, -1.6, "circles: tilt 30°, 60°, 90°", fontsize=7.5, va="center", color="#4d4d4d")
    axes.set_ylim(-1.68, 1.2)


def _bin_outlines(bins: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Corners of each bin on the equal-area map, arcs divided into short lines."""
    outlines = []
    for rot_from, rot_to, tilt_from, tilt_to in bins:
        arc = np.linspace(rot_from, rot_to, max(2, int((rot_to - rot_from) / 4) + 2))
        rot = np.concatenate([arc, arc[::-1]])
        tilt = np.repeat([tilt_from, tilt_to], len(arc))
        outlines.append(np.stack(equal_area_position(rot, tilt), axis=1))
    return outlines
