"""What the table of tries at an initial model (results/reference/initial.star) says."""

from __future__ import annotations

import pandas as pd

AGREEMENT = 2.0
"""Two tries found the same object where their models agree to this many times the likeliest one's resolution."""


DARK = -0.5
"""A skewness about the solvent's level below this: most of the density is dark."""


def looks_dark(tries: pd.DataFrame) -> bool:
    """Whether the likeliest try's object is darker than the solvent: particles of the wrong contrast are fitted as well."""
    return float(tries["nphSkewness"].iloc[0]) < DARK


def agreement_limit(tries: pd.DataFrame) -> float:
    """How far models have to agree with the likeliest one, which stands first, A."""
    return AGREEMENT * float(tries["nphResolution"].iloc[0])


def agreeing_tries(tries: pd.DataFrame) -> int:
    """How many tries besides the likeliest found its object: none where particles hold nothing but noise, or are too few."""
    others = tries["nphAgreement"].iloc[1:]
    return int(((others > 0) & (others <= agreement_limit(tries))).sum())
