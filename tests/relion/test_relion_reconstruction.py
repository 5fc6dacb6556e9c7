"""The same particles and STAR file through relion_reconstruct: handedness, sign of shifts, centre, sign of the CTF,
symmetry."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from naive_backprojection import GaussianPhantom

from nephila.backprojection import Backprojector
from nephila.ctf import Optics, ctf_2d
from nephila.finishing import finish
from nephila.fourier import centred_irfft2, centred_rfft2, shift_phases
from nephila.fsc import fourier_shell_correlation
from nephila.geometry import euler_matrix
from nephila.io.mrc import read_image, write_stack
from nephila.io.tables import write_blocks
from nephila.masks import apply_mask, spherical_mask
from nephila.symmetry import point_group_matrices

pytestmark = pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="RELION is not installed")

N, PIXEL = 48, 3.0
OPTICS = Optics(300.0, 2.7, 0.1)


@dataclass
class DataSet:
    """Simulated particles on disk and what is needed to reconstruct them."""

    folder: Path
    images: np.ndarray
    table: pd.DataFrame
    truth: np.ndarray

    def ours(self, symmetry: str = "C1") -> np.ndarray:
        t = self.table
        u, v, angle = (t[c].to_numpy() for c in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"))
        collector = Backprojector(N, data_scale=float(np.std(self.images)) * N)
        collector.insert(
            centred_rfft2(self.images),
            euler_matrix(t["rlnAngleRot"], t["rlnAngleTilt"], t["rlnAnglePsi"]),
            ctf_2d(N, PIXEL, u, v, angle, OPTICS),
            shifts_px=t[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() / PIXEL,
        )
        return finish(collector.partial_sum(), symmetry)

    def relions(self, *options: str) -> np.ndarray:
        command = ["relion_reconstruct", "--i", "particles.star", "--ctf", "--o", "relion.mrc", *options]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=300)
        return read_image(self.folder / "relion.mrc")[0]


def simulate(folder: Path, m: int, symmetry: str = "C1", noise: float = 0.0, seed: int = 3) -> DataSet:
    rng = np.random.default_rng(seed)
    phantom = GaussianPhantom.random(N, 60, seed, sigma=(0.9, 1.6)).repeated(point_group_matrices(symmetry))
    rot, psi = rng.uniform(-180, 180, (2, m))
    tilt = np.rad2deg(np.arccos(rng.uniform(-1, 1, m)))
    shifts = np.round(rng.normal(scale=2.0 * PIXEL, size=(m, 2)), 4)
    u = rng.uniform(6000, 20000, m)
    v, angle = u - rng.uniform(0, 1500, m), rng.uniform(0, 180, m)
    table = pd.DataFrame({"rlnAngleRot": rot, "rlnAngleTilt": tilt, "rlnAnglePsi": psi}).round(4)
    table = table.assign(
        rlnOriginXAngst=shifts[:, 0],
        rlnOriginYAngst=shifts[:, 1],
        rlnDefocusU=np.round(u, 2),
        rlnDefocusV=np.round(v, 2),
        rlnDefocusAngle=np.round(angle, 3),
        rlnOpticsGroup=1,
        rlnImageName=[f"{i + 1:06d}@particles.mrcs" for i in range(m)],
    )
    matrices = euler_matrix(*(table[c].to_numpy() for c in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")))
    ctf = ctf_2d(N, PIXEL, table["rlnDefocusU"], table["rlnDefocusV"], table["rlnDefocusAngle"], OPTICS)
    # image(x) = P(x + o): the particle sits at -o
    transforms = phantom.slices(N, matrices) * ctf * shift_phases(N, -shifts[:, 0] / PIXEL, -shifts[:, 1] / PIXEL)
    images = centred_irfft2(transforms, N)
    images += (noise * images.std() * rng.standard_normal(images.shape)).astype(np.float32)
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnVoltage": [OPTICS.voltage_kv],
            "rlnSphericalAberration": [OPTICS.cs_mm],
            "rlnAmplitudeContrast": [OPTICS.amplitude_contrast],
            "rlnImagePixelSize": [PIXEL],
            "rlnImageSize": [N],
            "rlnImageDimensionality": [2],
        }
    )
    write_stack(folder / "particles.mrcs", images, PIXEL)
    write_blocks(folder / "particles.star", {"optics": optics, "particles": table})
    return DataSet(folder, images, table, phantom.volume(N))


def inside(volume: np.ndarray) -> np.ndarray:
    return apply_mask(volume, spherical_mask(N, 0.42 * N, 3), fill=0.0)


@pytest.mark.parametrize(("symmetry", "particles"), [("C1", 600), ("C4", 200), ("D3", 120), ("T", 80), ("O", 60)])
def test_same_map_as_relion(tmp_path: Path, symmetry: str, particles: int) -> None:
    data = simulate(tmp_path, particles, symmetry)
    ours = inside(data.ours(symmetry))
    relions = inside(data.relions("--sym", symmetry))
    assert fourier_shell_correlation(ours, relions)[1:20].min() > 0.98
    truth = inside(data.truth)
    for volume, tolerance in ((ours, 0.05), (relions, 0.2)):  # RELION's are a little low where views are few
        assert float((volume * truth).sum() / (truth * truth).sum()) == pytest.approx(1.0, abs=tolerance)
    other_hand = np.roll(ours[::-1], 1, axis=0)  # the centre stays at n // 2
    assert fourier_shell_correlation(inside(other_hand), relions)[7:16].mean() < 0.8


def test_not_worse_than_relion_against_the_truth(tmp_path: Path) -> None:
    data = simulate(tmp_path, 800, noise=1.5)
    truth = inside(data.truth)
    ours = fourier_shell_correlation(inside(data.ours()), truth)
    relions = fourier_shell_correlation(inside(data.relions()), truth)
    difference = (ours - relions)[1 : N // 2]
    # where the maps hold mostly noise, either may be ahead by chance
    assert (difference > -0.002 - 0.01 * (1 - relions[1 : N // 2])).all(), difference.round(4)
