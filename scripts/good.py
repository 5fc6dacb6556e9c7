"""Good particles: the proposal, with the decisions of edits/good.star."""

from nephila.edits import resolved_comment
from nephila.io.tables import read_table, write_table
from nephila.job import start_job
from nephila.particle_selection import apply_selection_edit

with start_job(snakemake) as job:  # noqa: F821
    edit = str(job.input.edit) if job.input.edit else None
    table = apply_selection_edit(
        read_table(job.input.proposed, kind="good"),
        read_table(edit, kind="good") if edit else None,
        edit or "the proposal",
    )
    write_table(job.output[0], table, kind="good", comment=resolved_comment("good", edit or ""), read_only=True)
