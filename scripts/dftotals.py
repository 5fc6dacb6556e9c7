"""Keep the particles of a group above its threshold that are not doubted, sorted by correlation."""

from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job
from nephila.thresholds import apply_thresholds, propose_thresholds
from nephila.view_evidence import drop_doubted

with start_job(snakemake) as job:  # noqa: F821
    aligned, edited = read_table(job.input.table, kind="poses"), job.params.threshold
    if len(aligned):
        thresholds = propose_thresholds(aligned["nphCorrelation"], aligned["nphDefocusGroup"], job.params.share)
        if edited is not None:
            # not a number: the edit has no line for this group
            thresholds = thresholds.assign(nphThreshold=edited).dropna()
        kept = drop_doubted(aligned, read_table(job.input.doubts, block="doubts"), job.params.by_hand)
        doubted = len(aligned) - len(kept)
        aligned, rejected = apply_thresholds(kept, thresholds, "edits/thresh.star")
        logger.info(
            "%d kept, %d rejected, %d dropped as doubted (%s)", len(aligned), len(rejected), doubted, job.input.doubts
        )
    write_table(
        job.output[0],
        aligned,
        block="particles",
        comment="Particles above the group's threshold that are not doubted, by falling correlation.",
    )
