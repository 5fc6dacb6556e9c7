"""Thresholds: the proposal, or edits/thresh.star for the groups that it has a line for."""

import pandas as pd

from nephila.edits import resolved_comment
from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job
from nephila.thresholds import check_threshold_edit, complete_thresholds, count_by_threshold

with start_job(snakemake) as job:  # noqa: F821
    aligned = pd.concat([read_table(path, kind="poses") for path in job.input.aligned], ignore_index=True)
    correlation, group = aligned["nphCorrelation"], aligned["nphDefocusGroup"]
    table = read_table(job.input.proposed, kind="thresh")
    if job.input.edit:
        source = str(job.input.edit)
        edited = read_table(source, kind="thresh")
        for warning in check_threshold_edit(table, edited, source, correlation=correlation, group=group):
            logger.warning(warning)
        table = count_by_threshold(complete_thresholds(table, edited), correlation, group)
    write_table(job.output[0], table, kind="thresh", comment=resolved_comment("thresh", job.input.edit), read_only=True)
