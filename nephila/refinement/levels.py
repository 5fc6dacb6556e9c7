"""What single groups, micrographs and particles differ in: noise spectrum, noise level, amplitude, and how crowded their view is.

All of it follows from what the last iteration's references left of the images, and enters the next sums: a particle of the noise
power `s^2(k) g(k) f` (overall, its group's factor, its micrograph's) and the amplitude a adds `a C X / (s^2 g f)` to the data and
`a^2 C^2 / (s^2 g f)` to the weights, which is the optimal Wiener filter's sum. Few measurements are shrunk towards "no difference".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.kernels.residual import shell_counts
from nephila.refinement.noise import NoiseSum
from nephila.symmetry import point_group_matrices
from nephila.views import view_bins

Float64 = npt.NDArray[np.float64]

PRIOR = 3.0
"""What is measured on m particles counts as measured on m and this many more that show no difference: noise levels of groups and
micrographs are taken to differ by about 0.2, those of particles by 0.3, and the square of their ratio is 2.25."""
SAMPLES_PRIOR = 50.0
"""So many more again by samples of the shell: a power has the relative error sqrt(2 / samples), against the same 0.2."""
FACTORS = (0.1, 10.0)
SCALES = (0.5, 2.0)
LEAST_PARTICLES = 50
"""Fewer do not tell how far amplitudes spread."""
PER_BIN = 30
"""Particles in a bin of views on average, so that chance does not look like a crowd."""
MOST_RINGS = 12
LEVEL, FITTED, ERROR = "nphNoiseFit", "nphScaleFit", "nphScaleError"
"""What an iteration measures: residual power over the overall spectrum; amplitude of the reference's projection; its error."""
NOISE, SCALE, VIEW = "nphNoiseLevel", "nphScale", "nphViewWeight"
"""Columns that the sums use."""


def group_factors(noise: Mapping[int, NoiseSum], overall: Mapping[int, Float64]) -> dict[int, Float64]:
    """Noise spectrum of each defocus group over the overall one, by shell, within FACTORS.

    The ratio counts m / (m + PRIOR + SAMPLES_PRIOR / samples) for a group of m particles, the rest is 1.

    noise : by group; overall : by group, the spectrum that all images of its kind share, by the same shells
    """
    factors: dict[int, Float64] = {}
    for number in sorted(noise):
        part, common = noise[number], overall[number]
        if part.particles == 0 or len(part.residual) != len(common):
            continue
        ratio = part.noise / common
        ratio[0] = ratio[1]  # the mean of an image tells nothing
        share = part.particles / (part.particles + PRIOR + SAMPLES_PRIOR / shell_counts(2 * (len(common) - 1)))
        factors[number] = np.clip(1 + share * (ratio - 1), *FACTORS).round(5)
    return factors


def micrograph_levels(particles: pd.DataFrame) -> dict[str, float]:
    """Noise power of each micrograph over its group's: the median over its m particles, within FACTORS.

    Its difference from 1 counts m / (m + PRIOR). The median, so that a few particles on dirt do not speak for the others; the
    levels of a group have the mean 1 over its particles.
    """
    if LEVEL not in particles or not len(particles):
        return {}
    columns = ["nphDefocusGroup", "rlnMicrographName"]
    found = particles.groupby(columns, sort=True)[LEVEL].agg(["median", "size"]).reset_index()
    found = found[found["median"] > 0]
    mean = (found["median"] * found["size"]).groupby(found["nphDefocusGroup"]).transform("sum")
    mean /= found.groupby("nphDefocusGroup")["size"].transform("sum")
    size = found["size"].to_numpy(dtype=np.float64)
    ratio = (found["median"] / mean).to_numpy()
    levels = np.clip(1 + size / (size + PRIOR) * (ratio - 1), *FACTORS)
    return dict(zip(found["rlnMicrographName"].astype(str), levels.round(5).tolist(), strict=True))


def noise_levels(
    table: pd.DataFrame, factors: Mapping[int, Float64], levels: Mapping[str, float], band: int
) -> Float64:
    """Noise power of each particle over the overall spectrum, [m]: its micrograph's level times the mean of its group's factors
    within the band."""
    means = {number: float(curve[1 : band + 1].mean()) for number, curve in factors.items()}
    groups = np.array([means.get(int(number), 1.0) for number in table["nphDefocusGroup"]])
    return groups * micrograph_column(table, levels)


