"""Sort the particles by half and group and prepare the starting references of the refinement."""

from nephila.io.mrc import read_volume, write_volume
from nephila.io.tables import read_table, write_table
from nephila.job import start_job
from nephila.refinement.model import write_model
from nephila.refinement.settings import IterationSettings
from nephila.refinement.start import order_particles, starting_model

with start_job(snakemake) as job:  # noqa: F821
    settings = IterationSettings(**job.params.refinement)
    particles = order_particles([read_table(path, block="particles") for path in job.input.groups])
    halves = tuple(read_volume(path)[0] for path in (job.input.half1, job.input.half2))
    references, model = starting_model(halves, particles, settings)
    write_table(
        job.output.particles,
        particles,
        kind="particles",
        comment="Start of the refinement: by half, group, micrograph.",
    )
    for path, reference in zip((job.output.half1, job.output.half2), references, strict=True):
        write_volume(path, reference, settings.pixel_size)
    write_model(job.output.model, model, settings.pixel_size, settings.box)
