"""Correlations of the aligned particles, group by group."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nephila.averaging import align_images
from nephila.errors import InputError
from nephila.io.mrc import open_stack
from nephila.review.pages.micrographs import numbers
from nephila.review.pictures import version_of
from nephila.review.project import Project

Float32 = npt.NDArray[np.float32]
AVERAGED = 300
BLOCK = 64
"""Images held at once."""
PROPOSED = "results/averages/thresh.proposed.star"


def thresholds(project: Project) -> dict[str, Any]:
    """Groups with the correlations of their particles, highest first, and the proposed thresholds."""
    proposal = project.table(PROPOSED, "thresh")
    aligned = project.aligned()
    found = []
    for number, cut in zip(proposal["nphDefocusGroup"].astype(int), proposal["nphThreshold"], strict=True):
        mine = aligned.loc[aligned["nphDefocusGroup"] == number, "nphCorrelation"]
        found.append(
            {
                "group": int(number),
                "version": version_of(group_items(project, int(number))[1]) if len(mine) else "",
                "proposed": float(f"{cut:.9g}"),
                "correlations": numbers(mine.sort_values(ascending=False, kind="stable"), 9),
            }
        )
    return {"groups": found, "share": project.config().thresholds.share_rejected}


def side_average(project: Project, group: int, threshold: float, *, kept: bool) -> Float32:
    """Average of the particles of a group on one side of a threshold, the AVERAGED ones nearest to it, each centred and turned in
    its plane as its reference was found (all views together). InputError where there are none."""
    aligned = project.aligned()
    correlation = aligned["nphCorrelation"].to_numpy()
    rows = np.flatnonzero((aligned["nphDefocusGroup"].to_numpy() == group) & ((correlation >= threshold) == kept))
    if not len(rows):
        raise InputError(f"group {group} has no particles {'above' if kept else 'below'} {threshold:g}")
    rows = rows[np.argsort(np.abs(correlation[rows] - threshold), kind="stable")][:AVERAGED]
    mine = aligned.iloc[np.sort(rows)]
    numbers = [int(name.split("@")[0]) - 1 for name in mine["rlnImageName"]]
    stack = open_stack(project.path(f"results/alignment/group_{group:03d}/data.mrcs"))
    pixel_size = project.config().pixel_size
    psi = mine["rlnAnglePsi"].to_numpy(dtype=np.float64)
    x, y = (mine[f"rlnOrigin{axis}Angst"].to_numpy(dtype=np.float64) / pixel_size for axis in "XY")
    total = np.zeros(stack.shape[1:])
    for start in range(0, len(numbers), BLOCK):
        part = slice(start, start + BLOCK)
        images = np.stack([np.asarray(stack[number], dtype=np.float32) for number in numbers[part]])
        total += align_images(images, psi[part], x[part], y[part]).sum(axis=0, dtype=np.float64)
    return (total / len(numbers)).astype(np.float32)


def group_items(project: Project, group: int) -> tuple[list[str], Any]:
    """Particles of a group by falling correlation, and their stamp."""
    aligned = project.aligned()
    rows = np.flatnonzero(aligned["nphDefocusGroup"].to_numpy() == group)
    if not len(rows):
        raise InputError(f"no aligned particles in group {group}")
    order = np.argsort(-aligned["nphCorrelation"].to_numpy()[rows], kind="stable")
    table = f"results/alignment/group_{group:03d}/align.star"
    stack = f"results/alignment/group_{group:03d}/data.mrcs"
    return aligned["rlnImageName"].iloc[rows[order]].tolist(), (project.stamp(table), project.stamp(stack))
