"""Particles by reference view, and their averages and variances (SPIDER's `select` and `average`).

Views are directions (rot, tilt) of a grid that needs to cover only half the sphere: a particle seen from the other side
belongs to the view of the opposite direction and is mirrored. Aligned particles look as the projection at (rot, tilt,
0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.geometry import euler_matrix, view_direction

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

# Flipping y turns the view to the opposite direction: this times A is the pose of the mirrored image.
_MIRROR = np.diag([1.0, -1.0, -1.0])
# Differences of unit vectors below this count as equal, so that ties go to the unmirrored view on every machine.
_TIE = 1e-9


class ImageSource(Protocol):
    """Images [n, ny, nx], an array or a stack opened lazily: `source[i]` gives image i."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: int, /) -> npt.NDArray[np.floating]: ...


def select_by_view(
    alignment: pd.DataFrame, directions: npt.ArrayLike, symmetry: npt.ArrayLike | None = None
) -> pd.DataFrame:
    """Assign each particle to the nearest view of a grid, seen from in front or, mirrored, from behind.

    Parameters
    ----------
    alignment : rlnAngleRot, rlnAngleTilt, rlnAnglePsi (degrees), one row per particle
    directions : [m, 2], degrees; rot and tilt of the views
    symmetry : [s, 3, 3], optional; rotations that leave the object unchanged (identity included)

    Returns
    -------
    DataFrame with the index of `alignment`: nphView (1 .. m), nphMirrored (0 or 1), nphViewPsi (degrees, in-plane angle
    of the particle, mirrored first where it is mirrored, relative to the view), nphViewDistance (degrees to the view).

    Raises
    ------
    InputError
        A column is missing, an angle is not finite, or the grid is empty.
    """
    # SciPy's k-d tree is slow to import and only needed here.
    from scipy.spatial import cKDTree

    angles = _columns(alignment, ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"))
    grid = _directions(directions)
    matrices = euler_matrix(*angles.T)
    operators = np.eye(3)[None] if symmetry is None else np.asarray(symmetry, dtype=np.float64)
    if operators.ndim != 3 or operators.shape[1:] != (3, 3):
        raise InputError(f"symmetry matrices have the shape {operators.shape}; [s, 3, 3] is needed")
    tree = cKDTree(view_direction(grid[:, 0], grid[:, 1]))
    number = len(alignment)
    nearest = np.full(number, np.inf)
    view = np.zeros(number, dtype=np.int64)
    mirrored = np.zeros(number, dtype=np.int64)
    operator = np.zeros(number, dtype=np.int64)
    for index, rotation in enumerate(operators):
        seen = matrices[:, 2] @ rotation
        for flag, sign in ((0, 1.0), (1, -1.0)):
            distance, found = tree.query(sign * seen)
            better = distance < nearest - _TIE
            nearest[better], view[better] = distance[better], found[better]
            mirrored[better], operator[better] = flag, index
    pose = matrices @ operators[operator]
    pose = np.where((mirrored == 1)[:, None, None], _MIRROR @ pose, pose)
    frames = euler_matrix(grid[view, 0], grid[view, 1], 0.0).reshape(number, 3, 3)
    turn = pose @ np.swapaxes(frames, -1, -2)
    # The rotation about the view's axis that comes closest to the pose: where the direction differs from the view's,
    # above all near the pole, that is not the particle's own psi.
    psi = np.rad2deg(np.arctan2(turn[:, 0, 1] - turn[:, 1, 0], turn[:, 0, 0] + turn[:, 1, 1]))
    return pd.DataFrame(
        {
            "nphView": view + 1,
            "nphMirrored": mirrored,
            "nphViewPsi": psi,
            "nphViewDistance": np.rad2deg(2 * np.arcsin(np.minimum(nearest / 2, 1.0))) if number else nearest,
        },
        index=alignment.index,
    )


def how_many(assignments: pd.DataFrame, group: npt.ArrayLike, directions: npt.ArrayLike) -> pd.DataFrame:
    """Count the particles of each view, for each defocus group and over all (SPIDER's `how_many`).

    Parameters
    ----------
    assignments : table of `select_by_view`
    group : [n] int, defocus group of each particle (1 or more)
    directions : [m, 2], degrees; the grid that the views were assigned from

    Returns
    -------
    DataFrame nphDefocusGroup (0 = all groups, which comes first), nphView, rlnAngleRot, rlnAngleTilt, nphParticles;
    views without particles are listed with 0.
    """
    grid = _directions(directions)
    groups = _groups(group, len(assignments))
    views = _views(assignments, len(grid))
    parts = []
    for number in [0, *np.unique(groups).tolist()]:
        chosen = views if number == 0 else views[groups == number]
        parts.append(
            pd.DataFrame(
                {
                    "nphDefocusGroup": number,
                    "nphView": np.arange(1, len(grid) + 1),
                    "rlnAngleRot": grid[:, 0],
                    "rlnAngleTilt": grid[:, 1],
                    "nphParticles": np.bincount(chosen, minlength=len(grid)),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def align_images(
    images: npt.ArrayLike,
    psi: npt.ArrayLike,
    shift_x_px: npt.ArrayLike,
    shift_y_px: npt.ArrayLike,
    mirrored: npt.ArrayLike = False,
) -> Float32:
    """Centre, mirror where asked and turn images with one interpolation, so that they look as a view at psi = 0.

    With R(psi) the in-plane part of A and o the shift, `aligned(w) = image(R(psi) w - o)`; for a mirrored image
    `aligned(w) = image(flip_y(R(psi) w) - o)`. So the projection at (rot, tilt, psi), moved by -o, becomes the
    projection at (rot, tilt, 0); mirrored with the angle -psi it becomes the one at (rot + 180, 180 - tilt, 0).

    Parameters
    ----------
    images : [n, side, side] or [side, side]
    psi : degrees, scalar or [n]; of `rlnAnglePsi`, or of `nphViewPsi` together with `mirrored`
    shift_x_px, shift_y_px : px, scalar or [n]; rlnOriginXAngst and rlnOriginYAngst over the pixel size
    mirrored : scalar or [n]

    Returns
    -------
    float32, shaped as `images`. Cubic B-splines, exact at whole pixels; the box is periodic, so that corners which come
    from outside hold noise like the rest.
    """
    from scipy.ndimage import spline_filter1d

    from nephila.kernels.averaging import sample_splines

    stack = np.asarray(images, dtype=np.float32)
    shape = stack.shape
    stack = stack[None] if stack.ndim == 2 else stack
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or stack.shape[1] < 4:
        raise InputError(f"images of shape {shape} cannot be aligned; square images of at least 4 px are needed")
    number = len(stack)
    try:
        angle, x, y = (np.broadcast_to(np.asarray(v, np.float64), (number,)) for v in (psi, shift_x_px, shift_y_px))
        flags = np.broadcast_to(np.asarray(mirrored, dtype=bool), (number,))
    except ValueError as error:
        raise InputError(f"psi, shifts and mirrored flags must be single values or {number} values each") from error
    if not (np.isfinite(angle).all() and np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("alignment holds an angle or a shift that is not a number; align these particles again")
    coefficients = np.empty(stack.shape, dtype=np.float32)
    for row, image in enumerate(stack):
        along_y = spline_filter1d(image, 3, axis=0, output=np.float64, mode="grid-wrap")
        coefficients[row] = spline_filter1d(along_y, 3, axis=1, output=np.float64, mode="grid-wrap")
    out = np.empty(stack.shape, dtype=np.float32)
    radians = np.deg2rad(angle)
    sample_splines(
        coefficients, np.cos(radians), np.sin(radians), np.stack([x, y], axis=1), np.where(flags, -1.0, 1.0), out
    )
    return out.reshape(shape)


def average_views(
    images: ImageSource,
    alignment: pd.DataFrame,
    assignments: pd.DataFrame,
    n_views: int,
    *,
    pixel_size: float,
    image_index: npt.ArrayLike | None = None,
    block_size: int = 64,
) -> tuple[Float32, Float32, npt.NDArray[np.int64]]:
    """Average and variance of the aligned particles of each view (SPIDER's `average`), read in blocks.

    Parameters
    ----------
    images : [m, side, side], array or lazily opened stack
    alignment : rlnOriginXAngst, rlnOriginYAngst (A), one row per particle
    assignments : table of `select_by_view`, same rows
    n_views : number of views
    pixel_size : A
    image_index : [n] int, optional; image of each row, counted from 0 (default: row i is image i)
    block_size : images held at once; the result does not depend on it

    Returns
    -------
    averages, variances : float32 [n_views, side, side]; blank (0) for views without particles. The variance is that
        between particles (divisor count - 1), 0 for a single one.
    counts : int64 [n_views]

    Memory: 16 bytes per pixel of each view that has particles, besides the result.
    """
    shape = images.shape
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InputError(f"images of shape {tuple(shape)} cannot be averaged; a stack of square images is needed")
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(f"pixel size {pixel_size} A: must be a positive number")
    if block_size < 1:
        raise InputError(f"block size {block_size}: must be 1 or more")
    if len(alignment) != len(assignments):
        raise InputError(
            f"{len(alignment)} aligned particles but {len(assignments)} assigned to views; use the same table"
        )
    rows = np.arange(len(alignment)) if image_index is None else np.asarray(image_index, dtype=np.int64)
    if rows.shape != (len(alignment),) or (len(rows) and (rows.min() < 0 or rows.max() >= shape[0])):
        raise InputError(f"{len(alignment)} particles do not match a stack of {shape[0]} images; check rlnImageName")
    shifts = _columns(alignment, ("rlnOriginXAngst", "rlnOriginYAngst")) / pixel_size
    psi = _columns(assignments, ("nphViewPsi",))[:, 0]
    mirrored = _columns(assignments, ("nphMirrored",))[:, 0] != 0
    views = _views(assignments, n_views)
    counts = np.bincount(views, minlength=n_views).astype(np.int64)
    occupied = np.flatnonzero(counts)
    slot = np.full(n_views, -1, dtype=np.int64)
    slot[occupied] = np.arange(len(occupied))
    # Particles are added one by one in the order of the table, in double precision: blocks cannot change the result.
    sums = np.zeros((len(occupied), shape[1], shape[2]))
    squares = np.zeros_like(sums)
    for start in range(0, len(rows), block_size):
        block = slice(start, start + block_size)
        read = np.stack([np.asarray(images[int(i)], dtype=np.float32) for i in rows[block]])
        aligned = align_images(read, psi[block], shifts[block, 0], shifts[block, 1], mirrored[block])
        for image, place in zip(aligned.astype(np.float64), slot[views[block]], strict=True):
            sums[place] += image
            squares[place] += image * image
    number = counts[occupied].astype(np.float64)[:, None, None]
    averages = np.zeros((n_views, shape[1], shape[2]), dtype=np.float32)
    variances = np.zeros_like(averages)
    averages[occupied] = sums / number
    spread = np.maximum(squares - sums * sums / number, 0.0) / np.maximum(number - 1, 1)
    variances[occupied] = np.where(number > 1, spread, 0.0)
    return averages, variances, counts


def _columns(table: pd.DataFrame, names: tuple[str, ...]) -> Float64:
    """Columns of a table as float64 [n, len(names)], finite."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise InputError(f"alignment table has no column {missing[0]}; it is needed to sort particles by view")
    values = table[list(names)].to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(f"{names[column]} of particle {row + 1} is {values[row, column]}; align this particle again")
    return values


def _directions(directions: npt.ArrayLike) -> Float64:
    grid = np.asarray(directions, dtype=np.float64)
    if grid.ndim != 2 or grid.shape[1] != 2 or len(grid) == 0 or not np.isfinite(grid).all():
        raise InputError(
            f"directions of shape {grid.shape}: a list of finite (rot, tilt) with at least one view is needed"
        )
    return grid


def _views(assignments: pd.DataFrame, n_views: int) -> npt.NDArray[np.int64]:
    """Views counted from 0."""
    views = _columns(assignments, ("nphView",))[:, 0].astype(np.int64)
    if len(views) and (views.min() < 1 or views.max() > n_views):
        raise InputError(f"nphView runs from {views.min()} to {views.max()}, but there are {n_views} views")
    return views - 1


def _groups(group: npt.ArrayLike, number: int) -> npt.NDArray[np.int64]:
    groups = np.asarray(group)
    if groups.shape != (number,):
        raise InputError(f"{groups.size} defocus groups for {number} particles; one group per particle is needed")
    if number and (not np.issubdtype(groups.dtype, np.number) or not np.isfinite(groups).all() or groups.min() < 1):
        raise InputError("defocus groups must be whole numbers from 1 on (0 stands for all groups together)")
    return groups.astype(np.int64)


def pool_averages(
    stacks: Sequence[ImageSource], counts: npt.ArrayLike, references: ImageSource
) -> tuple[Float32, npt.NDArray[np.float64]]:
    """Averages over all groups, from the groups' averages weighted by their counts, and their correlation with the references.

    Parameters
    ----------
    stacks : by group, [views, n, n] each
    counts : [groups, views], particles in each average
    references : [views, n, n], projections of the reference

    Returns
    -------
    averages : float32 [views, n, n], blank (0) where no particle fell
    correlation : float64 [views], 0 for blank ones
    """
    numbers = np.asarray(counts, dtype=np.float64)
    views, side = references.shape[0], references.shape[1]
    averages = np.zeros((views, side, side), dtype=np.float32)
    correlation = np.zeros(views)
    for view in np.flatnonzero(numbers.sum(axis=0) > 0):
        total = np.zeros((side, side))
        for stack, count in zip(stacks, numbers[:, view], strict=True):
            if count:
                total += count * np.asarray(stack[int(view)], dtype=np.float64)
        averages[view] = total / numbers[:, view].sum()
        a = averages[view] - averages[view].mean()
        b = np.asarray(references[int(view)], dtype=np.float64)
        b = b - b.mean()
        norm = np.sqrt(float((a * a).sum()) * float((b * b).sum()))
        correlation[view] = float((a * b).sum()) / norm if norm > 0 else 0.0
    return averages, correlation


def pool_variances(averages: Sequence[ImageSource], variances: Sequence[ImageSource], counts: npt.ArrayLike) -> Float32:
    """Variance of each view's particles over all groups, from the groups' averages and variances.

    Parameters
    ----------
    averages, variances : by group, [views, n, n] each; variances with the divisor count - 1
    counts : [groups, views], particles in each

    Returns
    -------
    float32 [views, n, n]; 0 for views with fewer than 2 particles
    """
    numbers = np.asarray(counts, dtype=np.float64)
    pooled = np.zeros(averages[0].shape if averages else (0, 0, 0), dtype=np.float32)
    for view in np.flatnonzero(numbers.sum(axis=0) > 1):
        total = squares = np.zeros(pooled.shape[1:])
        for average, variance, count in zip(averages, variances, numbers[:, view], strict=True):
            if count:
                mean = np.asarray(average[int(view)], dtype=np.float64)
                total = total + count * mean
                squares = (
                    squares + (count - 1) * np.asarray(variance[int(view)], dtype=np.float64) + count * mean * mean
                )
        number = numbers[:, view].sum()
        pooled[view] = np.maximum(squares - total * total / number, 0.0) / (number - 1)
    return pooled
