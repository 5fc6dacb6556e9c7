"""Final half maps, map, filtered map, FSC, table of iterations and particle table."""

from nephila.ctf import Optics
from nephila.fsc import fsc_table, resolution_at
from nephila.io.mrc import write_volume
from nephila.io.tables import read_table, write_blocks, write_table
from nephila.job import logger, start_job
from nephila.particle_groups import optics_block
from nephila.refinement.final import FinalSettings, final_particles, final_volumes
from nephila.refinement.model import iteration_table, read_model
from nephila.refinement.settings import IterationSettings
from nephila.refinement.sums import add_chunks
from nephila.sampling import without_sampling

with start_job(snakemake) as job:  # noqa: F821
    settings = IterationSettings(**job.params.settings)
    number, pixel_size, box = len(job.input.sums) // 2, settings.pixel_size, settings.box
    sums = add_chunks(job.input.sums[:number]), add_chunks(job.input.sums[number:])
    volumes = final_volumes(sums, settings, FinalSettings(**job.params.final), job.threads)
    logger.info("resolution %s A at FSC 0.143", resolution_at(volumes.fsc.corrected, 0.143, box, pixel_size))
    for name in ("half1", "half2", "map", "filtered"):
        write_volume(job.output[name], getattr(volumes, name), pixel_size)
    write_volume(job.output.mask, volumes.mask, pixel_size)
    write_table(
        job.output.fsc, fsc_table(volumes.fsc, box, pixel_size), kind="fsc", comment="FSC of the final half maps."
    )
    models = [read_model(path) for path in job.input.models]
    write_table(job.output.iterations, iteration_table(models), kind="iterations")
    tables = [models[-1].entering(read_table(path, kind="particles")) for path in job.input.particles]
    particles = final_particles(tables)
    given = Optics(**job.params.optics)
    optics = optics_block(particles, job.params.name, given, pixel_size, box, job.params.original_pixel_size)
    particles = without_sampling(particles)  # the optics block has it
    write_blocks(job.output.particles, {"optics": optics, "particles": particles}, "Refined particles.")
