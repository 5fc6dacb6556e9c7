"""Reading what a run left under results/ and logs/; whatever is not there yet is left out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from nephila.config import Config
from nephila.io.tables import Blocks, read_blocks
from nephila.run_records import Record, read_records

NOT_COUNTED = frozenset({"report"})
"""Rules whose records say nothing about the run: the report itself."""

TABLES = {
    "fits": ("ctf/micrographs.star", "micrographs"),
    "micrographs": ("ctf/defocus.star", "micrographs"),
    "selection": ("ctf/sel_micrograph.star", "sel_micrograph"),
    "proposal": ("ctf/sel_micrograph.proposed.star", "sel_micrograph"),
    "def_sort": ("ctf/def_sort.star", "def_sort"),
    "groups": ("ctf/sel_group.star", "sel_group"),
    "phases": ("ctf/group_phases.star", "group_phases"),
    "picks": ("particles/picks_by_micrograph.star", "picks"),
    "selected": ("particles/percent_selected.star", "percent_selected"),
    "aligned": ("alignment/sel_group.star", "sel_group"),
    "initial": ("reference/initial.star", "initial"),
    "how_many": ("averages/how_many.star", "how_many"),
    "averages": ("averages/averages.star", "averages"),
    "thresholds": ("averages/thresh.star", "thresh"),
    "kept": ("averages/sel_group_cclim.star", "sel_group_cclim"),
    "first_resolution": ("reconstruction/resolution.star", "resolution"),
    "first_fsc": ("reconstruction/combires.star", "fsc"),
    "iterations": ("refinement/iterations.star", "iterations"),
    "fsc": ("refinement/fsc.star", "fsc"),
    "truth_fsc": ("refinement/fsc_truth.star", "fsc"),
    "particles": ("refinement/particles.star", "particles"),
    "optics": ("refinement/particles.star", "optics"),
    "checks": ("refinement/checks.star", "checks"),
}
"""Tables by name: file under results/, and block."""


@dataclass(frozen=True)
class Times:
    """When a run's jobs worked, from their records (seconds since 1970).

    busy: seconds during which at least one job ran, so that pauses between runs do not count; cpu: CPU seconds of all jobs.
    """

    first: float
    last: float
    busy: float
    cpu: float
    jobs: int

    @property
    def finished(self) -> str:
        """Date and time (UTC) of the end of the last job."""
        return datetime.fromtimestamp(self.last, UTC).strftime("%Y-%m-%d %H:%M UTC")


@dataclass(frozen=True)
class Run:
    """A run as its files show it. `tables` holds those of `TABLES` that exist; `summary` is empty before the end; `code` has
    the hash of the code behind each rule that ran."""

    folder: Path
    config: Config
    summary: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    times: Times | None = None
    code: dict[str, str] = field(default_factory=dict)

    @property
    def results(self) -> Path:
        """The folder of results."""
        return self.folder / "results"

    def table(self, name: str) -> pd.DataFrame | None:
        """A table of `TABLES`, None where it does not exist."""
        return self.tables.get(name)

    @property
    def resolution(self) -> float | None:
        """Final resolution, A at FSC 0.143; None where the refinement has not ended or nothing is resolved."""
        value = self.summary.get("resolution", {}).get("fsc_0143")
        return None if value is None else float(value)


def rows_of(table: pd.DataFrame) -> Iterable[Any]:
    """Rows with the columns as attributes."""
    return table.itertuples()


def collect(folder: str | Path, config: Config) -> Run:
    """Read a project's results."""
    top = Path(folder)
    tables = {}
    files: dict[Path, Blocks] = {}
    for name, (path, block) in TABLES.items():
        where = top / "results" / path
        if where.is_file():
            blocks = files[where] if where in files else files.setdefault(where, read_blocks(where))
            tables[name] = blocks[block] if block in blocks else next(iter(blocks.values()))
    if "fits" in tables:
        tables.setdefault("micrographs", tables["fits"])  # a run of a version that knew no defoci by hand
    summary = top / "results" / "summary.json"
    found = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
    records = read_records(top)
    code = {record["rule"]: str(record["code"]) for record in records.values() if record.get("code")}
    return Run(top, config, found, tables, run_times(records), code)


def run_times(records: dict[Path, Record]) -> Times | None:
    """Times of all jobs; None without records."""
    spans, cpu = [], 0.0
    for record in records.values():
        if record["rule"] in NOT_COUNTED or "started" not in record:
            continue
        began = float(record["started"])
        spans.append((began, began + float(record.get("wall_seconds", 0.0))))
        cpu += float(record.get("cpu_seconds", 0.0))
    if not spans:
        return None
    spans.sort()
    busy, until = 0.0, spans[0][0]
    for began, ended in spans:
        busy += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return Times(spans[0][0], until, busy, cpu, len(spans))
