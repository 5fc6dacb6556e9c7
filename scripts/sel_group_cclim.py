"""Count the particles that each group brings to the reconstruction."""

import pandas as pd

from nephila.io.tables import read_table, write_table
from nephila.job import start_job
from nephila.thresholds import group_totals

with start_job(snakemake) as job:  # noqa: F821
    kept = pd.concat([read_table(path, block="particles") for path in job.input.kept], ignore_index=True)
    totals = group_totals(kept, read_table(job.input.groups, kind="sel_group")).assign(nphAtMost=job.params.caps)
    write_table(job.output[0], totals, block="sel_group_cclim", comment="Defocus groups after the thresholds.")
