"""Figures of a wrong pixel size: CTFs beside each other, their phase error, and the FSC that it leaves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.figures import style

PathLike = str | os.PathLike[str]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CtfPanel:
    """The CTF of the images and the one that is used, at nominal frequencies, and the phase between them (turns)."""

    title: str
    true_ctf: Float64
    used_ctf: Float64
    turns: Float64


def plot_ctf_error(
    frequency: Float64, panels: Sequence[CtfPanel], path: PathLike, *, mark: float | None = None
) -> None:
    """CTFs over spatial frequency, one panel for each way of fitting, and below them the phase error of all.

    Parameters
    ----------
    frequency : [k], 1/A, at the nominal pixel size
    mark : resolution (A) to mark, the finest that a fit used
    """
    with style.drawing(path, style.WIDTH, 1.45 * len(panels) + 2.5) as figure:
        rows = figure.subplots(len(panels) + 1, 1, height_ratios=[*[1.0] * len(panels), 1.1])
        for axes, panel in zip(rows, panels, strict=False):
            axes.plot(frequency, panel.true_ctf, color=style.ORANGE, lw=1.6, label="images (true pixel size)")
            axes.plot(
                frequency, panel.used_ctf, color=style.BLUE, lw=1.2, ls=style.DASHES[1], label="CTF used (nominal)"
            )
            axes.axhline(0, color=style.LIGHT, lw=0.7, zorder=0)
            axes.set(xlim=(0, frequency[-1]), ylim=(-1.15, 1.15), yticks=[-1, 0, 1])
            axes.set_title(panel.title)
            axes.tick_params(labelbottom=False)
            if mark:
                axes.axvline(1 / mark, color=style.GREY, lw=0.8, ls=style.DASHES[2])
        rows[len(panels) // 2].set_ylabel("CTF")
        last = rows[-1]
        for index, panel in enumerate(panels):
            last.plot(
                frequency,
                panel.turns,
                color=style.CYCLE[index],
                ls=style.DASHES[index],
                label=panel.title.split(":")[0],
            )
        for whole in range(-3, 4):
            last.axhline(whole, color=style.LIGHT, lw=0.7, zorder=0)
        last.set(ylim=(-2.1, 1.1), ylabel="phase error (turns)")
        style.resolution_axis(last, float(frequency[-1]))
        if mark:
            last.axvline(1 / mark, color=style.GREY, lw=0.8, ls=style.DASHES[2])
        last.legend(loc="lower left")
        handles, labels = rows[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)


def plot_fsc_error(
    frequency: Float64,
    halves: Mapping[str, Float64],
    truth: Mapping[str, Float64],
    path: PathLike,
    *,
    marks: Sequence[float] = (),
) -> None:
    """FSC of half maps and with the truth, side by side, one curve for each way of fitting.

    Parameters
    ----------
    frequency : [k], 1/A
    marks : resolutions (A) at which the CTFs are in phase again
    """
    with style.drawing(path, style.WIDTH, 3.2) as figure:
        for axes, (title, curves) in zip(
            figure.subplots(1, 2), (("FSC of half maps", halves), ("FSC with the true object", truth)), strict=True
        ):
            for index, (name, curve) in enumerate(curves.items()):
                axes.plot(
                    frequency[1:],
                    curve[1:],
                    color=(style.VERMILION, style.BLUE)[index % 2],
                    ls=style.DASHES[index],
                    label=name,
                )
            axes.axhline(0, color=style.GREY, lw=0.7, zorder=0)
            for mark in marks:
                axes.axvline(1 / mark, color=style.GREY, lw=0.8, ls=style.DASHES[2])
            axes.set(ylim=(-1.05, 1.05))
            style.resolution_axis(axes, float(frequency[-1]))
            axes.set_ylabel(title)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
