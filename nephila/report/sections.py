"""The stages of a run as sections of the page, in order."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pandas as pd

from nephila.config import Config
from nephila.defocus_by_hand import REASON as BY_HAND
from nephila.report.blocks import Block, Row, Section, Shown, angst, columns, seconds
from nephila.report.checks import Finding, reason_words
from nephila.report.collect import Run, rows_of
from nephila.report.pictures import SPECTRUM_PART, Pictures
from nephila.stages import STAGES

MOST_THUMBNAILS = 240
"""More micrographs than this are not all shown: those left out and the worst fits are."""
MOST_ENLARGED = 100
"""So many can be enlarged: the worst."""
OPEN_THUMBNAILS = 6
"""So many are seen without a click."""
MOST_PICKED = 12
"""Micrographs shown with their picks, spread over all."""
MOST_ROWS = 2000
"""More micrographs than this are not all listed."""
_STAGE_ORDER = {stage: place for place, stage in enumerate(("project", *STAGES))}


def make_sections(run: Run, pictures: Pictures, findings: list[Finding]) -> list[Section]:
    """Sections that have something to show, each with its findings."""
    made: list[Section] = []
    parts: tuple[Callable[[Run, Pictures], Section], ...] = (
        _micrographs, _groups, _picks, _views, _reconstruction, _refinement, _cost, _settings, _files
    )  # fmt: skip
    for part in parts:
        section = part(run, pictures)
        mine = [finding for finding in findings if finding.stage == section.id]
        if section.blocks or mine:
            made.append(Section(section.id, section.title, section.text, section.blocks, mine))
    return made


def figures(pictures: Pictures, *wanted: tuple[str, str, str], folded: str = "") -> list[Block]:
    """A block of those figures that exist, as (file, title, caption); nothing where none does."""
    items = []
    for name, title, caption in wanted:
        picture = pictures.figure(name)
        if picture is not None:
            items.append(Shown(picture, title, caption))
    return [Block("figures", folded, items, folded=bool(folded))] if items else []


def worst_first(run: Run) -> pd.DataFrame | None:
    """Micrographs with everything known of them, those left out first, then by how far their rings are explained."""
    table, selection = run.table("micrographs"), run.table("selection")
    if table is None:
        return None
    table = table.copy()
    if selection is not None:
        kept = selection.set_index("rlnMicrographName")["nphKeep"]
        table["nphKeep"] = table["rlnMicrographName"].map(kept).fillna(table["nphKeep"])
        reasons = selection.set_index("rlnMicrographName")["nphReason"]
        table["nphReason"] = table["rlnMicrographName"].map(reasons).fillna(table["nphReason"])
    for name, column in (("def_sort", "nphDefocusGroup"), ("picks", "nphPicked"), ("selected", "nphSelected")):
        found = run.table(name)
        if found is not None and column in found:
            table[column] = table["rlnMicrographName"].map(found.set_index("rlnMicrographName")[column])
    order = ["nphKeep", "rlnCtfMaxResolution"] if "rlnCtfMaxResolution" in table else ["nphKeep"]
    return table.sort_values(order, ascending=[True, False][: len(order)], kind="stable", ignore_index=True)


def _micrographs(run: Run, pictures: Pictures) -> Section:
    table = worst_first(run)
    blocks: list[Block] = []
    if table is not None:
        shown = table.head(MOST_THUMBNAILS)
        used = run.tables["micrographs"]
        by_hand = used.loc[used["nphReason"] == BY_HAND, "rlnMicrographName"]
        places = _fit_pictures(run.results / "ctf", {Path(str(name)).stem for name in by_hand})
        items: list[Shown] = []
        for row in rows_of(shown):
            name = Path(str(row.rlnMicrographName))
            path = places.get(name.stem)
            if path is None:
                continue
            file = str(path.relative_to(run.folder))
            picture = pictures.smaller(file, 300, part=SPECTRUM_PART)
            large = pictures.smaller(file, 1000, 50) if len(items) < MOST_ENLARGED else None
            if picture:
                items.append(Shown(picture, name.name, _fit_words(row), not int(row.nphKeep), large))
        if items:
            blocks.append(Block("sheet", "", items[:OPEN_THUMBNAILS], cell=185))
        if len(items) > OPEN_THUMBNAILS:
            left = len(table) - len(items)
            more = f"; {left} more in results/ctf/figures/" if left else ""
            title = f"The other {len(items) - OPEN_THUMBNAILS} micrographs{more}"
            blocks.append(Block("sheet", title, items[OPEN_THUMBNAILS:], cell=185, folded=True))
        blocks.append(_micrograph_table(table))
    text = (
        "Power spectra (left measured, right fitted), those left out first, then from the worst fit to the best. Measured and "
        "fitted rings must meet, and a good fit reaches finer than the map's resolution. A click shows the profile too."
    )
    return Section("micrographs", "Micrographs and CTF", text, blocks)


def _fit_pictures(folder: Path, by_hand: Collection[str]) -> dict[str, Path]:
    """Pictures of the fits by the micrograph's stem: the last fit's, and of those fitted `by_hand` what was drawn with that."""
    found: dict[str, Path] = {}
    for fits in ("figures", "figures_pooled"):
        found |= {path.stem: path for path in sorted((folder / fits).glob("[0-9]*/*.png"))}
    mine = {path.stem: path for path in sorted((folder / "figures_by_hand").glob("*.png"))}
    return found | {stem: path for stem, path in mine.items() if stem in by_hand}


def _fit_words(row: Any) -> str:
    if not float(row.rlnDefocusU):
        return reason_words(row.nphReason)
    words = f"{(row.rlnDefocusU + row.rlnDefocusV) / 2e4:.3f} µm"
    if getattr(row, "rlnCtfMaxResolution", 0):
        words += f", rings to {row.rlnCtfMaxResolution:.1f} Å"
    return words + ("" if int(row.nphKeep) else f": {reason_words(row.nphReason)}")


def _micrograph_table(table: pd.DataFrame) -> Block:
    wanted: list[tuple[str, Callable[[Any], str]]] = [
        ("micrograph", lambda r: str(r.rlnMicrographName)),
        ("group#", lambda r: _whole(r, "nphDefocusGroup")),
        ("defocus, µm#", lambda r: f"{(r.rlnDefocusU + r.rlnDefocusV) / 2e4:.4f}" if r.rlnDefocusU else "–"),
        ("± Å#", lambda r: _fixed(r, "nphDefocusError", 0)),
        ("astigmatism, Å#", lambda r: f"{r.rlnDefocusU - r.rlnDefocusV:.0f}" if r.rlnDefocusU else "–"),
        ("rings to, Å#", lambda r: _fixed(r, "rlnCtfMaxResolution", 2)),
        ("merit#", lambda r: _fixed(r, "rlnCtfFigureOfMerit", 2)),
        ("picked#", lambda r: _whole(r, "nphPicked")),
        ("selected#", lambda r: _whole(r, "nphSelected")),
        ("left out because", lambda r: "" if int(r.nphKeep) else reason_words(r.nphReason)),
    ]
    shown = table.head(MOST_ROWS)
    rows = [Row([make(r) for _, make in wanted], "" if int(r.nphKeep) else "out") for r in rows_of(shown)]
    heads = columns(" | ".join(name for name, _ in wanted))
    title = "All micrographs, number by number"
    if len(table) > len(shown):
        title = f"{len(shown)} micrographs, number by number; all {len(table)} are in results/ctf/micrographs.star"
    return Block("table", title, columns=heads, rows=rows, folded=True)


def _whole(row: Any, name: str) -> str:
    value = getattr(row, name, None)
    return "–" if value is None or pd.isna(value) else f"{int(value)}"


def _fixed(row: Any, name: str, digits: int) -> str:
    value = getattr(row, name, None)
    return "–" if value is None or pd.isna(value) or not value else f"{value:.{digits}f}"


def _groups(run: Run, pictures: Pictures) -> Section:
    folder = "results/ctf/group_figures"
    blocks = figures(
        pictures,
        (
            f"{folder}/groups.png",
            "Defocus",
            "Above, how the micrographs spread; below, each group with its micrographs (dots) and its mean (tick). Groups with a "
            "single micrograph have few particles; wide ones cost phase.",
        ),
    )
    groups = run.table("groups")
    if groups is not None:
        table = groups
        for name, have, called in (
            ("aligned", "nphParticles", "aligned"), ("thresholds", "nphThreshold", "threshold"), ("kept", "nphParticles", "kept"),
            ("first_resolution", "nphResolutionHalf", "half"), ("first_resolution", "nphResolution", "fsc"),
        ):  # fmt: skip
            found = run.table(name)
            if found is not None and have in found:
                table = table.merge(
                    found[["nphDefocusGroup", have]].rename(columns={have: called}), on="nphDefocusGroup", how="left"
                )
        blocks.append(_group_table(table, run))
    items = [
        Shown(picture, path.stem.replace("_", " "))
        for path in sorted((run.folder / folder).glob("group_*.png"))
        if (picture := pictures.smaller(f"{folder}/{path.name}", 760, 80)) is not None
    ]
    if items:
        title = "Rings of each group's micrographs over each other, and the group's worst phase error"
        blocks.append(Block("sheet", title, items, cell=460, folded=True))
    text = (
        "Micrographs of a group share one CTF. It stays in phase to the resolution given: where the micrograph farthest from "
        "the group's defocus is off by 90 degrees."
    )
    return Section("groups", "Defocus groups", text, blocks)


def _group_table(table: pd.DataFrame, run: Run) -> Block:
    wanted: list[tuple[str, Callable[[Any], str]]] = [
        ("group#", lambda r: str(int(r.nphDefocusGroup))),
        ("micrographs#", lambda r: _whole(r, "nphMicrographs")),
        ("defocus, µm#", lambda r: f"{r.nphGroupDefocus / 1e4:.3f}"),
        ("spread, Å#", lambda r: f"{r.nphDefocusSpread:.0f}"),
        ("in phase to, Å#", lambda r: f"{r.nphPhaseErrorLimit:.2f}" if r.nphPhaseErrorLimit > 0 else "everywhere"),
        ("particles aligned#", lambda r: _whole(r, "aligned")),
        ("threshold#", lambda r: _fixed(r, "threshold", 4)),
        ("kept#", lambda r: _whole(r, "kept")),
        ("first map at 0.5, Å#", lambda r: _fixed(r, "half", 1)),
        ("at 0.143, Å#", lambda r: _fixed(r, "fsc", 1)),
    ]
    present = [(n, make) for n, make in wanted if n.split("#")[0] not in ("threshold", "kept") or n[:-1] in table]
    limit = run.resolution or 0.0
    rows = [
        Row([make(r) for _, make in present], "out" if limit and r.nphPhaseErrorLimit > limit else "")
        for r in rows_of(table)
    ]
    heads = columns(" | ".join(name for name, _ in present))
    title = f"All {len(rows)} groups"
    return Block("table", title, columns=heads, rows=rows, folded=len(rows) > 20, printed=True)


def _picks(run: Run, pictures: Pictures) -> Section:
    counts = run.summary.get("particles", {})
    blocks: list[Block] = []
    picks = run.table("picks")
    steps = list(counts.items())
    if picks is not None and "nphCandidates" in picks:
        steps.insert(0, ("candidates", int(picks["nphCandidates"].sum())))
    if counts:
        top = max(number for _, number in steps)
        made = [(name, f"{number:,}", round(100 * number / max(top, 1), 1)) for name, number in steps]
        blocks.append(Block("funnel", steps=made))
    drawn = sorted((run.results / "particles" / "figures").rglob("*.png"))
    windows = next((str(p.relative_to(run.folder)) for p in drawn if p.name == "windows.png"), "")
    blocks += figures(
        pictures,
        (
            windows,
            "Windows",
            "The first windows, with grey levels in common. Each must hold one particle near its centre; streaks, edges or "
            "ice mean that picking.threshold is too low or that contamination was not recognised.",
        ),
    )
    items, named = [], [p for p in drawn if p.name != "windows.png"]
    # some of every batch: all of them are in the folder
    for path in named[:: -(-len(named) // MOST_PICKED) or 1]:
        file = str(path.relative_to(run.folder))
        picture = pictures.smaller(file, 440)
        if picture:
            items.append(Shown(picture, path.stem, large=pictures.smaller(file, 1000)))
    if items:
        more = f"; {len(named) - len(items)} more in results/particles/figures/" if len(named) > len(items) else ""
        title = f"Picks on {len(items)} micrographs{more}"
        blocks.append(Block("sheet", title, items, folded=len(items) > OPEN_THUMBNAILS))
    text = (
        "Circles must sit on particles, and few particles may be without one. Windows must show one particle each, near the "
        "centre. Selected are those without duplicates and with sound statistics, or those of your edit."
    )
    return Section("picks", "Particles", text, blocks)


def _views(run: Run, pictures: Pictures) -> Section:
    folder = "results/averages/figures"
    blocks = figures(
        pictures,
        (
            f"{folder}/cchistogram.png",
            "Correlation",
            "Of each particle with its best reference, over all groups and by group; orange is left out. Where two humps part, the "
            "threshold belongs between them: edits/thresh.star.",
        ),
        (
            f"{folder}/plotrefviews.png",
            "Views",
            "Particles nearest to each reference view in the first alignment, in the order of the views, and on the hemisphere "
            "seen from above (the size of a disc is the number). A few crowded views are preferred orientations.",
        ),
        (
            f"{folder}/averages.png",
            "Averages",
            "Of the particles of each view, with their number: views of the molecule, sharper the more particles there are. Noise "
            "in the shape of the reference alone would mean that there are no particles.",
        ),
    )
    blocks += figures(
        pictures,
        (
            f"{folder}/variances.png",
            "Variances",
            "Between the particles of each view over all groups: bright where they differ, from movement, a wrong alignment "
            "or other molecules.",
        ),
        (
            f"{folder}/plotrefviews_groups.png",
            "Views by group",
            "All groups on one scale; a group whose views differ from the others' was aligned wrongly.",
        ),
        folded="Variances, and views by group",
    )
    text = (
        "The first alignment, to projections of the starting volume. Averages must look like the molecule and not like the "
        "noise around it; views without particles are no fault unless many lie together."
    )
    return Section("views", "First alignment, views and thresholds", text, blocks)


def _reconstruction(run: Run, pictures: Pictures) -> Section:
    folder = "results/reconstruction/figures"
    blocks = figures(
        pictures,
        (
            f"{folder}/plotres.png",
            "FSC of the groups",
            "Each group alone (thin, by its number) and all merged (thick). A group far to the left of its neighbours is weak, or "
            "its defocus is wrong.",
        ),
        (
            f"{folder}/slices.png",
            "Central slices",
            "Of the first half volume of each group. All must show the same molecule.",
        ),
    )
    text = (
        "A volume for each defocus group, merged over groups. A group that looks unlike the others has a wrong defocus."
    )
    return Section("reconstruction", "First reconstruction", text, blocks)


def _refinement(run: Run, pictures: Pictures) -> Section:
    folder = "results/refinement/figures"
    blocks = figures(
        pictures,
        (
            f"{folder}/resolution.png",
            "Resolution by iteration",
            _by_iteration(run),
        ),
        (
            f"{folder}/fsc_by_iteration.png",
            "FSC by iteration",
            "Of the half maps inside the mask, light for early iterations.",
        ),
        (
            f"{folder}/angdiff.png",
            "Movement",
            "How far orientations and origins moved in each iteration: down to a fraction of the step. Particles that go on "
            "turning far have no clear orientation.",
        ),
        (
            f"{folder}/classes.png",
            "3D classes",
            "Projections of each class (share of the particles, resolution), what it has more (blue) or less (red) than the mean, "
            "FSC of its half maps, and how sure particles are of their class.",
        ),
        (f"{folder}/local_resolution.png", "Local resolution", "In slices through the centre."),
        (
            f"{folder}/resolution_by_particles.png",
            "Resolution by particles",
            "A straight line says what more particles would bring.",
        ),
        (f"{folder}/map_slices.png", "Slices", "Through the centre of the filtered map."),
        (
            f"{folder}/angdisp.png",
            "Directions",
            "Refined view directions with their symmetry mates, over all particles and by group; 1 is an even distribution.",
        ),
    )
    iterations = run.table("iterations")
    if iterations is not None:
        times = {int(one["iteration"]): one["cpu_seconds"] for one in run.summary.get("cost_by_iteration", [])}
        rows = [
            Row([
                str(int(r.nphIteration)), str(r.nphSearch), angst(r.nphResolution), angst(r.nphResolutionHalf),
                angst(r.nphResolutionUnmasked), f"{r.nphAngularStep:g}", f"{r.nphMovedAngle:.2f}", f"{r.nphMovedAngst:.2f}",
                f"{r.nphShareMoved:.1%}", _changed(r, "nphCorrelationGained"), _changed(r, "nphCorrelationLost"),
                seconds(times[int(r.nphIteration)]) if int(r.nphIteration) in times else "–",
                "yes" if int(r.nphConverged) else "",
            ])
            for r in rows_of(iterations)
        ]  # fmt: skip
        heads = columns(
            "iteration# | search | at 0.143# | at 0.5# | no mask# | step, °# | turned, °# | moved, Å# | moved far# | "
            "gained# | lost# | CPU time# | converged"
        )
        blocks.append(Block("table", "Iterations", columns=heads, rows=rows, folded=True, printed=True))
    checks = run.table("checks")
    if checks is not None:
        rows = [
            Row(
                [str(r.nphName).replace("_", " "), f"{r.nphMeasured:.4g}", f"{r.nphLimit:.4g}" if r.nphLimit else "–",
                 "" if r.nphReason == "none" else str(r.nphReason)],
                "" if r.nphReason == "none" else "out",
            )
            for r in rows_of(checks)
        ]  # fmt: skip
        heads = columns("check | measured# | limit# | doubt")
        blocks.append(Block("table", "Checks of the result", columns=heads, rows=rows, folded=True, printed=True))
    text = (
        "Each iteration aligns the original images to the map of the one before, each half-set to its own. Turned and moved are "
        "medians over the particles, gained and lost what correlations rose and fell, the mean over all particles."
    )
    return Section("refinement", "Refinement", text, blocks)


def _by_iteration(run: Run) -> str:
    """Words to the figure of the resolution by iteration; where the final maps say otherwise, why."""
    words = "It must be flat at the end, or more iterations are needed."
    iterations = run.table("iterations")
    last = float(iterations["nphResolution"].iloc[-1]) if iterations is not None and len(iterations) else 0.0
    if run.resolution and last and abs(run.resolution - last) >= 0.005:
        words += (
            f" The halves of the last iteration agree to {angst(last)}, the final ones to {angst(run.resolution)}: these are "
            "made anew from its poses with all frequencies and a mask of their own, and it is their resolution that counts."
        )
    return words


def _changed(row: Any, column: str) -> str:
    """A change of correlation of an iteration's row; runs of earlier versions have no such column."""
    return f"{getattr(row, column):.4f}" if hasattr(row, column) else "–"


