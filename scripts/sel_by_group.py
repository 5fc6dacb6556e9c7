"""List the particles of each defocus group."""

from nephila.ctf import Optics
from nephila.io.tables import read_table, write_blocks, write_table
from nephila.job import logger, start_job
from nephila.particle_groups import count_by_group, optics_table, sort_by_group

with start_job(snakemake) as job:  # noqa: F821
    def_avg = read_table(job.input.def_avg, kind="def_avg")
    particles = sort_by_group(read_table(job.input.particles, kind="particles"), def_avg)
    groups = count_by_group(particles, def_avg)
    for number in groups.loc[groups["nphParticles"] == 0, "nphDefocusGroup"]:
        logger.warning("defocus group %d has no particles", number)
    optics = optics_table(job.params.name, Optics(**job.params.optics), job.params.pixel_size, job.params.box)
    write_blocks(job.output.particles, {"optics": optics, "particles": particles}, "Particles by defocus group.")
    write_table(job.output.groups, groups, kind="sel_group", comment="Particles by defocus group.")
