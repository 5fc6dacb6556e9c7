"""A map's surface as seen along an axis, shaded by its slope and depth: a small renderer of isosurfaces, exact to the pixel.

Viewing along an axis, every ray runs through the same row of voxels in all slices. So slices are resampled by two matrix products
each and compared with the one before; where the density first passes the level, slope and depth are read off between the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Where the light comes from: (right, down, away from the viewer).
LIGHT = np.array([-0.45, -0.55, -0.70])
AMBIENT, DIFFUSE = 0.34, 0.72
COLOUR = np.array([0.36, 0.58, 0.78])
SHADOW = np.array([0.05, 0.09, 0.20])


@dataclass(frozen=True)
class Surface:
    """What a view of a surface is made of.

    Attributes
    ----------
    shade : float32 [side, side], 0 dark to 1 bright
    cover : float32 [side, side], share of the pixel that the surface covers
    """

    shade: Float32
    cover: Float32

    def picture(self) -> Float32:
        """Colours [side, side, 3] on white, 0 to 1."""
        shade = self.shade[..., None]
        light = np.clip(2 * shade - 1, 0, 1)
        colour = SHADOW + (COLOUR - SHADOW) * np.clip(2 * shade, 0, 1)
        colour = colour + (1 - colour) * 0.92 * light
        cover = self.cover[..., None]
        return np.asarray(1 - cover + cover * np.clip(colour, 0, 1), dtype=np.float32)


def toward_viewer(volume: npt.ArrayLike, view: str) -> Float32:
    """The volume (z, y, x) as [away from the viewer, down, right].

    `xy` has x to the right and y down, `xz` x and z, `yz` y and z. The viewer stands where these axes are not mirrored: at
    low z, high y and low x.
    """
    data = np.asarray(volume, dtype=np.float32)
    if data.ndim != 3:
        raise InputError(f"a volume [nz, ny, nx] is needed, this one has the shape {data.shape}")
    if view == "xy":
        return data
    if view == "xz":
        return data.transpose(1, 0, 2)[::-1]
    if view == "yz":
        return data.transpose(2, 0, 1)
    raise InputError(f"view {view!r}: xy, xz or yz")


def main_pieces(volume: npt.ArrayLike, level: float, share: float = 0.05) -> Float32:
    """The volume without specks: what lies more than 2 px from all pieces above the level that have at least `share` of the
    largest one's size is held below the level."""
    from scipy import ndimage

    data = np.asarray(volume, dtype=np.float32)
    labels, count = ndimage.label(data > level)
    if count <= 1:
        return data
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    main = ndimage.binary_dilation((sizes >= share * sizes.max())[labels], iterations=2)
    return np.where(main, data, np.minimum(data, np.float32(0.6 * level)))


def render_surface(volume: npt.ArrayLike, level: float, view: str = "xy", side: int = 300) -> Surface:
    """See the surface at `level` along an axis (orthographic).

    Parameters
    ----------
    volume : [n, n, n] (z, y, x)
    level : density of the surface
    view : xy, xz or yz, as in `toward_viewer`
    side : px of the picture
    """
    slices = toward_viewer(volume, view)
    if len(set(slices.shape)) != 1 or side < 1:
        raise InputError(f"a cubic volume and a side of at least 1 px are needed, not {slices.shape} and {side}")
    fine = 2 * side  # each pixel is the mean of four rays
    depth, slope = _first_crossing(slices, float(level), fine)
    hit = np.isfinite(depth)
    shade = _shade(depth, slope, hit, len(slices))
    cover = _halve(hit.astype(np.float32))
    mean = _halve(np.where(hit, shade, 0).astype(np.float32)) / np.maximum(cover, 1e-6)
    return Surface(np.where(cover > 0, mean, 0).astype(np.float32), cover)


