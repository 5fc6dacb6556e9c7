"""Draw the FSC of every group and of the merged volume."""

from nephila.figures.curves import plot_fsc
from nephila.io.tables import read_table
from nephila.job import start_job

with start_job(snakemake) as job:  # noqa: F821
    overall = read_table(job.input.overall, kind="fsc")["rlnFourierShellCorrelation"].to_numpy()
    groups = {
        number: read_table(path, kind="fsc")["rlnFourierShellCorrelation"].to_numpy()
        for number, path in zip(job.params.groups, job.input.groups, strict=True)
    }
    plot_fsc(
        {"half maps": overall}, job.output[0], pixel_size=job.params.pixel_size, box=job.params.box, group_curves=groups
    )
