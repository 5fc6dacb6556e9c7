"""Refinement of real particles beside RELION's auto-refine: what a finished project refined, without its poses.

    python -m benchmarks.real_refinement PROJECT FOLDER [--local-order 4]

Both start from the same low-passed reference with the same mask and the same half-sets; they are judged by their independent halves
inside that mask, and by how far their poses differ. RELION's run is kept in FOLDER and not repeated. Our CPU time is that of the
project's jobs, from the micrographs on, and of its refinement alone.
"""

from __future__ import annotations

import argparse
import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from benchmarks.auto_refine import LOCAL_ORDER, AutoRefine, auto_refine, installed
from nephila.fsc import masked_fsc, resolution_at
from nephila.geometry import rotation_angle
from nephila.io.mrc import read_image, read_volume, write_volume
from nephila.io.tables import read_blocks, write_blocks
from nephila.particle_sums import pose_matrices
from nephila.symmetry import point_group_matrices

Float64 = npt.NDArray[np.float64]
KEPT = (
    *("rlnImageName", "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnOpticsGroup", "rlnRandomSubset"),
    *("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"),
)


def prepare(project: Path, folder: Path) -> pd.DataFrame:
    """Particles without poses, start and mask of a finished project in a folder; the table with poses."""
    refined = project / "results" / "refinement"
    blocks = read_blocks(refined / "particles.star")
    table = blocks["particles"]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "particles.star").exists():
        for name in table["rlnImageName"].str.split("@").str[1].unique():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.symlink((project / name).resolve(), folder / name)
        mask, pixel = read_volume(refined / "mask.mrc")
        write_volume(folder / "mask.mrc", mask, pixel)
        write_volume(
            folder / "reference.mrc", read_volume(project / "results" / "project" / "reference_volume.mrc")[0], pixel
        )
        write_blocks(folder / "particles.star", {"optics": blocks["optics"], "particles": table[list(KEPT)]})
    return table


def pose_differences(first: pd.DataFrame, second: pd.DataFrame, operators: Float64) -> Float64:
    """Angle (degrees) between two programs' poses of each particle, to the nearest equivalent."""
    a, b = pose_matrices(first), pose_matrices(second)
    return np.min([rotation_angle(np.einsum("nji,njk->nik", a, b @ operator)) for operator in operators], axis=0)


def resolutions(first: Path, second: Path, mask: npt.NDArray[np.float32], pixel: float) -> str:
    """Resolutions (A) of two half maps: FSC 0.143 and 0.5 inside the mask (corrected), and both without mask."""
    maps = [read_image(path)[0] for path in (first, second)]
    fsc = masked_fsc(maps[0], maps[1], mask, 1)
    found = [
        resolution_at(curve, at, len(mask), pixel, interpolate=True)
        for curve in (fsc.corrected, fsc.unmasked)
        for at in (0.143, 0.5)
    ]
    return " | ".join("-" if x is None else f"{x:.2f}" for x in found)


def own_seconds(project: Path) -> tuple[float, float]:
    """CPU seconds of all jobs of a project, and of those of its refinement."""
    cost = json.loads((project / "results" / "summary.json").read_text())["cost"]
    return cost["total"]["cpu_seconds"], cost["refinement"]["cpu_seconds"]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_refinement", description=__doc__)
    parser.add_argument("project", type=Path, help="a project that the workflow finished")
    parser.add_argument("folder", type=Path, help="where RELION runs")
    parser.add_argument("--local-order", type=int, default=LOCAL_ORDER)
    given = parser.parse_args()
    ours = prepare(given.project, given.folder)
    mask, pixel = read_volume(given.folder / "mask.mrc")
    config = yaml.safe_load((given.project / "config.yaml").read_text())
    particle, start = config["particle"], float(config["reference"]["resolution"])
    group = str(particle.get("symmetry", "C1"))
    print("| half maps | 0.143 | 0.5 | no mask, 0.143 | no mask, 0.5 | CPU s |")
    print("|---|---:|---:|---:|---:|---:|")
    total, refinement = own_seconds(given.project)
    own = [given.project / "results" / "refinement" / f"half{half}.mrc" for half in (1, 2)]
    print(f"| nephila | {resolutions(*own, mask, pixel)} | {refinement:.0f} (the whole run {total:.0f}) |")
    if not installed():
        return
    # room for the mask's soft edge beyond the particle
    peer = AutoRefine(1.25 * float(particle["diameter"]), start, group, given.local_order, absolute=False)
    cpu, everything = auto_refine(given.folder, peer)
    place = peer.place(given.folder)
    their = [place / f"run_half{half}_class001_unfil.mrc" for half in (1, 2)]
    print(f"| RELION | {resolutions(*their, mask, pixel)} | {cpu:.0f} (with the waiting master {everything:.0f}) |")
    for half in (0, 1):
        print(f"| nephila {half + 1}, RELION {2 - half} | {resolutions(own[half], their[1 - half], mask, pixel)} | |")
    theirs = read_blocks(place / "run_data.star")["particles"].set_index("rlnImageName").loc[ours["rlnImageName"]]
    print_poses(pose_differences(ours, theirs.reset_index(), point_group_matrices(group)), ours["nphWeight"].to_numpy())


def print_poses(angle: Float64, weight: Float64) -> None:
    """How far the programs' poses differ (degrees), and the share of far ones by our weights."""
    far = angle > 10
    print(f"\nPoses: median difference {np.median(angle):.2f} degrees, {far.mean():.0%} beyond 10 degrees")
    for low, high in pairwise((0.0, 0.051, 0.3, 0.6, 1.0)):
        part = (weight > low) & (weight <= high)
        if part.any():
            print(f"weight above {low:g} to {high:g}: {part.sum()} particles, {far[part].mean():.0%}")


if __name__ == "__main__":
    main()
