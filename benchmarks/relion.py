"""RELION's programs on the benchmark's files. All times are CPU times of whole processes, file reading included."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.measure import child_seconds
from benchmarks.phantom import ParticleSet
from nephila.geometry import angular_distance, euler_matrix
from nephila.io.mrc import open_stack, read_image
from nephila.io.tables import read_blocks, write_blocks

Float32 = npt.NDArray[np.float32]
PROGRAMS = ("relion_project", "relion_reconstruct", "relion_refine")


def installed() -> bool:
    """Whether all programs that are compared with are on PATH."""
    return all(shutil.which(program) for program in PROGRAMS)


def _table(folder: Path, particles: ParticleSet, count: int, start_from_zero: bool = False) -> str:
    name = f"first_{count}{'_unaligned' if start_from_zero else ''}.star"
    particles.write_table(folder / name, particles.phantom.n, particles.phantom.pixel_size, count)
    if start_from_zero:
        blocks = read_blocks(folder / name)
        for column in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"):
            blocks["particles"][column] = 0.0
        write_blocks(folder / name, blocks)
    return name


def project(folder: Path, particles: ParticleSet, count: int) -> float:
    """CPU seconds of projecting `map.mrc` along the first `count` poses; images in `projections.mrcs`."""
    table = _table(folder, particles, count)
    command = ["relion_project", "--i", "map.mrc", "--o", "projections", "--ang", table]
    return child_seconds([*command, "--angpix", f"{particles.phantom.pixel_size:.6f}"], folder)


def projections(folder: Path) -> Float32:
    """What `project` wrote."""
    return np.array(open_stack(folder / "projections.mrcs")[:], dtype=np.float32)


def reconstruct(folder: Path, particles: ParticleSet, count: int, *, gridding: bool = True) -> float:
    """CPU seconds of reconstructing from the first `count` particles with CTF; the map is `relion.mrc`.

    gridding : whether its ten rounds of gridding correction are run, as they are by default
    """
    table = _table(folder, particles, count)
    command = ["relion_reconstruct", "--i", table, "--o", "relion.mrc", "--ctf"]
    return child_seconds(command if gridding else [*command, "--skip_gridding"], folder)


def reconstruction(folder: Path) -> Float32:
    """What `reconstruct` wrote."""
    return read_image(folder / "relion.mrc")[0]


def align(folder: Path, particles: ParticleSet, count: int) -> tuple[float, float]:
    """CPU seconds and median rotation error (degrees) of the E-step of a first iteration without poses.

    15 degrees, oversampled once to 7.5, shifts to +-4 px by 2, oversampled to 1, cross-correlation, full resolution.
    """
    table = _table(folder, particles, count, start_from_zero=True)
    (folder / "refine").mkdir(exist_ok=True)
    pixel = particles.phantom.pixel_size
    command = [
        *("relion_refine", "--i", table, "--ref", "map.mrc", "--o", "refine/run", "--iter", "1", "--firstiter_cc"),
        *("--ctf", "--particle_diameter", "300", "--healpix_order", "2", "--oversampling", "1", "--offset_range", "4"),
        *("--offset_step", "2", "--skip_maximize", "--dont_check_norm", "--perturb", "0", "--pad", "2"),
        *("--ini_high", f"{2 * pixel:.4f}"),
    ]
    seconds = child_seconds(command, folder)
    table_out = read_blocks(folder / "refine" / "run_it001_data.star")["particles"]
    # RELION sorts its rows
    rows = table_out["rlnImageName"].str.split("@").str[0].astype(int).to_numpy() - 1
    found = euler_matrix(*(table_out[f"rlnAngle{a}"].to_numpy(dtype=float) for a in ("Rot", "Tilt", "Psi")))
    return seconds, float(np.median(angular_distance(found, particles.matrices[rows])))
