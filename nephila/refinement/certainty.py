"""How likely each particle's pose is right, from its correlation: particles that fit no better than a wrong pose would weigh less.

What a wrong pose reaches is known from the runners-up: the best correlations at clearly other poses. The correlations of all
particles are taken as a mixture of that distribution and of one for right poses; a particle's weight is its probability of
belonging to the latter. Where all poses are right the two lie far apart, and all weights are 1.

Of an object that nearly has a symmetry each particle's runner-up follows its pose's own correlation and is hardly worse: the
mixture takes right poses for wrong ones. There the leads tell, of poses over their own particles' runners-up in units of log
likelihood: of two wrong poses the better one leads by little, so that a set without short leads has no wrong poses.

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

SHORT_LEAD = 1.0
WRONG_LEAD = 2.0
"""Mean lead of wrong poses, whose leads fall off exponentially: 1.9 to 2.7 where the truth was known."""
LEAST_TRUSTED, FULLY_TRUSTED = 0.8, 0.9
"""Share of right poses by their leads, and correlation of runners-up with poses, from which leads begin to count and from which
they count alone. They prove that nearly all poses are right; where some are wrong they do not say how well a particle fits."""


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


def measure_certainty(
    correlation: npt.ArrayLike, runner_up: npt.ArrayLike, level: npt.ArrayLike = 1.0, samples: float = 0.0
) -> Certainty:
    """Fit the mixture to correlations [m]; `runner_up` [m] of the best clearly different poses, 0 where there was none.

    level : as of `Certainty.weights`; `right_mean` is that of level 1
    samples : independent samples compared, as of `share_by_leads`; 0: leads do not count
    """
    values, rivals = np.asarray(correlation, dtype=np.float64), np.asarray(runner_up, dtype=np.float64)
    known = np.isfinite(rivals) & (rivals > 0)
    if known.sum() < LEAST_PARTICLES:
        return Certainty()
    deviation = float(rivals[known].std())
    by_leads = share_by_leads(values, np.where(known, rivals, 0.0), samples) if samples else 0.0
    trust = _trust(by_leads) * _trust(_correlation(values[known], rivals[known]))
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
        found = total / len(values)
        share = float(np.clip(found + trust * max(by_leads - found, 0.0), 0.01, 1.0))
        mean = low + float((probability * sharp * (values - low)).sum() / (probability * sharp**2).sum())
        off = values - (low + (mean - low) * sharp)
        spread = max(float(np.sqrt((probability * off**2).sum() / total)), 0.5 * deviation)
    return Certainty(*(round(number, 6) for number in (min(share, 1.0), low, deviation, mean, spread)))


def share_by_leads(correlation: npt.ArrayLike, runner_up: npt.ArrayLike, samples: float) -> float:
    """Share of right poses, from how few lead their runners-up by little, 0 to 1; [m] each, `runner_up` 0 where there was none.

    samples : independent samples compared, so that `samples` times a squared correlation is a log likelihood
    """
    values, rivals = np.asarray(correlation, dtype=np.float64), np.asarray(runner_up, dtype=np.float64)
    short = (rivals > 0) & (samples * (values**2 - rivals**2) < SHORT_LEAD)
    return float(np.clip(1.0 - short.mean() / -np.expm1(-SHORT_LEAD / WRONG_LEAD), 0.0, 1.0))


def _trust(witness: float) -> float:
    return float(np.clip((witness - LEAST_TRUSTED) / (FULLY_TRUSTED - LEAST_TRUSTED), 0.0, 1.0))


def _correlation(first: Float64, second: Float64) -> float:
    """Of two lists, summed in an order that no number of threads changes; 0 where either is constant."""
    scale = first.std() * second.std()
    return float(((first - first.mean()) * (second - second.mean())).mean() / scale) if scale else 0.0


def _normal(values: Float64, mean: float | Float64, deviation: float) -> Float64:
    return np.exp(-0.5 * ((values - mean) / deviation) ** 2) / deviation
