"""Make a starting volume from the particles alone, in both hands."""

import pandas as pd

from nephila.ctf import Optics
from nephila.initial_model import InitialModelSettings, make_initial_model
from nephila.initial_model.data import take_particles
from nephila.io.mrc import write_volume
from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job
from nephila.refinement.reference_check import mirror
from nephila.resize import resize_volume
from nephila.sampling import refuse_own_sampling

with start_job(snakemake) as job:  # noqa: F821
    tables = [read_table(path, kind="particles") for path in job.input.tables]
    table = pd.concat([part for part in tables if len(part)], ignore_index=True)
    refuse_own_sampling(table, "an initial model")
    settings = InitialModelSettings(**job.params.settings)
    particles = take_particles(table, job.params.pixel_size, Optics(**job.params.optics), settings)
    logger.info("%d of %d particles, cropped to %.2f A/px", len(particles), len(table), particles.pixel_size)
    model = make_initial_model(particles, settings, job.threads)
    volume, pixel_size = resize_volume(model.volume, model.pixel_size, job.params.pixel_size, job.params.box)
    write_volume(job.output.volume, volume, pixel_size)
    write_volume(job.output.mirror, mirror(volume), pixel_size)
    write_table(
        job.output.tries, model.tries, block="initial", comment="Tries at an initial model, the likeliest first."
    )
