"""The strength of the rings by frequency, as the first fits of the data set have it together."""

import pandas as pd

from nephila.defocus.pooling import pool_tables, strength_table
from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job

with start_job(snakemake) as job:  # noqa: F821
    table = pd.concat([read_table(path, kind="defocus") for path in job.input.fits], ignore_index=True)
    tables = [read_table(path, block="profiles") for path in job.input.rings]
    rings = pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)
    strength = pool_tables(table, rings)
    if strength is None:
        logger.warning("too few fits are beyond doubt to pool the rings' strength: each micrograph is fitted by itself")
    write_table(job.output[0], strength_table(strength), block="ring_strength", comment="Rings over background.")
