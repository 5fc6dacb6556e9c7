"""What varies most among particles in known poses, and a first assignment from it.

Probabilistic principal components of the volume seen through projections and CTFs (Tipping & Bishop 1999; for particles
Punjani & Fleet 2021): image = C P (mean + sum z_c U_c) + noise, z normal. Unlike the choice of classes it has no wrong
maxima to end in, so that it needs no lucky start.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nephila.classes.data import Particles, inner_products
from nephila.classes.maps import Support, component_sums, shell_agreement, solve_halves
from nephila.finishing import finish
from nephila.fourier import filter_shells
from nephila.job import logger
from nephila.refinement.merge import STABILISER

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

PASSES = 12
UNFILTERED = 3
"""First passes whose components are not filtered: those of random scores agree nowhere."""
STARTS = 24
LEAST_CLASS = 0.02


def particle_scores(
    particles: Particles, mean: Float32, components: Sequence[Float32], turn: Float64 | None = None
) -> tuple[Float64, Float64]:
    """Scores [m, q] of the components in each particle, and their variances."""
    cross, gram = inner_products(particles, [mean, *components], same_pose=True)
    right = 2 * (cross[:, 1:] - gram[:, 0, 1:])
    precision = 2 * gram[:, 1:, 1:] + np.eye(len(components))
    covariance = np.linalg.inv(precision)
    scores = np.einsum("mij,mj->mi", covariance, right)
    if turn is not None:
        scores, covariance = scores @ turn, turn.T @ covariance @ turn
    return scores, np.einsum("mii->mi", covariance).copy()


def find_components(
    halves: tuple[Particles, Particles],
    means: tuple[Float32, Float32],
    support: Support,
    number: int,
    seed: int,
    threads: int = 1,
) -> Float64:
    """Scores [m1 + m2, number] of the components that vary most; half 1 first. They have variance 1 and are uncorrelated."""
    rng = np.random.default_rng([seed, 6101])
    frame = halves[0].frame
    scores = [rng.standard_normal((len(half), number)) for half in halves]
    variances = [np.zeros((len(half), number)) for half in halves]
    for step in range(PASSES):
        sums = [
            component_sums(half, mean, z, v, threads)
            for half, mean, z, v in zip(halves, means, scores, variances, strict=True)
        ]
        components = []
        for first, second in zip(*sums, strict=True):
            if step >= UNFILTERED:
                fsc = shell_agreement(solve_halves((first, second), frame, threads), support.mask)
            whole = finish(first.copy().add(second), frame.symmetry, STABILISER, threads=threads)
            if step >= UNFILTERED:
                whole = filter_shells(whole, 2 * fsc / (1 + fsc))
            components.append(whole * support.mask)
        found = [particle_scores(half, mean, components) for half, mean in zip(halves, means, strict=True)]
        turn = _whitening(np.concatenate([z for z, _ in found]))
        scores = [z @ turn for z, _ in found]
        variances = [v @ turn**2 for _, v in found]
    joined = np.concatenate(scores)
    logger.info("components: kurtosis %s", np.round((joined**4).mean(axis=0) - 3, 2))
    return joined


def _whitening(scores: Float64) -> Float64:
    """Matrix [q, q] that turns scores [m, q] to variance 1 without correlation, as near to what they are as that allows."""
    values, vectors = np.linalg.eigh(scores.T @ scores / len(scores))
    return (vectors / np.sqrt(np.maximum(values, 1e-12))) @ vectors.T


def cluster_scores(scores: Float64, classes: int, seed: int) -> Float64:
    """First probabilities [m, classes] from scores [m, q]: the likeliest mixture of Gaussians of one covariance, of several starts.

    What varies evenly, as the amplitude does, gains little by being parted; what has several states gains most.
    """
    rng = np.random.default_rng([seed, 6103])
    best, best_likelihood = np.zeros((len(scores), classes)), -np.inf
    for _ in range(STARTS):
        share, likelihood = _mixture(scores, _spread_centres(scores, classes, rng))
        if likelihood > best_likelihood:
            best, best_likelihood = share, likelihood
    return best


def _spread_centres(scores: Float64, classes: int, rng: np.random.Generator) -> Float64:
    """Centres [classes, q], each drawn by its squared distance from those before (k-means++)."""
    centres = [scores[rng.integers(len(scores))]]
    while len(centres) < classes:
        distance = np.min([((scores - centre) ** 2).sum(axis=1) for centre in centres], axis=0) + 1e-12
        centres.append(scores[np.searchsorted(np.cumsum(distance) / distance.sum(), rng.random())])
    return np.array(centres)


def _mixture(scores: Float64, centres: Float64, steps: int = 60) -> tuple[Float64, float]:
    """Probabilities [m, classes] and mean log likelihood of a mixture of Gaussians with one covariance, from given centres."""
    classes, q = len(centres), scores.shape[1]
    covariance, shares = 0.25 * np.eye(q), np.full(classes, 1 / classes)
    for _ in range(steps):
        inverse = np.linalg.inv(covariance)
        apart = scores[:, None] - centres
        distance = np.einsum("mki,ij,mkj->mk", apart, inverse, apart)
        logs = np.log(shares) - 0.5 * distance + 0.5 * np.linalg.slogdet(inverse)[1]
        top = logs.max(axis=1, keepdims=True)
        share = np.exp(logs - top)
        likelihood = float((top[:, 0] + np.log(share.sum(axis=1))).mean())
        share /= share.sum(axis=1, keepdims=True)
        count = np.maximum(share.sum(axis=0), 1e-9)
        centres, shares = share.T @ scores / count[:, None], np.maximum(count / len(scores), LEAST_CLASS)
        apart = scores[:, None] - centres
        covariance = np.einsum("mk,mki,mkj->ij", share, apart, apart) / len(scores) + 0.01 * np.eye(q)
    return share, likelihood
