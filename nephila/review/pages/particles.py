"""Particles, by micrograph and by class average."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from nephila.errors import InputError
from nephila.review.pages.micrographs import numbers
from nephila.review.pictures import version_of
from nephila.review.project import NotYet, Project

PROPOSED = "results/particles/good.proposed.star"
VIEWS = "results/averages/ref_sel.star"
AVERAGES = "results/averages/averages.star"
STACK = "results/averages/averages.mrcs"


def windows(project: Project) -> pd.DataFrame:
    """Windows of all micrographs in the order of the proposal: its columns and rlnImageName."""
    names = project.names("results/particles/win/winser_*.star")
    stamp = (project.stamp(PROPOSED), tuple((name, project.stamp(name)) for name in names))

    def make() -> pd.DataFrame:
        key = ["rlnMicrographName", "nphParticleNumber"]
        found = pd.concat([project.table(name, block="particles") for name in names], ignore_index=True)
        proposal = project.table(PROPOSED, "good")
        table = proposal.merge(found[[*key, "rlnImageName"]], on=key, how="left", validate="one_to_one")
        return table.dropna(subset="rlnImageName").reset_index(drop=True)

    return project.kept(("windows",), stamp, make)


def particles(project: Project) -> dict[str, Any]:
    """Micrographs with their number of particles, and for every particle its number, proposal, reason where dropped, view (0: none)
    and correlation; particles of a micrograph stand together."""
    table = windows(project)
    codes, names = pd.factorize(table["rlnMicrographName"])
    if len(codes) and (np.diff(codes) < 0).any():
        raise InputError(f"{PROPOSED}: particles of a micrograph do not stand together")
    keep = table["nphKeep"].astype(int).to_numpy()
    reasons = table["nphReason"].tolist() if "nphReason" in table.columns else ["none"] * len(table)
    found: dict[str, Any] = {
        "micrographs": [str(name) for name in names],
        "counts": np.bincount(codes, minlength=len(names)).tolist(),
        "numbers": table["nphParticleNumber"].astype(int).tolist(),
        "dropped": {str(i): reasons[i] for i in np.flatnonzero(keep == 0)},
        "version": version_of((particle_items(project)[1], project.exists(VIEWS) and project.stamp(VIEWS))),
        "box": int(project.config().box),
        "pixelSize": float(project.config().pixel_size),
    }
    if project.exists(VIEWS):
        seen = _views(project)
        found["views"] = seen["nphView"].fillna(0).astype(int).tolist()
        found["correlations"] = numbers(seen["nphCorrelation"])
        found["averages"] = averages(project)
        if project.exists(STACK):
            found["averagesVersion"] = version_of(average_items(project))
    return found


def _views(project: Project) -> pd.DataFrame:
    """View and correlation of each row of `windows`."""

    def make() -> pd.DataFrame:
        key = ["rlnMicrographName", "nphParticleNumber"]
        views = project.table(VIEWS)[[*key, "nphView", "nphCorrelation"]]
        return windows(project)[key].merge(views, on=key, how="left")

    return project.kept(("views of windows",), (project.stamp(VIEWS), project.stamp(PROPOSED)), make)


def averages(project: Project) -> list[dict[str, Any]]:
    """View, direction, particles and correlation with the reference of each class average."""
    if not project.exists(AVERAGES):
        return []
    table = project.table(AVERAGES)
    columns = ("nphView", "rlnAngleRot", "rlnAngleTilt", "nphParticles", "nphCorrelation")
    return [
        {"view": int(v), "rot": r, "tilt": t, "particles": int(n), "correlation": c}
        for v, r, t, n, c in zip(*(numbers(table[name]) for name in columns), strict=True)
    ]


def particle_items(project: Project) -> tuple[list[str], Any]:
    """Windows in the order of the table, and their stamp."""
    table = windows(project)
    return table["rlnImageName"].tolist(), (project.stamp(PROPOSED), _stack_stamps(project))


def view_items(project: Project, view: int) -> tuple[list[str], Any]:
    """Windows of a view by falling correlation, and their stamp."""
    names = windows(project)["rlnImageName"]
    rows = view_rows(project, view)
    return names.iloc[rows].tolist(), (project.stamp(VIEWS), _stack_stamps(project))


def view_rows(project: Project, view: int) -> list[int]:
    """Rows of `windows` that fell on a view, by falling correlation."""
    if not project.exists(VIEWS):
        raise NotYet(f"{VIEWS} is not there yet")
    seen = _views(project)
    rows = np.flatnonzero(seen["nphView"].to_numpy() == view)
    order = np.argsort(-seen["nphCorrelation"].to_numpy()[rows], kind="stable")
    return [int(row) for row in rows[order]]


def average_items(project: Project) -> tuple[list[str], Any]:
    """Class averages by view, and their stamp."""
    views = project.table(AVERAGES)["nphView"]
    return [f"{int(view)}@{STACK}" for view in views], project.stamp(STACK)


def _stack_stamps(project: Project) -> Any:
    return tuple((name, project.stamp(name)) for name in project.names("results/particles/win/winser_*.mrcs"))
