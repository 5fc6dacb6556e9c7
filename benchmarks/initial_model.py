"""Initial models of simulated particles against the truth: `python -m benchmarks.initial_model --seeds 1,2,3`.

Each seed is another phantom with its own particles. A run is right where its model, in either hand, agrees with the phantom
(FSC 0.5, after both were brought into one frame by the poses of every fifth particle) to twice the resolution that it aims at.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.particle_sets import RADIUS, SetSettings, phantom, simulate
from benchmarks.phantom import OPTICS, Phantom
from nephila.fsc import resolution_at
from nephila.geometry import angular_distance
from nephila.initial_model import InitialModelSettings, make_initial_model
from nephila.initial_model.agreement import PosedModel, common_frame, compare_models
from nephila.initial_model.climb import model_mask
from nephila.initial_model.data import take_particles
from nephila.initial_model.polish import align
from nephila.initial_model.settings import BOX
from nephila.particle_sums import pose_matrices, pose_shifts
from nephila.symmetry import point_group_matrices

ROW = "| {} | {} | {:.1f} | {:.1f} | {:.1f} | {} | {:.0f} |"


def measure(choice: SetSettings, tries: int, folder: Path) -> tuple[bool, str]:
    """One run on one set: whether it is right, and its row of the table."""
    table = simulate(folder, choice)
    table["rlnImageName"] = [name.replace("@", f"@{folder}/") for name in table["rlnImageName"]]
    pixel = phantom(choice).pixel_size
    symmetry = choice.kind if choice.kind not in ("blobs", "ring") else "C1"
    settings = InitialModelSettings(
        2 * RADIUS * choice.n * pixel, symmetry, tries, shift_range=choice.shift_px * pixel, seed=choice.seed
    )
    particles = take_particles(table, pixel, OPTICS, settings)
    began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    model = make_initial_model(particles, settings)
    spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - began
    rows = np.arange(len(particles))[::5]  # of particles in the table's order, all of which were taken
    poses = align(model.volume, np.ones(BOX // 2 + 1), particles.rows(rows), particles.band, settings).poses
    part = table.iloc[rows]
    subject = phantom(choice)
    small = Phantom(BOX, subject.positions * BOX / choice.n, subject.weights)
    truth = PosedModel(small.volume(), pose_matrices(part), pose_shifts(part, particles.pixel_size))
    found = PosedModel(model.volume, poses.matrices, poses.shifts)
    group = point_group_matrices(symmetry)
    agreement = compare_models(truth, found, group, model_mask(particles, settings))
    found = found.mirrored() if agreement.mirrored else found
    frame = common_frame(truth, found, group)
    error = float(np.median(angular_distance(truth.matrices, found.matrices @ frame.rotation, group)))
    curve = np.where(np.arange(BOX // 2 + 1) <= particles.band, agreement.fsc, 0.0)
    reached = resolution_at(curve, 0.5, BOX, particles.pixel_size) or np.inf
    aim = BOX * particles.pixel_size / particles.band
    agreeing = int(((model.tries["nphAgreement"] > 0) & (model.tries["nphAgreement"] <= 2 * aim)).sum())
    row = ROW.format(
        choice.seed, f"{agreeing} of {tries}", reached, model.resolution, error, "mirrored" if agreement.mirrored else "as is",
        spent,
    )  # fmt: skip
    return reached <= 2 * aim, row


def main() -> None:
    """Print a row for each seed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.initial_model", description=__doc__)
    parser.add_argument("--seeds", default="1,2,3,4,5,6,7,8,9,10")
    parser.add_argument("--kind", default="blobs", help="blobs, ring, or a point group")
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--particles", type=int, default=500)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--shift", type=float, default=5.0, help="largest origin in x and y, px")
    parser.add_argument("--tries", type=int, default=2)
    given = parser.parse_args()
    print("| seed | tries that agree | FSC 0.5 with the truth (A) | halves (A) | median error (deg) | hand | CPU s |")
    print("|---|---|---|---|---|---|---|")
    seeds, right = [int(seed) for seed in given.seeds.split(",")], 0
    for seed in seeds:
        choice = SetSettings(given.box, given.particles, given.snr, seed, given.shift, given.kind)
        with tempfile.TemporaryDirectory(prefix="nephila_initial_") as name:
            success, row = measure(choice, given.tries, Path(name))
        right += success
        print(row, flush=True)
    print(f"\n{right} of {len(seeds)} are right")


if __name__ == "__main__":
    main()
