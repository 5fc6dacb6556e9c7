"""Two simulated data sets of different pixel sizes and boxes, each refined alone and both together.

python -m benchmarks.samplings [--particles 400] [--snr 0.1]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.phantom import OPTICS
from nephila.config import parse_config
from nephila.ctf import ctf_2d
from nephila.fsc import masked_fsc, resolution_at
from nephila.geometry import angular_distance, euler_matrix
from nephila.io.mrc import write_stack
from nephila.projection import PRECISE_PADDING, FourierProjector
from nephila.references import filter_reference
from nephila.refinement.in_process import refine_in_process
from nephila.refinement.settings import IterationSettings, iteration_settings
from nephila.sampling import without_sampling
from nephila.simulate.density import density
from nephila.simulate.phantom import build_phantom

DIAMETER, B_FACTOR, START = 80.0, 60.0, 30.0
PER_MICROGRAPH = 50
SETS = ((56, 2.0), (50, 2.3))


def simulate(folder: Path, number: int, box: int, pixel_size: float, count: int, snr: float) -> pd.DataFrame:
    """A set on disk; its table, with the true poses in columns of their own."""
    rng = np.random.default_rng(number)
    tilt = np.degrees(np.arccos(rng.uniform(-1, 1, count)))
    angles = np.stack([rng.uniform(-180, 180, count), tilt, rng.uniform(-180, 180, count)]).round(4)
    shifts = (rng.uniform(-3, 3, (count, 2)) * pixel_size).round(4)
    defocus = np.repeat(rng.uniform(9000, 18000, -(-count // PER_MICROGRAPH)), PER_MICROGRAPH)[:count].round(1)
    volume = density(build_phantom(DIAMETER, 2), box, pixel_size, B_FACTOR)
    planes = ctf_2d(box, pixel_size, defocus, defocus, np.zeros(count), OPTICS)
    projector = FourierProjector.from_volume(volume, PRECISE_PADDING)
    clean = projector.project(euler_matrix(*angles), shifts / pixel_size, planes)
    noisy = clean * np.sqrt(snr / clean.var()) + rng.standard_normal(clean.shape)
    stack = folder / f"set{number}.mrcs"
    write_stack(stack, noisy, pixel_size)
    group = np.arange(count) // PER_MICROGRAPH
    return pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@{stack}" for i in range(count)],
            "rlnMicrographName": [f"set{number}_{i}.mrc" for i in group],
            "nphParticleNumber": np.arange(count) % PER_MICROGRAPH + 1,
            "trueRot": angles[0], "trueTilt": angles[1], "truePsi": angles[2],
            "nphGroupDefocusU": defocus, "nphGroupDefocusV": defocus, "nphGroupDefocusAngle": 0.0,
            "rlnRandomSubset": 1 + np.arange(count) % 2, "rlnOpticsGroup": number, "nphDefocusGroup": 100 * number + group,
            "rlnImagePixelSize": pixel_size, "rlnImageSize": box, "rlnVoltage": OPTICS.voltage_kv,
            "rlnSphericalAberration": OPTICS.cs_mm, "rlnAmplitudeContrast": OPTICS.amplitude_contrast,
        }
    )  # fmt: skip


def refine(table: pd.DataFrame, box: int, pixel_size: float, label: str) -> None:
    """Refine on a grid and print what it reached."""
    config = parse_config(
        {
            "input": {"pixel_size": pixel_size},
            "particle": {"diameter": DIAMETER, "box": box},
            "reference": {"resolution": START},
            "refinement": {"shift_range": [5 * pixel_size]},
        }
    )
    settings = IterationSettings(**iteration_settings(config, 1))
    true = density(build_phantom(DIAMETER, 2), box, pixel_size, B_FACTOR)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    done = refine_in_process(
        table, filter_reference(true, pixel_size, START), settings, OPTICS, 6,
        alignment={"shift_range": 5 * pixel_size}, end_method="direct",
    )  # fmt: skip
    cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
    halves = resolution_at(done.volumes.fsc.corrected, 0.143, box, pixel_size, interpolate=True)
    with_truth = masked_fsc(done.volumes.map, true, done.volumes.mask).masked
    truth = resolution_at(with_truth, 0.5, box, pixel_size, interpolate=True)
    found = done.particles
    poses = euler_matrix(found["rlnAngleRot"], found["rlnAngleTilt"], found["rlnAnglePsi"])
    error = angular_distance(poses, euler_matrix(found["trueRot"], found["trueTilt"], found["truePsi"]))
    by_group = found.assign(error=error).groupby("rlnOpticsGroup")["error"].median().round(2).to_dict()
    print(
        f"{label}: {len(table)} particles, half maps {halves or 0:.2f} A at 0.143, truth {truth or 0:.2f} A at 0.5, "
        f"median error by group {by_group} degrees, {cpu:.1f} CPU s",
        flush=True,
    )


def main() -> None:
    """Simulate, refine three times, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=400)
    parser.add_argument("--snr", type=float, default=0.1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sets = [
            simulate(Path(folder), number, box, pixel_size, options.particles, options.snr)
            for number, (box, pixel_size) in enumerate(SETS, 1)
        ]
        for table, (box, pixel_size) in zip(sets, SETS, strict=True):
            refine(without_sampling(table), box, pixel_size, f"{pixel_size} A, {box} px")
        refine(pd.concat(sets, ignore_index=True), *SETS[0], label="together")


if __name__ == "__main__":
    main()
