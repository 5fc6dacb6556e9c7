"""List the particles of another program's table, after a check that it fits the configuration."""

from nephila.import_particles import check_against_config, find_stacks, list_particles, read_given_particles
from nephila.io.tables import write_table
from nephila.job import logger, start_job
from nephila.picking.tables import count_picks

with start_job(snakemake) as job:  # noqa: F821
    source = str(job.input[0])
    given = read_given_particles(source)
    check_against_config(given, job.params.pixel_size, job.params.box, job.params.optics, source)
    find_stacks(given, source)
    table = list_particles(given)
    names = list(dict.fromkeys(table["rlnMicrographName"]))
    logger.info("%d particles of %d micrographs given", len(table), len(names))
    write_table(job.output.table, table, block="particles", comment="Particles given.")
    write_table(job.output.counts, count_picks(table, names), block="picks", comment="Particles given, by micrograph.")
