"""A reconstruction as one process, from particle table to map, as `relion_reconstruct --ctf` does it.

python -m benchmarks.whole_job particles.star map.mrc
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from nephila.alignment.ctfs import ParticleCtfs
from nephila.backprojection import PENDING_BYTES, Backprojector
from nephila.ctf import Optics
from nephila.finishing import finish
from nephila.fourier import centred_rfft2
from nephila.geometry import euler_matrix
from nephila.io.mrc import open_stack, write_volume
from nephila.io.tables import read_blocks

BLOCK = 64


def collect(table_path: Path, count: int | None = None) -> tuple[Backprojector, float]:
    """Read, transform, weight and grid the first `count` particles of a table; also the pixel size (A)."""
    blocks = read_blocks(table_path)
    group, table = blocks["optics"].iloc[0], blocks["particles"].iloc[:count]
    n, pixel = int(group["rlnImageSize"]), float(group["rlnImagePixelSize"])
    optics = Optics(*(float(group[f"rln{name}"]) for name in ("Voltage", "SphericalAberration", "AmplitudeContrast")))
    columns = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
    rot, tilt, psi, u, v, angle = (table[c].to_numpy(dtype=float) for c in columns)
    matrices = euler_matrix(rot, tilt, psi)
    shifts = table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(dtype=float) / pixel
    ctfs = ParticleCtfs(u, v, angle, optics, pixel)
    stack = open_stack(table_path.parent / table["rlnImageName"].iloc[0].split("@")[1])
    collector: Backprojector | None = None
    for first in range(0, len(table), BLOCK):
        part = slice(first, min(first + BLOCK, len(table)))
        images = np.asarray(stack[part], dtype=np.float32)
        if collector is None:
            collector = Backprojector(n, data_scale=float(images.std()) * n, pending_bytes=PENDING_BYTES)
        collector.insert(centred_rfft2(images), matrices[part], ctfs.planes(part, n), shifts_px=shifts[part])
    assert collector is not None
    return collector, pixel


def main() -> None:
    """Run from the command line."""
    collector, pixel = collect(Path(sys.argv[1]))
    write_volume(Path(sys.argv[2]), finish(collector.partial_sum()), pixel)


if __name__ == "__main__":
    main()
