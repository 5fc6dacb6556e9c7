"""Pictures of the micrographs whose defocus a person gave, half measured and half by hand, from their average spectra."""

from pathlib import Path

from nephila.ctf import Optics
from nephila.defocus.polar import draw_fit_of_power
from nephila.defocus_by_hand import by_hand
from nephila.io.mrc import open_stack
from nephila.io.tables import read_table
from nephila.job import logger, start_job

with start_job(snakemake) as job:  # noqa: F821
    optics = Optics(**job.params.optics)
    folder = Path(job.output[0])
    folder.mkdir(parents=True, exist_ok=True)
    stacks = {int(Path(path).stem[-4:]): path for path in job.input.power}
    for name, batch, place, fit in by_hand(read_table(job.input.micrographs, kind="defocus")):
        stack = open_stack(stacks[batch])
        pixel_size = stack.pixel_size or job.params.pixel_size
        draw_fit_of_power(
            stack[place],
            pixel_size,
            job.params.resolution,
            fit,
            optics,
            folder / f"{Path(name).stem}.png",
            Path(name).name,
        )
        logger.info("drawn: %s", name)
