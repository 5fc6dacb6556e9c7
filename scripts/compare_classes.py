"""Sizes and resolutions of the 3D classes, FSC between them, and their figure."""

from nephila.classes.results import between_classes, class_table
from nephila.figures.classes import plot_classes
from nephila.io.mrc import read_volume
from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job
from nephila.refinement.merge import load_mask
from nephila.refinement.settings import IterationSettings

with start_job(snakemake) as job:  # noqa: F821
    settings = IterationSettings(**job.params.settings)
    particles = read_table(job.input.particles, kind="particles")
    curves = {number: read_table(path, kind="fsc") for number, path in enumerate(job.input.fsc, 1)}
    mask = load_mask(settings)
    sizes = class_table(particles, curves, settings.box, settings.pixel_size)
    for row in sizes.itertuples():
        logger.info("class %d: %d particles, %.2f A", row.rlnClassNumber, row.nphParticles, row.nphResolution)
    maps = [read_volume(path)[0] for path in job.input.maps]
    write_table(job.output.classes, sizes, block="classes", comment="3D classes of the refined particles.")
    between = between_classes(maps, mask, settings.pixel_size)
    write_table(job.output.fsc, between, block="fsc", comment="FSC between the maps of two classes.")
    filtered = [read_volume(path)[0] for path in job.input.filtered]
    plot_classes(
        filtered,
        mask,
        sizes,
        curves,
        particles["nphClassProbability"],
        job.output.figure,
        pixel_size=settings.pixel_size,
    )
