"""Refinement beside RELION's auto-refine: the same simulated particles, start and mask, judged by the truth.

    python -m benchmarks.refinement                       box 64, SNR 0.1 and 0.05 (RELION: 10 to 20 CPU minutes each)
    python -m benchmarks.refinement --kind ring --snr 0.1 --relion-cache FOLDER

RELION's runs are kept in the cache folder and not repeated. Ours is the whole workflow, from the particle table to the final map.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.auto_refine import LOCAL_ORDER, AutoRefine, auto_refine, installed
from benchmarks.particle_sets import SetSettings, phantom, simulate
from benchmarks.phantom import Phantom
from nephila.fsc import fourier_shell_correlation, masked_fsc, resolution_at
from nephila.geometry import rotation_angle
from nephila.io.mrc import read_image
from nephila.io.tables import read_blocks
from nephila.particle_sums import pose_matrices

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
START = 50.0
ORIGINS = ["rlnOriginXAngst", "rlnOriginYAngst"]


@dataclass(frozen=True)
class Outcome:
    """What a refinement reached. Resolutions in A, angles in degrees, times in CPU seconds.

    truth_05: FSC 0.5 with the truth (crossing, interpolated); half_0143: half maps inside the mask, corrected; predicted_05:
    where half-map FSC says that 0.5 with the truth should be; outliers: share of particles beyond 10 degrees.
    """

    program: str
    truth_05: float
    half_0143: float
    truth_at_half: float
    median_deg: float
    outliers: float
    median_shift: float
    cpu: float
    cpu_all: float


def common_frame(
    found: pd.DataFrame, true: pd.DataFrame, symmetry: Float64 | None = None
) -> tuple[Float64, Float64, Float64]:
    """Rotation G and displacement t (A) of a map's frame against the truth's, and each particle's rotation error (degrees) in it.

    `A_found = A_true G` and `origin_found - origin_true = (A_found t)_xy` for well aligned particles; robust means.
    `symmetry` [s, 3, 3]: of the object, the nearest equivalent counts.
    """
    a, b = pose_matrices(found), pose_matrices(true)
    operators = np.eye(3)[None] if symmetry is None else symmetry
    frame = np.eye(3)
    for _ in range(15):
        # of each particle's equivalents the one that agrees best with the frame so far
        options = np.einsum("nji,njk,skl->nsil", b, a, operators)
        best = np.einsum("nsij,ij->ns", options, frame).argmax(axis=1)
        relative = options[np.arange(len(a)), best]
        error = rotation_angle(np.einsum("ji,njk->nik", frame, relative))
        weights = 1 / (1 + (error / 3.0) ** 2)
        u, _, v = np.linalg.svd((weights[:, None, None] * relative).sum(axis=0))
        frame = u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v
    error = rotation_angle(np.einsum("ji,njk->nik", frame, relative))
    good = error < max(10.0, float(np.median(error)))
    equivalent = np.einsum("nij,njk->nik", a, operators[best])[good]
    difference = (found[ORIGINS].to_numpy(dtype=float) - true[ORIGINS].to_numpy(dtype=float))[good]
    shift = np.linalg.lstsq(equivalent[:, :2].reshape(-1, 3), difference.reshape(-1), rcond=None)[0]
    return frame, shift, error


def judge(
    program: str,
    found: pd.DataFrame,
    true: pd.DataFrame,
    maps: tuple[Float32, Float32, Float32],
    subject: Phantom,
    mask: Float32,
    pixel: float,
    cpu: tuple[float, float],
    symmetry: Float64 | None = None,
) -> Outcome:
    """Errors of poses and maps (map, half 1, half 2) against the object in the frame of the poses."""
    n = subject.n
    frame, shift, error = common_frame(found, true, symmetry)
    truth = Phantom(n, subject.positions @ frame + shift / pixel, subject.weights).volume()
    curve = fourier_shell_correlation(maps[0] * mask, truth * mask)
    halves = masked_fsc(maps[1], maps[2], mask, 1).corrected
    half = resolution_at(halves, 0.143, n, pixel) or float("nan")
    origin = np.hypot(
        *(found[ORIGINS].to_numpy(dtype=float) - true[ORIGINS].to_numpy(dtype=float)
          - np.einsum("nij,j->ni", pose_matrices(found)[:, :2], shift)).T
    )  # fmt: skip
    return Outcome(
        program,
        truth_05=resolution_at(curve, 0.5, n, pixel, interpolate=True) or float("nan"),
        half_0143=half,
        truth_at_half=resolution_at(curve, 0.5, n, pixel) or float("nan"),
        median_deg=float(np.median(error)),
        outliers=float((error > 10).mean()),
        median_shift=float(np.median(origin)),
        cpu=cpu[0],
        cpu_all=cpu[1],
    )


def relion_outcome(
    folder: Path,
    settings: SetSettings,
    subject: Phantom,
    pixel: float,
    symmetry: Float64 | None = None,
    group: str = "C1",
    local_order: int = LOCAL_ORDER,
) -> Outcome:
    """RELION's result, from its last iteration."""
    peer = AutoRefine(2.1 * 0.36 * settings.n * pixel, START, group, local_order)
    cpu = auto_refine(folder, peer)
    place = peer.place(folder)
    true = read_blocks(folder / "truth.star")["particles"]
    found = read_blocks(place / "run_data.star")["particles"]
    rows = found["rlnImageName"].str.split("@").str[0].astype(int).to_numpy() - 1
    found = found.iloc[np.argsort(rows)].reset_index(drop=True)
    names = ("run_class001", "run_half1_class001_unfil", "run_half2_class001_unfil")
    maps = [read_image(place / f"{name}.mrc")[0] for name in names]
    mask = read_image(folder / "mask.mrc")[0]
    return judge("RELION", found, true, (maps[0], maps[1], maps[2]), subject, mask, pixel, cpu, symmetry)


