"""Pictures of particles: montages, averages by view, and micrographs with their picks.

Pictures have the first row at the top; a particle at (x, y) px is x to the right of and y below the upper left corner.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.collections import EllipseCollection

from nephila.errors import InputError
from nephila.figures import style

PathLike = str | os.PathLike[str]


def plot_particle_montage(
    images: npt.ArrayLike,
    path: PathLike,
    *,
    pixel_size: float,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    columns: int | None = None,
) -> None:
    """Montage of particle images with common grey levels.

    Parameters
    ----------
    images : [m, n, n]
    pixel_size : A
    labels : [m], optional; short text over each image
    title : optional
    columns : images per row; by default about 4 to 3 in shape
    """
    stack = _stack(images)
    low, high = style.contrast(stack, 0.3, 99.7)
    _montage(stack, path, (low, high), labels, title, columns, pixel_size)


def plot_view_averages(
    averages: npt.ArrayLike,
    counts: npt.ArrayLike,
    path: PathLike,
    *,
    pixel_size: float,
    title: str | None = None,
    columns: int | None = None,
) -> None:
    """Averages (or variances) of the views with the number of particles of each; empty views are left white.

    Parameters
    ----------
    averages : [v, n, n]
    counts : [v] int
    pixel_size : A
    """
    stack, numbers = _stack(averages), np.asarray(counts)
    if numbers.shape != (len(stack),):
        raise InputError(f"{len(stack)} averages and {numbers.size} counts; one count per view is needed")
    filled = numbers > 0
    limits = style.contrast(stack[filled] if filled.any() else stack, 0.5, 99.8)
    shown = np.where(filled[:, None, None], stack, np.nan)
    labels = [f"{view}: {number}" for view, number in enumerate(numbers.tolist(), start=1)]
    _montage(shown, path, limits, labels, title or "view: particles", columns, pixel_size)


def plot_micrograph_picks(
    micrograph: npt.ArrayLike,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    path: PathLike,
    *,
    pixel_size: float,
    diameter: float,
    score: npt.ArrayLike | None = None,
    title: str | None = None,
) -> None:
    """Micrograph with a circle around each particle.

    Parameters
    ----------
    micrograph : [ny, nx]; shown averaged to at most about 1000 px
    x, y : [n], px of the micrograph, centres of the particles
    pixel_size : A
    diameter : of the circles, A
    score : [n], optional; figure of merit, which colours the circles
    """
    image = np.asarray(micrograph, dtype=np.float32)
    px, py = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if image.ndim != 2 or px.ndim != 1 or px.shape != py.shape:
        raise InputError(
            f"micrograph of shape {image.shape} with {px.size} x and {py.size} y coordinates cannot be drawn"
        )
    ny, nx = image.shape
    factor = max(1, -(-max(ny, nx) // 1000))
    small = image[: ny // factor * factor, : nx // factor * factor]
    small = small.reshape(ny // factor, factor, nx // factor, factor).mean(axis=(1, 3))
    # Particles are seen best at about a sixteenth of their diameter per pixel.
    blur = max(1, round(diameter / (16 * pixel_size * factor)))
    shown = _box_blur(small, blur)
    low, high = style.contrast(shown, 0.5, 99.5)
    with style.drawing(path, 5.6, min((5.6 if score is None else 4.8) * ny / nx, 8.0) + 0.45) as figure:
        axes = figure.subplots()
        # Pixel centres are at whole numbers, so the picture's border lies half a pixel outside.
        shape = (small.shape[1] * factor - 0.5, small.shape[0] * factor - 0.5)
        axes.imshow(shown, vmin=low, vmax=high, extent=(-0.5, shape[0], shape[1], -0.5), interpolation="bilinear")
        style.frame_image(axes)
        if len(px):
            size = np.full(len(px), diameter / pixel_size)
            circles = EllipseCollection(
                size, size, 0 * size, units="xy", offsets=np.stack([px, py], axis=1), offset_transform=axes.transData
            )
            circles.set(facecolor="none", linewidth=1.1)
            if score is None:
                circles.set_edgecolor(style.YELLOW)
            else:
                merit = np.asarray(score, dtype=np.float64)
                style.check_curves([merit], len(px), "figure of merit")
                circles.set(array=merit, cmap=style.BRIGHT, clim=style.contrast(merit, 0, 100))
                bar = figure.colorbar(circles, ax=axes, label="figure of merit", shrink=0.7, aspect=30, pad=0.02)
                bar.outline.set_visible(False)
            axes.add_collection(circles, autolim=False)
        axes.set_title(title or "", fontsize=8.5)
        axes.set_title(f"{style.number_label(len(px))} particles", loc="right", fontsize=8, fontweight="normal")
        style.scale_bar(axes, nx, pixel_size, 0.2)


def _montage(
    stack: npt.NDArray[np.floating],
    path: PathLike,
    limits: tuple[float, float],
    labels: Sequence[str] | None,
    title: str | None,
    columns: int | None,
    pixel_size: float,
) -> None:
    """One panel of images on a grid: much faster than an axes object for each."""
    number, n = len(stack), stack.shape[1]
    if labels is not None and len(labels) != number:
        raise InputError(f"{number} images and {len(labels)} labels; one label per image is needed")
    across = columns or int(np.clip(np.ceil(np.sqrt(number * 4 / 3)), min(number, 6), 16))
    down = -(-number // across)
    gap = max(1, n // 24)
    width = min(style.WIDTH, 1.6 * across + 0.2)
    # Room for a line of text, in the pixels of the montage.
    head = 0 if labels is None else max(gap, round(0.15 * across * (n + gap) / width))
    canvas = np.full((down * (n + gap + head), across * (n + gap) - gap), np.nan, dtype=np.float32)
    for index, image in enumerate(stack):
        top, left = (index // across) * (n + gap + head) + head, (index % across) * (n + gap)
        canvas[top : top + n, left : left + n] = image
    height = width * canvas.shape[0] / canvas.shape[1]
    with style.drawing(path, width, height + (0.45 if title else 0.25)) as figure:
        axes = figure.subplots()
        axes.imshow(canvas, vmin=limits[0], vmax=limits[1], interpolation="antialiased")
        style.frame_image(axes)
        size = float(np.clip(0.7 * head * 72 * width / canvas.shape[1], 3.5, 8))
        for index, text in enumerate(labels or ()):
            top, left = (index // across) * (n + gap + head), (index % across) * (n + gap)
            axes.text(left, top + head * 0.55, text, fontsize=size, va="center", ha="left")
        axes.set_title(title or "")
        axes.set_title(f"{n * pixel_size:.4g} Å wide each", loc="right", fontsize=8, fontweight="normal")


def _box_blur(image: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.float32]:
    """Mean over `width` x `width` pixels, borders repeated."""
    if width <= 1:
        return image
    from scipy.ndimage import uniform_filter

    return np.asarray(uniform_filter(image, size=width, mode="nearest"), dtype=np.float32)


def _stack(images: npt.ArrayLike) -> npt.NDArray[np.float32]:
    stack = np.asarray(images, dtype=np.float32)
    if stack.ndim != 3 or len(stack) == 0 or stack.shape[1] != stack.shape[2]:
        raise InputError(f"images of shape {stack.shape}: at least one square image [m, n, n] is needed")
    return stack
