"""Sum up the run in results/summary.json; where the true map is known, also the FSC with it, as a table and drawn."""

import json

from nephila.ctf import Optics
from nephila.io.atomic import write_text
from nephila.io.mrc import read_volume
from nephila.io.tables import read_blocks, read_table, write_table
from nephila.job import start_job
from nephila.project_ledger import project_ledger
from nephila.refinement.findings import doubts
from nephila.refinement.merge import load_mask
from nephila.refinement.settings import IterationSettings
from nephila.sampling import with_sampling
from nephila.summary import (
    compare_with_truth,
    cost_by_iteration,
    cost_by_stage,
    final_curves,
    half_map_resolution,
    truth_table,
    versions,
)

with start_job(snakemake) as job:  # noqa: F821
    settings = IterationSettings(**job.params.refinement)
    picks, micrographs = (
        read_table(job.input.picks, block="particles"),
        read_table(job.input.micrographs, kind="defocus"),
    )
    kept, refined = picks[picks["nphKeep"] == 1], read_table(job.input.particles, kind="particles")
    aligned = read_table(job.input.groups, kind="sel_group")
    selection = read_table(job.input.selection, kind="sel_micrograph")
    volume, _ = read_volume(job.input.map)
    summary = {
        "project": job.params.name,
        "micrographs": {"given": len(micrographs), "kept": int(selection["nphKeep"].sum())},
        "particles": {
            "picked": len(kept),
            "selected": len(read_table(job.input.good, kind="particles")),
            "aligned": int(aligned["nphParticles"].sum()),
            "refined": len(refined),
        },
        "defocus_groups": len(aligned),
        "resolution": half_map_resolution(read_table(job.input.fsc, kind="fsc"), settings.box, settings.pixel_size),
        "pixel_size": settings.pixel_size,
        "box": settings.box,
        "symmetry": settings.symmetry,
    }
    if any(job.params.truth.values()):
        optics_block = read_blocks(job.input.particles)["optics"]
        refined = with_sampling(refined, optics_block, settings.box, settings.pixel_size)
        summary["truth"], curves = compare_with_truth(
            refined, volume, load_mask(settings), job.params.truth, settings, Optics(**job.params.optics),
            job.params.micrograph_pixel_size, kept, micrographs, job.threads,
        )  # fmt: skip
        if curves:
            from nephila.figures.curves import plot_fsc

            table = truth_table(curves, settings.box, settings.pixel_size)
            write_table(job.output.fsc, table, kind="fsc", comment="FSC with the true map.")
            halves = final_curves(read_table(job.input.fsc, kind="fsc"))
            plot_fsc({**halves, **curves}, job.output.figure, pixel_size=settings.pixel_size, box=settings.box)
    ledger = project_ledger(".", job.params.input, job.params.reference, search=False)
    write_table(
        job.output.ledger, ledger.table(), block="ledger", comment="Pixel sizes; nephila pixelsize ledger tells more."
    )
    summary["doubts"] = doubts(read_table(job.input.checks, kind="checks"))
    summary["cost"] = cost_by_stage("logs")
    summary["cost_by_iteration"] = cost_by_iteration("logs")
    summary["versions"] = versions()
    write_text(job.output[0], json.dumps(summary, indent=2) + "\n")