def _cost(run: Run, _: Pictures) -> Section:
    cost = run.summary.get("cost", {})
    rows = [
        Row(
            [stage.replace("_", " "), str(one["jobs"]), seconds(one["cpu_seconds"]), seconds(one["startup_cpu_seconds"]),
             seconds(one["wall_seconds"]), f"{one['peak_memory_mb'] / 1024:.2f} GB"],
            "total" if stage == "total" else "",
        )
        for stage, one in sorted(cost.items(), key=lambda item: _STAGE_ORDER.get(item[0], len(_STAGE_ORDER)))
    ]  # fmt: skip
    heads = columns("stage | jobs# | CPU time# | of it starting# | jobs' own time# | peak memory#")
    blocks = [Block("table", columns=heads, rows=rows)] if rows else []
    return Section(
        "cost", "Time and memory", "Summed over the jobs of each stage, from their records in logs/.", blocks
    )


def _settings(run: Run, _: Pictures) -> Section:
    default, used = flat_settings(Config().model_dump()), flat_settings(run.config.model_dump())
    rows = [
        Row([key, setting_text(used[key]), setting_text(default.get(key))], "changed")
        for key in used
        if used[key] != default.get(key)
    ]
    rest = [Row([key, setting_text(used[key])]) for key in used if used[key] == default.get(key)]
    blocks = []
    if rows:
        blocks.append(Block("table", "Set for this project", columns=columns("key | value | default"), rows=rows))
    title = f"The other {len(rest)} keys, at their defaults"
    blocks.append(Block("table", title, columns=columns("key | value"), rows=rest, folded=True))
    return Section("settings", "Settings", "The keys of config.yaml that this run used.", blocks)


def flat_settings(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Keys as they are named in words, `section.key`, with their values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{above}.{key}" if above else key
        flat |= flat_settings(value, name) if isinstance(value, dict) else {name: value}
    return flat


def setting_text(value: Any) -> str:
    """A setting's value as text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(setting_text(item) for item in value) if isinstance(value, (list, tuple)) else str(value)


def _files(run: Run, _: Pictures) -> Section:
    named = [
        ("results/refinement/map_filtered.mrc", "map, filtered to its resolution"),
        ("results/refinement/map.mrc", "map without a filter"),
        ("results/refinement/half1.mrc", "first half map"),
        ("results/refinement/half2.mrc", "second half map"),
        ("results/refinement/particles.star", "particles, as RELION reads them"),
        ("results/refinement/fsc.star", "FSC"),
        ("results/ctf/defocus.star", "micrographs"),
        ("results/summary.json", "numbers of this page"),
    ]
    rows = [Row([name, what]) for name, what in named if (run.folder / name).is_file()]
    blocks = [Block("table", columns=columns("file | content"), rows=rows)] if rows else []
    return Section("files", "Files", "What to take along; docs/files.md names all columns.", blocks)
