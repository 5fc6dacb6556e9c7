"""Merging of defocus groups by Wiener filters, on sums of Fourier slices or on finished group volumes, and joining of
halves.

On sums, `V = sum_g N_g / (sum_g D_g + R)`: N and D are CTF-weighted data and CTF^2, so that groups fill each other's
zeros and nothing is amplified where all groups have zeros. R is 1 / SNR for a constant SNR, or noise over signal shell
by shell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.finishing import finish, finish_grids, mean_weight_by_shell
from nephila.fourier import frequency_radius_3d, irfftn, rfftn
from nephila.fsc import spectral_snr
from nephila.kernels import gridding
from nephila.partial_sum import PartialSum, views_per_voxel

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

SPIDER_SNR = 3.0


def add_sums(sums: Iterable[PartialSum]) -> PartialSum:
    """Sum over groups, chunks or halves, in a new array. Raises InputError for no sums or different grids."""
    total: PartialSum | None = None
    for part in sums:
        total = part.copy() if total is None else total.add(part)
    if total is None:
        raise InputError("nothing to merge: no sums were given")
    return total


def wiener_merge(
    sums: Sequence[PartialSum],
    symmetry: str = "C1",
    snr: npt.ArrayLike = SPIDER_SNR,
    max_radius: int | None = None,
    threads: int = 1,
) -> Float32:
    """Merge groups: `V = sum N_g / (sum D_g + R)`.

    Args:
        sums: one per group, on the same grid. Particles count by their weights, so large groups count more.
        snr: a number: R = 1 / SNR in units of the mean CTF^2 (SPIDER's form; 3 is its value); or one value per shell
            0 to n // 2, the spectral SNR of the merged map (`signal_to_noise_from_fsc`): R = mean weight / SNR.

    Returns:
        float32 [n, n, n].
    """
    total = add_sums(sums)
    if np.ndim(snr) == 0:
        value = float(np.asarray(snr))
        if not value > 0:
            raise InputError(f"SNR {value}: must be positive; 3 is usual")
        return finish(total, symmetry, 1.0 / value, max_radius=max_radius, threads=threads)
    return finish(total, symmetry, snr=snr, max_radius=max_radius, threads=threads)


def optimal_merge(
    sums: Sequence[PartialSum],
    noise_power: Sequence[npt.ArrayLike],
    signal_power: npt.ArrayLike,
    symmetry: str = "C1",
    max_radius: int | None = None,
    threads: int = 1,
) -> Float32:
    """Wiener filter for groups of unlike noise: `V = sum N_g / s_g^2 / (sum D_g / s_g^2 + 1 / t^2)`.

    Args:
        sums: one per group, inserted without noise weights.
        noise_power: per group, one value per shell 0 to n // 2: mean |noise|^2 of the images' transforms.
        signal_power: per shell: mean |F|^2 of the volume's transform, in the same unit (see `signal_power_from_snr`).

    Returns:
        float32 [n, n, n], zero for sums over no particles.
    """
    if len(sums) != len(noise_power) or not sums:
        raise InputError(f"{len(sums)} sums and {len(noise_power)} noise spectra: one of each per group is needed")
    grid = sums[0].grid
    shells = grid.n // 2 + 1
    signal = _spectrum(signal_power, shells, "signal_power")
    if all(part.particles == 0 for part in sums):
        return np.zeros((grid.n,) * 3, dtype=np.float32)
    side = grid.n_pad
    numerator = np.zeros((side, side, side // 2 + 1), dtype=np.complex64)
    denominator = np.zeros(numerator.shape, dtype=np.float32)
    for part, spectrum in zip(sums, noise_power, strict=True):
        if part.grid != grid:
            raise InputError(f"sums over different grids cannot be merged: {grid} and {part.grid}")
        weights = 1.0 / np.maximum(_spectrum(spectrum, shells, "noise_power"), np.finfo(np.float32).tiny)
        gridding.add_weighted(*part.expand(), _extended(weights), grid.padding, numerator, denominator)
    added = grid.density_per_measurement / np.maximum(signal, 1e-6 * signal.max() + 1e-30)
    return finish_grids(numerator, denominator, grid, symmetry, added, max_radius, threads, count_operators=True)


def signal_power_from_snr(total: PartialSum, snr: npt.ArrayLike, noise_power: npt.ArrayLike = 1.0) -> Float64:
    """Mean |F|^2 of the volume per shell: SNR of the map over the number of measurements, times the noise per
    measurement."""
    measurements = mean_weight_by_shell(total) * total.weight * views_per_voxel(np.arange(total.grid.n // 2 + 1))
    return (
        np.asarray(snr, dtype=np.float64) * np.asarray(noise_power, dtype=np.float64) / np.maximum(measurements, 1e-30)
    )


def signal_to_noise_from_fsc(fsc: npt.ArrayLike, of: str = "whole", first_noise: float | None = 0.143) -> Float64:
    """Spectral SNR per shell for a Wiener filter, from the FSC of two halves.

    Args:
        of: "whole" for the merged map, "half" for one half's.
        first_noise: from the first shell (from 1) below this FSC on, later shells cannot rise above what that shell
            has, so that chance correlations beyond the resolution do not open the filter; None: as measured.
    """
    curve = np.asarray(fsc, dtype=np.float64).copy()
    if first_noise is not None:
        below = np.flatnonzero(curve[1:] < first_noise)
        if len(below):
            start = int(below[0]) + 1
            curve[start:] = np.minimum(curve[start:], np.maximum(curve[start], 0.0))
    return spectral_snr(curve, of)


def join_halves(half1: PartialSum, half2: PartialSum, radius: float) -> tuple[PartialSum, PartialSum]:
    """Give both halves the same sums where |k| <= radius (Fourier px), so that they do not drift apart.

    Each gets the mean of both there (sums of the union, halved), so that regularisers keep their meaning.

    Returns:
        New sums; `radius` 0 or less joins nothing.
    """
    if half1.grid != half2.grid:
        raise InputError(f"halves on different grids cannot be joined: {half1.grid} and {half2.grid}")
    joined = half1.copy(), half2.copy()
    if radius > 0:
        rows = gridding.sphere_rows(half1.grid.radius_cells)
        gridding.join_sums(joined[0].sums, joined[1].sums, rows, radius * half1.grid.padding)
    return joined


def merge_group_volumes(
    volumes: Sequence[npt.ArrayLike],
    ctf_curves: Sequence[npt.ArrayLike],
    particles: Sequence[int],
    snr: float = SPIDER_SNR,
    threads: int = 1,
) -> Float32:
    """SPIDER's merge of group volumes (TF CTS): `V = sum_g a_g c_g V_g / (sum_g a_g c_g^2 + 1 / SNR)`.

    Args:
        volumes: per group, [n, n, n], reconstructed without CTF correction (so V_g = c_g V).
        ctf_curves: per group, the rotationally symmetric CTF at shells 0 to n // 2 (longer curves reach the corners).
        particles: per group; a_g is the group's share.
        snr: constant signal-to-noise ratio; 3 is SPIDER's.

    Returns:
        float32 [n, n, n].
    """
    if not (len(volumes) == len(ctf_curves) == len(particles)) or not len(volumes):
        raise InputError("one volume, one CTF curve and one number of particles per group are needed")
    if not snr > 0 or sum(particles) <= 0:
        raise InputError(f"SNR {snr} and {sum(particles)} particles: both must be positive")
    n = np.asarray(volumes[0]).shape[0]
    radius = frequency_radius_3d(n)
    numerator = np.zeros(radius.shape, dtype=np.complex64)
    denominator = np.full(radius.shape, 1.0 / snr, dtype=np.float32)
    for volume, curve, count in zip(volumes, ctf_curves, particles, strict=True):
        data, values = np.asarray(volume, dtype=np.float32), np.asarray(curve, dtype=np.float64)
        if data.shape != (n, n, n) or len(values) < n // 2 + 1:
            raise InputError(f"group volume {data.shape} with a CTF of {len(values)} shells in a merge at side {n}")
        ctf = np.interp(radius, np.arange(len(values)), values).astype(np.float32)
        share = np.float32(count / sum(particles))
        numerator += share * ctf * rfftn(data, threads)
        denominator += share * ctf * ctf
    return irfftn(numerator / denominator, n, threads)


def _spectrum(values: npt.ArrayLike, shells: int, name: str) -> Float64:
    curve = np.asarray(values, dtype=np.float64)
    curve = np.full(shells, float(curve)) if curve.ndim == 0 else curve
    if curve.shape != (shells,) or not np.isfinite(curve).all() or (curve < 0).any():
        raise InputError(f"{name}: one number, or one per shell 0 to {shells - 1}, not negative, is needed")
    return curve


def _extended(curve: Float64) -> Float64:
    """A curve over shells with two more values for the interpolation beyond the last one."""
    return np.concatenate([curve, curve[-1:], curve[-1:]])
