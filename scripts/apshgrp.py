"""Align the particles of a defocus group to the starting volume: views, in-plane rotations, shifts and mirrors."""

from nephila.ctf import Optics
from nephila.first_alignment import align_group
from nephila.io.mrc import read_volume
from nephila.io.tables import read_blocks, read_table, write_blocks
from nephila.job import start_job
from nephila.references import filter_reference

with start_job(snakemake) as job:  # noqa: F821
    volume, pixel_size = read_volume(job.input.volume)
    particles = read_table(job.input.table, kind="particles")
    aligned = align_group(
        particles,
        filter_reference(volume, pixel_size, job.params.resolution),
        pixel_size,
        job.params.resolution,
        job.params.particle["symmetry"],
        Optics(**job.params.optics),
        job.params.alignment,
        job.threads,
    )
    optics = read_blocks(job.input.table)["optics"]
    write_blocks(
        job.output[0],
        {"optics": optics, "particles": aligned},
        "Particles of a defocus group, aligned to the reference.",
    )
