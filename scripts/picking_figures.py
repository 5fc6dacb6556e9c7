"""Draw the picks on the micrographs of some batches (where there are micrographs), and a montage of their first windows."""

from pathlib import Path

from nephila.errors import InputError
from nephila.figures.particles import plot_micrograph_picks, plot_particle_montage
from nephila.io.mrc import open_stack
from nephila.io.tables import read_table
from nephila.job import logger, start_job
from nephila.micrograph_input import image_coordinates, read_input

with start_job(snakemake) as job:  # noqa: F821
    folder = Path(job.output[0])
    folder.mkdir(parents=True, exist_ok=True)
    coordinates = read_table(job.input.coordinates, block="particles")
    for name in job.params.names:
        try:
            micrograph = read_input(name, job.params.input)
        except InputError as error:
            logger.warning("no picture: %s", error)
            continue
        mine = coordinates[coordinates["rlnMicrographName"] == name]
        x, y = (image_coordinates(mine[f"rlnCoordinate{axis}"], job.params.input) for axis in "XY")
        plot_micrograph_picks(
            micrograph.image, x, y, folder / f"{Path(name).stem}.png", pixel_size=micrograph.pixel_size,
            diameter=job.params.diameter, score=mine["rlnAutopickFigureOfMerit"], title=Path(name).name,
        )  # fmt: skip
    stacks = (open_stack(path) for path in job.input.windows)
    windows = next((stack for stack in stacks if len(stack)), None)
    if windows is not None:
        plot_particle_montage(windows[:70], folder / "windows.png", pixel_size=windows.pixel_size)
