"""The run at a glance: particles at each stage, resolution by half maps and against truth, cost by stage, versions."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila import __version__
from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.finishing import finish
from nephila.fsc import fourier_shell_correlation, resolution_at
from nephila.io.mrc import read_volume
from nephila.io.tables import read_table
from nephila.particle_sums import backproject_table
from nephila.refinement.merge import STABILISER
from nephila.refinement.settings import IterationSettings
from nephila.rigid_fit import fit_volume, transform_volume
from nephila.symmetry import point_group_matrices
from nephila.truth import defocus_errors, match_particles, pose_errors, precision_recall, with_true_poses

Float32 = npt.NDArray[np.float32]
LIBRARIES = ("numpy", "scipy", "numba", "pandas", "pyfftw", "mrcfile", "starfile", "snakemake")

STAGE_OF_RULE = {
    "makeparams": "project", "makefilelist": "project", "resizevol": "project",
    "powdefocus": "ctf", "ctffind": "ctf", "merge_ctf": "ctf", "sel_micrograph": "ctf", "defsort": "defocus_groups",
    "def_sort": "defocus_groups", "defavg": "defocus_groups", "noise": "picks", "pick": "picks", "lfc_pick": "picks",
    "merge_coordinates": "picks", "extract_windows": "particles", "picking_figures": "particles", "pfilt": "particles",
    "propose_good": "particles", "good": "particles", "renumber": "particles", "sel_by_group": "alignment",
    "win2stk": "alignment", "refproj": "alignment", "apshgrp": "alignment", "select": "thresholds", "average": "thresholds",
    "average_all": "thresholds", "cchistogram": "thresholds", "ccthresh": "thresholds", "thresh": "thresholds",
    "dftotals": "thresholds", "bestim": "thresholds", "sel_group_cclim": "thresholds", "plotrefviews": "thresholds",
    "recon": "reconstruction", "merge_recon": "reconstruction", "filt": "reconstruction", "slices": "reconstruction",
    "plotres": "reconstruction",
}  # fmt: skip
"""Rules of the refinement are those not named here."""


def cost_by_stage(folder: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """Jobs, CPU and wall seconds, CPU seconds spent on starting (imports), and peak memory (MB) by stage, from the records that
    jobs leave beside their logs. `total` adds them up."""
    rows = []
    for path in sorted(Path(folder).rglob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "rule" in record:
            rows.append({**record, "stage": STAGE_OF_RULE.get(record["rule"], "refinement")})
    if not rows:
        return {}
    table = pd.DataFrame(rows)
    costs = {}
    for stage, jobs in [*table.groupby("stage", sort=False), ("total", table)]:
        costs[str(stage)] = {
            "jobs": len(jobs),
            "cpu_seconds": round(float(jobs["cpu_seconds"].sum()), 2),
            "startup_cpu_seconds": round(float(jobs["startup_cpu_seconds"].sum()), 2),
            "wall_seconds": round(float(jobs["wall_seconds"].sum()), 2),
            "peak_memory_mb": round(float(jobs["peak_memory_mb"].max()), 1),
        }
    return costs


def versions() -> dict[str, str]:
    """Versions of Nephila, Python and the libraries that results rest on."""
    found = {"nephila": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def half_map_resolution(fsc: pd.DataFrame, box: int, pixel_size: float) -> dict[str, float | None]:
    """Resolution in A by the corrected half-map FSC at 0.143 and 0.5, and unmasked at 0.143; None where nothing is resolved."""
    corrected = fsc["rlnFourierShellCorrelation"].to_numpy()
    unmasked = fsc["rlnFourierShellCorrelationUnmaskedMaps"].to_numpy()
    return {
        "fsc_0143": _rounded(resolution_at(corrected, 0.143, box, pixel_size)),
        "fsc_05": _rounded(resolution_at(corrected, 0.5, box, pixel_size)),
        "unmasked_0143": _rounded(resolution_at(unmasked, 0.143, box, pixel_size)),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def truth_resolution(
    volume: Float32, truth: Float32, mask: Float32, pixel_size: float
) -> tuple[float | None, float | None]:
    """Resolution (A) at which a map's FSC with the truth inside a mask falls below 0.5, on the shell and interpolated, after a
    rigid fit."""
    n = truth.shape[0]
    rotation, shift, _ = fit_volume(volume, truth, mask)
    fitted = transform_volume(volume, rotation, shift)
    fsc = fourier_shell_correlation(fitted * mask, truth * mask)
    return resolution_at(fsc, 0.5, n, pixel_size), resolution_at(fsc, 0.5, n, pixel_size, interpolate=True)


def compare_with_truth(
    particles: pd.DataFrame,
    volume: Float32,
    mask: Float32,
    files: dict[str, str | None],
    settings: IterationSettings,
    optics: Optics,
    micrograph_pixel_size: float,
    picks: pd.DataFrame,
    micrographs: pd.DataFrame,
    threads: int = 1,
) -> dict[str, Any]:
    """What is known only for simulated data: resolution against the true map, and what the same particles would have given with
    their true orientations and defoci; errors of picks, poses and defoci.

    Raises
    ------
    InputError
        The true map's box or pixel size is not the project's.
    """
    result: dict[str, Any] = {}
    if files["micrographs"]:
        result["defocus"] = {
            k: round(v, 2)
            for k, v in defocus_errors(micrographs, read_table(files["micrographs"], block="micrographs")).items()
        }
    found = None
    if files["particles"]:
        truth = read_table(files["particles"], block="particles")
        near = 0.25 * settings.diameter / micrograph_pixel_size
        precision, recall = precision_recall(match_particles(picks, truth, near), len(truth))
        match = match_particles(particles, truth, near)
        found = with_true_poses(particles, truth, match, micrograph_pixel_size)
        errors = pose_errors(
            particles[match.matched].reset_index(drop=True), found, point_group_matrices(settings.symmetry)
        )
        result["picks"] = {"precision": round(precision, 4), "recall": round(recall, 4)}
        result["poses"] = {k: round(v, 4) for k, v in errors.items()}
        result["poses"]["share_true_particles"] = round(float(match.matched.mean()), 4)
    if files["map"]:
        true_map, pixel_size = read_volume(files["map"])
        if true_map.shape != volume.shape or abs(pixel_size / settings.pixel_size - 1) > 0.001:
            raise InputError(
                f"{files['map']}: {len(true_map)} px of {pixel_size:.4g} A; "
                f"the run has {len(volume)} px of {settings.pixel_size:.4g} A"
            )
        shell, exact = truth_resolution(volume, true_map, mask, settings.pixel_size)
        result["resolution_05"], result["resolution_05_interpolated"] = _rounded(shell), _rounded(exact)
        if found is not None and len(found):
            sums = backproject_table(found, settings.pixel_size, settings.box, optics, "particle", threads=threads)
            ceiling = finish(sums, settings.symmetry, STABILISER, threads=threads)
            shell, best = truth_resolution(ceiling, true_map, mask, settings.pixel_size)
            result["resolution_05_true_poses"], result["resolution_05_true_poses_interpolated"] = (
                _rounded(shell),
                _rounded(best),
            )
            if exact and best:
                result["ratio_to_true_poses"] = round(exact / best, 4)
    return result


def format_summary(path: str | os.PathLike[str]) -> str:
    """A few lines for the terminal from results/summary.json."""
    summary = json.loads(Path(path).read_text(encoding="utf-8"))
    counts, resolution = summary["particles"], summary["resolution"]
    lines = ["", "Nephila: finished"]
    lines.append("  particles   " + ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items()))
    lines.append(
        f"  resolution  {_angst(resolution['fsc_0143'])} (half maps, FSC 0.143), {_angst(resolution['fsc_05'])} (FSC 0.5)"
    )
    truth = summary.get("truth") or {}
    if truth.get("resolution_05_interpolated"):
        line = f"  truth       {_angst(truth['resolution_05_interpolated'])} (FSC 0.5 with the true map)"
        if truth.get("resolution_05_true_poses_interpolated"):
            line += (
                f"; true orientations and defoci would give {_angst(truth['resolution_05_true_poses_interpolated'])}"
                f" (ratio {truth['ratio_to_true_poses']:.3f})"
            )
        lines.append(line)
    total = summary["cost"].get("total")
    if total:
        lines.append(
            f"  cost        {total['jobs']} jobs, {total['cpu_seconds']:.0f} CPU s "
            f"({total['startup_cpu_seconds']:.0f} of them starting), "
            f"peak {total['peak_memory_mb'] / 1024:.1f} GB"
        )
    folder = Path(path).parent / "refinement"
    lines.append(f"  map         {folder / 'map_filtered.mrc'} (unfiltered: map.mrc; halves: half1.mrc, half2.mrc)")
    lines.append(f"  particles   {folder / 'particles.star'}")
    lines.append(f"  figures     {folder / 'figures'}")
    return "\n".join(lines)


def _angst(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f} A"
