"""Stack the single particle images of the Nature Protocols layout; the table can be the project's input.particles."""

from nephila.ctf import Optics
from nephila.io.tables import write_blocks
from nephila.job import start_job
from nephila.nature_protocols import import_data_set

with start_job(snakemake) as job:  # noqa: F821
    blocks = import_data_set(job.wildcards.folder, job.output.stack, Optics(**job.params.optics), job.params.pixel_size)
    write_blocks(job.output.table, blocks, "Particles of a Nature Protocols data set.")
