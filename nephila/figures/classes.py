"""Figure of 3D classes: what each looks like, how well it is resolved, and how sure the particles are of theirs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.figures import style

MOST_SHOWN = 6


def plot_classes(
    volumes: Sequence[npt.ArrayLike],
    mask: npt.ArrayLike,
    sizes: pd.DataFrame,
    curves: Mapping[int, pd.DataFrame],
    probability: npt.ArrayLike,
    path: str | os.PathLike[str],
    *,
    pixel_size: float,
) -> None:
    """Projections of each class's filtered map along the axes and what it has more (blue) or less (red) than the mean of all;
    below FSC of its half maps, and how the particles' probabilities are distributed.

    Parameters
    ----------
    volumes : of classes 1, 2, ...; mask : 0 to 1; sizes : as `classes.results.class_table`; curves : FSC tables by class
    """
    maps = [np.asarray(volume, dtype=np.float32) for volume in volumes]
    window = np.asarray(mask, dtype=np.float32)
    if not maps or any(volume.shape != window.shape for volume in maps):
        raise InputError("maps of classes and mask differ in shape: there is nothing to draw")
    shares = np.maximum(sizes["nphShare"].to_numpy(dtype=float), 1e-6)
    mean = np.average(maps, axis=0, weights=shares)
    shown = maps[:MOST_SHOWN]
    differences = [((volume - mean) * window).sum(axis=0) for volume in shown]
    reach = max(float(np.abs(difference).max()) for difference in differences) or 1.0
    with style.drawing(path, max(style.WIDTH, 1.5 * len(shown)), 5.6) as figure:
        grid = figure.add_gridspec(3, 2 * len(shown), height_ratios=(1, 1, 1.15))
        for index, (volume, difference) in enumerate(zip(shown, differences, strict=True)):
            place = slice(2 * index, 2 * index + 2)
            upper, lower = figure.add_subplot(grid[0, place]), figure.add_subplot(grid[1, place])
            row = sizes.iloc[index]
            upper.imshow((volume * window).sum(axis=0), cmap="gray", origin="lower")
            upper.set_title(f"{int(row['rlnClassNumber'])}: {row['nphShare']:.0%}, {row['nphResolution']:.1f} Å")
            lower.imshow(difference, cmap="RdBu", vmin=-reach, vmax=reach, origin="lower")
            for axes in (upper, lower):
                style.frame_image(axes)
            if index == 0:
                upper.set_ylabel("along z")
                lower.set_ylabel("less the mean")
                style.scale_bar(upper, len(window), pixel_size)
        left = figure.add_subplot(grid[2, : len(shown)])
        for index, (number, curve) in enumerate(curves.items()):
            left.plot(
                curve["rlnResolution"],
                curve["rlnFourierShellCorrelation"],
                color=style.CYCLE[index % len(style.CYCLE)],
                ls=style.DASHES[index % len(style.DASHES)],
                label=f"class {number}",
            )
        left.axhline(0.143, color=style.GREY, lw=0.8)
        left.set_ylim(-0.1, 1.02)
        left.set_xlabel("spatial frequency (1/Å)")
        left.set_ylabel("FSC of half maps")
        left.legend(loc="upper right")
        right = figure.add_subplot(grid[2, len(shown) :])
        values = np.asarray(probability, dtype=float)
        counts, edges = np.histogram(values, np.linspace(1 / max(len(maps), 2), 1, 21))
        right.bar(
            (edges[:-1] + edges[1:]) / 2, 100 * counts / max(len(values), 1), width=np.diff(edges), color=style.BLUE
        )
        right.set_xlabel("probability of the particle's class")
        right.set_ylabel("particles (%)")
