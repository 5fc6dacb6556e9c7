"""Choose the picks among the candidates of all micrographs by one rule, or take the coordinates given."""

import pandas as pd

from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job
from nephila.picking.choose import choose_picks
from nephila.picking.tables import choice_settings, count_picks, given_coordinates

with start_job(snakemake) as job:  # noqa: F821
    searched = []
    names = read_table(job.input.list, kind="micrographs")["rlnMicrographName"].tolist()
    if job.input.given:
        source = str(job.input.given)
        table = given_coordinates(read_table(source, kind="coordinates"), names, source)
    else:
        parts = [read_table(path, kind="coordinates") for path in job.input.candidates]
        searched = [read_table(path, block="micrographs") for path in job.input.candidates]
        candidates = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        pixel_size = job.params.input["pixel_size"]
        table, model = choose_picks(candidates, choice_settings(job.params.picking), pixel_size, job.params.diameter)
        logger.info(
            "threshold %.4g (%s)", model.threshold, "from the scores" if model.reason == "none" else model.reason
        )
    counts = count_picks(table, names, searched)
    for name, reason in counts.loc[counts["nphPicked"] == 0, ["rlnMicrographName", "nphReason"]].itertuples(
        index=False
    ):
        logger.warning("%s: no picks: %s", name, reason)
    logger.info("%d picks of %d candidates on %d micrographs", counts["nphPicked"].sum(), len(table), len(names))
    write_table(
        job.output.candidates,
        table,
        kind="coordinates",
        comment="All candidates, with the reason why one was not taken.",
    )
    write_table(job.output.table, table[table["nphKeep"] == 1], kind="coordinates", comment="Picked particles.")
    write_table(job.output.counts, counts, block="picks", comment="Picks by micrograph.")
