"""The threshold from the scores of all micrographs: noise and particles as a mixture, cut at the best expected F1.

Noise peaks are maxima, so their scores follow an extreme value distribution (Gumbel, or with a lighter tail), the
same for all micrographs because scores are normalised. Particles' scores are normal, about a mean of each
micrograph's own (defocus and ice change it), drawn together by a prior. Expectation maximisation gives each
candidate its probability of being a particle; those whose inclusion raises the expected F1 = 2 TP / (picked +
particles) are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gamma

from nephila.errors import InputError

Float64 = npt.NDArray[np.float64]

_ROUNDS = 200
_PRIOR_PICKS = 8.0  # a micrograph's own mean and share count from about this many candidates on
_LEAST_SHARE_OF_MEAN = 0.4  # of the particles' mean above the noise's that a micrograph's own must keep
_DIRT_SHARE = 0.003
_SHAPE_LIMITS = (-0.3, 0.05)
_LEAST_SEPARATION = 2.2
_LEAST_PARTICLES = 10.0
_FALSE_PER_MICROGRAPH = 0.5


@dataclass(frozen=True)
class ScoreModel:
    """What the scores say about the candidates.

    threshold : score that a pick must reach, the median over micrographs; thresholds : by micrograph
    probabilities : by micrograph, of each candidate being a particle, in the order given
    expected_precision : by micrograph, mean probability of its picks (1 where it has none to doubt, NaN without picks)
    expected_recall : over all micrographs
    noise_mean, noise_std, particle_mean, particle_std, share : of the two populations; share is that of particles
    reason : "none", or why the threshold does not come from the mixture
    """

    threshold: float
    thresholds: dict[str, float]
    probabilities: dict[str, Float64]
    expected_precision: dict[str, float]
    expected_recall: float
    noise_mean: float
    noise_std: float
    particle_mean: float
    particle_std: float
    share: float
    reason: str


@dataclass
class _Fit:
    location: float
    scale: float
    shape: float
    low: float
    means: Float64
    spread: float
    shares: Float64
    log_gain: float
    posterior: Float64


def fit_score_mixture(
    scores_by_micrograph: Mapping[str, npt.ArrayLike] | Sequence[npt.ArrayLike], dirt_factor: float = 1.8
) -> ScoreModel:
    """Fit the mixture to the candidates' scores of all micrographs (contaminants left out).

    Parameters
    ----------
    scores_by_micrograph : scores [m_i] by micrograph name, or a sequence of them (names "0", "1", ...)
    dirt_factor : scores above this many times the 92nd percentile of the particles' are treated as dirt

    Returns
    -------
    ScoreModel; where the scores do not show two populations, its threshold is the score that noise alone exceeds
    half a time per micrograph, and `reason` says so.

    Raises
    ------
    InputError : a score is NaN
    """
    if not isinstance(scores_by_micrograph, Mapping):
        scores_by_micrograph = {str(i): s for i, s in enumerate(scores_by_micrograph)}
    names = list(scores_by_micrograph)
    parts = [np.asarray(scores_by_micrograph[name], dtype=np.float64).ravel() for name in names]
    scores = np.concatenate(parts) if parts else np.zeros(0)
    if np.isnan(scores).any():
        raise InputError("a picking score is NaN: pick the micrograph again or leave it out")
    owner = np.repeat(np.arange(len(names)), [len(p) for p in parts])
    if len(scores) < 20 or np.ptp(scores) == 0:
        why = f"only {len(scores)} candidates in all: too few for a threshold from their scores"
        return _fallback(names, parts, scores, np.ones(len(scores), dtype=bool), why)
    used = np.ones(len(scores), dtype=bool)
    for _ in range(3):
        fit = _expectation_maximisation(scores[used], owner[used], len(names))
        likely = scores[used][fit.posterior > 0.5]
        if len(likely) < _LEAST_PARTICLES:
            break
        cap = dirt_factor * np.percentile(likely, 92)
        still = scores <= cap
        if (still == used).all():
            break
        used = still
    reason = _doubt(fit, int(used.sum()))
    if reason != "none":
        return _fallback(names, parts, scores, used, reason)
    probability = np.zeros(len(scores))
    probability[used] = _monotonic(scores[used], owner[used], fit.posterior)
    probability[~used] = 0.0
    return _model(names, parts, scores, owner, probability, fit, used)


def _noise_density(scores: Float64, location: float, scale: float, shape: float, low: float) -> Float64:
    """Log density of the generalised extreme value distribution (shape 0: Gumbel's, below 0: it ends above) or, for a
    shape of NaN, of a normal one whose deviation is `scale` above its mode and `low` below."""
    z = (scores - location) / scale
    if np.isnan(shape):
        z = np.where(z < 0, z * scale / low, z)
        return -0.5 * z * z - np.log(0.5 * (scale + low)) - 0.9189385
    if abs(shape) < 1e-6:
        return -np.log(scale) - z - np.exp(-np.maximum(z, -50.0))
    base = 1 + shape * z
    inside = base > 1e-8
    t = np.where(inside, base, 1.0)
    log_t = np.log(t)
    value = -np.log(scale) - (1 + 1 / shape) * log_t - np.exp(np.minimum(-log_t / shape, 50))
    return np.where(inside, value, -700.0)


def _noise_parameters(scores: Float64, weights: Float64, normal: bool = False) -> tuple[float, float, float, float]:
    """Location, scale and shape from weighted L-moments (Hosking 1985); mode and deviation to either side of the normal
    law from weighted quantiles, so that the upper tail is what the upper scores say. `scores` ascending."""
    total = weights.sum()
    if normal:
        shares = (np.cumsum(weights) - 0.5 * weights) / total
        bottom, middle, top = (float(v) for v in np.interp([0.05, 0.5, 0.95], shares, scores))
        least = 1e-6 * max(abs(middle), 1e-12)
        return middle, max((top - middle) / 1.645, least), np.nan, max((middle - bottom) / 1.645, least)
    rank = (np.cumsum(weights) - 0.5 * weights) / total
    b0 = float((weights * scores).sum() / total)
    b1 = float((weights * rank * scores).sum() / total)
    b2 = float((weights * rank**2 * scores).sum() / total)
    l2, l3 = 2 * b1 - b0, 6 * b2 - 6 * b1 + b0
    l2 = max(l2, 1e-12)
    c = 2 / (3 + np.clip(l3 / l2, -0.5, 0.9)) - np.log(2) / np.log(3)
    k = float(np.clip(7.8590 * c + 2.9554 * c * c, -_SHAPE_LIMITS[1], -_SHAPE_LIMITS[0]))
    if abs(k) < 1e-4:
        scale = l2 / np.log(2)
        return b0 - 0.5772156649 * scale, scale, 0.0, np.nan
    scale = float(l2 * k / ((1 - 2.0**-k) * gamma(1 + k)))
    return float(b0 - scale * (1 - gamma(1 + k)) / k), scale, -k, np.nan


def _initial_split(ordered: Float64) -> float:
    """Score that parts the sorted scores into two classes best (Otsu)."""
    n = len(ordered)
    low = np.cumsum(ordered)[:-1]
    count = np.arange(1, n)
    between = (low / count - (ordered.sum() - low) / (n - count)) ** 2 * count * (n - count)
    best = int(between.argmax())
    return 0.5 * float(ordered[best] + ordered[best + 1])


def _expectation_maximisation(scores: Float64, owner: npt.NDArray[np.int64], number: int) -> _Fit:
    """The most likely of the fits from several first splits into noise and particles."""
    order = np.argsort(scores, kind="stable")
    s, who = scores[order], owner[order]
    splits = [_initial_split(np.minimum(s, np.percentile(s, top))) for top in (97.0, 100.0)]
    splits += [float(np.percentile(s, share)) for share in (15.0, 50.0, 90.0)]
    ones = np.ones(len(s))
    alone = max(float(_noise_density(s, *_noise_parameters(s, ones, normal)).sum()) for normal in (False, True))
    # Peaks chosen from many rotations follow an extreme value law, those of a smooth filter's response are nearly
    # normal
    fits = [_climb(s, who, number, split, alone, normal) for split in sorted(set(splits)) for normal in (False, True)]
    # A spike of noise under a few of the lowest scores is likely but no population
    sound = [fit for fit in fits if _noise_moments(fit)[1] > 0.07 * fit.spread and fit.posterior.mean() < 0.96]
    best = max(sound or fits, key=lambda fit: fit.log_gain)
    if not sound:
        # Few particles among much noise: the noise is what the lower half of all scores says, and stays so
        low, middle = np.percentile(s, [25.0, 50.0])
        width = max(float(middle - low) / 0.6745, 1e-12)
        lower_half = (float(middle), width, np.nan, width)
        best = _climb(s, who, number, float(np.percentile(s, 95.0)), alone, True, lower_half)
    back = np.empty_like(best.posterior)
    back[order] = best.posterior
    best.posterior = back
    return best


def _climb(
    s: Float64,
    who: npt.NDArray[np.int64],
    number: int,
    split: float,
    log_alone: float,
    normal: bool,
    held: tuple[float, float, float, float] | None = None,
) -> _Fit:
    """Expectation maximisation from one split; `s` ascending, `who` each score's micrograph, `held` a noise kept as
    it is."""
    posterior = np.where(s > split, 0.95, 0.02)
    noise_weight = 1 - posterior
    counts = np.bincount(who, minlength=number).astype(np.float64)
    log_dirt = np.log(_DIRT_SHARE / max(float(s[-1] - s[0]), 1e-12))
    previous = -np.inf
    for _ in range(_ROUNDS):
        noise = held or _noise_parameters(s, noise_weight + 1e-9, normal)
        weight = np.bincount(who, posterior, minlength=number)
        mean = float((posterior * s).sum() / max(posterior.sum(), 1e-9))
        share = float(posterior.mean())
        means = (np.bincount(who, posterior * s, minlength=number) + _PRIOR_PICKS * mean) / (weight + _PRIOR_PICKS)
        # Of a micrograph without particles the noise must not become their population
        means = np.maximum(means, noise[0] + _LEAST_SHARE_OF_MEAN * max(mean - noise[0], 0.0))
        shares = np.clip((weight + _PRIOR_PICKS * share) / (counts + _PRIOR_PICKS), 1e-4, 1 - 1e-4)
        variance = float((posterior * (s - means[who]) ** 2).sum() / max(posterior.sum(), 1e-9))
        # Not narrower than the noise: a spike on a few equal scores is no population
        spread = float(max(np.sqrt(variance), noise[1]))
        log_noise = np.log1p(-shares[who]) + _noise_density(s, *noise)
        z = (s - means[who]) / spread
        log_signal = np.log(shares[who]) - 0.5 * z * z - np.log(spread) - 0.9189385
        log_sum = np.logaddexp(np.logaddexp(log_noise, log_signal), log_dirt)
        # A candidate is not likelier a particle for a lower score: below its mode the noise counts as at the mode
        low_noise = np.log1p(-shares[who]) + _noise_density(np.maximum(s, noise[0]), *noise)
        log_other = np.logaddexp(low_noise, log_dirt)
        posterior = np.exp(log_signal - np.logaddexp(log_other, log_signal))
        noise_weight = np.exp(log_noise - log_sum) * (1 - posterior)
        value = float(log_sum.sum())
        if abs(value - previous) < 1e-7 * len(s):
            break
        previous = value
    # For the same reason a particle above its micrograph's mean counts as at the mean
    flat = np.where(z > 0, np.log(shares[who]) - np.log(spread) - 0.9189385, log_signal)
    posterior = np.exp(flat - np.logaddexp(low_noise, flat))
    return _Fit(*noise, means, spread, shares, value - log_alone, posterior)


def _noise_moments(fit: _Fit) -> tuple[float, float]:
    k = -fit.shape
    if np.isnan(k):
        apart = fit.scale - fit.low
        variance = (1 - 2 / np.pi) * apart**2 + fit.scale * fit.low
        return float(fit.location + np.sqrt(2 / np.pi) * apart), float(np.sqrt(variance))
    if abs(k) < 1e-6:
        return fit.location + 0.5772156649 * fit.scale, float(np.pi / np.sqrt(6) * fit.scale)
    g1, g2 = gamma(1 + k), gamma(1 + 2 * k)
    return float(fit.location + fit.scale * (1 - g1) / k), float(fit.scale / abs(k) * np.sqrt(max(g2 - g1 * g1, 1e-30)))


def _doubt(fit: _Fit, count: int) -> str:
    """Why the mixture is not believed; "none" where it is."""
    mean, spread = _noise_moments(fit)
    particles = float(fit.posterior.sum())
    centre = float(np.average(fit.means, weights=fit.shares))
    separation = (centre - mean) / np.sqrt(0.5 * (spread**2 + fit.spread**2))
    if particles < _LEAST_PARTICLES:
        return f"the scores hold only about {particles:.0f} particles: too few for a threshold from their distribution"
    if fit.log_gain < 3 * np.log(count):
        return "the scores do not show two populations"
    if separation < _LEAST_SEPARATION:
        return f"the scores do not show two populations (separation {separation:.1f} standard deviations)"
    return "none"


def _monotonic(scores: Float64, owner: npt.NDArray[np.int64], posterior: Float64) -> Float64:
    """Probabilities that do not fall as the score rises within a micrograph."""
    order = np.lexsort((scores, owner))
    out = posterior.copy()
    bounds = np.r_[0, np.nonzero(np.diff(owner[order]))[0] + 1, len(order)]
    for a, b in zip(bounds[:-1], bounds[1:], strict=True):
        out[order[a:b]] = np.maximum.accumulate(posterior[order[a:b]])
    return out


def _model(
    names: list[str],
    parts: list[Float64],
    scores: Float64,
    owner: npt.NDArray[np.int64],
    probability: Float64,
    fit: _Fit,
    used: npt.NDArray[np.bool_],
) -> ScoreModel:
    descending = np.sort(probability)[::-1]
    total = float(descending.sum())
    f1 = 2 * np.cumsum(descending) / (np.arange(1, len(descending) + 1) + total)
    least = float(descending[int(f1.argmax())])
    kept = (probability >= least) & used
    thresholds: dict[str, float] = {}
    precision: dict[str, float] = {}
    for i, name in enumerate(names):
        mine = kept & (owner == i)
        others = used & (owner == i) & ~mine
        low = float(scores[mine].min()) if mine.any() else np.nan
        thresholds[name] = low if mine.any() else float(scores[others].max() * 1.000001 if others.any() else np.nan)
        precision[name] = float(probability[mine].mean()) if mine.any() else np.nan
    mean, spread = _noise_moments(fit)
    finite = [t for t in thresholds.values() if np.isfinite(t)]
    return ScoreModel(
        threshold=float(np.median(finite)),
        thresholds={name: t if np.isfinite(t) else float(np.median(finite)) for name, t in thresholds.items()},
        probabilities=_split(names, parts, probability),
        expected_precision=precision,
        expected_recall=float(probability[kept].sum() / max(total, 1e-30)),
        noise_mean=mean,
        noise_std=spread,
        particle_mean=float(np.average(fit.means, weights=fit.shares)),
        particle_std=fit.spread,
        share=float(fit.posterior.mean()),
        reason="none",
    )


def _split(names: list[str], parts: list[Float64], values: Float64) -> dict[str, Float64]:
    bounds = np.cumsum([len(p) for p in parts])[:-1]
    return dict(zip(names, np.split(values, bounds), strict=True)) if names else {}


def _fallback(
    names: list[str], parts: list[Float64], scores: Float64, used: npt.NDArray[np.bool_], reason: str
) -> ScoreModel:
    """Noise alone: the score that it exceeds `_FALSE_PER_MICROGRAPH` times per micrograph, from the lower half's
    spread."""
    if not len(scores):
        nothing = {name: np.nan for name in names}
        empty = {name: np.zeros(0) for name in names}
        return ScoreModel(np.nan, dict(nothing), empty, dict(nothing), np.nan, *(np.nan,) * 4, 0.0, reason)
    low, middle = np.percentile(scores[used], [25.0, 50.0])
    # Gumbel's median lies at -ln ln 2 = 0.3665 scales, its lower quartile at -0.3266
    scale = max(float(middle - low) / 0.6931, 1e-12)
    location = float(middle) - 0.3665 * scale
    per_micrograph = max(len(scores) / max(len(names), 1), 1.0)
    share = min(_FALSE_PER_MICROGRAPH / per_micrograph, 0.5)
    threshold = float(location - scale * np.log(-np.log1p(-share)))
    above = (scores >= threshold) & used
    mean, spread = location + 0.5772 * scale, 1.2825 * scale
    expected_false = np.minimum(share * per_micrograph, 1e9)
    owner = np.repeat(np.arange(len(names)), [len(p) for p in parts])
    precision = {}
    for i, name in enumerate(names):
        count = int((above & (owner == i)).sum())
        precision[name] = max(1 - expected_false / count, 0.0) if count else np.nan
    return ScoreModel(
        threshold,
        {name: threshold for name in names},
        _split(names, parts, above.astype(np.float64)),
        precision,
        np.nan,
        float(mean),
        float(spread),
        float(scores[above].mean()) if above.any() else np.nan,
        float(scores[above].std()) if above.any() else np.nan,
        float(above.mean()),
        reason,
    )
