"""Defocus groups: proposals, the check of a user's edit, and the groups' averages.

Micrographs of nearly equal defocus share a group. A deviation dz from the group's defocus shifts the CTF's phase by
pi lambda dz / d^2 at resolution d; at 90 degrees the ring is lost, so d = sqrt(2 lambda dz) is as far as the group can go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics, phase_error_limit
from nephila.errors import InputError

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def sort_into_groups(names: Sequence[str], defocus: npt.ArrayLike, max_difference: float = 1000.0) -> pd.DataFrame:
    """SPIDER's rule (`defsort`): in order of defocus, a new group starts when the defocus exceeds the lowest of the present group
    by more than `max_difference` (A).

    Returns rlnMicrographName, nphDefocus (A), nphDefocusGroup (1.. in order of defocus), sorted by defocus, then name.
    """
    values = _check_defocus(defocus)
    if not max_difference > 0:
        raise InputError(f"width of defocus groups {max_difference} A: must be positive; 1000 A is usual")
    order = _order(names, values)
    groups = np.zeros(len(values), dtype=np.int64)
    lowest, number = -np.inf, 0
    for i in order:
        if values[i] - lowest > max_difference:
            lowest, number = values[i], number + 1
        groups[i] = number
    return group_table(names, values, groups)


def group_table(names: Sequence[str], defocus: npt.ArrayLike, groups: npt.ArrayLike) -> pd.DataFrame:
    """The `def_sort` table of a grouping, sorted by defocus, then name."""
    values = _check_defocus(defocus)
    order = _order(names, values)
    return pd.DataFrame(
        {
            "rlnMicrographName": [str(names[i]) for i in order],
            "nphDefocus": values[order],
            "nphDefocusGroup": np.asarray(groups, dtype=np.int64)[order],
        }
    )


def propose_groups(kept: pd.DataFrame, optics: dict[str, Any], settings: dict[str, Any]) -> pd.DataFrame:
    """The `def_sort` table of the kept micrographs by the configured method (sections optics and defocus_groups as dicts).

    Micrographs of different optics groups (column rlnOpticsGroup, where there is one) never share a defocus group.
    """
    if "rlnOpticsGroup" in kept and kept["rlnOpticsGroup"].nunique() > 1:
        parts, last = [], 0
        for _, mine in kept.groupby("rlnOpticsGroup", sort=True):
            part = propose_groups(mine.drop(columns="rlnOpticsGroup"), optics, settings)
            parts.append(part.assign(nphDefocusGroup=part["nphDefocusGroup"] + last))
            last = int(parts[-1]["nphDefocusGroup"].max())
        return pd.concat(parts, ignore_index=True)
    names = [str(name) for name in kept["rlnMicrographName"]]
    mean, vector = defocus_vector(kept)
    if settings["method"] == "defsort":
        return sort_into_groups(names, mean, settings["width"])
    numbers = optimal_groups(mean, Optics(**optics), settings["resolution"], settings["smallest"], vector)
    return group_table(names, mean, numbers)


def optimal_groups(
    defocus: npt.ArrayLike,
    optics: Optics,
    resolution: float,
    smallest: int = 1,
    astigmatism: npt.ArrayLike | None = None,
) -> Int64:
    """The least number of groups in which no phase error exceeds 90 degrees at `resolution` (A): exact, by dynamic programming.

    Groups are runs of neighbours in defocus. Among groupings of the least number, the one of least total squared deviation from the
    groups' means is taken. `smallest` is the least number of micrographs in a group; where the phase limit leaves too few
    neighbours, a smaller group is made rather than the limit broken. `astigmatism` (complex, of `defocus_vector`) is averaged over
    a group as well, and a micrograph's deviation in its worst direction counts: that of the mean plus that of the astigmatism.
    Returns the group number (1.. in order of defocus) of each micrograph, in the order given.
    """
    values = _check_defocus(defocus)
    if not resolution > 0:
        raise InputError(f"resolution {resolution} A for defocus groups: must be positive")
    if smallest < 1:
        raise InputError(f"smallest defocus group {smallest}: must be at least 1 micrograph")
    vectors = np.asarray(np.zeros(len(values)) if astigmatism is None else astigmatism, dtype=np.complex128)
    if vectors.shape != values.shape:
        raise InputError(f"{vectors.size} astigmatisms for {values.size} defocus values: one for each is needed")
    order = np.argsort(values, kind="stable")
    starts = _best_partition(values[order], vectors[order], resolution**2 / (2 * optics.wavelength), smallest)
    groups = np.zeros(len(values), dtype=np.int64)
    groups[order] = np.searchsorted(starts, np.arange(len(values)), side="right")
    return groups


def _best_partition(z: Float64, vectors: npt.NDArray[np.complex128], limit: float, smallest: int) -> Int64:
    """First indices of the best groups of sorted `z`: fewest undersized ones, then fewest, then least squared deviation."""
    n = len(z)
    centred = z - z.mean() if n else z
    sums, vector_sums, squares = (
        np.concatenate([[0.0], np.cumsum(x)]) for x in (centred, vectors, centred**2 + np.abs(vectors) ** 2)
    )
    counts = np.zeros(n + 1)  # groups, plus n + 1 for each undersized one
    costs = np.zeros(n + 1)
    previous = np.zeros(n + 1, dtype=np.int64)
    allowed_deviation = limit + 1e-9 * max(1.0, limit)
    for stop in range(1, n + 1):
        first = int(np.searchsorted(z, z[stop - 1] - 2 * allowed_deviation))
        start = np.arange(first, stop)
        size = stop - start
        mean = (sums[stop] - sums[start]) / size
        vector = (vector_sums[stop] - vector_sums[start]) / size
        reach = np.maximum(centred[stop - 1] - mean, mean - centred[start])
        count = counts[start] + 1 + (n + 1) * (size < smallest)
        deviation = squares[stop] - squares[start] - size * (mean**2 + np.abs(vector) ** 2)
        cost = costs[start] + np.maximum(deviation, 0.0)
        # astigmatism is looked at only until the best run is found within its limit
        for i in np.lexsort((cost, count)):
            run = slice(start[i], stop)
            if size[i] == 1 or (
                reach[i] <= allowed_deviation
                and _worst(centred[run] - mean[i], vectors[run] - vector[i]) <= allowed_deviation
            ):
                counts[stop], costs[stop], previous[stop] = count[i], cost[i], start[i]
                break
    starts = []
    stop = n
    while stop > 0:
        stop = int(previous[stop])
        starts.append(stop)
    return np.array(starts[::-1], dtype=np.int64)


def _worst(mean: Float64, vector: npt.NDArray[np.complex128]) -> float:
    return float((np.abs(mean) + np.abs(vector)).max())


def average_groups(
    def_sort: pd.DataFrame, micrographs: pd.DataFrame, optics: Optics
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Group averages (`defavg`), each micrograph counting once.

    def_sort: rlnMicrographName, nphDefocusGroup; micrographs: rlnMicrographName, rlnDefocusU, rlnDefocusV (A), rlnDefocusAngle
    (degrees). Returns `def_avg` (per micrograph, in the order of `micrographs`: nphDefocus, nphDefocusGroup, nphGroupDefocus,
    nphGroupDefocusU, nphGroupDefocusV, nphGroupDefocusAngle) and `sel_group` (per group: the same averages, nphMicrographs,
    nphDefocusSpread (largest less smallest, A), nphWorstDeviation (A, over all directions), nphPhaseErrorLimit (A, where that
    deviation makes a phase error of 90 degrees; 0: no limit)). Astigmatism is averaged as a vector of twice its angle.
    """
    known = micrographs.drop_duplicates("rlnMicrographName").set_index("rlnMicrographName")
    missing = [name for name in def_sort["rlnMicrographName"] if name not in known.index]
    if missing:
        raise InputError(f"def_sort names micrograph {missing[0]}, which the defocus table lacks ({len(missing)} such)")
    group_of = def_sort.set_index("rlnMicrographName")["nphDefocusGroup"]
    table = known.loc[[name for name in known.index if name in group_of.index]]
    mean, vector = defocus_vector(table)
    _check_defocus(mean)
    group = group_of.loc[table.index].to_numpy(np.int64)
    numbers, index, size = np.unique(group, return_inverse=True, return_counts=True)
    group_mean = np.bincount(index, mean) / size
    group_vector = (np.bincount(index, vector.real) + 1j * np.bincount(index, vector.imag)) / size
    deviation = np.abs(mean - group_mean[index]) + np.abs(vector - group_vector[index])
    worst, high, low = np.zeros(len(size)), np.full(len(size), -np.inf), np.full(len(size), np.inf)
    np.maximum.at(worst, index, deviation)
    np.maximum.at(high, index, mean)
    np.minimum.at(low, index, mean)
    half = np.abs(group_vector)
    averages = pd.DataFrame(
        {
            "nphDefocusGroup": numbers,
            "nphGroupDefocus": group_mean,
            "nphGroupDefocusU": group_mean + half,
            "nphGroupDefocusV": group_mean - half,
            "nphGroupDefocusAngle": (0.5 * np.degrees(np.angle(group_vector)) + 90) % 180 - 90,
        }
    )
    def_avg = pd.DataFrame({"rlnMicrographName": list(table.index), "nphDefocus": mean, "nphDefocusGroup": group})
    for column in averages.columns[1:]:
        def_avg[column] = averages[column].to_numpy()[index]
    sel_group = averages.assign(
        nphMicrographs=size,
        nphDefocusSpread=high - low,
        nphWorstDeviation=worst,
        nphPhaseErrorLimit=[phase_error_limit(w, optics) for w in worst],
    )
    return def_avg, sel_group


