"""Keep the good particles once each, assign half-sets, and count what was picked and selected."""

import pandas as pd

from nephila.errors import InputError
from nephila.io.tables import read_blocks, read_table, write_blocks, write_table
from nephila.job import logger, start_job
from nephila.particle_defocus import particle_defoci
from nephila.particle_selection import assign_random_subsets, percent_selected, reasons_left_out, remove_duplicates
from nephila.sampling import is_uniform

with start_job(snakemake) as job:  # noqa: F821
    blocks = [read_blocks(path) for path in job.input.windows]
    windows = pd.concat([part["particles"] for part in blocks], ignore_index=True)
    uncut = [part["left_out"] for part in blocks if len(part.get("left_out", ()))]
    good = read_table(job.input.good, kind="good")
    keys = ["rlnMicrographName", "nphParticleNumber"]
    chosen = windows.merge(good.loc[good["nphKeep"] == 1, keys], on=keys, how="inner", validate="one_to_one")
    if not len(chosen):
        raise InputError(
            f"no particles are left of {len(windows)} windows; look at results/particles/picks_by_micrograph.star, "
            "picking.threshold and edits/good.star"
        )
    table = chosen
    if "rlnCoordinateX" in chosen:
        parts = [(job.params.pixel_size, chosen)]
        if not is_uniform(chosen):
            parts = list(chosen.groupby("rlnImagePixelSize"))
        kept = [remove_duplicates(part, job.params.distance, float(pixel))[0] for pixel, part in parts]
        table = pd.concat(kept).sort_index()
        logger.info("%d good particles, %d duplicates dropped", len(table), len(chosen) - len(table))
    table = table.reset_index(drop=True)
    # particles that were given may have half-sets and defoci of their own
    if "rlnRandomSubset" not in table:
        table = assign_random_subsets(table, job.params.seed)
    ctf = read_table(job.input.defocus, kind="defocus")
    columns = ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnCtfFigureOfMerit", "rlnCtfMaxResolution"]
    new = ["rlnMicrographName", *(name for name in columns if name in ctf and name not in table)]
    table = table.merge(ctf[new], on="rlnMicrographName", how="left", validate="many_to_one")
    if "rlnDefocusU" in new:
        tiles = [read_table(path, block="heights") for path in job.input.heights]
        table = particle_defoci(table, ctf, job.params.pixel_size, pd.concat(tiles) if tiles else None)
    write_table(job.output.table, table, kind="particles", comment="Selected particles.")
    picked = read_table(job.input.coordinates, block="particles")
    by_micrograph, overall = percent_selected(picked, table)
    write_blocks(
        job.output.percent, {"percent_selected": by_micrograph, "overall": overall}, "Picked and selected particles."
    )
    none = pd.DataFrame({"rlnMicrographName": [], "nphParticleNumber": [], "nphReason": []})
    left_out = reasons_left_out(picked, table, pd.concat(uncut) if uncut else none, good, job.params.distance)
    write_table(job.output.left_out, left_out, block="left_out", comment="Picks that do not go on, and why.")