CONFIG = """\
project: {{name: bench}}
input: {{particles: particles.star, pixel_size: {pixel}, contrast: bright}}
optics: {{voltage_kv: 300.0, cs_mm: 2.7, amplitude_contrast: 0.1}}
particle: {{diameter: {diameter:.1f}, box: {box}, symmetry: {symmetry}}}
particles: {{normalise: none, remove_ramp: false, dust_sigma: 0.0}}
reference: {{volume: reference.mrc, resolution: {start}}}
alignment: {{shift_range: {shift:.1f}}}
thresholds: {{share_rejected: 0.0}}
refinement: {{shift_range: [{shift:.1f}], mask: {{file: mask.mrc}}, ctf: {ctf}}}
"""


def write_project(
    folder: Path, source: Path, settings: SetSettings, pixel: float, symmetry: str, ctf: str = "group"
) -> None:
    """A project in `folder` on the particles of `source`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("particles.mrcs", "particles.star", "reference.mrc", "mask.mrc"):
        os.link(source / name, folder / name)
    diameter = 2 * 0.33 * settings.n * pixel
    text = CONFIG.format(
        pixel=pixel, diameter=diameter, box=settings.n, symmetry=symmetry, start=START, shift=5 * pixel, ctf=ctf
    )
    (folder / "config.yaml").write_text(text, encoding="utf-8")


def own_outcome(
    folder: Path,
    settings: SetSettings,
    subject: Phantom,
    pixel: float,
    symmetry: Float64 | None = None,
    group: str = "C1",
    ctf: str = "group",
) -> Outcome:
    """Run the workflow on a set; CPU seconds of the jobs' own computing, and of everything that was started."""
    project = folder / "nephila"
    write_project(project, folder, settings, pixel, group, ctf)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "nephila", "run", str(project), "--cores", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stdout[-1500:] + done.stderr[-1500:])
    everything = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cost = json.loads((project / "results" / "summary.json").read_text())["cost"]["total"]
    found = read_blocks(project / "results" / "refinement" / "particles.star")["particles"]
    true = read_blocks(folder / "truth.star")["particles"]
    number = (found["rlnMicrographName"].astype(str) + found["nphParticleNumber"].astype(str)).tolist()
    counted = true.groupby("rlnMicrographName").cumcount() + 1
    row = {key: i for i, key in enumerate(true["rlnMicrographName"] + counted.astype(str))}
    true = true.iloc[[row[key] for key in number]].reset_index(drop=True)
    maps = [read_image(project / "results" / "refinement" / f"{name}.mrc")[0] for name in ("map", "half1", "half2")]
    mask = read_image(folder / "mask.mrc")[0]
    cpu = (cost["cpu_seconds"] - cost["startup_cpu_seconds"], everything)
    return judge("nephila", found, true, (maps[0], maps[1], maps[2]), subject, mask, pixel, cpu, symmetry)


def line(setting: str, outcome: Outcome, relion: Outcome | None) -> str:
    """A row of the table."""
    ratio = f"1/{relion.cpu / outcome.cpu:.0f}, 1/{relion.cpu / outcome.cpu_all:.1f}" if relion else ""
    return (
        f"| {setting} | {outcome.program} | {outcome.truth_05:.2f} | {outcome.half_0143:.2f} | {outcome.truth_at_half:.2f} | "
        f"{outcome.median_deg:.2f} | {100 * outcome.outliers:.1f} % | {outcome.median_shift:.2f} | {outcome.cpu:.0f} | "
        f"{outcome.cpu_all:.0f} | {ratio} |"
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.refinement", description=__doc__)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--count", type=int, default=2500)
    parser.add_argument("--snr", default="0.1,0.05")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--kind", default="blobs", help="blobs (C1), ring (part of a D7 ring)")
    parser.add_argument("--relion-cache", type=Path, default=Path("results/refinement_benchmark"), metavar="FOLDER")
    parser.add_argument("--no-relion", action="store_true")
    parser.add_argument(
        "--local-order", type=int, default=LOCAL_ORDER, help="HEALPix order of RELION's first local search"
    )
    parser.add_argument("--ctf", choices=["group", "particle"], default="group", help="nephila's refinement.ctf")
    given = parser.parse_args()
    print(
        "| set | program | truth 0.5 | halves 0.143 | truth 0.5, shell | median deg | > 10 deg | shift A | CPU s | all | share |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    with_relion = installed() and not given.no_relion
    for snr in map(float, given.snr.split(",")):
        for seed in map(int, given.seeds.split(",")):
            settings = SetSettings(given.box, given.count, snr, seed, kind=given.kind)
            name = f"{settings.kind}_{settings.n}_{settings.count}_{snr:g}_{seed}"
            folder = (given.relion_cache / name).resolve()
            subject = phantom(settings)
            if not (folder / "truth.star").exists():
                simulate(folder, settings)
            relion = None
            if with_relion:
                relion = relion_outcome(folder, settings, subject, subject.pixel_size, local_order=given.local_order)
            if relion is not None:
                print(line(name, relion, None), flush=True)
            own = own_outcome(folder, settings, subject, subject.pixel_size, ctf=given.ctf)
            print(line(name, own, relion), flush=True)
            (folder / "outcome.json").write_text(json.dumps([asdict(o) for o in (relion, own) if o is not None]))


if __name__ == "__main__":
    main()
