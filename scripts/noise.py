"""Find windows without particles; one serves as the background that others are matched to."""

from nephila.io.mrc import write_image, write_stack
from nephila.io.tables import write_table
from nephila.job import start_job
from nephila.windows import choose_noise

with start_job(snakemake) as job:  # noqa: F821
    pixel_size = job.params.input["pixel_size"] * job.params.input["decimate"]
    windows, table = choose_noise(list(job.input.micrographs), job.params.box, job.params.input, job.params.candidate)
    write_image(job.output.noise, windows[job.params.candidate - 1], pixel_size)
    write_stack(job.output.candidates, windows, pixel_size)
    write_table(
        job.output.table,
        table,
        block="noise",
        comment="Windows without particles, evenest first; particles.noise_candidate chooses.",
    )
