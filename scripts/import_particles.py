"""List the particles of another program's table, or of several, after a check that they fit the configuration."""

from nephila.given_checks import check_original_sizes, check_stacks
from nephila.import_particles import (
    check_aberrations,
    check_against_config,
    check_samplings,
    list_particles,
    read_given_tables,
)
from nephila.import_proof import draw_given
from nephila.io.tables import write_table
from nephila.job import logger, start_job
from nephila.picking.tables import count_picks
from nephila.sampling import without_aberrations

with start_job(snakemake) as job:  # noqa: F821
    tables = [str(path) for path in job.input]
    source = ", ".join(tables)
    given = read_given_tables(tables, stacks=True, overfocus=job.params.overfocus)
    several, ignore, diameter = job.params.several, job.params.ignore_aberrations, job.params.diameter
    pixel_size, box, finest = job.params.pixel_size, job.params.box, job.params.pixel_size
    if several:
        used = without_aberrations(given) if ignore else given
        for line in check_samplings(used, pixel_size, box, diameter, source, trust=job.params.sampling == "resample"):
            logger.info(line)
        finest = float(given["rlnImagePixelSize"].min())
    check_stacks(given, pixel_size, source)
    check_original_sizes(given, source)
    check_against_config(given, pixel_size, box, job.params.optics, source, several=several)
    for line in check_aberrations(given, finest, diameter, ignore, source, several=several):
        logger.warning(line)
    for line in draw_given(given, job.output.pictures, pixel_size):
        logger.info(line)
    table = list_particles(given)
    names = list(dict.fromkeys(table["rlnMicrographName"]))
    logger.info("%d particles of %d micrographs given", len(table), len(names))
    write_table(job.output.table, table, block="particles", comment="Particles given.")
    write_table(job.output.counts, count_picks(table, names), block="picks", comment="Particles given, by micrograph.")
