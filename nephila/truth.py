"""Comparison of a run with the truth of simulated data: picks, poses, defoci, and what the true poses would have given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.geometry import angular_distance
from nephila.particle_sums import pose_matrices

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Match:
    """Which true particle each found one is: index into the truth (-1: none), and the displacement true - found (px, x and y)."""

    index: Int64
    displacement: Float64

    @property
    def matched(self) -> npt.NDArray[np.bool_]:
        """Found particles that are true ones."""
        return self.index >= 0


def match_particles(found: pd.DataFrame, truth: pd.DataFrame, distance_px: float) -> Match:
    """Pair found and true coordinates of each micrograph, nearest first, each true particle once, within `distance_px`."""
    from scipy.spatial import cKDTree

    index = np.full(len(found), -1, dtype=np.int64)
    displacement = np.zeros((len(found), 2))
    columns = ["rlnCoordinateX", "rlnCoordinateY"]
    true_xy, found_xy = truth[columns].to_numpy(dtype=float), found[columns].to_numpy(dtype=float)
    true_rows = truth.groupby(truth["rlnMicrographName"].map(_base)).indices
    for name, rows in found.groupby(found["rlnMicrographName"].map(_base)).indices.items():
        candidates = true_rows.get(name)
        if candidates is None:
            continue
        near = cKDTree(true_xy[candidates]).sparse_distance_matrix(
            cKDTree(found_xy[rows]), distance_px, output_type="coo_matrix"
        )
        used_true: set[int] = set()
        used_found: set[int] = set()
        for k in np.lexsort((near.col, near.row, near.data)):
            t, f = int(near.row[k]), int(near.col[k])
            if t in used_true or f in used_found:
                continue
            used_true.add(t)
            used_found.add(f)
            index[rows[f]] = candidates[t]
            displacement[rows[f]] = true_xy[candidates[t]] - found_xy[rows[f]]
    return Match(index, displacement)


def _base(name: str) -> str:
    """File name without folder: truth and project may state different folders."""
    return str(name).rpartition("/")[2]


def precision_recall(match: Match, true_particles: int) -> tuple[float, float]:
    """Share of the found that are true, and share of the true that were found."""
    hits = int(match.matched.sum())
    return hits / max(len(match.index), 1), hits / max(true_particles, 1)


def with_true_poses(
    found: pd.DataFrame, truth: pd.DataFrame, match: Match, micrograph_pixel_size: float
) -> pd.DataFrame:
    """The matched particles with the truth's angles, origins and defoci.

    A particle that lies at +d px from its window's centre has the origin -d (the shift that brings it to the centre).
    `micrograph_pixel_size` is that of the coordinates, A.
    """
    rows = truth.iloc[match.index[match.matched]].reset_index(drop=True)
    out = found[match.matched].reset_index(drop=True)
    moved = -match.displacement[match.matched] * micrograph_pixel_size
    for column in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"):
        out[column] = rows[column].to_numpy()
    for i, column in enumerate(("rlnOriginXAngst", "rlnOriginYAngst")):
        out[column] = moved[:, i] + (rows[column].to_numpy() if column in rows else 0.0)
    return out


def pose_errors(found: pd.DataFrame, true: pd.DataFrame, symmetry: Float64 | None = None) -> dict[str, float]:
    """Median rotation and shift between two tables of the same particles, after their common offset has been taken out.

    Returns median_deg, share_beyond_15_deg, median_shift_angst.
    """
    a, b = pose_matrices(found), pose_matrices(true)
    angle = angular_distance(a, b, symmetry)
    origins = ["rlnOriginXAngst", "rlnOriginYAngst"]
    difference = found[origins].to_numpy(dtype=float) - true[origins].to_numpy(dtype=float)
    # a shift of the whole map by t moves each origin by the in-plane part of A t
    good = angle < 15
    if good.sum() > 10:
        axes = a[good][:, :2].reshape(-1, 3)
        offset = np.linalg.lstsq(axes, difference[good].reshape(-1), rcond=None)[0]
        difference = difference - a[:, :2] @ offset
    return {
        "median_deg": float(np.median(angle)),
        "share_beyond_15_deg": float((angle > 15).mean()),
        "median_shift_angst": float(np.median(np.hypot(difference[:, 0], difference[:, 1]))),
    }


def defocus_errors(found: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Median and worst error of the mean defocus (A) over the micrographs that have a fit."""
    merged = found.assign(base=found["rlnMicrographName"].map(_base)).merge(
        truth.assign(base=truth["rlnMicrographName"].map(_base)), on="base", suffixes=("", "_true")
    )
    error = 0.5 * (
        merged["rlnDefocusU"] + merged["rlnDefocusV"] - merged["rlnDefocusU_true"] - merged["rlnDefocusV_true"]
    )
    error = error[np.isfinite(error)]
    return {"median_angst": float(error.abs().median()), "worst_angst": float(error.abs().max())}
