"""Draw the density of the refined view directions, over all particles and for each defocus group."""

from nephila.figures.views import plot_angular_distributions
from nephila.io.tables import read_table
from nephila.job import start_job
from nephila.symmetry import point_group_matrices
from nephila.views import angular_distribution

with start_job(snakemake) as job:  # noqa: F821
    particles = read_table(job.input[0], kind="particles")
    mates = point_group_matrices(job.params.symmetry)
    rot, tilt = particles["rlnAngleRot"], particles["rlnAngleTilt"]
    distributions = {"all": angular_distribution(rot, tilt, symmetry=mates)}
    for number, rows in particles.groupby("nphDefocusGroup"):
        distributions[f"group {number}"] = angular_distribution(
            rows["rlnAngleRot"], rows["rlnAngleTilt"], symmetry=mates
        )
    plot_angular_distributions(distributions, job.output[0])
