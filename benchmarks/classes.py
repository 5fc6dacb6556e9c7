"""Two objects mixed 70:30: how many particles classification puts right, from the poses of one refinement of all.

    python -m benchmarks.classes                                  box 48, 1,500 particles, SNR 0.1
    python -m benchmarks.classes --kinds absent --snr 0.02

Kinds: `absent`, a domain of a fifth of the mass is missing from three particles in ten; `moved`, it is turned by 40 degrees;
`other`, an object of another kind altogether.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.particle_sets import SetSettings, grouped, phantom, project
from benchmarks.phantom import OPTICS, Phantom
from nephila.classes.assign import Assignment, ClassSettings, classify
from nephila.classes.data import Frame, shrink_images
from nephila.classes.maps import frame_support
from nephila.config import parse_config
from nephila.geometry import rotation_vector_to_matrix
from nephila.io.mrc import stack_writer
from nephila.references import filter_reference
from nephila.refinement.in_process import Refined, refine_in_process
from nephila.refinement.settings import IterationSettings, iteration_settings

Float64 = npt.NDArray[np.float64]
DOMAIN = 0.2
MINORITY = 0.3
START = 50.0


def second_object(subject: Phantom, kind: str, settings: SetSettings) -> Phantom:
    """The other conformation of a phantom, or another phantom."""
    if kind == "other":
        return Phantom.random(subject.n, settings.seed + 50)
    centre = subject.positions[np.linalg.norm(subject.positions, axis=1).argmax()]
    near = np.argsort(np.linalg.norm(subject.positions - centre, axis=1))
    domain = near[: int(np.searchsorted(np.cumsum(subject.weights[near]), DOMAIN * subject.weights.sum()))]
    if kind == "absent":
        rest = np.setdiff1d(np.arange(len(subject.weights)), domain)
        return Phantom(subject.n, subject.positions[rest], subject.weights[rest])
    axis = np.cross(subject.positions[domain].mean(axis=0), [0.0, 0.0, 1.0])
    turn = rotation_vector_to_matrix(np.deg2rad(40.0) * axis / np.linalg.norm(axis))
    positions = subject.positions.copy()
    positions[domain] = positions[domain] @ turn.T
    return Phantom(subject.n, positions, subject.weights)


def simulate_mixture(folder: Path, settings: SetSettings, kind: str) -> pd.DataFrame:
    """Write particles.mrcs of both objects on one grey scale, SNR that of the first; the table has true poses and nphClass."""
    folder.mkdir(parents=True, exist_ok=True)
    first = phantom(settings)
    second = second_object(first, kind, settings)
    rng = np.random.default_rng([settings.seed, 227])
    count, n, pixel = settings.count, settings.n, first.pixel_size
    angles = np.stack(
        [
            rng.uniform(-180, 180, count),
            np.rad2deg(np.arccos(rng.uniform(-1, 1, count))),
            rng.uniform(-180, 180, count),
        ],
        axis=1,
    ).round(4)
    shifts = (rng.uniform(-settings.shift_px, settings.shift_px, (count, 2)) * pixel).round(4) / pixel
    defocus = rng.uniform(10000, 25000, count // 100 + 1)[np.arange(count) // 100].round(1)
    kinds = 1 + (rng.random(count) < MINORITY)
    images = np.empty((count, n, n), dtype=np.float32)
    for number, subject in ((1, first), (2, second)):
        rows = kinds == number
        images[rows] = project(subject, angles[rows], shifts[rows], defocus[rows], pixel)
    assert settings.snr is not None
    images *= np.float32(np.sqrt(settings.snr / images[kinds == 1].var(axis=(1, 2)).mean()))
    images += rng.standard_normal(images.shape, dtype=np.float32)
    with stack_writer(folder / "particles.mrcs", images.shape, pixel, "float32") as stack:
        stack[:] = images
    return pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(count)],
            "rlnMicrographName": [f"m{i // 100 + 1:03d}.mrc" for i in range(count)],
            "rlnAngleRot": angles[:, 0], "rlnAngleTilt": angles[:, 1], "rlnAnglePsi": angles[:, 2],
            "rlnOriginXAngst": (shifts[:, 0] * pixel).round(4), "rlnOriginYAngst": (shifts[:, 1] * pixel).round(4),
            "rlnDefocusU": defocus + 200, "rlnDefocusV": defocus - 200, "rlnDefocusAngle": 30.0,
            "rlnRandomSubset": 1 + np.arange(count) % 2, "rlnOpticsGroup": 1, "rlnClassNumber": kinds,
        }
    )  # fmt: skip


def settings_of(settings: SetSettings, pixel: float) -> IterationSettings:
    """Settings of the refinement of all particles."""
    config = parse_config(
        {
            "input": {"pixel_size": pixel},
            "particle": {"diameter": 0.66 * settings.n * pixel, "box": settings.n},
            "reference": {"resolution": START},
            "refinement": {"shift_range": [5 * pixel]},
        }
    )
    return IterationSettings(**iteration_settings(config, 1))


def refine_all(table: pd.DataFrame, subject: Phantom, settings: IterationSettings) -> Refined:
    """One refinement of all particles from the first object, low-passed."""
    start = filter_reference(subject.volume(), settings.pixel_size, START)
    return refine_in_process(
        table, start, settings, OPTICS, alignment={"shift_range": settings.shift_range}, end_method="direct"
    )


def separate(
    refined: pd.DataFrame,
    noise: Float64,
    settings: IterationSettings,
    folder: Path,
    resolution: float = 20.0,
    classes: ClassSettings | None = None,
) -> Assignment:
    """Classify refined particles."""
    frame = Frame.of(settings.box, settings.pixel_size, resolution, noise, OPTICS, settings.ctf, settings.symmetry)
    small = shrink_images(refined, frame, folder / "small.mrcs")
    return classify(small, frame, frame_support(frame, settings), classes or ClassSettings())


def share_right(assignment: Assignment, true: pd.DataFrame) -> tuple[float, float, float]:
    """Share of particles in the right class, and of either kind, whichever way round the classes are numbered."""
    keys = ["rlnMicrographName", "nphParticleNumber"]
    kinds = assignment.table[keys].merge(true, on=keys, how="left")["rlnClassNumber"].to_numpy()
    found = 1 + assignment.probability.argmax(axis=1)
    if (found == kinds).mean() < 0.5:
        found = 3 - found
    right = found == kinds
    return float(right.mean()), float(right[kinds == 1].mean()), float(right[kinds == 2].mean())


def main() -> None:
    """A row per set."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classes", description=__doc__)
    parser.add_argument("--box", type=int, default=48)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default="absent,moved,other")
    parser.add_argument("--resolution", type=float, default=20.0)
    parser.add_argument("--search", default="none", choices=["none", "local", "exhaustive"])
    given = parser.parse_args()
    print("| set | search | right | of the majority | of the minority | refinement, CPU s | classes, CPU s |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for kind in given.kinds.split(","):
        chosen = SetSettings(given.box, given.count, given.snr, given.seed)
        subject = phantom(chosen)
        settings = settings_of(chosen, subject.pixel_size)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            true = grouped(simulate_mixture(folder, chosen, kind), folder)
            start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            refined = refine_all(true, subject, settings)
            between = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            classes = ClassSettings(search=given.search, shift_range=settings.shift_range)
            found = separate(refined.particles, refined.models[-1].noise, settings, folder, given.resolution, classes)
            end = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            whole, major, minor = share_right(found, true)
        name = f"{kind}, SNR {given.snr:g}, {given.count} particles"
        print(
            f"| {name} | {given.search} | {whole:.1%} | {major:.1%} | {minor:.1%} | {between - start:.1f} | {end - between:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
