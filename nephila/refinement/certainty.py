"""How likely each particle's pose is right, from its correlation: particles that fit no better than a wrong pose would weigh less.

What a wrong pose reaches is known from the runners-up: the best correlations at clearly other poses. The correlations of all
particles are taken as a mixture of that distribution and of one for right poses; a particle's weight is its probability of
belonging to the latter. Where all poses are right the two lie far apart, and all weights are 1.

What a wrong pose reaches does not depend on how noisy an image is; how far a right one exceeds it falls as the noise's deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

LEAST_WEIGHT = 0.05
LEAST_PARTICLES = 100
ROUNDS = 60
RANK = 0.3
"""How far the best of several wrong poses lies above the second best, in deviations: 0.78 for independent extremes, less for poses
that were refined by the same noise."""


@dataclass(frozen=True)
class Certainty:
    """Share of right poses, and mean and deviation of the correlations of wrong and of right ones; share 1: weights are 1."""

    share_right: float = 1.0
    wrong_mean: float = 0.0
    wrong_deviation: float = 0.0
    right_mean: float = 0.0
    right_deviation: float = 0.0

    def weights(self, correlation: npt.ArrayLike, level: npt.ArrayLike = 1.0) -> Float64:
        """Probability that the pose is right, at least LEAST_WEIGHT; never falls as the correlation [m] rises.

        level : noise power of the particles over the mean, [m] or one for all
        """
        values = np.asarray(correlation, dtype=np.float64)
        if self.share_right >= 1.0 or self.wrong_deviation <= 0 or self.right_deviation <= 0:
            return np.ones(values.shape)
        # the tails of two Gaussians of different width cross again: beyond either mean the probability stays what it is there
        expected = self.wrong_mean + max(self.right_mean - self.wrong_mean, 0.0) / np.sqrt(level)
        place = np.clip(values, self.wrong_mean, expected)
        right = self.share_right * _normal(place, expected, self.right_deviation)
        wrong = (1 - self.share_right) * _normal(place, self.wrong_mean, self.wrong_deviation)
        return np.maximum(right / np.maximum(right + wrong, 1e-300), LEAST_WEIGHT)


def measure_certainty(correlation: npt.ArrayLike, runner_up: npt.ArrayLike, level: npt.ArrayLike = 1.0) -> Certainty:
    """Fit the mixture to correlations [m]; `runner_up` [m] of the best clearly different poses, 0 where there was none.

    level : as of `Certainty.weights`; `right_mean` is that of level 1
    """
    values, rivals = np.asarray(correlation, dtype=np.float64), np.asarray(runner_up, dtype=np.float64)
    known = np.isfinite(rivals) & (rivals > 0)
    if known.sum() < LEAST_PARTICLES:
        return Certainty()
    deviation = float(rivals[known].std())
    # of a wrong pose's particle the runner-up is only the second best and lies lower
    wrong = float(rivals[known].mean())
    mean, spread, share = float(np.quantile(values, 0.9)), deviation, 0.5
    low = wrong
    sharp = np.broadcast_to(1.0 / np.sqrt(np.asarray(level, dtype=np.float64)), values.shape)
    for _ in range(ROUNDS):
        low = wrong + RANK * deviation * (1 - share)
        mean = max(mean, low + 0.5 * deviation)
        expected = low + (mean - low) * sharp
        right = share * _normal(values, expected, spread)
        probability = right / np.maximum(right + (1 - share) * _normal(values, low, deviation), 1e-300)
        probability = np.where(values < low, 0.0, probability)
        total = float(probability.sum())
        if total < 1.0:
            return Certainty()
        share = float(np.clip(total / len(values), 0.01, 1.0))
        mean = low + float((probability * sharp * (values - low)).sum() / (probability * sharp**2).sum())
        off = values - (low + (mean - low) * sharp)
        spread = max(float(np.sqrt((probability * off**2).sum() / total)), 0.5 * deviation)
    return Certainty(*(round(number, 6) for number in (min(share, 1.0), low, deviation, mean, spread)))


def _normal(values: Float64, mean: float | Float64, deviation: float) -> Float64:
    return np.exp(-0.5 * ((values - mean) / deviation) ** 2) / deviation
