"""Write the project's parameters, given and derived, as SPIDER's `params` lists them."""

from nephila.io.tables import write_table
from nephila.job import start_job
from nephila.parameters import parameter_table

with start_job(snakemake) as job:  # noqa: F821
    table = parameter_table(job.params.parameters)
    write_table(job.output[0], table, block="params", comment="Parameters of the project; change them in config.yaml.")
