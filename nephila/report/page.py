"""The page: one HTML file with everything in it, which asks for nothing from elsewhere."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nephila.report import TEMPLATES
from nephila.report.blocks import Shown, Tile, angst, seconds
from nephila.report.checks import Finding, check_run
from nephila.report.collect import Run
from nephila.report.methods import methods_text
from nephila.report.pictures import Pictures
from nephila.report.sections import make_sections

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Content security policy: pictures inside the page and its own style; no scripts, fonts, frames or requests."""
BUDGET = 13_000_000
"""Bytes of pictures in a page."""


def render_report(run: Run) -> str:
    """The report of a run as HTML; as far as the run has come."""
    pictures = Pictures(run.folder, BUDGET)
    findings = check_run(run)
    answer = _answer(run, pictures)  # first, so that it has its place whatever follows
    sections = make_sections(run, pictures, findings)
    present = {section.id for section in sections}
    paragraphs, references = methods_text(run)
    return render(
        "report.html.j2",
        title=f"{run.config.project.name}: Nephila report",
        name=run.config.project.name,
        subtitle=_subtitle(run),
        tiles=_tiles(run, findings),
        answer=answer,
        findings=[finding for finding in findings if finding.stage in present],
        sections=sections,
        methods=paragraphs,
        methods_lead="What this run did, in words to start from for a paper."
        if run.summary
        else "What this run is set to do; it has not finished.",
        references=references,
        footer="This page is complete in itself: it can be mailed, archived and read without a network.",
    )


def render(template: str, **values: Any) -> str:
    """A page from a template of this package, in the common style."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(style=style, policy=POLICY, **values)


def _subtitle(run: Run) -> str:
    parts = []
    if run.times:
        parts.append(
            f"finished {run.times.finished}" if run.summary else f"not finished; last job {run.times.finished}"
        )
    version = run.summary.get("versions", {}).get("nephila")
    if version:
        parts.append(f"Nephila {version}")
    parts.append(f"box {run.config.box} px of {run.config.pixel_size:g} Å")
    parts.append(f"point group {run.config.particle.symmetry}")
    return " · ".join(parts)


def _tiles(run: Run, findings: list[Finding]) -> list[Tile]:
    tiles = []
    resolution, counts = run.summary.get("resolution", {}), run.summary.get("particles", {})
    if resolution:
        lines = [f"half maps at FSC 0.143; {angst(resolution['fsc_05'])} at 0.5"]
        truth = run.summary.get("truth", {}).get("resolution_05")
        lines.append(
            f"{angst(truth)} with the true map at 0.5"
            if truth
            else f"{angst(resolution['unmasked_0143'])} without mask"
        )
        tiles.append(Tile("Resolution", angst(run.resolution), lines))
    if counts:
        share = f"{counts['refined'] / max(counts['picked'], 1):.0%} of {counts['picked']:,} picked"
        tiles.append(
            Tile("Particles kept", f"{counts['refined']:,}", [share, f"{run.summary['defocus_groups']} defocus groups"])
        )
    given = run.summary.get("micrographs")
    if given:
        out = given["given"] - given["kept"]
        tiles.append(
            Tile(
                "Micrographs used",
                f"{given['kept']} of {given['given']}",
                [f"{out} left out" if out else "none left out"],
            )
        )
    if run.times:
        lines = [f"{seconds(run.times.cpu)} of CPU in {run.times.jobs} jobs"]
        peak = run.summary.get("cost", {}).get("total", {}).get("peak_memory_mb")
        if peak:
            lines.append(f"{peak / 1024:.1f} GB at most")
        tiles.append(Tile("Time", seconds(run.times.busy), lines))
    return [*tiles, _attention(findings)]


def _attention(findings: list[Finding]) -> Tile:
    warnings = sum(finding.level == "warning" for finding in findings)
    notes = len(findings) - warnings
    if not findings:
        return Tile("To look at", "nothing", ["no check found anything"])
    words = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((warnings, "warning"), (notes, "note")) if n]
    first = findings[0].title + ("" if len(findings) == 1 else ", …")
    return Tile("To look at", ", ".join(words), [first], "findings", bool(warnings))


def _answer(run: Run, pictures: Pictures) -> list[Shown]:
    folder = "results/refinement/figures"
    surface = "Surface and projections of the filtered map, from three sides."
    halves = (
        "FSC of the half maps; a resolution is that of the last shell above. Randomised: what the mask alone makes."
    )
    if run.table("truth_fsc") is not None:
        halves += " Truth: with the true map; true poses: what the same particles would give at best."
    wanted = [
        (("map_views", "map_projections"), "The map from three sides", surface),
        (("fsc_truth", "fsc"), "Fourier shell correlation", halves),
    ]
    answer = []
    for names, title, caption in wanted:
        for name in names:
            picture = pictures.figure(f"{folder}/{name}.png")
            if picture is not None:
                answer.append(Shown(picture, title, caption))
                break
    return answer
