"""Projections and alignment against RELION 3.1.3's own: angles, shifts, CTF, hand, centre."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from naive_projection import Blobs

from nephila.alignment import AlignmentSettings, Poses, align_exhaustively, align_locally
from nephila.ctf import Optics, ctf_2d
from nephila.geometry import angular_distance, euler_matrix
from nephila.projection import FourierProjector

pytestmark = pytest.mark.skipif(shutil.which("relion_project") is None, reason="RELION is not installed")

PIXEL_SIZE = 2.5
OPTICS = Optics(300, 2.7, 0.1)


def write_map(path: Path, volume: np.ndarray) -> None:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(volume.astype(np.float32))
        file.voxel_size = PIXEL_SIZE


def relion_project(folder: Path, *arguments: str) -> np.ndarray:
    command = ["relion_project", "--i", "map.mrc", "--angpix", str(PIXEL_SIZE), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (out,) = [p for p in folder.glob("out*.mrc*")]
    with mrcfile.open(out, permissive=True) as file:
        return np.array(file.data)


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


# RELION 3.1 takes even boxes only
@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (0, 50, 0), (0, 0, 70), (-140, 110, 35), (20, 180, -60)])
def test_single_projections(tmp_path: Path, angles: tuple[float, float, float], n: int = 48) -> None:
    volume = Blobs.random(n).volume(n)
    write_map(tmp_path / "map.mrc", volume)
    rot, tilt, psi = (str(a) for a in angles)
    theirs = relion_project(
        tmp_path, "--o", "out.mrc", "--rot", rot, "--tilt", tilt, "--psi", psi, "--xoff", "3", "--yoff", "-2"
    )
    projector = FourierProjector.from_volume(volume, 2.0)
    ours = projector.project(euler_matrix(*angles)[None], [[3.0, -2.0]])[0]
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.998
    assert relative_error(ours, theirs) < 0.08, "RELION interpolates linearly, which costs it 2 to 7 %"


def particle_table(m: int, ctf: bool) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    rng = np.random.default_rng(3)
    particles = pd.DataFrame(
        {
            "rlnAngleRot": rng.uniform(-180, 180, m),
            "rlnAngleTilt": np.rad2deg(np.arccos(rng.uniform(-1, 1, m))),
            "rlnAnglePsi": rng.uniform(-180, 180, m),
            "rlnOriginXAngst": rng.uniform(-10, 10, m),
            "rlnOriginYAngst": rng.uniform(-10, 10, m),
            "rlnOpticsGroup": 1,
        }
    )
    if ctf:
        particles["rlnDefocusU"] = rng.uniform(12000, 16000, m)
        particles["rlnDefocusV"] = particles.rlnDefocusU - rng.uniform(500, 2000, m)
        particles["rlnDefocusAngle"] = rng.uniform(0, 180, m)
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnVoltage": [OPTICS.voltage_kv],
            "rlnSphericalAberration": [OPTICS.cs_mm],
            "rlnAmplitudeContrast": [OPTICS.amplitude_contrast],
            "rlnImagePixelSize": [PIXEL_SIZE],
            "rlnImageSize": [48],
            "rlnImageDimensionality": [2],
        }
    )
    return {"optics": optics, "particles": particles}, particles


@pytest.mark.parametrize("with_ctf", [False, True])
def test_projections_of_a_table(tmp_path: Path, with_ctf: bool, n: int = 48, m: int = 12) -> None:
    volume = Blobs.random(n).volume(n)
    write_map(tmp_path / "map.mrc", volume)
    blocks, table = particle_table(m, with_ctf)
    starfile.write(blocks, tmp_path / "table.star")
    theirs = relion_project(tmp_path, "--o", "out", "--ang", "table.star", *(["--ctf"] if with_ctf else []))
    matrices = euler_matrix(table.rlnAngleRot, table.rlnAngleTilt, table.rlnAnglePsi)
    shifts = table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() / PIXEL_SIZE
    ctf = None
    if with_ctf:
        ctf = ctf_2d(n, PIXEL_SIZE, table.rlnDefocusU, table.rlnDefocusV, table.rlnDefocusAngle, OPTICS)
    ours = FourierProjector.from_volume(volume, 2.0).project(matrices, shifts, ctf)
    for mine, other in zip(ours, theirs, strict=True):
        assert np.corrcoef(mine.ravel(), other.ravel())[0, 1] > 0.995
    assert relative_error(ours, theirs) < 0.08

    # and the poses of RELION's projections come back
    projector = FourierProjector.from_volume(volume, 1.5)
    found = align_exhaustively(theirs, projector, ctf, AlignmentSettings(final_band=18, shift_range_px=5))
    turns = angular_distance(found.poses.matrices, matrices)
    assert np.median(turns) < 0.5 and np.median(np.abs(found.poses.shifts - shifts)) < 0.1
    angles = (table.rlnAngleRot + 1, table.rlnAngleTilt - 1, table.rlnAnglePsi + 2)
    prior = Poses(*(a.to_numpy() for a in angles), *(shifts + 0.5).T)
    local = align_locally(theirs, projector, ctf, prior, AlignmentSettings(final_band=18))
    assert angular_distance(local.poses.matrices, matrices).max() < 1.0
