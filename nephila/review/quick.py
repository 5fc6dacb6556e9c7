"""Reading the workflow's own large tables in a fraction of the time: files of one loop whose fields are parted by tabs.

Everything else (several blocks, quotes, remarks within rows, files by other hands) is left to `nephila.io.tables`.
"""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd

from nephila.io.tables import TEXT_COLUMNS

_MISSING = ["nan", "NaN", "<NA>"]


def read_plain(path: Path) -> pd.DataFrame | None:
    """The table, as `nephila.io.tables.read_table` gives it; None where the file is not of the plain kind."""
    text = path.read_text(encoding="utf-8", errors="replace")
    start = text.find("\nloop_\n")
    if start < 0 or text.find("\nloop_", start + 1) >= 0 or text.count("\ndata_") != 1 or "'" in text or '"' in text:
        return None
    columns: list[str] = []
    place = start + len("\nloop_\n")
    while text.startswith("_", place):
        end = text.find("\n", place)
        if end < 0:
            return None
        columns.append(text[place + 1 : end].split()[0])
        place = end + 1
    body = text[place:]
    fields = body.split("\n", 1)[0].count("\t") + 1
    if not columns or not body.strip() or fields != len(columns) or " " in body or "#" in body:
        return None
    texts = TEXT_COLUMNS.intersection(columns)
    try:
        frame = pd.read_csv(
            io.StringIO(body), sep="\t", header=None, names=columns, dtype=dict.fromkeys(texts, str), index_col=False,
            keep_default_na=False, na_values={name: _MISSING for name in columns if name not in texts},
            on_bad_lines="error",
        )  # fmt: skip
    except ValueError:
        return None
    return frame if body.count("\t") == (len(columns) - 1) * len(frame) else None  # no row is shorter than the others
