"""The strength of the rings that a data set's micrographs share, and its table.

Where rings are faint the strength is what a single micrograph cannot tell: fitting it anew in each one costs accuracy, and now and
then the right peak.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.defocus.settings import DefocusFit, RingStrength

Float64 = npt.NDArray[np.float64]

MIN_GAP = 30.0
"""Lead of the score from which a fit is beyond doubt."""
MOST = 100
"""Micrographs that are pooled, the first ones: later ones change nothing, so that they rerun no fits."""
_FEWEST = 3


def pool_strength(fits: Sequence[DefocusFit], min_gap: float = MIN_GAP) -> RingStrength | None:
    """Envelope over background, median over the fits beyond doubt (lead at least `min_gap`); None for fewer than three."""
    profiles = [f.profile for f in fits if not f.failed and f.profile is not None and f.gap >= min_gap]
    return _pool([(p.frequency, p.envelope / np.maximum(p.background, 1e-30)) for p in profiles])


def pool_tables(table: pd.DataFrame, rings: pd.DataFrame, min_gap: float = MIN_GAP) -> RingStrength | None:
    """The same from tables: `table` of CTFs and `rings` (tables.ring_table) of the first fits, in the order of micrographs.

    The first hundred micrographs count.
    """
    first = table.iloc[:MOST]
    sure = set(
        first.loc[(first["nphScoreGap"] >= min_gap) & (first["rlnDefocusU"] > 0), "rlnMicrographName"].astype(str)
    )
    curves = []
    for name, part in rings.groupby("rlnMicrographName", sort=False):
        if str(name) in sure:
            background, envelope = (part[c].to_numpy(np.float64) for c in ("nphBackground", "nphEnvelope"))
            curves.append((part["nphSpatialFrequency"].to_numpy(np.float64), envelope / np.maximum(background, 1e-30)))
    return _pool(curves)


def _pool(curves: list[tuple[Float64, Float64]]) -> RingStrength | None:
    if len(curves) < _FEWEST:
        return None
    frequency = curves[0][0]
    median = np.median([np.interp(frequency, s, ratio) for s, ratio in curves], axis=0)
    return RingStrength(frequency, np.maximum(median, 1e-3 * float(median.max())))


def strength_table(strength: RingStrength | None) -> pd.DataFrame:
    """nphSpatialFrequency (1/A) and nphRingStrength (rings over background); no rows where too few fits are beyond doubt."""
    frequency, values = (np.zeros(0), np.zeros(0)) if strength is None else (strength.frequency, strength.strength)
    return pd.DataFrame({"nphSpatialFrequency": np.round(frequency, 8), "nphRingStrength": values})


def strength_of(table: pd.DataFrame) -> RingStrength | None:
    """The strength that a table of `strength_table` holds."""
    if not len(table):
        return None
    return RingStrength(
        table["nphSpatialFrequency"].to_numpy(np.float64), table["nphRingStrength"].to_numpy(np.float64)
    )
