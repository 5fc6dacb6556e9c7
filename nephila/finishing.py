"""From sums of Fourier slices to a volume: symmetry, regularised division, and the window's correction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fourier import centred_irfftn, centred_rfftn, cropped_irfftn, frequency_radius_3d, padded_rfftn
from nephila.kernels import gridding, rotation
from nephila.kernels.kaiser import kaiser_bessel_beta, kaiser_bessel_transform, weight_polynomials
from nephila.normal_equations import NormalEquations
from nephila.partial_sum import WINDOW_WIDTH, GridShape, PartialSum
from nephila.symmetry import grid_cosets, point_group_matrices, subgroup_chain, symmetrise_volume

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]

# More rounds follow the data more closely, fewer average more noise away where views are sparse
_COMPENSATION_ROUNDS = 4
# Cells about the origin that are solved for by least squares, and between which radii the solution fades out
_LOW_CELLS = 20
_LOW_ROUNDS = 20
_BLEND_CELLS = (6.0, 10.0)
# Every cell is taken to have seen a little of nothing, of this share of its shell's mean weight: in a gap between views
# noise would be divided by next to nothing. A smaller share follows noise-free data more closely.
_LEAST_SHARE = 1e-2


def mean_weight_by_shell(partial: PartialSum) -> Float64:
    """Mean of w CTF^2 over particles, per shell 0 to n // 2, as the sums hold it (1 where CTF = 1 and noise weight =
    1)."""
    return _shell_means(partial.expand()[1], partial)


def finish(
    partial: PartialSum,
    symmetry: str = "C1",
    regulariser: npt.ArrayLike | None = None,
    *,
    snr: npt.ArrayLike | None = None,
    max_radius: int | None = None,
    threads: int = 1,
) -> Float32:
    """Reconstruct: `V = F^-1[N / (D' + regulariser)]`, divided by the transform of the gridding window.

    D' is D smoothed such that `h * (D / D') = 1` for a window h three cells wide (density compensation; the object's
    finite extent lets neighbouring cells share their noise).

    Args:
        partial: the sums.
        symmetry: point group that the volume gets; the sums are averaged over its operators.
        regulariser: a number, or one per shell 0 to n // 2, in units of the mean CTF^2 of the particles: 1/3 is the
            Wiener filter for a constant signal-to-noise ratio of 3.
        snr: instead of it: spectral signal-to-noise ratio per shell of these sums (2 FSC / (1 - FSC) of half maps for
            their union); the regulariser is then the shell's mean weight over it, which filters by SNR / (SNR + 1).
        max_radius: largest |k| of the volume, Fourier px.

    Returns:
        float32 [n, n, n]; its projections have the scale of the images. Zero where nothing was measured; all zeros for
        sums over no particles.

    Raises:
        InputError: unknown point group, or curves of the wrong length.
    """
    grid = partial.grid
    radius = grid.max_radius if max_radius is None else min(int(max_radius), grid.max_radius)
    if partial.particles == 0 or partial.weight <= 0:
        point_group_matrices(symmetry)
        return np.zeros((grid.n,) * 3, dtype=np.float32)
    numerator, denominator = partial.expand()
    means = _shell_means(denominator, partial)
    added = partial.expected_density() * regulariser_by_shell(grid.n, regulariser, snr, means)
    return finish_grids(numerator, denominator, grid, symmetry, added, radius, threads)


def finish_grids(
    numerator: Complex64,
    denominator: Float32,
    grid: GridShape,
    symmetry: str,
    added: Float64,
    max_radius: int | None = None,
    threads: int = 1,
) -> Float32:
    """`finish` for sums that stand on the padded grid already; they are overwritten.

    Args:
        added: per shell, what is added to the denominator.
    """
    numerator, denominator, smoothings = symmetrise_sums(numerator, denominator, grid, symmetry)
    total, count = gridding.shell_totals(denominator, grid.padding, grid.n // 2 + 1)
    share = _LEAST_SHARE / (1.0 + _LEAST_SHARE)
    least = total / np.maximum(count, 1.0) * share
    extend = np.r_[0 : grid.n // 2 + 1, grid.n // 2, grid.n // 2]
    radius = grid.max_radius if max_radius is None else min(int(max_radius), grid.max_radius)
    cells = np.interp(np.arange(grid.radius_cells + 1) / grid.padding, np.arange(len(added)), added)
    small = radius * grid.padding < _LOW_CELLS or grid.n_pad < 3 * _LOW_CELLS
    low = None if small else _solve_low_frequencies(numerator, denominator, cells, grid, smoothings)
    gridding.add_to_shells(denominator, 1.0 - share, least[extend], grid.padding)
    weights = np.zeros_like(denominator)
    for step in range(_COMPENSATION_ROUNDS):
        gridding.balance_weights(denominator, weights, step == 0)
    del denominator
    gridding.apply_weights(numerator, weights, added[extend], grid.padding, radius)
    del weights
    if low is not None:
        _blend_low_frequencies(numerator, low)
    volume = cropped_irfftn(numerator, grid.n, threads)
    volume *= _window_correction(grid, smoothings)
    if smoothings > 1:
        volume = _symmetrise_within_band(volume, symmetry, threads)
    return volume


def _symmetrise_within_band(volume: Float32, symmetry: str, threads: int) -> Float32:
    """Mean over the point group up to the last whole shell; the rim beyond it stays as the sums gave it."""
    n = volume.shape[0]
    symmetric = centred_rfftn(symmetrise_volume(volume, point_group_matrices(symmetry), threads=threads), threads)
    rim = frequency_radius_3d(n) > (n - 1) // 2
    symmetric[rim] = centred_rfftn(volume, threads)[rim]
    return centred_irfftn(symmetric, n, threads)


def symmetrise_sums(
    numerator: Complex64, denominator: Float32, grid: GridShape, symmetry: str
) -> tuple[Complex64, Float32, int]:
    """Mean of the sums over a point group; also how many times the window has smoothed them now (1, or 2 after
    rotations)."""
    group = point_group_matrices(symmetry)
    if len(group) == 1:
        return numerator, denominator, 1
    on_grid, rotations = grid_cosets(group)
    radius = min(float(grid.radius_cells), grid.n_pad / 2 - 0.01)  # all but the Nyquist row itself
    source = (numerator, denominator)
    spare = (np.zeros_like(numerator), np.zeros_like(denominator))
    for step in subgroup_chain(on_grid):
        rotation.sum_permuted(*source, step, radius, *spare)
        source, spare = spare, source
    scale = float(len(group))
    smoothings = 1
    if len(rotations) > 1:
        beta = kaiser_bessel_beta(WINDOW_WIDTH, grid.padding)
        taps = weight_polynomials(WINDOW_WIDTH, beta, gridding.DEGREE).astype(np.float32)
        rotation.sum_rotated(*source, rotations, radius, taps, *spare)
        source = spare
        scale *= float(kaiser_bessel_transform(0.0, WINDOW_WIDTH, beta)) ** 3
        smoothings = 2
    factor = np.float32(1.0 / scale)
    source[0][...] *= factor
    source[1][...] *= factor
    return source[0], source[1], smoothings


def _solve_low_frequencies(
    numerator: Complex64, denominator: Float32, added: Float64, grid: GridShape, smoothings: int
) -> Complex64:
    """Least squares for the cells about the origin, where the slices' density is too steep for a division.

    Returns:
        Half transform of side 2 `_LOW_CELLS` on the padded grid's cells, of the volume times the gridding window.
    """
    side = 2 * _LOW_CELLS
    cells = np.arange(-_LOW_CELLS + 1, _LOW_CELLS)
    box = np.ix_(cells, cells, np.arange(_LOW_CELLS))
    low_numerator = np.zeros((side, side, _LOW_CELLS + 1), dtype=np.complex64)
    low_denominator = np.zeros(low_numerator.shape, dtype=np.float32)
    low_numerator[box], low_denominator[box] = numerator[box], denominator[box]
    step = grid.n_pad / side  # voxels per voxel of the coarse volume
    half = int(grid.n / 2 / step)
    window = _window_along(grid, side)[side // 2 - half : side // 2 + half] ** smoothings
    mask = np.ones((2 * half,) * 3, dtype=np.float32)
    rim = min(_LOW_CELLS - 1.0, grid.max_radius * grid.padding)
    equations = NormalEquations(low_numerator, low_denominator, added, rim, window, mask)
    volume = equations.solve(_LOW_ROUNDS, 1e-4)
    along = window.astype(np.float32)
    volume *= along[:, None, None] * along[None, :, None] * along[None, None, :]
    return padded_rfftn(volume, side)


def _window_along(grid: GridShape, side: int) -> Float64:
    """The gridding window's transform over the whole padded field, sampled at `side` points, centred at side // 2."""
    beta = kaiser_bessel_beta(WINDOW_WIDTH, grid.padding)
    return kaiser_bessel_transform((np.arange(side) - side // 2) / side, WINDOW_WIDTH, beta) / grid.window_integral


def _blend_low_frequencies(transform: Complex64, low: Complex64) -> None:
    """Put the solution for low frequencies in place, fading into the division's."""
    outer = int(_BLEND_CELLS[1])
    cells = np.arange(-outer, outer + 1)
    box = np.ix_(cells, cells, np.arange(outer + 1))
    square = (cells**2)[:, None, None] + (cells**2)[None, :, None] + (np.arange(outer + 1) ** 2)[None, None, :]
    share = np.clip((_BLEND_CELLS[1] - np.sqrt(square)) / (_BLEND_CELLS[1] - _BLEND_CELLS[0]), 0.0, 1.0).astype(
        np.float32
    )
    transform[box] += share * (low[box] - transform[box])


def memory_bytes(n: int, padding: float = 2.0, max_radius: int | None = None, sums: int = 1) -> dict[str, int]:
    """Memory that a reconstruction needs, in bytes.

    Args:
        sums: how many `Backprojector`s are filled side by side (halves times groups).

    Returns:
        {"insert": while particles are added, "finish": while one sum becomes a volume, "file": one saved sum}
    """
    grid = GridShape.of(n, padding, max_radius)
    cells = int(gridding.sphere_rows(grid.radius_cells)[-1, -1])
    half = grid.n_pad * grid.n_pad * (grid.n_pad // 2 + 1)
    block = min(512 * 16 * n * (n // 2 + 1), 256 * 2**20)
    return {
        "insert": 24 * cells * sums + 3 * block + 2**26,
        "finish": 24 * cells + 16 * half + 4 * n**3,
        "file": 12 * cells,
    }


def _shell_means(denominator: Float32, partial: PartialSum) -> Float64:
    total, count = gridding.shell_totals(denominator, partial.grid.padding, partial.grid.n // 2 + 1)
    unit = partial.expected_density()
    return np.asarray(total / np.maximum(count, 1.0) / np.where(unit > 0, unit, 1.0))


def regulariser_by_shell(
    n: int, regulariser: npt.ArrayLike | None, snr: npt.ArrayLike | None, means: Float64
) -> Float64:
    """The regulariser per shell, as `finish` takes it or from an SNR and the shells' mean weights."""
    shells = n // 2 + 1
    if snr is not None:
        if regulariser is not None:
            raise InputError("give a regulariser or an SNR, not both")
        ratio = np.broadcast_to(np.asarray(snr, dtype=np.float64), (shells,)) if np.ndim(snr) == 0 else np.asarray(snr)
        if ratio.shape != (shells,) or np.isnan(ratio).any():
            raise InputError(f"SNR: one number, or one per shell 0 to {n // 2} is needed, without NaN")
        # where there is no signal the filter closes; the limit keeps the sums finite
        return np.asarray(means / np.clip(ratio, 1e-6, None), dtype=np.float64)
    curve = np.asarray(0.0 if regulariser is None else regulariser, dtype=np.float64)
    curve = np.broadcast_to(curve, (shells,)) if curve.ndim == 0 else curve
    if curve.shape != (shells,) or not np.isfinite(curve).all() or (curve < 0).any():
        raise InputError(f"regulariser: one number, or one per shell 0 to {n // 2}, not negative, is needed")
    return np.asarray(curve, dtype=np.float64)


def _window_correction(grid: GridShape, smoothings: int) -> Float32:
    along = 1.0 / grid.window_transform() ** smoothings
    return (along[:, None, None] * along[None, :, None] * along[None, None, :]).astype(np.float32)
