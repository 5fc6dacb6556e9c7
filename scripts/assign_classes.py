"""Assign each particle to one of several 3D classes."""

from pathlib import Path
from tempfile import TemporaryDirectory

from nephila.classes.assign import ClassSettings, classify
from nephila.classes.data import Frame, shrink_images
from nephila.classes.maps import frame_references, frame_support
from nephila.classes.results import classified_particles
from nephila.ctf import Optics
from nephila.io.tables import read_blocks, write_blocks
from nephila.job import start_job
from nephila.refinement.model import read_model
from nephila.refinement.settings import IterationSettings
from nephila.sampling import one_sampling, with_sampling

with start_job(snakemake) as job:  # noqa: F821
    settings, chosen = IterationSettings(**job.params.settings), job.params.classes
    blocks = read_blocks(job.input.particles)
    particles, noise = blocks["particles"], read_model(job.input.model).noise
    optics = Optics(**job.params.optics)
    sampled = with_sampling(particles, blocks["optics"], settings.box, settings.pixel_size)
    one_sampling(sampled, settings.box, settings.pixel_size, optics, "3D classes")
    frame = Frame.of(
        settings.box, settings.pixel_size, chosen["resolution"], noise, optics, settings.ctf, settings.symmetry
    )
    with TemporaryDirectory(dir=Path(job.output[0]).parent) as folder:
        small = shrink_images(particles, frame, Path(folder) / "particles.mrcs")
        assignment = classify(
            small,
            frame,
            frame_support(frame, settings),
            ClassSettings(chosen["count"], chosen["rounds"], chosen["search"], settings.shift_range, settings.seed),
            frame_references(job.input.references, frame, settings),
            job.threads,
        )
    tables = {"optics": blocks["optics"], "particles": classified_particles(particles, assignment)}
    write_blocks(job.output.particles, tables, "Refined particles with their 3D class.")
    write_blocks(job.output.rounds, {"rounds": assignment.rounds}, "How the classes settled.")
