"""Assign every aligned particle to its nearest reference view and count by view and group."""

import pandas as pd

from nephila.averaging import how_many, select_by_view
from nephila.io.tables import read_table, write_table
from nephila.job import start_job
from nephila.symmetry import point_group_matrices

with start_job(snakemake) as job:  # noqa: F821
    directions = read_table(job.input.directions, kind="directions")[["rlnAngleRot", "rlnAngleTilt"]].to_numpy()
    aligned = pd.concat([read_table(path, kind="poses") for path in job.input.aligned], ignore_index=True)
    views = select_by_view(aligned, directions, point_group_matrices(job.params.symmetry))
    group = aligned["nphDefocusGroup"].to_numpy()
    write_table(
        job.output.how_many,
        how_many(views, group, directions),
        block="how_many",
        comment="Particles by view and defocus group.",
    )
    named = pd.concat(
        [aligned[["rlnMicrographName", "nphParticleNumber", "nphDefocusGroup", "nphCorrelation"]], views], axis=1
    )
    write_table(
        job.output.views,
        named.sort_values(["nphDefocusGroup", "nphView"], kind="stable"),
        block="ref_sel",
        comment="View of each particle.",
    )
