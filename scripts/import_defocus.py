"""Take the micrographs' defoci from a particle table of another program: the mean over each micrograph's particles."""

from nephila.import_particles import micrograph_defoci, read_given_particles
from nephila.io.tables import write_table
from nephila.job import start_job

with start_job(snakemake) as job:  # noqa: F821
    table = micrograph_defoci(read_given_particles(job.input[0]), job.params.batches, str(job.input[0]))
    write_table(
        job.output.micrographs, table, kind="defocus", comment="CTF of the micrographs, from the particles given."
    )
