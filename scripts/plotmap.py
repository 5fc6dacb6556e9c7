"""Draw central slices of the final map, and the map from three sides: projections, and its surface."""

from nephila.figures.volumes import plot_central_slices, plot_map_views, plot_projections
from nephila.io.mrc import read_volume
from nephila.job import start_job

with start_job(snakemake) as job:  # noqa: F821
    volume, pixel_size = read_volume(job.input[0])
    plot_central_slices({"map": volume}, job.output.slices, pixel_size=pixel_size)
    plot_projections({"map": volume}, job.output.projections, pixel_size=pixel_size)
    plot_map_views(volume, job.output.views, pixel_size=pixel_size, diameter=job.params.diameter)
