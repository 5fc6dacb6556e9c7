"""Central slices of the groups' volumes, as a stack and a picture."""

from nephila.figures.volumes import plot_group_slices
from nephila.io.mrc import read_volume, write_stack
from nephila.job import start_job

with start_job(snakemake) as job:  # noqa: F821
    slices = {}
    for number, path in zip(job.params.groups, job.input, strict=True):
        volume, pixel_size = read_volume(path)
        slices[number] = volume[len(volume) // 2]
    write_stack(job.output.stack, list(slices.values()), pixel_size)
    plot_group_slices(slices, job.output.figure, pixel_size=pixel_size)
