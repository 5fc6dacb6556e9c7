"""Volumes: which there are, and their values in a form that a browser can draw."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nephila.errors import InputError
from nephila.io.mrc import read_volume
from nephila.review.pictures import version_of
from nephila.review.project import Project

SLICES = "results/reconstruction/central_slices.mrcs"
LARGEST = 256
"""Side, px; larger volumes are averaged over 2 x 2 x 2, 3 x 3 x 3 … voxels for the page."""
LISTED = (
    ("Final map", "results/refinement/map.mrc"),
    ("Final map, filtered", "results/refinement/map_filtered.mrc"),
    ("Final half 1", "results/refinement/half1.mrc"),
    ("Final half 2", "results/refinement/half2.mrc"),
    ("First reconstruction", "results/reconstruction/vol01.mrc"),
    ("First reconstruction, filtered", "results/reconstruction/volfq01.mrc"),
    ("First reconstruction, half 1", "results/reconstruction/vol01_half1.mrc"),
    ("First reconstruction, half 2", "results/reconstruction/vol01_half2.mrc"),
    ("Starting volume", "results/project/reference_volume.mrc"),
    ("Initial model", "results/reference/initial.mrc"),
    ("Initial model, mirror image", "results/reference/initial_mirror.mrc"),
)


@dataclass(frozen=True)
class Listed:
    """A volume: label, file, and the defocus group that it belongs to (0: none)."""

    label: str
    path: str
    group: int = 0


def listed(project: Project) -> list[Listed]:
    """All volumes of the run that are there."""
    found = [Listed(label, path) for label, path in LISTED]
    for path in project.names("results/reconstruction/group_[0-9][0-9][0-9]/vol01_sub[12].mrc"):
        group, half = int(Path(path).parent.name[-3:]), path[-5]
        found.append(Listed(f"Group {group}, half {half}", path, group))
    for path in reversed(project.names("results/refinement/iter_[0-9][0-9]/vol.mrc")):
        found.append(Listed(f"Iteration {int(Path(path).parent.name[-2:])}", path))
    return [entry for entry in found if project.exists(entry.path)]


def volumes(project: Project) -> dict[str, Any]:
    """Volumes with a number for each version, and the groups' resolution."""
    return {
        "volumes": [
            {
                "label": entry.label,
                "path": entry.path,
                "group": entry.group,
                "version": f"{project.stamp(entry.path)[0]:x}",
            }
            for entry in listed(project)
        ],
        "resolution": _resolution(project),
        "slices": version_of(slice_items(project)) if project.exists(SLICES) else None,
        "groups": group_numbers(project),
        "diameter": project.config().particle.diameter,
    }


def group_numbers(project: Project) -> list[int]:
    """Groups that have volumes, in order: the order of the central slices."""
    names = project.names("results/reconstruction/group_[0-9][0-9][0-9]/fscdoc.star")
    return [int(Path(name).parent.name[-3:]) for name in names]


def slice_items(project: Project) -> tuple[list[str], Any]:
    """Central slices of the groups' volumes, and their stamp."""
    groups = group_numbers(project)
    return [f"{i}@{SLICES}" for i in range(1, len(groups) + 1)], (groups, project.stamp(SLICES))


def _resolution(project: Project) -> dict[str, float]:
    path = "results/reconstruction/resolution.star"
    if not project.exists(path):
        return {}
    table = project.table(path)
    return {
        str(int(g)): round(float(r), 2)
        for g, r in zip(table["nphDefocusGroup"], table["nphResolutionHalf"], strict=True)
    }


def packed(project: Project, index: int) -> bytes:
    """A volume as the page reads it: side (uint32), voxel size in A, lowest and highest value, mean, deviation (float32), then
    a byte per voxel, x fastest, 0 for the lowest and 255 for the highest value."""
    entries = listed(project)
    if not 0 <= index < len(entries):
        raise InputError(f"no volume {index}; there are {len(entries)}")
    path = entries[index].path

    def make() -> bytes:
        volume, pixel_size = read_volume(project.path(path))
        factor = -(-max(volume.shape) // LARGEST)
        if factor > 1:
            n = [side // factor for side in volume.shape]
            cut = volume[: n[0] * factor, : n[1] * factor, : n[2] * factor]
            volume = cut.reshape(n[0], factor, n[1], factor, n[2], factor).mean(axis=(1, 3, 5), dtype=np.float32)
        if len(set(volume.shape)) > 1:
            raise InputError(f"{path}: not a cube")
        low, high = (float(v) for v in np.percentile(volume, [0.001, 99.999]))
        scale = 255.0 / (high - low) if high > low else 0.0
        values = np.clip(np.rint((volume - low) * scale), 0, 255).astype(np.uint8)
        mean, deviation = float(volume.mean()), float(volume.std())
        head = struct.pack(
            "<Ifffff", volume.shape[0], (pixel_size or 1.0) * factor, low, max(high, low + 1e-20), mean, deviation
        )
        return head + values.tobytes()

    return project.kept((f"packed {index % 4}",), (path, project.stamp(path)), make)
