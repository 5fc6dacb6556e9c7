"""Check poses, point group, hand and size of the refined map."""

import pandas as pd

from nephila.ctf import Optics
from nephila.io.mrc import read_volume
from nephila.io.tables import read_table, write_table
from nephila.job import start_job
from nephila.refinement.checks import check_refinement
from nephila.refinement.findings import checks_table
from nephila.refinement.model import read_model
from nephila.refinement.settings import IterationSettings

with start_job(snakemake) as job:  # noqa: F821
    settings = IterationSettings(**job.params.settings)
    particles = pd.concat([read_table(path, kind="particles") for path in job.input.particles], ignore_index=True)
    first, second, volume, given = (
        read_volume(job.input[name])[0] for name in ("reference1", "reference2", "map", "given")
    )
    findings = check_refinement(
        particles,
        (first, second),
        read_model(job.input.model),
        volume,
        given,
        settings,
        Optics(**job.params.optics),
        job.threads,
    )
    write_table(
        job.output[0], checks_table(findings), block="checks", comment="Doubts about the refinement; none: none."
    )
