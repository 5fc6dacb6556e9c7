"""Maps of one 3D class, from its particles, and their table."""

from nephila.classes.final import class_volumes
from nephila.ctf import Optics
from nephila.fsc import fsc_table
from nephila.io.mrc import write_volume
from nephila.io.tables import read_blocks, write_blocks, write_table
from nephila.job import start_job
from nephila.refinement.final import FinalSettings
from nephila.refinement.model import read_model
from nephila.refinement.settings import IterationSettings

with start_job(snakemake) as job:  # noqa: F821
    settings, optics = IterationSettings(**job.params.settings), Optics(**job.params.optics)
    model, number = read_model(job.input.model), int(job.wildcards.number)
    blocks = read_blocks(job.input.particles)
    mine = blocks["particles"][blocks["particles"]["rlnClassNumber"] == number]
    volumes = class_volumes(
        mine, model.noise, settings, optics, FinalSettings(**job.params.final), job.threads, model.group_factors
    )
    for name in ("half1", "half2", "map", "filtered"):
        write_volume(job.output[name], getattr(volumes, name), settings.pixel_size)
    write_table(job.output.fsc, fsc_table(volumes.fsc, settings.box, settings.pixel_size), kind="fsc")
    write_blocks(job.output.particles, {**blocks, "particles": mine}, f"Particles of class {number}.")
