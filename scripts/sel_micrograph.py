"""Micrographs kept: what screening proposes, or what edits/sel_micrograph.star says."""

from nephila.edits import resolved_comment
from nephila.io.tables import read_table, write_table
from nephila.job import start_job
from nephila.plan import apply_micrograph_edit

with start_job(snakemake) as job:  # noqa: F821
    ctf = read_table(job.input.micrographs, kind="defocus")
    table = ctf[["rlnMicrographName", "rlnDefocusU", "rlnDefocusV", "rlnCtfMaxResolution", "nphKeep", "nphReason"]]
    write_table(
        job.output.proposed,
        table,
        kind="sel_micrograph",
        comment="Proposal; copy it to edits/sel_micrograph.star and change _nphKeep there.",
    )
    if job.input.edit:
        source = str(job.input.edit)
        table = table.assign(nphKeep=apply_micrograph_edit(ctf, read_table(source, kind="sel_micrograph"), source))
    write_table(
        job.output.table,
        table,
        kind="sel_micrograph",
        comment=resolved_comment("sel_micrograph", job.input.edit),
        read_only=True,
    )
