"""List the particles of each defocus group."""

from nephila.ctf import Optics
from nephila.defocus_by_hand import hand_fits, particles_by_hand
from nephila.io.tables import read_table, write_blocks, write_table
from nephila.job import logger, start_job
from nephila.particle_groups import count_by_group, optics_block, sort_by_group

with start_job(snakemake) as job:  # noqa: F821
    def_avg = read_table(job.input.def_avg, kind="def_avg")
    selected = read_table(job.input.particles, kind="particles")
    if job.input.edit:
        source = str(job.input.edit)
        fits = hand_fits(read_table(job.input.fits, kind="defocus"), read_table(source, kind="hand_defocus"), source)
        selected = particles_by_hand(selected, fits)
    particles = sort_by_group(selected, def_avg)
    groups = count_by_group(particles, def_avg)
    for number in groups.loc[groups["nphParticles"] == 0, "nphDefocusGroup"]:
        logger.warning("defocus group %d has no particles", number)
    given = Optics(**job.params.optics)
    optics = optics_block(particles, job.params.name, given, job.params.pixel_size, job.params.box)
    write_blocks(job.output.particles, {"optics": optics, "particles": particles}, "Particles by defocus group.")
    write_table(job.output.groups, groups, kind="sel_group", comment="Particles by defocus group.")
