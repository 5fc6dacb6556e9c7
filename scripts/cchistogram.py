"""Histograms of the correlation by group, with the thresholds."""

import pandas as pd

from nephila.figures.curves import plot_correlation_histograms
from nephila.io.tables import read_table, write_table
from nephila.job import start_job
from nephila.thresholds import correlation_histograms

with start_job(snakemake) as job:  # noqa: F821
    aligned = pd.concat([read_table(path, kind="poses") for path in job.input.aligned], ignore_index=True)
    histograms = correlation_histograms(aligned["nphCorrelation"], aligned["nphDefocusGroup"])
    write_table(
        job.output.table, histograms, block="cchistogram", comment="Correlation histograms; group 0 is all groups."
    )
    plot_correlation_histograms(
        histograms, job.output.figure, thresholds=read_table(job.input.thresholds, kind="thresh")
    )
