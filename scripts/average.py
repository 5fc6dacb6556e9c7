"""Average and variance of the aligned particles of each view of a group, and which particles are unlike the others."""

import numpy as np
import pandas as pd

from nephila.averaging import average_views, select_by_view
from nephila.ctf import Optics
from nephila.io.mrc import open_stack, write_stack
from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job
from nephila.resize import resize_images
from nephila.sampling import is_uniform, one_sampling
from nephila.symmetry import point_group_matrices
from nephila.view_evidence import COLUMNS, propose_by_views, shifted_to_the_limit, view_evidence

with start_job(snakemake) as job:  # noqa: F821
    aligned = read_table(job.input.table, kind="poses", block="particles")
    directions = read_table(job.input.directions, kind="directions")[["rlnAngleRot", "rlnAngleTilt"]].to_numpy()
    views = select_by_view(aligned, directions, point_group_matrices(job.params.symmetry))
    pixel_size, box = job.params.pixel_size, job.params.box
    averages = variances = np.zeros((len(directions), box, box), dtype=np.float32)
    evidence = pd.DataFrame(columns=list(COLUMNS), dtype=float)
    if len(aligned):
        optics = Optics(**job.params.optics)
        sampling = one_sampling(aligned, box, pixel_size, optics, "a defocus group")
        images, own = sampling.images_of(aligned), sampling.pixel_size
        averages, variances, _ = average_views(images, aligned, views, len(directions), pixel_size=own)
        if not is_uniform(aligned):  # averages are for looking at: all on the reference's grid
            averages, variances = (resize_images(stack, own, pixel_size, box) for stack in (averages, variances))
        evidence = view_evidence(
            images, aligned, views, open_stack(job.input.projections),
            pixel_size=pixel_size, diameter=job.params.diameter, optics=optics,
        )  # fmt: skip
    write_stack(job.output.averages, averages, pixel_size)
    write_stack(job.output.variances, variances, pixel_size)
    proposal = propose_by_views(evidence, job.params.doubt_sigma, shifted_to_the_limit(aligned, job.params.shift_range))
    named = aligned[["rlnMicrographName", "nphParticleNumber", "nphDefocusGroup"]].reset_index(drop=True)
    table = pd.concat([named, views[["nphView"]].reset_index(drop=True), evidence.fillna(0.0), proposal], axis=1)
    logger.info(
        "%d of %d particles proposed for dropping as unlike the others", (table["nphKeep"] == 0).sum(), len(table)
    )
    write_table(
        job.output.doubts, table, block="doubts",
        comment="Proposal; particles that edits/good.star names with _nphKeep 1 stay all the same.",
    )  # fmt: skip
