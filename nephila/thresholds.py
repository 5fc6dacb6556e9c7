"""Correlation thresholds by defocus group (SPIDER's `cchistogram`, `ccthresh`, `dftotals`, `bestim`).

A particle is kept when its correlation is at least its group's threshold; counts are exact, not read from bins.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def correlation_histograms(correlation: npt.ArrayLike, group: npt.ArrayLike, bins: int = 128) -> pd.DataFrame:
    """Histograms of the correlation, over all particles and for each group, with the same bins.

    Parameters
    ----------
    correlation : [n]
    group : [n] int, defocus group of each particle (1 or more)
    bins : equal bins from the lowest to the highest correlation of all particles; the highest lies in the last bin

    Returns
    -------
    DataFrame nphDefocusGroup (0 = all groups, first), nphBinStart, nphBinEnd, nphParticles.
    """
    values, groups = _checked(correlation, group)
    if bins < 1:
        raise InputError(f"{bins} bins: at least 1 is needed")
    low, high = float(values.min()), float(values.max())
    if high == low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    parts = []
    for number in [0, *np.unique(groups).tolist()]:
        counts, _ = np.histogram(values if number == 0 else values[groups == number], bins=edges)
        parts.append(
            pd.DataFrame(
                {"nphDefocusGroup": number, "nphBinStart": edges[:-1], "nphBinEnd": edges[1:], "nphParticles": counts}
            )
        )
    return pd.concat(parts, ignore_index=True)


def propose_thresholds(correlation: npt.ArrayLike, group: npt.ArrayLike, share_rejected: float = 0.15) -> pd.DataFrame:
    """Threshold of each group below which at most a given share of its particles falls (SPIDER's `ccthresh`).

    The threshold is the shortest decimal number that separates the particles, so that it survives being written and
    read. Particles of equal correlation are never separated: where the cut would fall among them all are kept.

    Parameters
    ----------
    correlation : [n]
    group : [n] int, defocus group of each particle
    share_rejected : 0 to below 1

    Returns
    -------
    DataFrame nphDefocusGroup, nphThreshold, nphAbove, nphBelow, nphTotal, sorted by group. The counts are exact:
    nphBelow is the number of particles whose correlation is less than the threshold.
    """
    values, groups = _checked(correlation, group)
    if not 0 <= share_rejected < 1:
        raise InputError(f"share of rejected particles {share_rejected}: must lie from 0 to below 1")
    numbers = np.unique(groups)
    cuts = []
    for number in numbers:
        members = np.sort(values[groups == number])
        # The small addition keeps 0.15 * 20 from becoming 2.
        lowest_kept = members[int(share_rejected * len(members) + 1e-9)]
        rejected = members[members < lowest_kept]
        cuts.append(_short_decimal(rejected[-1] if len(rejected) else -np.inf, lowest_kept))
    table = pd.DataFrame({"nphDefocusGroup": numbers, "nphThreshold": cuts})
    return count_by_threshold(table, values, groups)


def count_by_threshold(thresholds: pd.DataFrame, correlation: npt.ArrayLike, group: npt.ArrayLike) -> pd.DataFrame:
    """Exact counts on both sides of thresholds, as a table like that of `propose_thresholds`.

    Parameters
    ----------
    thresholds : nphDefocusGroup, nphThreshold; other columns are ignored
    correlation, group : [n]
    """
    values, groups = _checked(correlation, group)
    numbers, cuts = _thresholds(thresholds, "thresholds")
    below = [int(np.count_nonzero(values[groups == n] < c)) for n, c in zip(numbers, cuts, strict=True)]
    total = [int(np.count_nonzero(groups == n)) for n in numbers]
    table = pd.DataFrame(
        {
            "nphDefocusGroup": numbers,
            "nphThreshold": cuts,
            "nphAbove": np.array(total, dtype=np.int64) - np.array(below, dtype=np.int64),
            "nphBelow": below,
            "nphTotal": total,
        }
    )
    return table.sort_values("nphDefocusGroup", kind="stable", ignore_index=True)


def check_threshold_edit(
    proposal: pd.DataFrame,
    edit: pd.DataFrame,
    source: str,
    *,
    correlation: npt.ArrayLike | None = None,
    group: npt.ArrayLike | None = None,
) -> list[str]:
    """Check an edited threshold table against the proposal; return warnings for the user. Groups without a line follow
    the proposal.

    Parameters
    ----------
    proposal : table of `propose_thresholds`; its groups are those that the edit may name
    edit : nphDefocusGroup, nphThreshold as the user left them (the counts in it are not used)
    source : the edited file, for messages
    correlation, group : [n], optional; with them, groups that keep no particle are found

    Returns
    -------
    One line per group that is left without particles (the run goes on without the group).

    Raises
    ------
    InputError
        A column is missing; a group is unknown or named twice; a threshold is not a number; no particle is left.
    """
    numbers, _ = _thresholds(edit, source)
    known = set(proposal["nphDefocusGroup"].astype(int))
    unknown = sorted(set(numbers.tolist()) - known)
    if unknown:
        raise InputError(
            f"{source}: group {_listed(unknown)} does not exist (groups run from {min(known)} to {max(known)}); "
            "remove the line, or remove the file to start from the proposal"
        )
    if correlation is None or group is None:
        return []
    counts = count_by_threshold(complete_thresholds(proposal, edit), correlation, group)
    if counts["nphAbove"].sum() == 0:
        raise InputError(f"{source}: the thresholds leave no particle in any group; lower them")
    values, groups = _checked(correlation, group)
    return [
        f"{source}: group {number} keeps none of its {total} particles (threshold {cut:.10g}, highest correlation "
        f"{values[groups == number].max():.6g}); it is left out of the reconstruction"
        for number, cut, above, total in zip(
            counts["nphDefocusGroup"], counts["nphThreshold"], counts["nphAbove"], counts["nphTotal"], strict=True
        )
        if above == 0 and total > 0
    ]


def complete_thresholds(proposal: pd.DataFrame, edit: pd.DataFrame) -> pd.DataFrame:
    """nphDefocusGroup, nphThreshold of all groups of the proposal: the edit's where it has a line for the group."""
    edited = dict(zip(edit["nphDefocusGroup"].astype(int), edit["nphThreshold"].astype(float), strict=True))
    numbers = proposal["nphDefocusGroup"].astype(int)
    cuts = [edited.get(number, cut) for number, cut in zip(numbers, proposal["nphThreshold"], strict=True)]
    return pd.DataFrame({"nphDefocusGroup": numbers.to_numpy(), "nphThreshold": cuts})


def apply_thresholds(
    particles: pd.DataFrame, thresholds: pd.DataFrame | None, source: str = "thresholds"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide particles into kept and rejected ones, both by falling correlation (equal ones in the order of the table).

    Parameters
    ----------
    particles : nphDefocusGroup, nphCorrelation and any other columns
    thresholds : nphDefocusGroup, nphThreshold; None keeps all particles
    source : file of the thresholds, for messages

    Returns
    -------
    kept, rejected : DataFrames with the columns and the index labels of `particles`

    Raises
    ------
    InputError
        A column is missing, a correlation is not a number, or a group of the particles has no threshold.
    """
    for name in ("nphDefocusGroup", "nphCorrelation"):
        if name not in particles.columns:
            raise InputError(f"particle table has no column {name}; align the particles before applying thresholds")
    if len(particles) == 0:
        return particles.copy(), particles.copy()
    values, groups = _checked(particles["nphCorrelation"], particles["nphDefocusGroup"])
    keep = np.ones(len(values), dtype=bool)
    if thresholds is not None:
        numbers, cuts = _thresholds(thresholds, source)
        cut_of = dict(zip(numbers.tolist(), cuts.tolist(), strict=True))
        missing = sorted(set(groups.tolist()) - set(cut_of))
        if missing:
            raise InputError(f"{source}: no line for group {_listed(missing)}, which has particles; add one")
        keep = values >= np.array([cut_of[number] for number in groups.tolist()])
    order = np.argsort(-values, kind="stable")
    return particles.iloc[order[keep[order]]], particles.iloc[order[~keep[order]]]


def best_per_view(
    assignments: pd.DataFrame, correlation: npt.ArrayLike, group: npt.ArrayLike, at_most: int = 40
) -> npt.NDArray[np.bool_]:
    """Mark the particles of highest correlation, at most a given number per view and group (SPIDER's `bestim`).

    Parameters
    ----------
    assignments : nphView, one row per particle
    correlation, group : [n]
    at_most : particles kept per view and group; of equal correlations the first in the table are kept

    Returns
    -------
    bool [n], True where the particle is kept.
    """
    if len(assignments) == 0 and np.size(correlation) == 0:
        return np.zeros(0, dtype=bool)
    values, groups = _checked(correlation, group)
    if at_most < 1:
        raise InputError(f"at most {at_most} particles per view: must be 1 or more")
    if "nphView" not in assignments.columns or len(assignments) != len(values):
        raise InputError("particles have not been assigned to views: column nphView is needed, one row per particle")
    views = assignments["nphView"].to_numpy(dtype=np.int64)
    order = np.lexsort((np.arange(len(values)), -values, views, groups))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(views[order]) != 0) | (np.diff(groups[order]) != 0)
    starts = np.flatnonzero(new)
    rank = np.arange(len(order)) - starts[np.cumsum(new) - 1]
    keep = np.zeros(len(values), dtype=bool)
    keep[order] = rank < at_most
    return keep


def group_totals(particles: pd.DataFrame, groups: pd.DataFrame | None = None) -> pd.DataFrame:
    """Particles and defocus of each group (SPIDER's `sel_group_cclim`).

    Parameters
    ----------
    particles : nphDefocusGroup, and where `groups` is not given rlnDefocusU, rlnDefocusV (A)
    groups : nphDefocusGroup, nphGroupDefocus (A), optional: all groups with their defocus; groups that have no
        particles are then listed with 0. Otherwise the defocus is the mean over the particles.

    Returns
    -------
    DataFrame nphDefocusGroup, nphParticles, nphGroupDefocus, sorted by group.
    """
    needed = ["nphDefocusGroup"] + (["rlnDefocusU", "rlnDefocusV"] if groups is None else [])
    for name in needed:
        if name not in particles.columns:
            raise InputError(f"particle table has no column {name}; it is needed to count the particles by group")
    counts = particles.groupby("nphDefocusGroup").size()
    if groups is None:
        mean = (particles["rlnDefocusU"] + particles["rlnDefocusV"]) / 2
        defocus = mean.groupby(particles["nphDefocusGroup"]).mean()
    else:
        defocus = groups.set_index("nphDefocusGroup")["nphGroupDefocus"].sort_index()
        unknown = sorted(set(counts.index) - set(defocus.index))
        if unknown:
            raise InputError(f"defocus group {_listed(unknown)} of the particles is not in the table of groups")
    return pd.DataFrame(
        {
            "nphDefocusGroup": defocus.index.to_numpy(dtype=np.int64),
            "nphParticles": counts.reindex(defocus.index, fill_value=0).to_numpy(dtype=np.int64),
            "nphGroupDefocus": defocus.to_numpy(dtype=np.float64),
        }
    )


def _short_decimal(below: float, at_least: float) -> float:
    """The number with fewest decimals (4 or more) that is greater than `below` and not greater than `at_least`."""
    for digits in range(4, 17):
        scale = 10.0**digits
        value = float(np.round(np.floor(at_least * scale) / scale, digits))
        if below < value <= at_least:
            return value
    return float(at_least)


def _checked(correlation: npt.ArrayLike, group: npt.ArrayLike) -> tuple[Float64, Int64]:
    values, groups = np.asarray(correlation, dtype=np.float64), np.asarray(group)
    if values.ndim != 1 or groups.shape != values.shape:
        raise InputError(
            f"{values.size} correlations and {groups.size} defocus groups; one of each per particle is needed"
        )
    if len(values) == 0:
        raise InputError("there are no particles to apply correlation thresholds to")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InputError(
            f"correlation of particle {bad[0] + 1} is {values[bad[0]]}; align this particle again or drop it"
        )
    if not np.issubdtype(groups.dtype, np.number) or groups.min() < 1 or (groups != np.floor(groups)).any():
        raise InputError("defocus groups must be whole numbers from 1 on (0 stands for all groups together)")
    return values, groups.astype(np.int64)


def _thresholds(table: pd.DataFrame, source: str) -> tuple[Int64, Float64]:
    """Groups and thresholds of a table that a person may have edited."""
    for name in ("nphDefocusGroup", "nphThreshold"):
        if name not in table.columns:
            raise InputError(
                f"{source}: column {name} is missing; it has the columns {', '.join(map(str, table.columns))}"
            )
    numbers = pd.to_numeric(table["nphDefocusGroup"], errors="coerce").to_numpy(dtype=np.float64)
    cuts = pd.to_numeric(table["nphThreshold"], errors="coerce").to_numpy(dtype=np.float64)
    for row in range(len(table)):
        if not np.isfinite(numbers[row]) or numbers[row] != np.floor(numbers[row]):
            raise InputError(
                f"{source}: nphDefocusGroup {table['nphDefocusGroup'].iloc[row]!r} in line {row + 1} of the table is "
                "not a whole number; write the number of a defocus group"
            )
        if not np.isfinite(cuts[row]):
            raise InputError(
                f"{source}: nphThreshold {table['nphThreshold'].iloc[row]!r} of group {int(numbers[row])} is not a "
                "finite number; write the lowest correlation to keep (-1 keeps all)"
            )
    values, counts = np.unique(numbers, return_counts=True)
    if (counts > 1).any():
        twice = values[counts > 1].astype(int).tolist()
        raise InputError(f"{source}: group {_listed(twice)} is listed more than once; keep one line for each group")
    return numbers.astype(np.int64), cuts


def _listed(numbers: list[int]) -> str:
    """At most eight numbers, readable."""
    text = ", ".join(str(number) for number in numbers[:8])
    return text if len(numbers) <= 8 else f"{text} and {len(numbers) - 8} more"
