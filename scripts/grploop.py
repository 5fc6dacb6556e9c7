"""One iteration of one chunk of a half: align to the half's reference, backproject by group."""

from nephila.ctf import Optics
from nephila.io.mrc import read_volume
from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job
from nephila.refinement.chunk import refine_chunk, rows_of_chunk
from nephila.refinement.model import read_model
from nephila.refinement.settings import IterationSettings
from nephila.refinement.sums import ChunkSums

with start_job(snakemake) as job:  # noqa: F821
    settings = IterationSettings(**job.params.settings)
    model = read_model(job.input.model)
    particles = read_table(job.input.particles, kind="particles")
    if settings.iteration == 1:
        particles = rows_of_chunk(particles, int(job.wildcards.half), int(job.wildcards.chunk), job.params.chunks)
    if model.row.converged and not settings.changed:
        logger.info("the refinement has converged: nothing to do")
        sums = ChunkSums({}, None)
    else:
        reference, _ = read_volume(job.input.reference)
        particles, sums = refine_chunk(particles, reference, model, settings, Optics(**job.params.optics), job.threads)
    write_table(job.output.particles, particles, kind="particles", comment=f"Iteration {settings.iteration}.")
    sums.save(job.output.sums)
