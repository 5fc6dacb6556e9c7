"""Stack the particles of a defocus group; each keeps its micrograph and number."""

from nephila.ctf import Optics
from nephila.io.tables import read_table, write_blocks
from nephila.job import logger, start_job
from nephila.particle_groups import as_group, optics_block, particles_of_group, stack_particles
from nephila.sampling import one_sampling

with start_job(snakemake) as job:  # noqa: F821
    group = as_group(job.params.group)
    pixel_size, box = job.params.pixel_size, job.params.box
    particles = particles_of_group(read_table(job.input.particles, kind="particles"), group)
    logger.info("group %d: %d particles of %d micrographs", group.number, len(particles), len(group.micrographs))
    given = Optics(**job.params.optics)
    own = one_sampling(particles, box, pixel_size, given, f"defocus group {group.number}")
    particles = stack_particles(particles, job.output.stack, own.pixel_size, own.box, job.params.dtype)
    optics = optics_block(particles, job.params.name, given, pixel_size, box)
    write_blocks(
        job.output.table, {"optics": optics, "particles": particles}, f"Particles of defocus group {group.number}."
    )
