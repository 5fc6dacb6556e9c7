"""The one look of all figures: fonts, colours, axes, scale bars, and files whose bytes depend on the data alone.

Figures are matplotlib's object API on an Agg canvas: no window, no global state. The format follows the suffix of the
path (.png or .svg). Colours are those of Okabe and Ito (2008), which people with colour-blindness tell apart; curves
also differ in line style, so that they survive a black and white print.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from nephila.errors import InputError
from nephila.io.atomic import atomic_path

BLACK, ORANGE, SKY, GREEN = "#1a1a1a", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, LIGHT = "#8c8c8c", "#d9d9d9"
# In the order in which curves take them; yellow is left out, it is too faint for lines on white.
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1)), "-", "-")
WIDTH = 7.0  # inches, the text width of a page
DPI = 160

_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": "#4d4d4d",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": "#4d4d4d",
    "ytick.color": "#4d4d4d",
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "svg.hashsalt": "nephila",
    "svg.fonttype": "path",
    "path.simplify": True,
}


@contextmanager
def drawing(
    path: str | os.PathLike[str], width: float = WIDTH, height: float = 3.6, pad: float = 0.06
) -> Iterator[Figure]:
    """Give an empty figure in the common style and write it to `path` when the block ends without an error.

    Width, height and the margin around panels in inches.

    The file appears whole or not at all; equal data give equal bytes (no date, no version in it).

    Raises
    ------
    InputError
        The suffix is neither .png nor .svg.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".svg"):
        raise InputError(f"{path}: figures are written as .png or .svg; choose one of these endings")
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=pad, h_pad=pad))
        FigureCanvasAgg(figure)
        yield figure
        metadata: dict[str, Any] = {"Software": None} if suffix == ".png" else {"Date": None, "Creator": None}
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=suffix[1:], dpi=DPI, metadata=metadata)


def sequence_colours(number: int) -> list[tuple[float, float, float, float]]:
    """Colours of an ordered series (iterations, defocus), dark to light, the lightest still visible on white."""
    return [tuple(float(c) for c in SERIES(x)) for x in np.linspace(0, 1, max(number, 1))]  # type: ignore[misc]


def _series_map() -> Colormap:
    return ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.86, 256)), name="series")


SERIES = _series_map()
# For signs on grey pictures: its dark end is still seen on black.
BRIGHT = ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0.35, 1.0, 256)), name="bright")


def set_title(figure: Figure, title: str | None) -> None:
    """Title above everything, also above an upper axis and its label."""
    if title:
        figure.suptitle(title, x=0.012, ha="left", fontsize=9.5, fontweight="bold")


def series_scale(
    figure: Figure, axes: Axes, low: float, high: float, label: str, *, reverse: bool = False, **options: Any
) -> None:
    """Colour bar of an ordered series from `low` to `high`; `reverse` makes the end dark."""
    high = high if high > low else low + 1
    mapping = matplotlib.cm.ScalarMappable(norm=Normalize(low, high), cmap=SERIES.reversed() if reverse else SERIES)
    bar = figure.colorbar(mapping, ax=axes, label=label, pad=0.02, aspect=30, **options)
    bar.outline.set_visible(False)


def frame_image(axes: Axes) -> None:
    """Axes of a picture: no ticks, no frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def contrast(image: npt.ArrayLike, low: float = 0.5, high: float = 99.5) -> tuple[float, float]:
    """Grey limits from percentiles of the finite values; never equal."""
    values = np.asarray(image, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    a, b = (float(x) for x in np.percentile(values, [low, high]))
    return (a, b) if b > a else (a - 0.5, a + 0.5)


def nice_length(length: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not greater than `length`."""
    if not length > 0:
        raise InputError(f"length {length}: must be positive")
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(f for f in (1, 2, 5) if f * power <= length * (1 + 1e-9)) * power)


def scale_bar(axes: Axes, width_px: float, pixel_size: float, fraction: float = 0.3) -> None:
    """Bar of a round length below the lower left corner of a picture `width_px` wide (pixel size in A)."""
    length = nice_length(width_px * pixel_size * fraction)
    text = f"{length:g} Å" if length < 1000 else f"{length / 10:g} nm" if length < 10000 else f"{length / 1e4:g} µm"
    transform = axes.transAxes
    share = length / (pixel_size * width_px)
    axes.plot(
        [0, share], [-0.04, -0.04], color=BLACK, lw=2.2, transform=transform, clip_on=False, solid_capstyle="butt"
    )
    axes.text(share + 0.02, -0.04, text, transform=transform, va="center", ha="left", fontsize=7.5)


def panel_grid(number: int, most_columns: int) -> tuple[int, int]:
    """Rows and columns for a number of panels: as few rows as `most_columns` allows, evenly filled."""
    number = max(number, 1)
    rows = -(-number // most_columns)
    return rows, -(-number // rows)


def resolution_axis(axes: Axes, highest_frequency: float) -> None:
    """Label the lower axis in 1/A from 0 on, the upper one with the resolution in A."""
    axes.set_xlim(0, highest_frequency)
    axes.set_xlabel("spatial frequency (1/Å)")
    top = axes.twiny()
    top.set_xlim(0, highest_frequency)
    values = _resolution_ticks(highest_frequency)
    top.set_xticks([1 / value for value in values], [f"{value:g}" for value in values])
    top.set_xlabel("resolution (Å)")
    top.spines["top"].set_visible(True)
    top.patch.set_visible(False)


def _resolution_ticks(highest_frequency: float) -> list[float]:
    """Round resolutions, finest first, spaced so that labels do not meet."""
    decade = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8]
    candidates = [m * 10.0**e for e in range(-1, 5) for m in decade]
    chosen: list[float] = []
    for value in candidates:
        place = 1 / value / highest_frequency
        if place <= 1 + 1e-9 and place >= 0.05 and (not chosen or 1 / chosen[-1] / highest_frequency - place >= 0.085):
            chosen.append(value)
    return chosen


def counted(number: int, noun: str) -> str:
    """`1 group`, `2 groups`."""
    return f"{number_label(number)} {noun}" + ("" if number == 1 else "s")


def number_label(count: float) -> str:
    """Counts with thin spaces between thousands."""
    return f"{count:,.0f}".replace(",", "\u2009")


def check_curves(curves: Sequence[npt.NDArray[Any]], length: int, what: str) -> None:
    """InputError unless all arrays are [length]."""
    for curve in curves:
        if np.shape(curve) != (length,):
            raise InputError(f"{what} of shape {np.shape(curve)}: {length} values are needed")
