"""Backproject the particles of a chunk of a half to Nyquist, in their final poses."""

from nephila.ctf import Optics
from nephila.io.tables import read_table
from nephila.job import start_job
from nephila.particle_sums import backproject_table
from nephila.refinement.model import read_model
from nephila.refinement.settings import IterationSettings
from nephila.refinement.sums import ChunkSums

with start_job(snakemake) as job:  # noqa: F821
    settings = IterationSettings(**job.params.settings)
    model = read_model(job.input.model)
    particles = model.entering(read_table(job.input.particles, kind="particles"))
    sums = backproject_table(
        particles,
        settings.pixel_size,
        settings.box,
        Optics(**job.params.optics),
        settings.ctf,
        noise=model.noise,
        states=model.optics,
        group_factors=model.group_factors,
        threads=job.threads,
        progress="backprojected",
    )
    ChunkSums({0: sums}, None).save(job.output[0])
