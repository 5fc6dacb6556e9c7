"""What checks of a result found, and its table."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Finding:
    """A measured number, the limit from which it is doubtful (0: none), and what the doubt means ("none" without one)."""

    name: str
    measured: float
    limit: float
    doubt: str = "none"


def checks_table(findings: list[Finding]) -> pd.DataFrame:
    """checks.star: a row per finding."""
    return pd.DataFrame(
        {
            "nphName": [f.name for f in findings],
            "nphMeasured": [f.measured for f in findings],
            "nphLimit": [f.limit for f in findings],
            "nphReason": [f.doubt for f in findings],
        }
    )


def doubts(table: pd.DataFrame) -> list[str]:
    """The sentences of a checks table that are warnings."""
    return [str(text) for text in table["nphReason"] if text != "none"]
