"""From candidates of all micrographs to picks: the threshold, dirt, overlaps and limits, each drop with its reason."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.picking.contaminants import LARGE
from nephila.picking.peaks import Picks
from nephila.picking.settings import ChoiceSettings
from nephila.picking.threshold import ScoreModel, fit_score_mixture

CANDIDATE_COLUMNS = (
    "rlnMicrographName",
    "rlnCoordinateX",
    "rlnCoordinateY",
    "rlnAutopickFigureOfMerit",
    "rlnAngleRot",
    "rlnAngleTilt",
    "rlnAnglePsi",
    "nphScale",
    "nphLocalMean",
    "nphLocalDeviation",
    "nphContaminated",
    "nphAtEdge",
)
"""Columns of a table of candidates."""

STRENGTH = 2.5
"""A particle's local mean is at most this many times the median particle's; dirt's is more."""


def candidates_table(picks: Mapping[str, Picks]) -> pd.DataFrame:
    """Table of the candidates of micrographs by name, in the order given, best first within each."""
    parts = []
    for name, p in picks.items():
        parts.append(
            pd.DataFrame(
                {
                    "rlnMicrographName": np.full(len(p), name, dtype=object),
                    "rlnCoordinateX": p.x,
                    "rlnCoordinateY": p.y,
                    "rlnAutopickFigureOfMerit": p.score,
                    "rlnAngleRot": p.rot,
                    "rlnAngleTilt": p.tilt,
                    "rlnAnglePsi": p.psi,
                    "nphScale": p.scale,
                    "nphLocalMean": p.local_mean,
                    "nphLocalDeviation": p.local_std,
                    "nphContaminated": p.contaminated.astype(np.int64),
                    "nphAtEdge": p.at_edge.astype(np.int64),
                }
            )
        )
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(CANDIDATE_COLUMNS))


def choose_picks(
    candidates: pd.DataFrame,
    settings: ChoiceSettings | None = None,
    pixel_size: float = 1.0,
    diameter: float = 0.0,
) -> tuple[pd.DataFrame, ScoreModel]:
    """Decide over the candidates of all micrographs which are picks.

    Parameters
    ----------
    candidates : table of `candidates_table` (several joined)
    pixel_size, diameter : A; needed where `settings.overlap` is set

    Returns
    -------
    table : the candidates with nphProbability (of being a particle), nphKeep (1 or 0) and nphReason ("none" where
    kept)
    model : the fit of their scores; its `reason` says why the threshold does not come from the fit, where it does not

    Raises
    ------
    InputError : a column is missing, or a score is NaN
    """
    options = settings or ChoiceSettings()
    for column in ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"):
        if column not in candidates.columns:
            raise InputError(f"the table of candidates has no column {column}: pick again")
    if options.overlap > 0 and (diameter <= 0 or pixel_size <= 0):
        raise InputError("leaving out overlaps needs the particle's diameter and the pixel size, both positive")
    table = candidates.reset_index(drop=True).copy()
    names = table["rlnMicrographName"].to_numpy()
    score = table["rlnAutopickFigureOfMerit"].to_numpy(dtype=np.float64)
    mark = _column(table, "nphContaminated", 0.0)
    dirty, large, edge = mark > 0, mark >= LARGE, _column(table, "nphAtEdge", 0.0) > 0
    # what lies too close to an edge is not whole: it tells nothing of the scores of particles, nor of noise
    rows = {str(n): np.nonzero((names == n) & ~edge)[0] for n in pd.unique(pd.Series(names))} if len(table) else {}
    model, limit = _fitted(score, names, rows, dirty, options)
    if dirty.any():
        # without clean particles to learn from, the marked ones have to tell what a particle is
        trial = limit if model.reason == "none" else _fitted(score, names, rows, large, options)[1]
        strong_particles = dirty & _like_the_others(table, rows, (score >= trial) & ~large)
        if strong_particles.any():
            dirty &= ~strong_particles
            model, limit = _fitted(score, names, rows, dirty, options)
    clean = {name: index[~dirty[index]] for name, index in rows.items()}
    probability = np.zeros(len(table))
    for name, index in clean.items():
        probability[index] = model.probabilities[name]
    reason = np.full(len(table), "none", dtype=object)
    reason[dirty] = "on a contaminant"
    reason[large] = "on carbon or a contaminant larger than particles"
    _mark(reason, ~(score >= limit), "score below the threshold")
    _mark(reason, edge, "too close to the edge of the micrograph")
    if options.threshold is None and model.reason == "none":
        _mark(reason, probability <= 0, "score too high for a particle")
    if model.reason == "none":
        _mark(reason, probability < options.min_probability, "too unlikely to be a particle")
    _mark(reason, _deviates(table, reason == "none", options.dirt_factor), "local deviation of dirt")
    if options.overlap > 0:
        near = options.overlap * diameter / pixel_size
        x, y = (table[f"rlnCoordinate{axis}"].to_numpy(dtype=np.float64) for axis in "XY")
        for index in rows.values():
            good = index[reason[index] == "none"]
            reason[good[_overlapping(x[good], y[good], score[good], near)]] = "overlaps a better pick"
    if options.at_most is not None:
        for index in rows.values():
            good = index[reason[index] == "none"]
            order = good[np.argsort(-score[good], kind="stable")]
            reason[order[options.at_most :]] = "beyond the most per micrograph"
    table["nphProbability"] = probability
    table["nphKeep"] = (reason == "none").astype(np.int64)
    table["nphReason"] = reason
    return table, model


