"""Pictures of refined optics: observed and fitted phases, displacements, changes of defocus."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from nephila.figures import style

PathLike = str | os.PathLike[str]
Float64 = npt.NDArray[np.float64]

_MAP = "RdBu_r"


def plot_phases(observed: Float64, fitted: Float64, path: PathLike, *, pixel_size: float, title: str) -> None:
    """Phases of an aberration over the Fourier plane: observed, fitted, and what is left.

    Parameters
    ----------
    observed, fitted : [n, n], radians, centred, NaN where there is nothing
    pixel_size : A, of the images
    """
    rest = np.angle(np.exp(1j * (observed - fitted)))
    limit = max(0.2, float(np.nanmax(np.abs(fitted))))
    with style.drawing(path, style.WIDTH, 2.75) as figure:
        panels = figure.subplots(1, 3)
        for axes, values, name, bound in zip(
            panels, (observed, fitted, rest), ("Observed", "Fitted", "Left over"), (limit, limit, limit), strict=True
        ):
            image = _plane(axes, values, bound, pixel_size)
            axes.set_title(name)
            bar = figure.colorbar(image, ax=axes, orientation="horizontal", pad=0.04, aspect=22, shrink=0.9)
            bar.outline.set_visible(False)
            bar.set_label("phase (rad)")
        style.set_title(figure, title)


def plot_displacements(observed: Float64, fitted: Float64, path: PathLike, *, pixel_size: float, title: str) -> None:
    """Displacement of the Fourier samples along x and y, observed and fitted.

    Parameters
    ----------
    observed, fitted : [2, n, n], 1/A, centred, NaN where there is nothing
    """
    noise = float(np.nanpercentile(np.abs(observed), 50))
    limit = 1e3 * max(1.2 * float(np.nanmax(np.abs(fitted))), noise) or 1.0
    with style.drawing(path, 5.4, 5.4) as figure:
        panels = figure.subplots(2, 2)
        for column, (values, name) in enumerate(((observed, "Observed"), (fitted, "Fitted"))):
            for row, axis in enumerate("xy"):
                image = _plane(panels[row, column], 1e3 * values[row], limit, pixel_size)
                panels[row, column].set_title(f"{name}, along {axis}")
        bar = figure.colorbar(image, ax=panels, pad=0.03, aspect=30)
        bar.outline.set_visible(False)
        bar.set_label("displacement (10⁻³ / Å)")
        style.set_title(figure, title)


def plot_defocus_changes(
    defocus: Float64, change: Float64, error: Float64, micrograph: npt.NDArray[np.int64], path: PathLike, *, title: str
) -> None:
    """Change of each particle's defocus over its defocus, coloured by micrograph, and how the changes are distributed.

    Parameters
    ----------
    defocus, change, error : [m], A; micrograph : [m], number of each particle's
    """
    with style.drawing(path, style.WIDTH, 3.0) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[2.2, 1], sharey=True)
        colours = np.array(style.sequence_colours(int(micrograph.max(initial=0)) + 1))
        left.errorbar(defocus / 1e4, change, yerr=error, fmt="none", ecolor=style.LIGHT, lw=0.6, zorder=1)
        left.scatter(defocus / 1e4, change, s=6, c=colours[micrograph], zorder=2)
        left.axhline(0, color=style.GREY, lw=0.7, zorder=0)
        left.set(xlabel="defocus before (µm)", ylabel="change (Å)")
        right.hist(change, bins=min(60, max(10, len(change) // 10)), orientation="horizontal", color=style.BLUE)
        right.set_xlabel("particles")
        style.set_title(figure, title)


def _plane(axes: Axes, values: Float64, limit: float, pixel_size: float) -> AxesImage:
    nyquist = 0.5 / pixel_size
    shown = np.isfinite(values).any(axis=0)
    reach = np.flatnonzero(shown)
    image = axes.imshow(
        values, cmap=_MAP, vmin=-limit, vmax=limit, origin="lower", extent=(-nyquist, nyquist, -nyquist, nyquist)
    )
    if len(reach):
        side = max(abs(reach[0] - len(values) // 2), abs(reach[-1] - len(values) // 2)) + 1
        bound = side / (len(values) // 2) * nyquist
        axes.set(xlim=(-bound, bound), ylim=(-bound, bound))
    style.frame_image(axes)
    return image


def plot_scale(trials: Float64, correlations: Float64, path: PathLike, *, nominal: float, found: float) -> None:
    """Correlation with a model over the pixel size (A), with the nominal one and the best marked."""
    with style.drawing(path, 4.6, 3.0) as figure:
        axes = figure.subplots()
        axes.plot(trials, correlations, color=style.BLUE, marker=".", ms=4, lw=1.2)
        axes.axvline(nominal, color=style.GREY, ls=style.DASHES[2], lw=1, label=f"nominal {nominal:.4g} Å")
        axes.axvline(found, color=style.VERMILION, ls=style.DASHES[1], lw=1, label=f"best {found:.5g} Å")
        axes.set(xlabel="pixel size (Å)", ylabel="correlation with the model")
        axes.legend()
