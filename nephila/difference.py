"""The difference of two maps, and where it is more than noise.

B is brought to A's sampling, fitted to it in position, given A's amplitudes shell by shell, and subtracted. What is left is
measured in local standard deviations of its own noise, which the half maps of both give; peaks are those that survive control of
the false discovery rate (Benjamini & Yekutieli 2001, Ann. Stat. 29, 1165, for dependent voxels, as in Beckers, Jakobi & Sachse
2019, IUCrJ 6, 18).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.fourier import filter_shells, frequency_radius_3d, irfftn, lowpass, rfftn
from nephila.masks import radius_from_centre
from nephila.resize import resize_volume
from nephila.rigid_fit import fit_volume, transform_volume
from nephila.sharpening import rotational_power

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Halves = tuple[npt.ArrayLike, npt.ArrayLike]


@dataclass(frozen=True)
class MapWithHalves:
    """A map, its pixel size (A), and its independent half maps where they are known."""

    volume: Float32
    pixel_size: float
    halves: Halves | None = None


@dataclass(frozen=True)
class DifferenceSettings:
    """How maps are compared.

    Attributes:
        resolution: A, both maps are low-passed here.
        diameter: A, of the sphere in which they are compared and fitted.
        fit: whether B is moved onto A.
        match: whether B's amplitudes are made A's, shell by shell.
        false_discovery_rate: expected share of false ones among the significant voxels.
    """

    resolution: float
    diameter: float
    fit: bool = True
    match: bool = True
    false_discovery_rate: float = 0.01


@dataclass(frozen=True)
class Difference:
    """A minus B, on A's grid.

    Attributes:
        difference: in A's units; score: in local standard deviations of the noise; both float32 [n, n, n].
        significant: the |score| from which voxels count; None where none does.
        peaks: connected pieces beyond it, largest first: rlnCoordinateX, Y, Z (px, of the extreme), nphScore (signed),
            nphVolume (A^3), nphIntegral (share of A's density in the sphere, signed).
        rotation_deg, shift: how far B was moved (degrees; A, x y z).
        correlation: of A and B in the sphere, after all of this.
    """

    difference: Float32
    score: Float32
    significant: float | None
    peaks: pd.DataFrame
    rotation_deg: float
    shift: Float64
    correlation: float


def compare_maps(a: MapWithHalves, b: MapWithHalves, settings: DifferenceSettings) -> Difference:
    """Compare two maps of the same object.

    Noise comes from the half maps of A and B: their half difference has the noise of the map. It goes through the same
    filters and the same move as the map, and its variance is averaged locally over twice the resolution. Where one has no half
    maps, or neither, the solvent outside the sphere stands for them: a constant.

    Raises:
        InputError: a resolution beyond Nyquist of either map, a sphere that leaves the box, maps that are not cubic or finite.
    """
    volume, n = _checked(a.volume, "A"), len(a.volume)
    if settings.resolution < 2 * max(a.pixel_size, b.pixel_size) * 0.999:
        finest = 2 * max(a.pixel_size, b.pixel_size)
        raise InputError(
            f"resolution {settings.resolution:g} A is beyond Nyquist of these maps; give {finest:g} A or coarser"
        )
    radius = 0.5 * settings.diameter / a.pixel_size
    if not 3 <= radius <= n / 2:
        raise InputError(
            f"a sphere of {settings.diameter:g} A does not fit into A's box of {n} px of {a.pixel_size:g} A: give another diameter"
        )
    inside = radius_from_centre(n) <= radius
    mine = lowpass(volume, a.pixel_size, settings.resolution)
    other = lowpass(_resampled(b.volume, b, a, "B"), a.pixel_size, settings.resolution)
    rotation, shift = np.eye(3), np.zeros(3)
    if settings.fit:
        rotation, shift, _ = fit_volume(other, mine, inside.astype(np.float32))
    factors = np.ones(n // 2 + 1)
    moved = _move(other, rotation, shift)
    if settings.match:
        factors = amplitude_factors(moved, mine, inside)
        moved = filter_shells(moved, factors)
    difference = (mine - moved) * inside
    noise = [_half_difference(part, a, a, settings, None) for part in (a,) if part.halves is not None]
    if b.halves is not None:
        noise.append(_half_difference(b, a, b, settings, (rotation, shift, factors)))
    deviation = _local_deviation(noise, inside, settings.resolution / a.pixel_size, mine - moved, len(noise) == 2)
    score = np.where(inside, difference / deviation, 0).astype(np.float32)
    threshold = significance_threshold(score[inside], settings.false_discovery_rate)
    total = float(np.abs(mine[inside]).sum())
    peaks = find_peaks(score, difference, threshold, a.pixel_size, total)
    return Difference(
        difference.astype(np.float32), score, threshold, peaks, _angle_deg(rotation), shift * a.pixel_size,
        float(np.corrcoef(mine[inside], moved[inside])[0, 1]),
    )  # fmt: skip


def amplitude_factors(moving: Float32, target: Float32, inside: npt.NDArray[np.bool_]) -> Float64:
    """Factor by shell, 0 to n // 2, that gives `moving` the rotationally averaged power of `target`, both within the sphere.

    Powers are smoothed over three shells; a factor is at most 3.
    """
    ours, theirs = (rotational_power(volume * inside) for volume in (moving, target))
    ours, theirs = (
        np.convolve(np.pad(power, 1, mode="edge"), np.ones(3) / 3, mode="valid") for power in (ours, theirs)
    )
    strong = ours > 1e-9 * ours.max()
    return np.clip(np.sqrt(np.divide(theirs, ours, out=np.zeros_like(ours), where=strong)), 0.0, 3.0)


def significance_threshold(scores: npt.ArrayLike, rate: float) -> float | None:
    """Least |score| at which the expected share of false ones among the voxels beyond it is at most `rate`.

    Two-sided normal tails, Benjamini and Yekutieli's procedure, which holds for voxels that depend on each other. None where
    nothing is significant.
    """
    from scipy.special import erfc

    values = np.sort(np.abs(np.asarray(scores, dtype=np.float64)))[::-1]
    number = len(values)
    if number == 0:
        return None
    chance = erfc(values / np.sqrt(2))
    harmonic = np.log(number) + 0.5772156649
    passed = np.flatnonzero(chance <= rate * np.arange(1, number + 1) / (number * harmonic))
    return float(values[passed[-1]]) if len(passed) else None


def find_peaks(
    score: Float32, difference: Float32, threshold: float | None, pixel_size: float, total: float
) -> pd.DataFrame:
    """Connected pieces with |score| at or beyond the threshold, of either sign, by falling volume (see `Difference.peaks`)."""
    from scipy import ndimage

    columns = ["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "nphScore", "nphVolume", "nphIntegral"]
    rows: list[tuple[float, ...]] = []
    for sign in (1, -1):
        if threshold is None:
            break
        labels, count = ndimage.label(sign * score >= threshold)
        index = np.arange(1, count + 1)
        sizes = ndimage.sum_labels(np.ones_like(score), labels, index)
        sums = ndimage.sum_labels(difference, labels, index)
        for (z, y, x), size, integral in zip(
            ndimage.maximum_position(sign * score, labels, index), sizes, sums, strict=True
        ):
            share = float(integral) / total if total > 0 else 0.0
            rows.append((float(x), float(y), float(z), float(score[z, y, x]), float(size) * pixel_size**3, share))
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(["nphVolume", "nphScore"], ascending=False, kind="stable", ignore_index=True)


def _checked(volume: npt.ArrayLike, name: str) -> Float32:
    data = np.asarray(volume, dtype=np.float32)
    if data.ndim != 3 or len(set(data.shape)) != 1 or not np.isfinite(data).all():
        raise InputError(f"map {name}: a cubic volume of finite values is needed, this one has the shape {data.shape}")
    return data


def _resampled(volume: npt.ArrayLike, of: MapWithHalves, to: MapWithHalves, name: str) -> Float32:
    data = _checked(volume, name)
    if len(data) == len(to.volume) and abs(of.pixel_size / to.pixel_size - 1) < 1e-5:
        return data
    return resize_volume(data, of.pixel_size, to.pixel_size, len(to.volume))[0]


def _move(volume: Float32, rotation: Float64, shift: Float64) -> Float32:
    if np.allclose(rotation, np.eye(3)) and not shift.any():
        return volume
    return transform_volume(volume, rotation, shift)


def _half_difference(
    part: MapWithHalves,
    grid: MapWithHalves,
    of: MapWithHalves,
    settings: DifferenceSettings,
    moved: tuple[Float64, Float64, Float64] | None,
) -> Float32:
    """Noise of a map, filtered and moved as the map itself was: half the difference of its halves."""
    assert part.halves is not None
    first, second = (_resampled(half, of, grid, "half map") for half in part.halves)
    noise = lowpass((first - second) / 2, grid.pixel_size, settings.resolution)
    if moved is None:
        return noise
    rotation, shift, factors = moved
    return filter_shells(_move(noise, rotation, shift), factors)


def _local_deviation(
    noise: list[Float32], inside: npt.NDArray[np.bool_], width_px: float, residue: Float32, both: bool
) -> Float32:
    """Standard deviation of the difference's noise about each voxel; that of the solvent where the halves of a map are missing."""
    solvent = residue[~inside & (radius_from_centre(len(inside)) < len(inside) / 2)]
    constant = float(np.mean(np.square(solvent, dtype=np.float64))) if solvent.size >= 100 else 0.0
    if not noise:
        if constant == 0:
            raise InputError("neither half maps nor solvent outside the sphere: give half maps, or a smaller diameter")
        return np.full(inside.shape, np.sqrt(constant), dtype=np.float32)
    variance = np.zeros(inside.shape, dtype=np.float32)
    for part in noise:
        variance += _gaussian_average(part * part, 2 * width_px)
    if not both:
        variance = np.maximum(variance, np.float32(constant))
    floor = 1e-3 * float(variance[inside].mean())
    return np.sqrt(np.maximum(variance, np.float32(max(floor, 1e-30))))


def _gaussian_average(volume: Float32, sigma: float) -> Float32:
    n = len(volume)
    weight = np.exp(-2.0 * (np.pi * sigma / n * frequency_radius_3d(n)) ** 2)
    return irfftn((rfftn(volume) * weight).astype(np.complex64), n)


def _angle_deg(rotation: Float64) -> float:
    return float(np.rad2deg(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1.0, 1.0))))
