"""Obvious, slow versions of what `nephila.averaging` computes."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates


def align_image(image, psi, shift_x, shift_y, mirrored):
    """Look up each pixel w of the aligned image at `flip_y(R w) - shift` in the original."""
    n = image.shape[0]
    c, s = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi))
    points = np.empty((2, n, n))
    for y in range(n):
        for x in range(n):
            wx, wy = x - n // 2, y - n // 2
            u, v = c * wx + s * wy, -s * wx + c * wy
            if mirrored:
                v = -v
            points[:, y, x] = v - shift_y + n // 2, u - shift_x + n // 2
    return map_coordinates(image.astype(np.float64), points, order=3, mode="grid-wrap")


def nearest_view(direction, views):
    """Number (from 1) and mirror flag of the view whose axis is closest in angle, from in front first."""
    best, answer = np.inf, (0, 0)
    for mirrored in (0, 1):
        for number, view in enumerate(views, start=1):
            angle = np.arccos(np.clip(np.dot(view, -direction if mirrored else direction), -1, 1))
            if angle < best - 1e-9:
                best, answer = angle, (number, mirrored)
    return answer
