"""Filter the first volume at its resolution (Butterworth, as SPIDER's filt)."""

from nephila.io.mrc import read_volume, write_volume
from nephila.io.tables import read_table
from nephila.job import start_job
from nephila.references import filter_at_resolution

with start_job(snakemake) as job:  # noqa: F821
    volume, pixel_size = read_volume(job.input.volume)
    resolution = float(read_table(job.input.resolution)["nphResolutionHalf"].iloc[0])
    filtered = filter_at_resolution(volume, pixel_size, resolution, job.params.below, job.params.above)
    write_volume(job.output[0], filtered, pixel_size)
