"""Cut, flatten and normalise the windows of a batch of micrographs."""

from nephila.io.mrc import read_image
from nephila.io.tables import read_table, write_blocks
from nephila.job import start_job
from nephila.windows import extract_batch, extraction_settings

with start_job(snakemake) as job:  # noqa: F821
    pixel_size = job.params.input["pixel_size"] * job.params.input["decimate"]
    settings = extraction_settings(
        job.params.particles, job.params.diameter, pixel_size, job.params.box, job.params.seed, job.params.new_box
    )
    coordinates = read_table(job.input.coordinates, kind="coordinates")
    noise, _ = read_image(job.input.noise)
    table, left_out = extract_batch(
        coordinates, job.params.names, job.params.box, job.params.input, settings, noise, job.output.stack,
        job.params.diameter,
    )  # fmt: skip
    blocks = {"particles": table, "left_out": left_out}
    write_blocks(job.output.table, blocks, "Windows of a batch of micrographs; picks without one.")
