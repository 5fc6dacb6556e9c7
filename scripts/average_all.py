"""Average the views over all groups; draw averages and variances with the number of particles in each."""

import pandas as pd

from nephila.averaging import pool_averages, pool_variances
from nephila.figures.particles import plot_view_averages
from nephila.io.mrc import open_stack, write_stack
from nephila.io.tables import read_table, write_table
from nephila.job import start_job

with start_job(snakemake) as job:  # noqa: F821
    how_many = read_table(job.input.how_many)
    counts = how_many.pivot(index="nphDefocusGroup", columns="nphView", values="nphParticles")
    counts = counts.reindex(job.params.groups, fill_value=0).to_numpy()
    stacks = [open_stack(path) for path in job.input.averages]
    references = open_stack(job.input.projections)
    averages, correlation = pool_averages(stacks, counts, references)
    total = counts.sum(axis=0)
    views = how_many.loc[how_many["nphDefocusGroup"] == 0, ["nphView", "rlnAngleRot", "rlnAngleTilt"]].reset_index(
        drop=True
    )
    table = pd.concat([views, pd.DataFrame({"nphParticles": total, "nphCorrelation": correlation})], axis=1)
    write_table(
        job.output.table,
        table,
        block="averages",
        comment="Averages of the views and their correlation with the reference.",
    )
    variances = pool_variances(stacks, [open_stack(path) for path in job.input.variances], counts)
    write_stack(job.output.stack, averages, references.pixel_size)
    write_stack(job.output.variances, variances, references.pixel_size)
    plot_view_averages(averages, total, job.output.figure, pixel_size=references.pixel_size)
    # a single particle has no variance
    plot_view_averages(
        variances, total * (total > 1), job.output.variance_figure, pixel_size=references.pixel_size,
        title="variance of the view: particles",
    )  # fmt: skip
