"""Curves: FSC (`plotres`, `plotrefres`), resolution by iteration, and histograms of the correlation (`cchistogram`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nephila.errors import InputError
from nephila.figures import style

PathLike = str | os.PathLike[str]
Curve = npt.ArrayLike

# Colour and line of curves by name; other names take the cycle's. The thresholds are those at which resolution is read.
_ROLES: dict[str, tuple[str, Any, float, tuple[float, ...]]] = {
    "half maps": (style.BLUE, "-", 2.0, (0.143, 0.5)),
    "overall": (style.BLUE, "-", 2.0, (0.143, 0.5)),
    "corrected": (style.BLUE, "-", 2.0, (0.143, 0.5)),
    "unmasked": (style.GREEN, style.DASHES[3], 1.4, (0.143, 0.5)),
    "masked": (style.SKY, style.DASHES[1], 1.6, (0.143, 0.5)),
    "randomised": (style.VERMILION, style.DASHES[2], 1.4, ()),
    "truth": (style.BLACK, style.DASHES[1], 1.6, (0.5,)),
    "true poses": (style.PURPLE, style.DASHES[2], 1.4, (0.5,)),
}


def plot_fsc(
    curves: Mapping[str, Curve],
    path: PathLike,
    *,
    pixel_size: float,
    box: int,
    group_curves: Mapping[int, Curve] | None = None,
    title: str | None = None,
) -> None:
    """Fourier shell correlations over spatial frequency, with the resolution on the upper axis.

    Parameters
    ----------
    curves : by name, each [box // 2 + 1], index = Fourier shell; "half maps", "unmasked", "masked", "randomised",
        "corrected", "truth" and "true poses" have fixed colours
    path : .png or .svg
    pixel_size, box : A, px
    group_curves : by defocus group, each [box // 2 + 1]; drawn thin behind, coloured by group
    title : optional
    """
    groups = dict(group_curves or {})
    if not curves and not groups:
        raise InputError("there is no FSC curve to draw")
    frequency = _frequencies(box, pixel_size)
    style.check_curves([np.asarray(c) for c in (*curves.values(), *groups.values())], len(frequency), "FSC curve")
    with style.drawing(path, 5.4 if len(groups) <= 1 else 6.0, 3.9 + 0.17 * len(curves)) as figure:
        axes = figure.subplots()
        _fsc_axes(axes, frequency, [*curves.values(), *groups.values()])
        if groups:
            lines = LineCollection([np.stack([frequency[1:], np.asarray(c)[1:]], axis=1) for c in groups.values()])
            lines.set(
                colors=style.sequence_colours(len(groups)),
                linewidths=0.9 if len(groups) < 20 else 0.6,
                alpha=0.8 if len(groups) < 20 else 0.5,
            )
            axes.add_collection(lines, autolim=False)
            if len(groups) > 1:
                numbers = list(groups)
                style.series_scale(
                    figure, axes, min(numbers), max(numbers), "defocus group", ticks=MaxNLocator(6, integer=True)
                )
        handles = []
        for index, (name, curve) in enumerate(curves.items()):
            colour, line, width, thresholds = _ROLES.get(
                name, (style.CYCLE[index % 7], style.DASHES[index % 7], 1.5, (0.143, 0.5))
            )
            values = np.asarray(curve, dtype=np.float64)
            axes.plot(frequency[1:], values[1:], color=colour, ls=line, lw=width, zorder=3)
            label = f"{name}: {_readings(values, frequency, thresholds)}" if thresholds else name
            handles.append(Line2D([], [], color=colour, ls=line, lw=width, label=label))
        style.set_title(figure, title)
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=1, handlelength=3)


def plot_fsc_by_iteration(curves: Mapping[int, Curve], path: PathLike, *, pixel_size: float, box: int) -> None:
    """FSC of the half maps for each iteration, light to dark: part of SPIDER's `plotrefres`.

    Parameters
    ----------
    curves : by iteration, each [box // 2 + 1], index = Fourier shell
    pixel_size, box : A, px
    """
    if not curves:
        raise InputError("there is no FSC curve to draw")
    frequency = _frequencies(box, pixel_size)
    style.check_curves([np.asarray(c) for c in curves.values()], len(frequency), "FSC curve")
    with style.drawing(path, 6.0, 3.9) as figure:
        axes = figure.subplots()
        _fsc_axes(axes, frequency, list(curves.values()))
        for colour, (number, curve) in zip(style.sequence_colours(len(curves))[::-1], curves.items(), strict=True):
            last = number == max(curves)
            axes.plot(
                frequency[1:], np.asarray(curve)[1:], color=colour, lw=2.2 if last else 1.2, zorder=3 if last else 2
            )
        numbers = list(curves)
        style.series_scale(
            figure, axes, min(numbers), max(numbers), "iteration", reverse=True, ticks=MaxNLocator(8, integer=True)
        )


def plot_fsc_of_runs(curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]], path: PathLike) -> None:
    """FSC of several runs over each other; their boxes and pixel sizes may differ.

    Parameters
    ----------
    curves : by the run's name, spatial frequency (1/A) and FSC, from shell 0 on
    """
    if not curves:
        raise InputError("there is no FSC curve to draw")
    with style.drawing(path, 5.6, 3.9 + 0.17 * len(curves)) as figure:
        axes = figure.subplots()
        finest = max((np.asarray(frequency, dtype=np.float64) for frequency, _ in curves.values()), key=lambda f: f[-1])
        _fsc_axes(axes, finest, [fsc for _, fsc in curves.values()])
        handles = []
        for index, (name, (place, fsc)) in enumerate(curves.items()):
            frequency, values = np.asarray(place, dtype=np.float64), np.asarray(fsc, dtype=np.float64)
            look = {"color": style.CYCLE[index % 7], "ls": style.DASHES[index % 7], "lw": 1.6}
            axes.plot(frequency[1:], values[1:], **look)
            label = f"{name}: {_readings(values, frequency, (0.143, 0.5))}"
            handles.append(Line2D([], [], label=label, **look))
        figure.legend(handles=handles, loc="outside lower center", ncols=1, handlelength=3)


def plot_resolution_by_iteration(resolutions: pd.DataFrame, path: PathLike) -> None:
    """Resolution over the iterations, one line for each column.

    Parameters
    ----------
    resolutions : column `iteration`, and one column per criterion whose name is the legend ("half maps at 0.143", ...),
        resolution in A; missing values are left out
    """
    if "iteration" not in resolutions or len(resolutions.columns) < 2 or len(resolutions) == 0:
        raise InputError(
            "resolution by iteration: a column 'iteration' and at least one column of resolutions are needed"
        )
    names = [name for name in resolutions.columns if name != "iteration"]
    with style.drawing(path, 5.4, 3.3) as figure:
        axes = figure.subplots()
        marks = "osD^vP*"
        values = resolutions[names].to_numpy(dtype=np.float64)
        for index, name in enumerate(names):
            colour, line = style.CYCLE[index % 7], style.DASHES[index % 7]
            mine = values[:, index]
            known = mine[np.isfinite(mine)]
            label = f"{name}: {known[-1]:.3g} Å" if len(known) else name
            axes.plot(
                resolutions["iteration"], mine, color=colour, ls=line, marker=marks[index % 7], ms=4.5, label=label
            )
        axes.set_xlabel("iteration")
        axes.set_ylabel("resolution (Å)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        finite = values[np.isfinite(values)]
        axes.set_ylim(0, (float(finite.max()) if len(finite) else 1.0) * 1.08)
        axes.grid(axis="y")
        figure.legend(loc="outside lower center", ncols=2 if len(names) > 1 else 1, handlelength=3)


def plot_correlation_histograms(
    histograms: pd.DataFrame, path: PathLike, *, thresholds: pd.DataFrame | None = None
) -> None:
    """Histograms of the correlation over all particles and by defocus group, each group with its threshold.

    Parameters
    ----------
    histograms : table of `nephila.thresholds.correlation_histograms`: nphDefocusGroup (0 = all), nphBinStart,
        nphBinEnd, nphParticles
    thresholds : nphDefocusGroup, nphThreshold, nphAbove, nphBelow, nphTotal; optional
    """
    groups = [int(g) for g in sorted(histograms["nphDefocusGroup"].unique()) if g != 0]
    rows, columns = style.panel_grid(len(groups), 4 if len(groups) <= 12 else 6)
    size = style.WIDTH / columns
    lines = {} if thresholds is None else thresholds.set_index("nphDefocusGroup").to_dict("index")
    height = max(0.62 * size, 0.72) if len(groups) > 12 else 0.72 * size if columns > 2 else 1.6
    with style.drawing(path, style.WIDTH, 2.1 + rows * (height + 0.12)) as figure:
        top, below = np.ravel(np.asarray(figure.subfigures(2, 1, height_ratios=[1.9, rows * (height + 0.12)])))
        axes = top.subplots()
        _histogram(axes, histograms[histograms["nphDefocusGroup"] == 0], None)
        axes.set_ylabel("particles")
        axes.set_xlabel("correlation")
        title = "all groups"
        if lines:
            kept, total = (sum(int(line[c]) for line in lines.values()) for c in ("nphAbove", "nphTotal"))
            share = f"{kept / max(total, 1):.1%}"
            title += f": {style.number_label(kept)} of {style.number_label(total)} particles kept ({share})"
            axes.plot(
                [line["nphThreshold"] for line in lines.values()],
                np.zeros(len(lines)),
                "^",
                color=style.VERMILION,
                ms=5,
                mew=0,
                alpha=0.7,
                clip_on=False,
                transform=axes.get_xaxis_transform(),
                zorder=4,
            )
        axes.set_title(title)
        panels = np.atleast_1d(below.subplots(rows, columns, sharex=True)).ravel()
        for place, panel in enumerate(panels):
            if place >= len(groups):
                panel.set_axis_off()
                continue
            group = groups[place]
            line = lines.get(group)
            _histogram(panel, histograms[histograms["nphDefocusGroup"] == group], line)
            panel.set_title(str(group), fontsize=8, pad=2)
            panel.set_yticks([])
            panel.spines["left"].set_visible(False)
            panel.tick_params(labelsize=7, labelbottom=place + columns >= len(groups), length=2.5)
            panel.xaxis.set_major_locator(MaxNLocator(3))
            if line is not None:
                text = f"{line['nphThreshold']:.4f}   {style.number_label(line['nphAbove'])} kept"
                panel.set_title(
                    text if columns < 6 else f"≥ {line['nphThreshold']:.3f}", fontsize=7, loc="right", pad=2
                )
                panel._right_title.set_fontweight("normal")
        note = "correlation; number of the defocus group (bold)"
        if lines:
            note += ", its threshold, and the particles below it (orange); triangles: all thresholds"
        below.supxlabel(note, fontsize=7.5)


def _histogram(axes: Axes, table: pd.DataFrame, line: Mapping[Any, Any] | None) -> None:
    """Filled outline; the part of bins below the threshold in the colour of rejection."""
    if len(table) == 0:
        raise InputError("table of histograms lacks the rows of a group, or those of all groups (group 0)")
    edges = np.append(table["nphBinStart"].to_numpy(), table["nphBinEnd"].iloc[-1])
    counts = table["nphParticles"].to_numpy(dtype=np.float64)
    # Few particles are drawn in wider bins: neighbours are joined, by a power of two.
    while len(counts) % 2 == 0 and len(counts) > max(24.0, 3 * np.sqrt(counts.sum())):
        counts, edges = counts.reshape(-1, 2).sum(axis=1), edges[::2]
    axes.stairs(counts, edges, fill=True, color=style.BLUE, alpha=0.55, lw=0)
    axes.stairs(counts, edges, color=style.BLUE, lw=0.7, baseline=None)
    if line is not None:
        cut = float(line["nphThreshold"])
        share = np.clip(edges, None, max(cut, edges[0]))
        axes.stairs(counts, share, fill=True, color=style.ORANGE, alpha=1.0, lw=0)
        axes.axvline(cut, color=style.VERMILION, lw=1.2)
    axes.set_ylim(0, max(float(counts.max()) * 1.05, 1.0))


def _frequencies(box: int, pixel_size: float) -> npt.NDArray[np.float64]:
    if box < 2 or not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(f"box {box} px and pixel size {pixel_size} A: both must be positive to label an FSC")
    return np.arange(box // 2 + 1) / (box * pixel_size)


def _fsc_axes(axes: Axes, frequency: npt.NDArray[np.float64], curves: list[Curve]) -> None:
    """Axes of an FSC from a little below 0 (deeper where a curve goes there) to 1, with the two thresholds."""
    lowest = min(float(np.nanmin(np.asarray(c)[1:])) for c in curves)
    axes.set_ylim(max(min(-0.06, lowest * 1.1), -0.25), 1.02)
    axes.set_ylabel("Fourier shell correlation")
    style.resolution_axis(axes, float(frequency[-1]))
    axes.axhline(0, color="#4d4d4d", lw=0.8)
    for threshold, text in ((0.5, "0.5"), (0.143, "0.143")):
        axes.axhline(threshold, color=style.GREY, lw=0.8, ls=style.DASHES[2])
        axes.text(
            0.99,
            threshold + 0.03,
            text,
            transform=axes.get_yaxis_transform(),
            fontsize=7,
            ha="right",
            va="center",
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8},
        )


def _readings(curve: npt.NDArray[np.float64], frequency: npt.NDArray[np.float64], thresholds: tuple[float, ...]) -> str:
    """Resolutions in words: the last shell before the curve first falls below a threshold."""
    parts = []
    for threshold in thresholds:
        below = np.flatnonzero(curve[1:] < threshold)
        if len(below) == 0:
            parts.append(f"above {threshold:g} up to {1 / frequency[-1]:.3g} Å")
        elif below[0] == 0:
            parts.append(f"below {threshold:g} from the first shell on")
        else:
            parts.append(f"{1 / frequency[below[0]]:.3g} Å at {threshold:g}")
    return ", ".join(parts)
