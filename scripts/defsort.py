"""Propose defocus groups for the kept micrographs."""

from nephila.defocus_groups import propose_groups
from nephila.io.tables import read_table, write_table
from nephila.job import logger, start_job

with start_job(snakemake) as job:  # noqa: F821
    ctf = read_table(job.input.micrographs, kind="defocus")
    selection = read_table(job.input.selection, kind="sel_micrograph")
    names = selection.loc[selection["nphKeep"] == 1, "rlnMicrographName"]
    proposal = propose_groups(ctf[ctf["rlnMicrographName"].isin(names)], job.params.optics, job.params.groups)
    logger.info("%d micrographs in %d groups", len(proposal), proposal["nphDefocusGroup"].nunique())
    write_table(
        job.output.proposed,
        proposal,
        kind="def_sort",
        comment="Proposal; copy it to edits/def_sort.star and change _nphDefocusGroup there.",
    )
