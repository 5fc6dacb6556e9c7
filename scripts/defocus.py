"""Defoci in use: those fitted, or those of edits/defocus.star for the micrographs that it names."""

from nephila.defocus_by_hand import hand_fits, with_hand_fits
from nephila.edits import resolved_comment
from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job

with start_job(snakemake) as job:  # noqa: F821
    table = read_table(job.input.micrographs, kind="defocus")
    if job.input.edit:
        source = str(job.input.edit)
        fits = hand_fits(table, read_table(source, kind="hand_defocus"), source)
        for name, u, v, angle, *_ in fits:
            logger.info("by hand: %s: %.0f / %.0f A at %.1f degrees", name, u, v, angle)
        table = with_hand_fits(table, fits)
    comment = resolved_comment("defocus", job.input.edit)
    write_table(job.output[0], table, kind="defocus", comment=comment, read_only=True)
