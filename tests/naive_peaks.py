"""The obvious slow versions of picking's kernels and of Roseman's local correlation coefficient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def suppress_neighbours_naively(y: npt.ArrayLike, x: npt.ArrayLike, distance: float, at_most: int) -> list[int]:
    """Take points in order, unless one taken before is nearer than `distance`."""
    ys, xs = np.asarray(y, dtype=float), np.asarray(x, dtype=float)
    taken: list[int] = []
    for i in range(len(ys)):
        if len(taken) == at_most:
            break
        if all((ys[i] - ys[j]) ** 2 + (xs[i] - xs[j]) ** 2 >= distance**2 for j in taken):
            taken.append(i)
    return taken


def local_correlation_naively(
    image: npt.NDArray[np.floating], template: npt.NDArray[np.floating], mask: npt.NDArray[np.floating], y: int, x: int
) -> float:
    """Weighted correlation coefficient of `template` with the window of `image` about (y, x), under `mask`."""
    n = template.shape[0]
    window = image[y - n // 2 : y - n // 2 + n, x - n // 2 : x - n // 2 + n].astype(float)
    weight = mask / mask.sum()
    a = template - (weight * template).sum()
    b = window - (weight * window).sum()
    return float((weight * a * b).sum() / np.sqrt((weight * a * a).sum() * (weight * b * b).sum()))
