"""Project the reference at quasi-even directions: the views that particles are sorted by."""

from nephila.io.mrc import read_volume, write_stack
from nephila.io.tables import write_table
from nephila.job import start_job
from nephila.references import filter_reference, reference_views

with start_job(snakemake) as job:  # noqa: F821
    volume, pixel_size = read_volume(job.input.volume)
    volume = filter_reference(volume, pixel_size, job.params.resolution)
    directions, projections = reference_views(volume, job.params.step)
    write_table(job.output.directions, directions, kind="directions", comment="Reference views.")
    write_stack(job.output.projections, projections, pixel_size)
