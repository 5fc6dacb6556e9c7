"""Candidates of a batch of micrographs by local fast correlation with projections of the reference."""

from nephila.ctf import Optics
from nephila.io.mrc import read_volume
from nephila.io.tables import read_table, write_blocks
from nephila.job import start_job
from nephila.picking.tables import pick_batch, template_picker
from nephila.references import filter_reference
from nephila.symmetry import point_group_matrices

with start_job(snakemake) as job:  # noqa: F821
    defocus = read_table(job.input.defocus, kind="defocus")
    volume, pixel_size = read_volume(job.input.reference)
    reference = filter_reference(volume, pixel_size, job.params.resolution), pixel_size
    symmetry = point_group_matrices(job.params.symmetry)
    optics = Optics(**job.params.optics)
    picker = template_picker(job.params.picking, reference, job.params.diameter, job.params.box_size, symmetry, optics)
    candidates = pick_batch(job.params.names, defocus, picker, job.params.input)
    write_blocks(
        job.output[0], candidates, "Candidates, numbered by falling score; micrographs that could not be searched."
    )
