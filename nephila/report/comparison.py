"""Two or more runs side by side: settings that differ, results, and their curves over each other."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nephila.errors import InputError
from nephila.report.blocks import Block, Column, Row, Section, Shown, seconds
from nephila.report.checks import check_run
from nephila.report.collect import Run
from nephila.report.page import BUDGET, render
from nephila.report.pictures import Pictures
from nephila.report.sections import flat_settings, setting_text


def run_names(folders: Sequence[Path]) -> list[str]:
    """Short names that tell the runs apart: the ends of their paths."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise InputError("the same run is named twice; give different project folders")
    length = 1
    while len({part[-length:] for part in parts}) < len(parts):
        length += 1
    return ["/".join(part[-length:]) for part in parts]


def result_rows(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """What came out, a line for each number: its name, and one text for each run."""
    wanted: list[tuple[str, Any]] = [
        ("resolution at FSC 0.143, Å", lambda r: _number(r.summary.get("resolution", {}).get("fsc_0143"), 2)),
        ("resolution at FSC 0.5, Å", lambda r: _number(r.summary.get("resolution", {}).get("fsc_05"), 2)),
        ("without mask at 0.143, Å", lambda r: _number(r.summary.get("resolution", {}).get("unmasked_0143"), 2)),
        (
            "with the true map at 0.5, Å",
            lambda r: _number(r.summary.get("truth", {}).get("resolution_05"), 2),
        ),
        ("micrographs used", lambda r: _number(r.summary.get("micrographs", {}).get("kept"))),
        ("defocus groups", lambda r: _number(r.summary.get("defocus_groups"))),
        ("particles picked", lambda r: _number(r.summary.get("particles", {}).get("picked"))),
        ("particles refined", lambda r: _number(r.summary.get("particles", {}).get("refined"))),
        ("iterations until converged", _iterations),
        ("warnings", lambda r: str(sum(finding.level == "warning" for finding in check_run(r)))),
        ("time", lambda r: seconds(r.times.busy) if r.times else "–"),
        ("CPU time", lambda r: seconds(r.times.cpu) if r.times else "–"),
        ("peak memory, GB", lambda r: _number(_gigabytes(r), 2)),
    ]
    rows = [(name, [make(run) for run in runs]) for name, make in wanted]
    return [(name, cells) for name, cells in rows if any(cell != "–" for cell in cells)]


def _gigabytes(run: Run) -> float | None:
    peak = run.summary.get("cost", {}).get("total", {}).get("peak_memory_mb")
    return None if peak is None else peak / 1024


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _iterations(run: Run) -> str:
    table = run.table("iterations")
    if table is None:
        return "–"
    worked = int((~table["nphSearch"].isin(["start", "none"])).sum())
    return f"{worked}" if int(table["nphConverged"].iloc[-1]) else f"not in {worked}"


def setting_rows(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Keys of config.yaml whose values differ, and versions that do; one text for each run."""
    settings = [flat_settings(run.config.model_dump()) for run in runs]
    keys = dict.fromkeys(key for each in settings for key in each)
    rows = [(key, [setting_text(each.get(key)) for each in settings]) for key in keys]
    versions = [run.summary.get("versions", {}) for run in runs]
    names = dict.fromkeys(name for each in versions for name in each)
    rows += [(f"version of {name}", [each.get(name, "–") for each in versions]) for name in names]
    return [(name, cells) for name, cells in rows if len(set(cells)) > 1]


def code_differs(runs: Sequence[Run]) -> str:
    """A sentence about the steps whose code differs; empty where none is known to."""
    rules = sorted(rule for rule in runs[0].code if len({run.code.get(rule) for run in runs}) > 1)
    if not rules:
        return ""
    named = ", ".join(rules[:12]) + (f" and {len(rules) - 12} more" if len(rules) > 12 else "")
    return f"The code behind these steps differs: {named}."


def text_table(names: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Lines for the terminal; the first column on the left, the others on the right."""
    widths = [max(len(cells[i]) for cells in ([*names], *(cells for _, cells in rows))) for i in range(len(names))]
    left = max((len(name) for name, _ in rows), default=0)
    return [
        f"  {name:{left}s}  " + "  ".join(f"{cell:>{width}s}" for cell, width in zip(cells, widths, strict=True))
        for name, cells in [("", [*names]), *rows]
    ]


def render_comparison(runs: Sequence[Run], names: Sequence[str]) -> str:
    """The comparison as a page that is complete in itself."""
    differ = setting_rows(runs)
    heads = [Column(""), *(Column(name, True) for name in names)]
    results = [Row([name, *cells]) for name, cells in result_rows(runs)]
    settings = [Row([key, *cells]) for key, cells in differ]
    same = Block("text", text="No setting and no version differs.")
    code = [Block("text", text=sentence)] if (sentence := code_differs(runs)) else []
    sections = [
        Section("results", "Results", "What came out of each run.", [Block("table", columns=heads, rows=results)]),
        Section(
            "settings", "Settings that differ", "All other keys of config.yaml are the same.",
            [Block("table", columns=heads, rows=settings) if settings else same, *code],
        ),
        *_drawn(runs, names),
    ]  # fmt: skip
    return render(
        "compare.html.j2",
        title="Comparison of " + " and ".join(names) if len(names) == 2 else f"Comparison of {len(names)} runs",
        subtitle=", ".join(names) if len(names) > 2 else "",
        sections=sections,
        footer="This page is complete in itself: it can be mailed, archived and read without a network.",
    )


def _drawn(runs: Sequence[Run], names: Sequence[str]) -> list[Section]:
    from nephila.figures.curves import plot_fsc_of_runs, plot_resolution_by_iteration

    sections = []
    with tempfile.TemporaryDirectory() as folder:
        own = Pictures(Path(folder), BUDGET)
        curves = {
            name: (table["rlnResolution"].to_numpy(), table["rlnFourierShellCorrelation"].to_numpy())
            for name, run in zip(names, runs, strict=True)
            if (table := run.table("fsc")) is not None
        }
        items = []
        if curves:
            plot_fsc_of_runs(curves, Path(folder) / "fsc.png")
            items.append(_shown(own, "fsc.png", "FSC", "Half maps of each run, corrected for the mask."))
        steps = resolutions(runs, names)
        if len(steps):
            plot_resolution_by_iteration(steps, Path(folder) / "resolution.png")
            items.append(_shown(own, "resolution.png", "Resolution by iteration", "At FSC 0.143."))
        shown = [item for item in items if item is not None]
        if shown:
            sections.append(Section("curves", "Curves", "The runs over each other.", [Block("figures", items=shown)]))
    maps = []
    for name, run in zip(names, runs, strict=True):
        picture = Pictures(run.folder, BUDGET // max(len(runs), 2)).figure("results/refinement/figures/map_views.png")
        if picture:
            maps.append(Shown(picture, name, "", False))
    if maps:
        text = "Each map in its own frame: maps of different references may be turned against each other."
        sections.append(Section("maps", "Maps", text, [Block("sheet", items=maps, cell=480)]))
    return sections


def _shown(pictures: Pictures, name: str, title: str, caption: str) -> Shown | None:
    picture = pictures.figure(name)
    return None if picture is None else Shown(picture, title, caption)


def resolutions(runs: Sequence[Run], names: Sequence[str]) -> pd.DataFrame:
    """Column `iteration`, and for each run with iterations one of its resolution in A (missing where nothing is resolved)."""
    columns = {}
    for name, run in zip(names, runs, strict=True):
        table = run.table("iterations")
        if table is not None:
            worked = table[table["nphSearch"] != "none"]
            columns[name] = worked.set_index("nphIteration")["nphResolution"].where(lambda value: value > 0)
    if not columns:
        return pd.DataFrame()
    return pd.DataFrame(columns).rename_axis("iteration").reset_index()
