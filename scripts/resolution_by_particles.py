"""Resolution of subsets of the particles, and the B factor."""

from nephila.ctf import Optics
from nephila.figures.validation import plot_resolution_by_particles
from nephila.io.tables import read_blocks, read_table, write_table
from nephila.job import logger, start_job
from nephila.refinement.settings import IterationSettings
from nephila.resolution_by_particles import fit_b_factor, resolution_by_particles
from nephila.sampling import with_sampling

with start_job(snakemake) as job:  # noqa: F821
    settings, optics = IterationSettings(**job.params.settings), Optics(**job.params.optics)
    particles = read_table(job.input.particles, kind="particles")
    particles = with_sampling(particles, read_blocks(job.input.particles)["optics"], settings.box, settings.pixel_size)
    table = resolution_by_particles(particles, settings, optics, threads=job.threads)
    fit = fit_b_factor(table["nphParticles"], table["nphResolution"], 2 * settings.pixel_size)
    note = f"B factor {fit.b_factor:.1f} +- {fit.error:.1f} A^2." if fit else "Too few points for a B factor."
    logger.info("%s", note)
    write_table(job.output.table, table, block="resolution", comment=note)
    plot_resolution_by_particles(table, fit, job.output.figure)
