"""Bring the starting volume to the project's pixel size and box."""

from nephila.io.mrc import write_volume
from nephila.job import logger, start_job
from nephila.references import fit_reference, read_reference

with start_job(snakemake) as job:  # noqa: F821
    source = job.input[0]
    reference = job.params.reference
    volume, given = read_reference(
        source, reference["pixel_size"], reference["sampling"], job.params.pixel_size, job.params.box
    )
    fitted, actual = fit_reference(volume, given, job.params.pixel_size, job.params.box, job.params.diameter, source)
    logger.info("%s: %d px of %.4f A brought to %d px of %.4f A", source, len(volume), given, len(fitted), actual)
    write_volume(job.output.volume, fitted, actual)
