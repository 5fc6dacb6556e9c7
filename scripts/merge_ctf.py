"""Collect the micrographs' defoci and propose which to keep."""

import sys

import pandas as pd

from nephila.ctf import Optics
from nephila.defocus.tables import common_trouble, screen_table, screening_settings
from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job

with start_job(snakemake) as job:  # noqa: F821
    order = read_table(job.input.list, kind="micrographs")[["rlnMicrographName", "nphBatch"]]
    fits = pd.concat([read_table(path, kind="defocus") for path in job.input.fits], ignore_index=True)
    table = screen_table(
        order.merge(fits, on="rlnMicrographName", validate="one_to_one"), screening_settings(job.params.screening)
    )
    for name, reason in table.loc[table["nphKeep"] == 0, ["rlnMicrographName", "nphReason"]].itertuples(index=False):
        logger.warning("proposed for dropping: %s: %s", name, reason)
    for remark in common_trouble(table, Optics(**job.params.optics)):
        logger.warning("%s", remark)
        sys.stderr.write(f"merge_ctf: {remark}\n")
    logger.info("%d of %d micrographs proposed to keep", table["nphKeep"].sum(), len(table))
    write_table(job.output.micrographs, table, kind="defocus", comment="CTF of the micrographs.")
