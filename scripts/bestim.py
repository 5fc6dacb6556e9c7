"""Cap the particles of a group at a number per view, keeping those of highest correlation."""

from nephila.averaging import select_by_view
from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job
from nephila.symmetry import point_group_matrices
from nephila.thresholds import best_per_view

with start_job(snakemake) as job:  # noqa: F821
    particles = read_table(job.input.table, block="particles")
    directions = read_table(job.input.directions, kind="directions")[["rlnAngleRot", "rlnAngleTilt"]].to_numpy()
    views = select_by_view(particles, directions, point_group_matrices(job.params.symmetry))
    best = best_per_view(views, particles["nphCorrelation"], particles["nphDefocusGroup"], job.params.at_most)
    logger.info("%d of %d particles kept", best.sum(), len(best))
    write_table(job.output[0], particles[best], block="particles", comment="Best particles of each view.")
