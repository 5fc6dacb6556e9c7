"""Average and variance of the aligned particles of each view of a group."""

import numpy as np

from nephila.averaging import average_views, select_by_view
from nephila.io.mrc import write_stack
from nephila.io.tables import read_table
from nephila.job import start_job
from nephila.particle_images import ParticleImages
from nephila.symmetry import point_group_matrices

with start_job(snakemake) as job:  # noqa: F821
    aligned = read_table(job.input.table, kind="poses", block="particles")
    directions = read_table(job.input.directions, kind="directions")[["rlnAngleRot", "rlnAngleTilt"]].to_numpy()
    views = select_by_view(aligned, directions, point_group_matrices(job.params.symmetry))
    pixel_size, box = job.params.pixel_size, job.params.box
    averages = variances = np.zeros((len(directions), box, box), dtype=np.float32)
    if len(aligned):
        images = ParticleImages(aligned)
        averages, variances, _ = average_views(images, aligned, views, len(directions), pixel_size=pixel_size)
    write_stack(job.output.averages, averages, pixel_size)
    write_stack(job.output.variances, variances, pixel_size)
