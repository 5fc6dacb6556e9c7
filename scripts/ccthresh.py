"""Propose for each group the correlation below which the configured share of its particles falls."""

import pandas as pd

from nephila.io.tables import read_table, write_table
from nephila.job import start_job
from nephila.thresholds import propose_thresholds

with start_job(snakemake) as job:  # noqa: F821
    aligned = pd.concat([read_table(path, kind="poses") for path in job.input.aligned], ignore_index=True)
    proposal = propose_thresholds(aligned["nphCorrelation"], aligned["nphDefocusGroup"], job.params.share)
    write_table(
        job.output[0],
        proposal,
        kind="thresh",
        comment="Proposal; copy it to edits/thresh.star and change _nphThreshold there.",
    )