def _first_crossing(slices: Float32, level: float, fine: int) -> tuple[Float32, Float32]:
    """Depth in slices (infinite where nothing is met) and gradient [fine, fine, 3] (right, down, away) of the density there."""
    n = len(slices)
    spread = _cubic_matrix(n, fine)
    depth = np.full((fine, fine), np.inf, dtype=np.float32)
    slope = np.zeros((fine, fine, 3), dtype=np.float32)
    step = 2 * n / fine  # px of the volume between a ray's two neighbours
    before, place = np.zeros((fine, fine), dtype=np.float32), -2
    for index in np.flatnonzero(slices.reshape(n, -1).max(axis=1) > 0.8 * level).tolist():
        if place != index - 1:
            before = spread @ slices[max(index - 1, 0)] @ spread.T
        here = spread @ slices[index] @ spread.T
        rows, columns = np.nonzero((here >= level) & np.isinf(depth))
        if len(rows):
            a, b = before[rows, columns], here[rows, columns]
            share = np.clip((level - a) / np.maximum(b - a, 1e-12), 0, 1)
            depth[rows, columns] = index - 1 + share
            up, down = np.maximum(rows - 1, 0), np.minimum(rows + 1, fine - 1)
            left, right = np.maximum(columns - 1, 0), np.minimum(columns + 1, fine - 1)
            between = np.concatenate([[before], [here]])
            across = between[:, rows, right] - between[:, rows, left]
            along = between[:, down, columns] - between[:, up, columns]
            for axis, change in enumerate((across, along)):
                slope[rows, columns, axis] = ((1 - share) * change[0] + share * change[1]) / step
            slope[rows, columns, 2] = b - a
        before, place = here, index
    return depth, slope


def _shade(depth: Float32, slope: Float32, hit: Bool, n: int) -> Float32:
    """Light on the surface, darker in hollows and further away."""
    if not hit.any():
        return np.zeros_like(depth)
    size = np.linalg.norm(slope, axis=2)
    # density falls outwards: the surface faces against its gradient
    facing = -(slope @ LIGHT.astype(np.float32)) / np.maximum(size, 1e-12) / np.float32(np.linalg.norm(LIGHT))
    known = np.where(hit, depth, 0).astype(np.float32)
    near = float(depth[hit].min())
    weight = _blur(hit.astype(np.float32))
    around = _blur(known) / np.maximum(weight, 1e-3)
    hollow = np.clip((known - around) / (0.06 * n), 0, 1)
    away = np.clip((known - near) / (0.9 * n), 0, 1)
    light = AMBIENT + DIFFUSE * np.clip(facing, 0, None) ** 0.9
    return np.asarray(np.clip(light * (1 - 0.55 * hollow) * (1 - 0.45 * away), 0, 1), dtype=np.float32)


def _blur(image: Float32) -> Float32:
    """Gaussian blur whose deviation is a fortieth of the side."""
    place = np.arange(len(image), dtype=np.float32)
    kernel = np.exp(-0.5 * ((place[:, None] - place) / (len(image) / 40)) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    return np.asarray(kernel @ image @ kernel.T, dtype=np.float32)


def _halve(image: Float32) -> Float32:
    side = len(image) // 2
    return np.asarray(image.reshape(side, 2, side, 2).mean(axis=(1, 3)), dtype=np.float32)


def _cubic_matrix(n: int, fine: int) -> Float32:
    """[fine, n]: Keys' cubic interpolation (a = -0.5) from n samples to `fine` ones over the same length, ends repeated."""
    at = (np.arange(fine) + 0.5) * n / fine - 0.5
    first = np.floor(at).astype(np.int64)
    matrix = np.zeros((fine, n), dtype=np.float32)
    for offset in (-1, 0, 1, 2):
        distance = np.abs(at - (first + offset))
        inner = 1.5 * distance**3 - 2.5 * distance**2 + 1
        outer = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        np.add.at(
            matrix,
            (np.arange(fine), np.clip(first + offset, 0, n - 1)),
            np.where(distance <= 1, inner, np.where(distance < 2, outer, 0)).astype(np.float32),
        )
    return matrix
