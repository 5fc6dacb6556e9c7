"""Merge an iteration: half volumes, FSC, the next references, and how to go on."""

import shutil

import pandas as pd

from nephila.io.atomic import atomic_path
from nephila.io.mrc import write_volume
from nephila.io.tables import read_table
from nephila.job import logger, start_job
from nephila.refinement.merge import merge_iteration, search_of
from nephila.refinement.model import read_model, write_model
from nephila.refinement.settings import IterationSettings
from nephila.refinement.stored_sums import open_chunks


def read_all(paths):
    """Tables of the chunks as one."""
    return pd.concat([read_table(path, kind="poses") for path in paths], ignore_index=True)


with start_job(snakemake) as job:  # noqa: F821
    settings = IterationSettings(**job.params.settings)
    previous = read_model(job.input.model)
    outputs, inputs = (job.output.half1, job.output.half2), (job.input.reference1, job.input.reference2)
    if previous.row.converged and not settings.changed:
        logger.info("the refinement has converged: the volumes are passed on")
        for source, target in (*zip(inputs, outputs, strict=True), (job.input.volume, job.output.volume)):
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
        model = previous.passed_on(settings.iteration)
    else:
        number = len(job.input.sums) // 2
        sums = open_chunks(job.input.sums[:number]), open_chunks(job.input.sums[number:])
        merged = merge_iteration(
            sums, read_all(job.input.particles), read_all(job.input.before), previous, settings,
            search_of(previous, settings), job.threads,
        )  # fmt: skip
        for path, reference in zip(outputs, merged.references, strict=True):
            write_volume(path, reference, settings.pixel_size)
        write_volume(job.output.volume, merged.volume, settings.pixel_size)
        model = merged.model
    write_model(job.output.model, model, settings.pixel_size, settings.box)