def micrograph_column(table: pd.DataFrame, levels: Mapping[str, float]) -> Float64:
    """Level of each particle's micrograph, [m]; 1 where it is not known."""
    if not levels or "rlnMicrographName" not in table:
        return np.ones(len(table))
    return np.array([levels.get(name, 1.0) for name in table["rlnMicrographName"].astype(str)])


@dataclass(frozen=True)
class Amplitudes:
    """How the particles' amplitudes are distributed: their mean, and their deviation beyond what their errors explain."""

    mean: float = 1.0
    deviation: float = 0.0

    @classmethod
    def measure(cls, particles: pd.DataFrame) -> Amplitudes:
        """From fitted amplitudes and their errors, of particles whose pose is likely to be right."""
        if FITTED not in particles or len(particles) < LEAST_PARTICLES:
            return cls()
        fitted, error = (particles[name].to_numpy(dtype=np.float64) for name in (FITTED, ERROR))
        known = (error > 0) & (certain_poses(particles) > 0.5)
        if known.sum() < LEAST_PARTICLES:
            return cls()
        fitted, error = fitted[known], error[known]
        mean = float(np.median(fitted))
        if mean <= 0:
            return cls()
        spread = 1.4826 * float(np.median(np.abs(fitted - mean)))
        beyond = spread**2 - float(np.median(error**2))
        return cls(round(mean, 6), round(float(np.sqrt(max(beyond, 0.0))) / mean, 6))

    def scales(self, particles: pd.DataFrame) -> Float64:
        """Amplitude of each particle over the mean: the fitted one, shrunk towards 1 by its own error and by how likely its pose
        is wrong, within SCALES."""
        if FITTED not in particles or self.deviation <= 0:
            return np.ones(len(particles))
        fitted, error = (particles[name].to_numpy(dtype=np.float64) / self.mean for name in (FITTED, ERROR))
        trust = np.where(error > 0, self.deviation**2 / (self.deviation**2 + error**2), 0.0) * certain_poses(particles)
        return np.clip(1 + trust * (fitted - 1), *SCALES)


def certain_poses(particles: pd.DataFrame) -> Float64:
    """How likely each particle's pose is right (nphWeight), [m]; 1 where it is not known."""
    return particles["nphWeight"].to_numpy(dtype=np.float64) if "nphWeight" in particles else np.ones(len(particles))


def view_factors(particles: pd.DataFrame, symmetry: str, cap: float | None) -> Float64:
    """Weight by bin of view (`views.view_bins`) that leaves no bin more than `cap` times the mean; none (empty) without a cap.

    A particle counts in all views that the point group makes of its own; opposite directions are the same view.
    """
    if cap is None or not len(particles):
        return np.zeros(0)
    group = point_group_matrices(symmetry)
    rings = int(np.clip(np.sqrt(len(particles) * len(group) / (3 * PER_BIN)), 1, MOST_RINGS))
    counts = np.zeros(3 * rings * rings)
    weights = certain_poses(particles)
    for operator in group:
        counts += np.bincount(view_bins(particles, rings, operator), weights=weights, minlength=len(counts))
    return np.round(np.minimum(1.0, cap * counts.mean() / np.maximum(counts, 1e-9)), 5)


def with_levels(
    table: pd.DataFrame, levels: Mapping[str, float], amplitudes: Amplitudes, views: Float64
) -> pd.DataFrame:
    """The table with the columns that its particles enter sums with: noise level of the micrograph, amplitude, weight of the view
    (this only where there is a cap)."""
    columns = {
        NOISE: micrograph_column(table, levels),
        SCALE: np.round(amplitudes.scales(table), 5),
    }
    return with_view_weights(table.assign(**columns), views)


def with_view_weights(table: pd.DataFrame, views: Float64) -> pd.DataFrame:
    """The table with the weight of each particle's view, in the pose that it states; without that column where there is no cap."""
    if not len(views):
        return table.drop(columns=VIEW, errors="ignore")
    return table.assign(**{VIEW: views[view_bins(table, round(np.sqrt(len(views) / 3)))]})