def _column(table: pd.DataFrame, name: str, missing: float) -> npt.NDArray[np.float64]:
    if name not in table.columns:
        return np.full(len(table), missing)
    return table[name].to_numpy(dtype=np.float64, copy=True)


def _fitted(
    score: npt.NDArray[np.float64],
    names: npt.NDArray[np.object_],
    rows: Mapping[str, npt.NDArray[np.int64]],
    dirty: npt.NDArray[np.bool_],
    options: ChoiceSettings,
) -> tuple[ScoreModel, npt.NDArray[np.float64]]:
    """Fit of the scores that are not dirt's, and the score that each candidate must reach."""
    model = fit_score_mixture({name: score[index[~dirty[index]]] for name, index in rows.items()}, options.dirt_factor)
    limits = {str(name): _limit(model, options, str(name)) for name in rows}
    return model, np.array([limits[str(name)] for name in names]) if len(names) else np.zeros(0)


def _like_the_others(
    table: pd.DataFrame, rows: Mapping[str, npt.NDArray[np.int64]], passed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Candidates that score as particles and are not stronger than those mostly are.

    Dirt is far denser than the particles of its data set. Where particles themselves stand out of little noise, a micrograph
    alone cannot tell them from dirt, but all micrographs together can: within `STRENGTH` times the median strength of all
    that pass, strength being the local mean's distance from that of the micrograph's background.
    """
    strength = _column(table, "nphLocalMean", np.nan)
    for index in rows.values():
        below = index[~passed[index]]
        if len(below):
            strength[index] -= np.median(strength[below])
    strength = np.abs(strength)
    known = passed & np.isfinite(strength)
    if int(known.sum()) < 10:
        return np.zeros(len(table), dtype=bool)
    return known & (strength <= STRENGTH * np.median(strength[known]))


def _limit(model: ScoreModel, options: ChoiceSettings, name: str) -> float:
    if options.threshold is not None:
        return options.threshold
    return model.thresholds.get(name, model.threshold)


def _mark(reason: npt.NDArray[np.object_], which: npt.NDArray[np.bool_], text: str) -> None:
    """Give `text` as the reason where none stands yet."""
    reason[which & (reason == "none")] = text


def _deviates(table: pd.DataFrame, kept: npt.NDArray[np.bool_], factor: float) -> npt.NDArray[np.bool_]:
    """Rows whose local deviation is far above that of the picks: `factor` times their 92nd percentile."""
    deviation = _column(table, "nphLocalDeviation", np.nan)
    known = kept & np.isfinite(deviation)
    if int(known.sum()) < 10:
        return np.zeros(len(table), dtype=bool)
    return np.asarray(deviation > factor * np.percentile(deviation[known], 92))


def _overlapping(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], score: npt.NDArray[np.float64], near: float
) -> npt.NDArray[np.int64]:
    """Indices of the picks that lie nearer than `near` px to a better one."""
    from nephila.kernels.peaks import suppress_neighbours

    order = np.argsort(-score, kind="stable")
    kept = order[suppress_neighbours(y[order], x[order], float(near), len(order))] if len(order) else order
    return np.setdiff1d(np.arange(len(x)), kept)
