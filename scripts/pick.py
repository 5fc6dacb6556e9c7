"""Candidates of a batch of micrographs by a blob of the particle's diameter."""

from nephila.ctf import Optics
from nephila.io.tables import read_table, write_blocks
from nephila.job import start_job
from nephila.picking.tables import blob_picker, pick_batch

with start_job(snakemake) as job:  # noqa: F821
    defocus = read_table(job.input.defocus, kind="defocus")
    picker = blob_picker(job.params.picking, job.params.diameter, job.params.box_size, Optics(**job.params.optics))
    candidates = pick_batch(job.params.names, defocus, picker, job.params.input)
    write_blocks(
        job.output[0], candidates, "Candidates, numbered by falling score; micrographs that could not be searched."
    )
