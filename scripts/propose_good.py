"""Propose which windows hold good particles: outliers of the background and the extremes, and empty ones, are doubted."""

import pandas as pd

from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job
from nephila.particle_selection import doubt_empty_windows, propose_bad_particles

STATISTICS = ["nphBackgroundDeviation", "nphMinimum", "nphMaximum"]

with start_job(snakemake) as job:  # noqa: F821
    windows = pd.concat([read_table(path, kind="particles") for path in job.input], ignore_index=True)
    proposal = propose_bad_particles(windows[["rlnMicrographName", "nphParticleNumber", *STATISTICS]])
    if "nphEvidence" in windows:
        proposal, why = doubt_empty_windows(proposal, windows)
        if why != "none":
            logger.info("no windows are proposed for dropping as empty: %s", why)
    logger.info("%d of %d windows proposed as good", proposal["nphKeep"].sum(), len(proposal))
    write_table(
        job.output[0],
        proposal,
        kind="good",
        comment="Proposal; put the rows that you decide otherwise into edits/good.star.",
    )
