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
from nephila.fsc import fourier_shell_correlation, fsc_table, resolution_at
from nephila.io.mrc import read_volume
from nephila.io.tables import read_table
from nephila.particle_sums import backproject_table
from nephila.refinement.merge import STABILISER
from nephila.refinement.settings import IterationSettings
from nephila.rigid_fit import fit_volume, transform_volume
from nephila.stages import STAGE_OF_RULE as STAGE_OF_RULE
from nephila.symmetry import point_group_matrices
from nephila.truth import defocus_errors, match_particles, pose_errors, precision_recall, with_true_poses

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
LIBRARIES = ("numpy", "scipy", "numba", "pandas", "pyfftw", "mrcfile", "starfile", "snakemake")

ITERATION_RULES = ("grploop", "mergegroups")
FINAL_CURVES = {
    "corrected": "rlnFourierShellCorrelation",
    "masked": "rlnFourierShellCorrelationMaskedMaps",
    "unmasked": "rlnFourierShellCorrelationUnmaskedMaps",
    "randomised": "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
}
"""Columns of the final FSC table by the name of the curve."""


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


def cost_by_iteration(folder: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Jobs, CPU seconds and wall seconds (from the first job's start to the last one's end) of each iteration of the refinement,
    from the records of its jobs."""
    found: dict[int, list[dict[str, Any]]] = {}
    for path in sorted(Path(folder).rglob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("rule") in ITERATION_RULES:
            found.setdefault(int(record["wildcards"]["iter"]), []).append(record)
    return [
        {
            "iteration": iteration,
            "jobs": len(jobs),
            "cpu_seconds": round(sum(float(job["cpu_seconds"]) for job in jobs), 2),
            "wall_seconds": round(
                max(job["started"] + job["wall_seconds"] for job in jobs) - min(job["started"] for job in jobs), 2
            ),
        }
        for iteration, jobs in sorted(found.items())
    ]


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


def final_curves(fsc: pd.DataFrame) -> dict[str, Float64]:
    """The curves of a final FSC table by the names under which `figures.curves.plot_fsc` draws them."""
    return {name: fsc[column].to_numpy(dtype=np.float64) for name, column in FINAL_CURVES.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def truth_fsc(volume: Float32, truth: Float32, mask: Float32) -> Float64:
    """FSC [n // 2 + 1] of a map with the truth inside a mask, after a rigid fit."""
    rotation, shift, _ = fit_volume(volume, truth, mask)
    fitted = transform_volume(volume, rotation, shift)
    return fourier_shell_correlation(fitted * mask, truth * mask)


def _at_half(fsc: Float64, n: int, pixel_size: float) -> tuple[float | None, float | None]:
    """Resolution (A) at which an FSC falls below 0.5, on the shell and interpolated; rounded."""
    return (
        _rounded(resolution_at(fsc, 0.5, n, pixel_size)),
        _rounded(resolution_at(fsc, 0.5, n, pixel_size, interpolate=True)),
    )


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
) -> tuple[dict[str, Any], dict[str, Float64]]:
    """What is known only for simulated data: resolution against the true map, and what the same particles would have given with
    their true orientations and defoci; errors of picks, poses and defoci. Also the FSC with the true map, by name: `truth`, and
    `true poses` for the map from the true orientations; empty without a true map.

    Raises
    ------
    InputError
        The true map's box or pixel size is not the project's.
    """
    result: dict[str, Any] = {}
    curves: dict[str, Float64] = {}
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
        curves["truth"] = truth_fsc(volume, true_map, mask)
        shell, exact = _at_half(curves["truth"], settings.box, settings.pixel_size)
        result["resolution_05"], result["resolution_05_interpolated"] = shell, exact
        if found is not None and len(found):
            found = found.drop(columns=["nphWeight", "nphViewWeight"], errors="ignore")
            sums = backproject_table(found, settings.pixel_size, settings.box, optics, "particle", threads=threads)
            ceiling = finish(sums, settings.symmetry, STABILISER, threads=threads)
            curves["true poses"] = truth_fsc(ceiling, true_map, mask)
            shell, best = _at_half(curves["true poses"], settings.box, settings.pixel_size)
            result["resolution_05_true_poses"], result["resolution_05_true_poses_interpolated"] = shell, best
            if exact and best:
                result["ratio_to_true_poses"] = round(exact / best, 4)
    return result, curves


def truth_table(curves: dict[str, Float64], box: int, pixel_size: float) -> pd.DataFrame:
    """Table of the FSC with the truth: that of the map, and nphFscTruePoses of the map from the true orientations."""
    table = fsc_table(curves["truth"], box, pixel_size)
    if "true poses" in curves:
        table["nphFscTruePoses"] = np.round(curves["true poses"], 6)
    return table


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
    if truth.get("resolution_05"):
        line = f"  truth       {_angst(truth['resolution_05'])} (FSC 0.5 with the true map)"
        if truth.get("ratio_to_true_poses"):
            line += (
                f"; true orientations and defoci would give {_angst(truth['resolution_05_true_poses'])}"
                f" (ratio between shells {truth['ratio_to_true_poses']:.3f})"
            )
        lines.append(line)
    total = summary["cost"].get("total")
    if total:
        lines.append(
            f"  cost        {total['jobs']} jobs, {total['cpu_seconds']:.0f} CPU s "
            f"({total['startup_cpu_seconds']:.0f} of them starting), "
            f"peak {total['peak_memory_mb'] / 1024:.1f} GB"
        )
    lines += [f"  warning     {text}" for text in summary.get("doubts", [])]
    folder = Path(path).parent / "refinement"
    lines.append(f"  map         {folder / 'map_filtered.mrc'} (unfiltered: map.mrc; halves: half1.mrc, half2.mrc)")
    lines.append(f"  particles   {folder / 'particles.star'}")
    lines.append(f"  report      {Path(path).parent / 'report.html'}")
    return "\n".join(lines)


def _angst(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f} A"
