"""Defocus groups: the proposal, or edits/def_sort.star after a check that it covers the same micrographs."""

from nephila.edits import resolved_comment
from nephila.io.tables import read_table, write_table
from nephila.job import start_job
from nephila.plan import resolve_groups

with start_job(snakemake) as job:  # noqa: F821
    proposal = read_table(job.input.proposed, kind="def_sort")
    edit = str(job.input.edit) if job.input.edit else None
    table = resolve_groups(proposal, edit)
    write_table(job.output[0], table, kind="def_sort", comment=resolved_comment("def_sort", edit or ""), read_only=True)
