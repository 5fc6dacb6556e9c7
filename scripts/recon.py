"""Reconstruct both halves of a defocus group and measure their FSC."""

from nephila.ctf import Optics
from nephila.first_reconstruction import group_sums, half_volumes, halves_fsc, sphere
from nephila.fsc import fsc_table
from nephila.io.mrc import write_volume
from nephila.io.tables import read_table, write_table
from nephila.job import start_job

with start_job(snakemake) as job:  # noqa: F821
    pixel_size, box, particle = job.params.pixel_size, job.params.box, job.params.particle
    particles = read_table(job.input.table, block="particles")
    sums = group_sums(particles, pixel_size, box, Optics(**job.params.optics), job.threads)
    first, second = half_volumes(sums, job.params.reconstruction, particle["symmetry"], job.threads)
    fsc = halves_fsc(first, second, sphere(particle["diameter"], pixel_size, box), job.params.seed)
    write_volume(job.output.half1, first, pixel_size)
    write_volume(job.output.half2, second, pixel_size)
    write_table(job.output.fsc, fsc_table(fsc, box, pixel_size), kind="fsc", comment="FSC of the group's halves.")
    sums.save(job.output.sums)
