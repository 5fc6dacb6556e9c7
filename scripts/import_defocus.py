"""Take the micrographs' defoci from a particle table of another program: the mean over each micrograph's particles."""

from nephila.import_particles import micrograph_defoci, read_given_tables
from nephila.io.tables import write_table
from nephila.job import start_job

with start_job(snakemake) as job:  # noqa: F821
    tables = [str(path) for path in job.input]
    overfocus = job.params.overfocus
    given = read_given_tables(tables, overfocus=overfocus)
    table = micrograph_defoci(given, job.params.batches, ", ".join(tables), job.params.several, overfocus=overfocus)
    write_table(
        job.output.micrographs, table, kind="defocus", comment="CTF of the micrographs, from the particles given."
    )
