"""Average defocus of each group, its spread, and the resolution at which its worst phase error reaches 90 degrees."""

from nephila.ctf import Optics
from nephila.defocus_groups import average_groups
from nephila.io.tables import read_table, write_table
from nephila.job import start_job

with start_job(snakemake) as job:  # noqa: F821
    ctf = read_table(job.input.micrographs, kind="defocus")
    def_avg, sel_group = average_groups(
        read_table(job.input.def_sort, kind="def_sort"), ctf, Optics(**job.params.optics)
    )
    write_table(
        job.output.def_avg, def_avg, kind="def_avg", comment="Micrographs with their group and its average defocus."
    )
    write_table(job.output.sel_group, sel_group, kind="sel_group", comment="Defocus groups.")
