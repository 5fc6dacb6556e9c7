"""How the particles are spread over view directions, and what a cap per view would leave."""

from __future__ import annotations

from typing import Any

import numpy as np

from nephila.review.pages.micrographs import numbers
from nephila.review.project import Project


def views(project: Project) -> dict[str, Any]:
    """Directions of the reference views, particles on each by group (0: all), those above the thresholds, and the settings' cap
    (0: none)."""
    table = project.table("results/averages/how_many.star")
    everyone = table[table["nphDefocusGroup"] == 0]
    found: dict[str, Any] = {
        "rot": numbers(everyone["rlnAngleRot"]),
        "tilt": numbers(everyone["rlnAngleTilt"]),
        "view": everyone["nphView"].astype(int).tolist(),
        "groups": {},
        "cap": project.config().thresholds.best_per_view or 0,
        "symmetry": project.config().particle.symmetry,
    }
    for number, rows in table[table["nphDefocusGroup"] > 0].groupby("nphDefocusGroup"):
        found["groups"][str(int(str(number)))] = {"counts": rows["nphParticles"].astype(int).tolist()}
    if project.exists("results/averages/ref_sel.star") and project.exists("results/averages/thresh.star"):
        for number, counts in _above(project, found["view"]).items():
            found["groups"].setdefault(number, {"counts": counts})["above"] = counts
    return found


def _above(project: Project, order: list[int]) -> dict[str, list[int]]:
    """Particles above the thresholds by view, for each group."""
    seen = project.table("results/averages/ref_sel.star")
    cuts = project.table("results/averages/thresh.star", "thresh").set_index("nphDefocusGroup")["nphThreshold"]
    limit = seen["nphDefocusGroup"].map(cuts)
    kept = seen[seen["nphCorrelation"] >= limit]
    place = {view: i for i, view in enumerate(order)}
    found = {}
    for number, rows in kept.groupby("nphDefocusGroup"):
        counts = np.zeros(len(order), dtype=int)
        for view, n in rows["nphView"].astype(int).value_counts().items():
            counts[place[int(str(view))]] = n
        found[str(int(str(number)))] = counts.tolist()
    return found
