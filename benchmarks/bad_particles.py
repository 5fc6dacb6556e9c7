"""Bad particles planted into an aligned group, and how many of them are doubted: `python -m benchmarks.bad_particles`.

Particles with the noise of low-dose micrographs (shot noise 1.8, structural noise 0.3 at 3 A/px; box 64 of 4.2 A), aligned to the
object low-passed at 40 A as in a run. Five in a hundred each are another molecule of nearly the same size, lie at the edge of
contamination, or are off centre by half the diameter.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.averaging import select_by_view
from nephila.config.sections import Alignment
from nephila.ctf import Optics, ctf_2d
from nephila.first_alignment import align_group
from nephila.fourier import centred_irfft2, centred_rfft2, lowpass
from nephila.io.mrc import write_stack
from nephila.projection import FourierProjector
from nephila.references import reference_views
from nephila.simulate.density import density
from nephila.simulate.micrographs import random_rotations
from nephila.simulate.phantom import build_phantom
from nephila.view_evidence import propose_by_views, shifted_to_the_limit, view_evidence

OPTICS = Optics(300.0, 2.7, 0.1)
BOX, PIXEL, DIAMETER = 64, 4.2, 180.0
SHOT, STRUCTURAL, SHARE = 1.8, 0.3, 0.05
KINDS = ("good", "another molecule", "edge of contamination", "off centre by half")


def group(
    count: int, seed: int, defocus: float, folder: Path
) -> tuple[npt.NDArray[np.float32], pd.DataFrame, npt.NDArray[np.int64]]:
    """Images, table as for an alignment, and each particle's index in KINDS."""
    rng = np.random.default_rng([seed, 5])
    bad = int(SHARE * count)
    kind = rng.permutation(np.repeat([0, 1, 2, 3], [count - 3 * bad, bad, bad, bad]))
    volumes = [density(build_phantom(d, s), BOX, PIXEL) for d, s in ((DIAMETER, seed), (0.9 * DIAMETER, seed + 100))]
    own, other = (FourierProjector.from_volume(v, padding=2.0) for v in volumes)
    rotations, angle = random_rotations(count, rng), rng.uniform(0, 2 * np.pi, count)
    shifts = rng.uniform(-3, 3, (count, 2))
    shifts[kind == 3] = (0.5 * DIAMETER / PIXEL * np.stack([np.cos(angle), np.sin(angle)], axis=1))[kind == 3]
    images = own.project(rotations, shifts)
    images[kind == 1] = other.project(rotations[kind == 1], shifts[kind == 1])
    axis = np.arange(BOX) - BOX // 2
    disc = np.hypot(axis[:, None], axis[None, :]) <= DIAMETER / 2 / PIXEL
    signal = float(own.project(rotations[:40])[:, disc].std(axis=1).mean())
    scale = 3.0 / PIXEL * signal
    images += STRUCTURAL * scale * rng.standard_normal(images.shape).astype(np.float32)
    each = defocus + rng.uniform(-400, 400, count)
    planes = ctf_2d((BOX, BOX), PIXEL, each + 150, each - 150, np.full(count, 30.0), OPTICS, 100.0)
    images = centred_irfft2(centred_rfft2(images) * planes, BOX)
    images += SHOT * scale * rng.standard_normal(images.shape).astype(np.float32)
    for i in np.flatnonzero(kind == 2):
        radius = rng.uniform(80, 260)
        away, turn = radius + rng.uniform(-0.3, 0.3) * DIAMETER, rng.uniform(0, 2 * np.pi)
        distance = np.hypot(axis[None] * PIXEL - away * np.cos(turn), axis[:, None] * PIXEL - away * np.sin(turn))
        images[i] -= SHOT * scale * rng.uniform(3, 9) / (1 + np.exp((distance - radius) / (0.12 * radius)))
    rim = images[:, ~disc]
    images = ((images - rim.mean(axis=1)[:, None, None]) / rim.std(axis=1)[:, None, None]).astype(np.float32)
    write_stack(folder / "data.mrcs", images, PIXEL)
    write_stack(folder / "reference.mrcs", lowpass(volumes[0] / signal, PIXEL, 40.0), PIXEL)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@{folder}/data.mrcs" for i in range(count)], "rlnMicrographName": "m.mrc",
            "nphParticleNumber": np.arange(1, count + 1), "rlnDefocusU": each + 150, "rlnDefocusV": each - 150,
            "rlnDefocusAngle": 30.0, "nphDefocusGroup": 1, "nphGroupDefocusU": defocus, "nphGroupDefocusV": defocus,
            "nphGroupDefocusAngle": 0.0, "rlnOpticsGroup": 1,
        }
    )  # fmt: skip
    return images, table, kind


def row(count: int, seed: int, defocus: float, sigma: float) -> str:
    """A line of the table: percent doubted of each kind."""
    from nephila.io.mrc import open_stack

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, table, kind = group(count, seed, defocus, folder)
        reference = np.array(open_stack(folder / "reference.mrcs")[:])
        settings = Alignment().model_dump()
        aligned = align_group(table, reference, PIXEL, 40.0, "C1", OPTICS, settings)
        views, projections = reference_views(reference, settings["angular_step_deg"])
        assigned = select_by_view(aligned, views[["rlnAngleRot", "rlnAngleTilt"]].to_numpy())
        evidence = view_evidence(
            images, aligned, assigned, projections, pixel_size=PIXEL, diameter=DIAMETER, optics=OPTICS
        )
        dropped = (
            propose_by_views(evidence, sigma, shifted_to_the_limit(aligned, settings["shift_range"]))[
                "nphKeep"
            ].to_numpy()
            == 0
        )
    shares = [f"{100 * dropped[kind == i].mean():.1f}" for i in range(len(KINDS))]
    return f"| {count} | {defocus:.0f} | {' | '.join(shares)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bad_particles", description=__doc__)
    parser.add_argument("--counts", default="600,160,600,1500", help="particles of each group")
    parser.add_argument("--defoci", default="15000,15000,25000,20000", help="A, of each group")
    parser.add_argument("--sigma", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(
        "| particles | defocus, A | " + " | ".join(f"{kind}, % doubted" for kind in KINDS) + " |\n|---:|" + "---:|" * 5
    )
    for i, (count, defocus) in enumerate(zip(given.counts.split(","), given.defoci.split(","), strict=True)):
        print(row(int(count), given.seed + i, float(defocus), given.sigma), flush=True)


if __name__ == "__main__":
    main()
