"""Take the windows of a batch of micrographs from the stacks of another program; flatten and normalise them."""

from dataclasses import replace

from nephila.import_particles import read_given_tables, take_windows
from nephila.io.tables import write_table
from nephila.job import start_job
from nephila.windows import extraction_settings

with start_job(snakemake) as job:  # noqa: F821
    pixel_size, box = job.params.pixel_size, job.params.box
    settings = extraction_settings(job.params.particles, job.params.diameter, pixel_size, box, job.params.seed)
    settings = replace(settings, invert=job.params.input["contrast"] == "dark")
    given = read_given_tables([str(path) for path in job.input.particles], stacks=True)
    table = take_windows(given, job.params.names, box, pixel_size, settings, job.output.stack)
    write_table(job.output.table, table, kind="particles", comment="Windows of a batch of micrographs.")
