"""List the micrographs with their batches, after checking from the headers that they belong together."""

from nephila.io.tables import write_table
from nephila.job import logger, start_job
from nephila.micrograph_input import check_inputs, micrograph_list

with start_job(snakemake) as job:  # noqa: F821
    if not job.params.particles:
        found = check_inputs(list(job.params.batches), job.params.input, job.params.box)
        for warning in found.warnings:
            logger.warning(warning)
    write_table(
        job.output[0],
        micrograph_list(job.params.batches),
        kind="micrographs",
        comment="Micrographs of the project and the batch in which each is worked on.",
    )
