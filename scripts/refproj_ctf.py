"""Multiply the reference's projections by the CTF of a defocus group."""

from nephila.ctf import Optics
from nephila.group_projections import with_group_ctf
from nephila.io.mrc import open_stack, write_stack
from nephila.io.tables import read_table
from nephila.job import start_job

with start_job(snakemake) as job:  # noqa: F821
    projections = open_stack(job.input.projections)
    particles = read_table(job.input.table, kind="particles")
    optics = Optics(**job.params.optics)
    pixel_size = projections.pixel_size
    write_stack(job.output[0], with_group_ctf(projections[:], particles, pixel_size, optics), pixel_size)
