"""Write results/report.html: everything that the run found, in one page."""

from nephila.config import parse_config
from nephila.io.atomic import write_text
from nephila.job import start_job
from nephila.report.collect import collect
from nephila.report.page import render_report

with start_job(snakemake) as job:  # noqa: F821
    run = collect(".", parse_config(job.params.config))
    write_text(job.output[0], render_report(run))
