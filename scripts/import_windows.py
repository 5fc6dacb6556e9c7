"""Take the windows of a batch of micrographs from the stacks of another program; flatten and normalise them."""

from dataclasses import replace

from nephila.ctf import Optics
from nephila.import_particles import read_given_tables, take_windows
from nephila.io.tables import write_table
from nephila.job import start_job
from nephila.sampling import one_sampling, without_aberrations
from nephila.windows import extraction_settings

with start_job(snakemake) as job:  # noqa: F821
    pixel_size, box = job.params.pixel_size, job.params.box
    tables, overfocus = [str(path) for path in job.input.particles], job.params.input["overfocus"]
    given = read_given_tables(tables, stacks=True, overfocus=overfocus)
    several = job.params.input["optics_groups"] == "several"
    if several:
        if job.params.input["ignore_aberrations"]:
            given = without_aberrations(given)
        mine = given[given["rlnMicrographName"].isin(job.params.names)]
        own = one_sampling(mine, box, pixel_size, Optics(**job.params.optics), "a batch")
        pixel_size, box = own.pixel_size, own.box
    settings = extraction_settings(job.params.particles, job.params.diameter, pixel_size, box, job.params.seed)
    settings = replace(settings, invert=job.params.input["contrast"] == "dark")
    table = take_windows(given, job.params.names, box, pixel_size, settings, job.output.stack, several)
    write_table(job.output.table, table, kind="particles", comment="Windows of a batch of micrographs.")
