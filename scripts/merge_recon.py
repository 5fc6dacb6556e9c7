"""Merge the groups' reconstructions (Wiener), and state the resolution of each group and of the whole."""

from nephila.first_reconstruction import merge_groups, resolution_table, sphere
from nephila.fsc import fsc_table
from nephila.io.mrc import write_volume
from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job

with start_job(snakemake) as job:  # noqa: F821
    pixel_size, box, particle = job.params.pixel_size, job.params.box, job.params.particle
    mask = sphere(particle["diameter"], pixel_size, box)
    merged = merge_groups(
        job.input.sums, job.params.reconstruction, particle["symmetry"], mask, job.params.seed, job.threads
    )
    curves = {
        number: read_table(path, kind="fsc")["rlnFourierShellCorrelation"].to_numpy()
        for number, path in zip(job.params.groups, job.input.fsc, strict=True)
    }
    table = resolution_table(curves, merged.fsc.corrected, box, pixel_size)
    logger.info("first volume: %.2f A at FSC 0.5", table["nphResolutionHalf"].iloc[0])
    write_volume(job.output.volume, merged.volume, pixel_size)
    write_volume(job.output.half1, merged.half1, pixel_size)
    write_volume(job.output.half2, merged.half2, pixel_size)
    write_table(job.output.fsc, fsc_table(merged.fsc, box, pixel_size), kind="fsc", comment="FSC of the merged halves.")
    write_table(
        job.output.resolution, table, block="resolution", comment="Resolution by group; group 0 is all groups merged."
    )
