"""Which particles go on: duplicates, numbers, half sets, the user's edits, proposals of bad ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError, stable_hash
from nephila.kernels.peaks import suppress_neighbours

Float64 = npt.NDArray[np.float64]

_EMPTY_AT_MOST = 1.2
"""Mean evidence that empty windows may have; noise has 0, structure of neighbours a little more."""


def _need(table: pd.DataFrame, columns: tuple[str, ...], what: str) -> None:
    missing = [c for c in columns if c not in table.columns]
    if missing:
        raise InputError(f"{what} has no column {', '.join(missing)}")


def remove_duplicates(table: pd.DataFrame, min_distance: float, pixel_size: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Drop particles nearer than `min_distance` (A) to a better one of the same micrograph.

    The higher rlnAutopickFigureOfMerit wins (where there is none: the earlier row); of equals the one of lower y,
    then x, so that the order of the rows does not matter.

    Returns
    -------
    kept, dropped : rows of `table` in their order, index as it was
    """
    _need(table, ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"), "the table of particles")
    if min_distance < 0 or pixel_size <= 0:
        raise InputError(
            f"least distance {min_distance} A at {pixel_size} A/px: must not be negative, the pixel size positive"
        )
    x, y = (table[f"rlnCoordinate{axis}"].to_numpy(dtype=np.float64) for axis in "XY")
    has_score = "rlnAutopickFigureOfMerit" in table.columns
    score = (
        table["rlnAutopickFigureOfMerit"].to_numpy(dtype=np.float64)
        if has_score
        else -np.arange(len(table), dtype=np.float64)
    )
    keep = np.zeros(len(table), dtype=bool)
    for rows in _rows_by_micrograph(table).values():
        order = rows[np.lexsort((x[rows], y[rows], -score[rows]))]
        keep[order[suppress_neighbours(y[order], x[order], float(min_distance / pixel_size), len(order))]] = True
    return table[keep], table[~keep]


def _rows_by_micrograph(table: pd.DataFrame) -> dict[str, npt.NDArray[np.int64]]:
    codes, names = pd.factorize(table["rlnMicrographName"].astype(str))
    order = np.argsort(codes, kind="stable")
    bounds = np.cumsum(np.bincount(codes, minlength=len(names)))[:-1] if len(names) else np.zeros(0, dtype=np.int64)
    return (
        {str(name): rows.astype(np.int64) for name, rows in zip(names, np.split(order, bounds), strict=True)}
        if len(names)
        else {}
    )


def renumber(table: pd.DataFrame) -> pd.DataFrame:
    """Copy with nphParticleNumber 1, 2, 3 ... within each micrograph, in the order of the rows; index reset."""
    _need(table, ("rlnMicrographName",), "the table of particles")
    out = table.reset_index(drop=True).copy()
    out["nphParticleNumber"] = out.groupby("rlnMicrographName", sort=False).cumcount().to_numpy(dtype=np.int64) + 1
    return out


def reasons_left_out(
    picked: pd.DataFrame, selected: pd.DataFrame, without_window: pd.DataFrame, good: pd.DataFrame, distance: float
) -> pd.DataFrame:
    """The picks that were not selected, each with the reason.

    Parameters
    ----------
    picked, selected : with rlnMicrographName and nphParticleNumber
    without_window : picks of which no window was cut, with nphReason
    good : windows with nphKeep (0: left out) and nphReason
    distance : A, of which the better of two stays

    Returns
    -------
    rlnMicrographName, nphParticleNumber, coordinates where there are some, and nphReason, in the order of `picked`
    """
    found = dict.fromkeys(_keys(selected, "the selected particles"), "")
    reasons = {
        key: "dropped by the user" if text == "none" else text
        for key, keep, text in zip(_keys(good), good["nphKeep"], good["nphReason"].astype(str), strict=True)
        if not int(keep)
    }
    reasons |= dict(zip(_keys(without_window), without_window["nphReason"].astype(str), strict=True))
    near = f"nearer than {distance:.4g} A to a better one"
    keys = _keys(picked, "the picks")
    which = [i for i, key in enumerate(keys) if key not in found]
    columns = ["rlnMicrographName", "nphParticleNumber", "rlnCoordinateX", "rlnCoordinateY"]
    out = picked.iloc[which][[name for name in columns if name in picked.columns]].reset_index(drop=True)
    return out.assign(nphReason=pd.Series([reasons.get(keys[i], near) for i in which], dtype=object))


def percent_selected(picked: pd.DataFrame, selected: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How many of the picked particles were selected.

    Returns
    -------
    by_micrograph : rlnMicrographName, nphPicked, nphSelected, nphPercent, in the order of `picked`
    overall : one row of nphMicrographs, nphPicked, nphSelected, nphPercent
    """
    _need(picked, ("rlnMicrographName",), "the table of picks")
    _need(selected, ("rlnMicrographName",), "the table of selected particles")
    counts = picked.groupby("rlnMicrographName", sort=False).size()
    chosen = selected.groupby("rlnMicrographName", sort=False).size()
    unknown = [name for name in chosen.index if name not in counts.index]
    if unknown:
        raise InputError(f"selected particles of {unknown[0]}, of which nothing was picked")
    kept = chosen.reindex(counts.index, fill_value=0)
    by_micrograph = pd.DataFrame(
        {
            "rlnMicrographName": counts.index.astype(object),
            "nphPicked": counts.to_numpy(dtype=np.int64),
            "nphSelected": kept.to_numpy(dtype=np.int64),
            "nphPercent": 100.0 * kept.to_numpy(dtype=np.float64) / counts.to_numpy(dtype=np.float64),
        }
    )
    total, good = int(counts.sum()), int(kept.sum())
    overall = pd.DataFrame(
        {
            "nphMicrographs": [len(counts)],
            "nphPicked": [total],
            "nphSelected": [good],
            "nphPercent": [100.0 * good / total if total else 0.0],
        }
    )
    return by_micrograph, overall


def assign_random_subsets(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Copy with rlnRandomSubset 1 or 2, balanced within each micrograph and independent of all other micrographs.

    Each micrograph's particles, in the order of nphParticleNumber (where there is one), are shuffled by a generator
    seeded by `seed` and the micrograph's name, and the subsets alternate. Which of the two gets the odd one is drawn
    as well.
    """
    _need(table, ("rlnMicrographName",), "the table of particles")
    out = table.copy()
    subset = np.zeros(len(table), dtype=np.int64)
    numbers = table["nphParticleNumber"].to_numpy() if "nphParticleNumber" in table.columns else np.arange(len(table))
    for name, rows in _rows_by_micrograph(table).items():
        ordered = rows[np.argsort(numbers[rows], kind="stable")]
        random = np.random.default_rng([int(seed), stable_hash(name)])
        first = int(random.integers(2))
        subset[ordered[random.permutation(len(ordered))]] = (np.arange(len(ordered)) + first) % 2 + 1
    out["rlnRandomSubset"] = subset
    return out


def apply_selection_edit(
    proposal: pd.DataFrame, edit: pd.DataFrame | None, source: str = "edits/good.star"
) -> pd.DataFrame:
    """Apply the user's choice of good particles to the proposed one.

    Parameters
    ----------
    proposal : rlnMicrographName, nphParticleNumber, nphKeep (and nphReason)
    edit : rlnMicrographName, nphParticleNumber, nphKeep (1 or 0) of the particles that the user decided about, or
        None; particles that it does not name keep the proposal
    source : file of the edit, for messages

    Raises
    ------
    InputError : the edit names an unknown micrograph or particle, one particle twice, or an nphKeep other than 0 and 1
    """
    _need(proposal, ("rlnMicrographName", "nphParticleNumber", "nphKeep"), "the proposed selection")
    out = proposal.reset_index(drop=True).copy()
    if edit is None or not len(edit):
        return out
    _need(edit, ("rlnMicrographName", "nphParticleNumber", "nphKeep"), source)
    row_of = {key: i for i, key in enumerate(_keys(out))}
    micrographs = set(out["rlnMicrographName"].astype(str))
    values = pd.to_numeric(edit["nphKeep"], errors="coerce").to_numpy(dtype=np.float64)
    keep = out["nphKeep"].to_numpy(dtype=np.int64).copy()
    reason = (
        out["nphReason"].to_numpy(dtype=object).copy()
        if "nphReason" in out.columns
        else np.full(len(out), "none", dtype=object)
    )
    seen: set[tuple[str, int]] = set()
    for key, value in zip(_keys(edit, source), values, strict=True):
        name, number = key
        if name not in micrographs:
            raise InputError(f"{source}: micrograph {name} is not in this run; correct the name or remove the line")
        if key not in row_of:
            raise InputError(
                f"{source}: micrograph {name} has no particle {number}; correct the number or remove the line"
            )
        if key in seen:
            raise InputError(f"{source}: particle {number} of micrograph {name} is named twice; leave one line")
        if value not in (0.0, 1.0):
            raise InputError(
                f"{source}: nphKeep of particle {number} of micrograph {name} must be 1 (keep) or 0 (drop)"
            )
        seen.add(key)
        i = row_of[key]
        if keep[i] != int(value):
            keep[i] = int(value)
            reason[i] = "none" if value else "dropped by the user"
    out["nphKeep"], out["nphReason"] = keep, reason
    return out


def _keys(table: pd.DataFrame, source: str = "the proposed selection") -> list[tuple[str, int]]:
    numbers = pd.to_numeric(table["nphParticleNumber"], errors="coerce")
    if numbers.isna().any() or (numbers % 1 != 0).any():
        raise InputError(f"{source}: nphParticleNumber must be whole numbers")
    return list(zip(table["rlnMicrographName"].astype(str), numbers.astype(int), strict=True))


@dataclass(frozen=True)
class BadParticleSettings:
    """sigma: robust standard deviations from the median of a statistic over all particles beyond which one is doubted;
    least_probability: of holding a particle, by the evidence of all windows."""

    sigma: float = 5.0
    least_probability: float = 0.5


def doubt_empty_windows(
    proposal: pd.DataFrame, windows: pd.DataFrame, settings: BadParticleSettings | None = None
) -> tuple[pd.DataFrame, str]:
    """Propose to leave out the windows that hold no particle, too, by their evidence (`nephila.window_evidence`).

    The evidence of all windows is taken as a mixture of noise, the same for all micrographs, and particles, about a mean of
    each micrograph's own (`nephila.picking.threshold`); windows more likely noise are doubted.

    Parameters
    ----------
    proposal : of `propose_bad_particles`, one row per row of `windows`
    windows : with rlnMicrographName and nphEvidence

    Returns
    -------
    The proposal with further rows dropped, and why none is where the evidence does not show two populations ("none" where
    it does)
    """
    from nephila.picking.threshold import fit_score_mixture

    _need(windows, ("rlnMicrographName", "nphEvidence"), "the table of windows")
    options = settings or BadParticleSettings()
    names = windows["rlnMicrographName"].astype(str).to_numpy()
    evidence = windows["nphEvidence"].to_numpy(dtype=np.float64)
    rows = _rows_by_micrograph(windows)
    model = fit_score_mixture({name: evidence[index] for name, index in rows.items()}, dirt_factor=10.0)
    out = proposal.copy()
    if model.reason != "none":
        return out, model.reason
    if model.noise_mean > _EMPTY_AT_MOST:
        return (
            out,
            f"even the lower ones of two populations, about {model.noise_mean:.1f}, are no empty windows (about 0)",
        )
    probability = np.ones(len(names))
    for name, index in rows.items():
        probability[index] = model.probabilities[name]
    empty = (probability < options.least_probability) & (out["nphKeep"].to_numpy() == 1)
    reason, keep = out["nphReason"].to_numpy(dtype=object).copy(), out["nphKeep"].to_numpy(dtype=np.int64).copy()
    reason[empty] = [f"holds no particle, to judge by its middle (evidence {value:.1f})" for value in evidence[empty]]
    keep[empty] = 0
    out["nphKeep"], out["nphReason"] = keep, reason
    return out, "none"


def propose_bad_particles(statistics: pd.DataFrame, settings: BadParticleSettings | None = None) -> pd.DataFrame:
    """Propose which particles to leave out, by outliers of their statistics.

    Parameters
    ----------
    statistics : one row per particle; every numeric column other than nphParticleNumber is looked at (background
        mean and deviation, minimum, maximum, score ...); identifying columns are carried over

    Returns
    -------
    table : rlnMicrographName and nphParticleNumber (where given), nphDoubt (largest deviation, robust standard
        deviations), nphKeep, nphReason (which statistic, and how far)
    """
    options = settings or BadParticleSettings()
    carried = [c for c in ("rlnMicrographName", "nphParticleNumber") if c in statistics.columns]
    columns = {
        str(c): statistics[c].to_numpy(dtype=np.float64)
        for c in statistics.columns
        if c not in carried and pd.api.types.is_numeric_dtype(statistics[c])
    }
    doubt, reason = np.zeros(len(statistics)), np.full(len(statistics), "none", dtype=object)
    for name, values in columns.items():
        z = robust_z(values)
        worse = np.abs(z) > np.maximum(doubt, options.sigma)
        reason[worse] = [f"{name} off by {v:+.1f} standard deviations" for v in z[worse]]
        doubt = np.maximum(doubt, np.abs(z))
    out = statistics[carried].reset_index(drop=True).copy()
    out["nphDoubt"], out["nphKeep"], out["nphReason"] = doubt, (reason == "none").astype(np.int64), reason
    return out


def robust_z(values: Float64) -> Float64:
    """Distance from the median in robust standard deviations (quartiles); NaN counts as infinitely far, constants as
    0."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.full(len(values), np.inf)
    low, middle, high = np.percentile(values[finite], [25.0, 50.0, 75.0])
    spread = (high - low) / 1.349
    if spread <= 0:
        spread = float(values[finite].std())
    return np.where(finite, (values - middle) / spread if spread > 0 else 0.0, np.inf)
