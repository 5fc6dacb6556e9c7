"""Resolution by place, and the map filtered by it."""

from nephila.figures.validation import plot_local_resolution
from nephila.io.mrc import read_volume, write_volume
from nephila.job import start_job
from nephila.local_resolution import measure_local_resolution
from nephila.refinement.merge import load_mask
from nephila.refinement.settings import IterationSettings

with start_job(snakemake) as job:  # noqa: F821
    mask = load_mask(IterationSettings(**job.params.settings))
    half1, half2, volume = (read_volume(job.input[name])[0] for name in ("half1", "half2", "map"))
    pixel_size = job.params.settings["pixel_size"]
    found = measure_local_resolution(half1, half2, pixel_size, mask, volume, threads=job.threads)
    write_volume(job.output.resolution, found.resolution, pixel_size)
    write_volume(job.output.filtered, found.filtered, pixel_size)
    plot_local_resolution(found.resolution, found.filtered, mask, job.output.figure, pixel_size=pixel_size)
