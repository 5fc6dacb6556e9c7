"""Defocus: profiles of a group over each other, micrographs and groups by defocus, and spectra beside their fit."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nephila.errors import InputError
from nephila.figures import style

PathLike = str | os.PathLike[str]


def plot_group_profiles(
    frequency: npt.ArrayLike,
    profiles: Mapping[str, npt.ArrayLike],
    path: PathLike,
    *,
    defocus: npt.ArrayLike,
    group_defocus: float,
    wavelength: float,
    group_ctf2: npt.ArrayLike | None = None,
    group: int | None = None,
    deviation: npt.ArrayLike | None = None,
) -> None:
    """Power profiles of a defocus group's micrographs over each other, and the phase error that the group costs.

    Parameters
    ----------
    frequency : [k], 1/A, rising
    profiles : by micrograph, each [k]; background removed and scaled to 0 .. 1 (CTF squared)
    defocus : [number of profiles], A, of each micrograph in the order of `profiles`
    group_defocus : A, the one defocus used for the group
    wavelength : of the electrons, A
    group_ctf2 : [k], optional; CTF squared at the group's defocus
    group : number, for the title
    deviation : [number of profiles], optional; A, from the group in the worst direction; without it that of the mean defocus
    """
    s = np.asarray(frequency, dtype=np.float64)
    values = np.asarray(defocus, dtype=np.float64)
    if not profiles or values.shape != (len(profiles),):
        raise InputError(
            f"{len(profiles)} profiles and {values.size} defocus values; one of each per micrograph is needed"
        )
    style.check_curves([np.asarray(p) for p in profiles.values()], len(s), "profile")
    offsets = values - group_defocus
    apart = np.abs(offsets) if deviation is None else np.asarray(deviation, dtype=np.float64)
    worst = int(np.argmax(apart))
    with style.drawing(path, style.WIDTH, 4.6) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
        order = np.argsort(values, kind="stable")
        span = (float(values.min()), float(values.max()))
        names = list(profiles)
        width = 1.3 if len(names) <= 10 else 0.7
        for index in order:
            place = (values[index] - span[0]) / max(span[1] - span[0], 1.0)
            upper.plot(s, np.asarray(profiles[names[index]]), color=style.SERIES(place), lw=width, alpha=0.85)
        handles = [Line2D([], [], color=style.SERIES(0.3), lw=width, label=style.counted(len(names), "micrograph"))]
        if group_ctf2 is not None:
            style.check_curves([np.asarray(group_ctf2)], len(s), "CTF")
            upper.plot(s, np.asarray(group_ctf2), color=style.BLACK, lw=1.4, ls=style.DASHES[1])
            label = f"CTF² at the group's {group_defocus / 1e4:.3f} µm"
            handles.append(Line2D([], [], color=style.BLACK, ls=style.DASHES[1], lw=1.4, label=label))
        drawn = np.concatenate([np.asarray(p, dtype=np.float64) for p in profiles.values()])
        low, high = style.contrast(drawn, 0.5, 99.5)
        upper.set_ylim(min(-0.1, low), max(1.15, high))
        upper.set_ylabel("power, background removed")
        style.series_scale(figure, upper, span[0] / 1e4, span[1] / 1e4, "defocus (µm)")
        error = 180.0 * wavelength * apart[:, None] * s**2
        lower.plot(s, error.max(axis=0), color=style.VERMILION)
        lower.fill_between(s, 0, error.max(axis=0), color=style.VERMILION, alpha=0.12, lw=0)
        lower.axhline(90, color=style.GREY, lw=0.9, ls=style.DASHES[2])
        lower.set_ylim(0, 180)
        lower.set_yticks([0, 45, 90, 135, 180])
        lower.set_ylabel("phase error (°)")
        style.resolution_axis(upper, float(s[-1]))
        upper.set_xlabel("")
        lower.set_xlabel("spatial frequency (1/Å)")
        limit = np.sqrt(2 * wavelength * apart[worst])
        text = f"{os.path.basename(names[worst])}, {apart[worst]:.0f} Å from the group: "
        text += f"90° at {limit:.3g} Å" if limit > 0 else "no error"
        lower.set_title(f"worst: {text}", fontsize=8, fontweight="normal")
        style.set_title(figure, None if group is None else f"defocus group {group}")
        figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=3)


def plot_defocus_groups(defocus: npt.ArrayLike, group: npt.ArrayLike, path: PathLike) -> None:
    """Histogram of the micrographs' defocus, and under it each group with its micrographs and mean.

    Parameters
    ----------
    defocus : [n], A (mean of both axes)
    group : [n] int
    """
    values, groups = np.asarray(defocus, dtype=np.float64) / 1e4, np.asarray(group).astype(np.int64)
    if values.ndim != 1 or values.shape != groups.shape or len(values) == 0:
        raise InputError(f"{values.size} defocus values and {groups.size} groups; one of each per micrograph is needed")
    numbers = np.unique(groups)
    height = float(np.clip(0.17 * len(numbers), 0.8, 5.5))
    with style.drawing(path, 6.0, 2.0 + height) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.5, height])
        span = max(float(np.ptp(values)), 0.4)
        width = style.nice_length(span / min(max(8.0, np.sqrt(len(values)) * 2), 60))
        edges = np.arange(np.floor(values.min() / width), np.ceil(values.max() / width + 1e-9) + 1) * width
        counts, edges = np.histogram(values, bins=edges if len(edges) > 1 else 1)
        upper.stairs(counts, edges, fill=True, color=style.BLUE, alpha=0.55, lw=0)
        upper.stairs(counts, edges, color=style.BLUE, lw=0.8)
        upper.set_ylabel("micrographs")
        upper.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        upper.set_title(f"{style.counted(len(values), 'micrograph')} in {style.counted(len(numbers), 'defocus group')}")
        colours = {number: (style.BLUE, style.VERMILION)[index % 2] for index, number in enumerate(numbers.tolist())}
        size = float(np.clip(60 * height / len(numbers), 2.0, 4.5))
        for number in numbers.tolist():
            mine = values[groups == number]
            colour = colours[number]
            lower.plot([mine.min(), mine.max()], [number, number], color=colour, lw=1.0, alpha=0.6)
            lower.plot(mine, np.full(len(mine), number), "o", color=colour, ms=size, mew=0, alpha=0.7)
            lower.plot([mine.mean()], [number], "|", color=style.BLACK, ms=2.2 * size, mew=1.0)
            text = f"{number}: {len(mine)}" if len(numbers) <= 40 else ""
            lower.annotate(
                text,
                (mine.max(), number),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color="#4d4d4d",
            )
        lower.set_ylim(numbers.max() + 0.8, numbers.min() - 0.8)
        lower.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        lower.set_ylabel("defocus group")
        lower.set_xlabel("defocus (µm)")
        room = 0.09 * span
        lower.set_xlim(values.min() - room, max(values.max() + room, values.min() + span))
        note = "ticks: mean of the group" + ("; labels: group and its micrographs" if len(numbers) <= 40 else "")
        figure.supxlabel(note, fontsize=7.5, color="#4d4d4d")


def plot_spectrum_halves(
    measured: npt.ArrayLike, fitted: npt.ArrayLike, path: PathLike, *, pixel_size: float, title: str | None = None
) -> None:
    """Power spectrum, measured on the left and fitted on the right (what SPIDER users know as `powchk`).

    Parameters
    ----------
    measured, fitted : [n, n], zero frequency at (n // 2, n // 2); scaled alike (background removed)
    pixel_size : A, of the image that the spectrum was made from
    """
    left, right = np.asarray(measured, dtype=np.float64), np.asarray(fitted, dtype=np.float64)
    if left.ndim != 2 or left.shape[0] != left.shape[1] or left.shape != right.shape:
        raise InputError(f"spectra of shapes {left.shape} and {right.shape}: two square ones of one size are needed")
    n = left.shape[0]
    joined = np.concatenate([_stretched(left)[:, : n // 2], _stretched(right)[:, n // 2 :]], axis=1)
    with style.drawing(path, 3.6, 3.9) as figure:
        axes = figure.subplots()
        half = 0.5 / pixel_size
        axes.imshow(joined, vmin=0, vmax=1, extent=(-half, half, half, -half), interpolation="bilinear")
        style.frame_image(axes)
        axes.set_title(title or "measured | fitted", fontsize=8.5)
        for value in (v for v in (3, 4, 5, 6, 8, 10, 15, 20, 30) if 1 / v < half * 0.98):
            last = 1 / value
            break
        else:
            last = half * 0.9
        angle = np.linspace(0, 2 * np.pi, 181)
        axes.plot(last * np.cos(angle), last * np.sin(angle), color=style.ORANGE, lw=0.9, ls=style.DASHES[2])
        axes.set_xlabel(f"circle: {1 / last:.3g} Å; edge: {1 / half:.3g} Å", fontsize=7.5)


def _stretched(spectrum: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = style.contrast(spectrum, 2, 98)
    return np.clip((spectrum - low) / (high - low), 0, 1)
