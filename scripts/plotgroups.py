"""Rings of each defocus group's micrographs over each other with the group's CTF, and how far each one is in phase."""

from pathlib import Path

import pandas as pd

from nephila.ctf import Optics
from nephila.defocus.group_phases import draw_groups, group_phases
from nephila.figures.spectra import plot_defocus_groups
from nephila.io.tables import read_table, write_table
from nephila.job import start_job

with start_job(snakemake) as job:  # noqa: F821
    optics = Optics(**job.params.optics)
    folder = Path(job.output.figures)
    folder.mkdir(parents=True, exist_ok=True)
    def_avg = read_table(job.input.def_avg, kind="def_avg")
    micrographs = read_table(job.input.micrographs, kind="defocus")
    tables = [read_table(path, block="profiles") for path in job.input.rings]
    curves = pd.concat([t for t in tables if len(t)], ignore_index=True) if any(len(t) for t in tables) else None
    rings = (
        {} if curves is None else {str(name): part for name, part in curves.groupby("rlnMicrographName", sort=False)}
    )
    phases = group_phases(def_avg, micrographs, rings, optics)
    write_table(job.output.table, phases, block="group_phases", comment="Micrographs against the CTF of their group.")
    plot_defocus_groups(phases["nphDefocus"], phases["nphDefocusGroup"], folder / "groups.png")
    draw_groups(phases, def_avg, micrographs, rings, optics, folder)