def defocus_vector(table: pd.DataFrame, of_group: bool = False) -> tuple[Float64, npt.NDArray[np.complex128]]:
    """Mean defocus (A) of each row, and half the astigmatism (A) as a complex number of twice its angle.

    Columns rlnDefocusU, V, Angle, or nphGroupDefocusU, V, Angle.
    """
    start = "nphGroupDefocus" if of_group else "rlnDefocus"
    u, v, angle = (table[f"{start}{part}"].to_numpy(np.float64) for part in ("U", "V", "Angle"))
    return 0.5 * (u + v), 0.5 * (u - v) * np.exp(2j * np.deg2rad(angle))


def phase_error(deviation: npt.ArrayLike, frequency: npt.ArrayLike, optics: Optics) -> Float64:
    """Phase error in degrees at `frequency` (1/A) of a defocus that is `deviation` (A) away from its group's; they broadcast."""
    return np.asarray(np.degrees(optics.k2_factor * np.abs(np.asarray(deviation)) * np.asarray(frequency) ** 2))


def check_edit(proposal: pd.DataFrame, edit: pd.DataFrame, source: str = "def_sort") -> pd.DataFrame:
    """A user's `def_sort`, checked against the proposal: each micrograph once, positive whole group numbers.

    Returns rlnMicrographName, nphDefocus (from the proposal), nphDefocusGroup, sorted by group, defocus, name. `source` names the
    file in messages. InputError: a name unknown, missing or double, or a group that is not a positive whole number.
    """
    for column in ("rlnMicrographName", "nphDefocusGroup"):
        if column not in edit.columns:
            raise InputError(f"{source}: no column {column}; copy the proposed file and edit that")
    names = [str(name) for name in edit["rlnMicrographName"]]
    known = {str(n): float(z) for n, z in zip(proposal["rlnMicrographName"], proposal["nphDefocus"], strict=True)}
    seen: dict[str, int] = {}
    groups = []
    for row, (name, value) in enumerate(zip(names, edit["nphDefocusGroup"], strict=True), 1):
        if name not in known:
            raise InputError(
                f"{source}: row {row}: micrograph {name} is not among the kept ones; remove the row or mend the name"
            )
        if name in seen:
            raise InputError(
                f"{source}: row {row}: micrograph {name} is already in row {seen[name]}; leave one of them"
            )
        seen[name] = row
        number = pd.to_numeric(pd.Series([value]), errors="coerce").iloc[0]
        if not (np.isfinite(number) and number == int(number) and number >= 1):
            raise InputError(f"{source}: row {row}: defocus group {value} of {name}: must be a whole number from 1 on")
        groups.append(int(number))
    missing = [name for name in known if name not in seen]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{source}: micrograph {missing[0]}{more} is missing; "
            "add a row with its group (to drop a micrograph, edit sel_micrograph)"
        )
    table = pd.DataFrame(
        {"rlnMicrographName": names, "nphDefocus": [known[n] for n in names], "nphDefocusGroup": groups}
    )
    return table.sort_values(["nphDefocusGroup", "nphDefocus", "rlnMicrographName"], ignore_index=True)


def _check_defocus(defocus: npt.ArrayLike) -> Float64:
    values = np.asarray(defocus, dtype=np.float64)
    if values.ndim != 1:
        raise InputError(f"defocus has {values.ndim} axes: one value per micrograph is needed")
    if not np.all(np.isfinite(values)):
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(
            f"defocus of micrograph number {bad + 1} is {values[bad]}: leave micrographs without a fit out of the groups"
        )
    return values


def _order(names: Sequence[str], values: Float64) -> Int64:
    if len(names) != len(values):
        raise InputError(f"{len(names)} micrograph names for {len(values)} defocus values: one for each is needed")
    if len(set(names)) != len(names):
        double = next(n for i, n in enumerate(names) if n in names[:i])
        raise InputError(f"micrograph {double} is listed twice")
    return np.array(sorted(range(len(values)), key=lambda i: (values[i], str(names[i]))), dtype=np.int64)
