"""Several tries at an initial model, and the best of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.alignment.search import single_blas_thread
from nephila.fsc import resolution_at
from nephila.initial_model.agreement import PosedModel, compare_models
from nephila.initial_model.climb import climb, model_mask
from nephila.initial_model.data import SmallParticles, split
from nephila.initial_model.polish import Polished, align, explained_power, polish
from nephila.initial_model.settings import BOX, InitialModelSettings
from nephila.initial_tries import agreeing_tries, agreement_limit, looks_dark
from nephila.job import Progress, logger
from nephila.symmetry import point_group_matrices

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class InitialModel:
    """The best model, float32 [BOX, BOX, BOX] of `pixel_size` A; resolution : A, of maps of every other particle (FSC 0.5).

    tries : table of all tries, best first: nphTry, nphLogLikelihood, nphResolution, nphAgreement, nphMirrored,
    nphSkewness
    """

    volume: Float32
    pixel_size: float
    resolution: float
    tries: pd.DataFrame


def make_initial_model(particles: SmallParticles, settings: InitialModelSettings, threads: int = 1) -> InitialModel:
    """Search `settings.tries` times from random starts and rank the results by particles that none of them was built from.

    The result is the same for any number of threads.
    """
    built, held = (particles.rows(rows) for rows in split(len(particles), settings.seed))

    progress, lock = Progress(settings.tries * settings.rounds, "rounds of the tries"), Lock()

    def count() -> None:
        with lock:
            progress.step()

    def one(number: int) -> Polished:
        result = polish(climb(built, settings, number, count), built, settings)
        logger.info("try %d: halves agree to %.1f A (FSC 0.5)", number, _resolution(result.fsc, particles))
        return result

    numbers = range(1, settings.tries + 1)
    with single_blas_thread(), ThreadPoolExecutor(max(1, threads)) as pool:
        found = list(pool.map(one, numbers) if threads > 1 else map(one, numbers))
    noise = np.min([result.noise for result in found], axis=0)
    poses = [align(result.volume, noise, held, particles.band, settings) for result in found]
    scores = np.array([explained_power(item, held, noise, particles.band).mean() for item in poses])
    order = np.argsort(-scores, kind="stable")
    best = int(order[0])
    group, mask = point_group_matrices(settings.symmetry), model_mask(particles, settings)
    posed = [
        PosedModel(result.volume, item.poses.matrices, item.poses.shifts)
        for result, item in zip(found, poses, strict=True)
    ]
    rows = []
    for index in order:
        agreement = compare_models(posed[best], posed[index], group, mask)
        rows.append(
            {
                "nphTry": int(index) + 1,
                "nphLogLikelihood": round(float(scores[index]), 4),
                "nphResolution": round(_resolution(found[index].fsc, particles), 4),
                "nphAgreement": round(_resolution(agreement.fsc, particles), 4),
                "nphMirrored": int(agreement.mirrored),
                "nphSkewness": round(skewness(found[index].volume, mask), 4),
            }
        )
    warn(pd.DataFrame(rows))
    return InitialModel(
        found[best].volume, particles.pixel_size, _resolution(found[best].fsc, particles), pd.DataFrame(rows)
    )


def skewness(volume: Float32, mask: Float32) -> float:
    """Third moment of the density within a mask about the solvent's level, 0: positive where protein is bright."""
    inside = volume[mask > 0.5].astype(np.float64)
    power = float((inside**2).mean())
    return float((inside**3).mean()) / power**1.5 if power > 0 else 0.0


def warn(tries: pd.DataFrame) -> None:
    """Say so where no other try found the likeliest one's object (noise gives each try another), and where that is dark."""
    if looks_dark(tries):
        logger.warning("the model is darker than the solvent; if protein is, input.contrast is wrong")
    if len(tries) > 1 and not agreeing_tries(tries):
        logger.warning(
            "no other try agrees with the likeliest to %.0f A: look at the model, and raise reference.initial.tries or particles",
            agreement_limit(tries),
        )


def _resolution(fsc: Float64, particles: SmallParticles) -> float:
    """Where an FSC falls below 0.5, A, no finer than the band; 0: nowhere above."""
    curve = np.where(np.arange(len(fsc)) <= particles.band, fsc, 0.0)
    return resolution_at(curve, 0.5, BOX, particles.pixel_size) or 0.0
