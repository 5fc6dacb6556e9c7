"""Draw how far orientations and centres moved in each iteration."""

import pandas as pd

from nephila.figures.views import plot_direction_changes
from nephila.io.tables import read_table
from nephila.job import start_job
from nephila.symmetry import point_group_matrices
from nephila.views import direction_changes

with start_job(snakemake) as job:  # noqa: F821
    symmetry = point_group_matrices(job.params.symmetry)
    tables = [read_table(job.input.first, kind="poses")]
    per_iteration = len(job.input.chunks) // job.params.iterations
    for i in range(job.params.iterations):
        paths = job.input.chunks[i * per_iteration : (i + 1) * per_iteration]
        tables.append(pd.concat([read_table(path, kind="poses") for path in paths], ignore_index=True))
    changes = {i: direction_changes(tables[i - 1], tables[i], symmetry) for i in range(1, len(tables))}
    # iterations after convergence hand everything on: nothing to draw
    changes = {i: change for i, change in changes.items() if i == 1 or change["nphRotationChange"].any()}
    plot_direction_changes(changes, job.output[0], moved_by=job.params.moved_by)
