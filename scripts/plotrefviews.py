"""Draw how many particles fell on each reference view, overall and by group."""

from nephila.figures.views import plot_view_counts, plot_view_counts_by_group
from nephila.io.tables import read_table
from nephila.job import start_job

with start_job(snakemake) as job:  # noqa: F821
    how_many = read_table(job.input.how_many)
    plot_view_counts(how_many, job.output.overall)
    plot_view_counts_by_group(how_many, job.output.groups)
