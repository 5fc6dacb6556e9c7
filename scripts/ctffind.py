"""Defocus, astigmatism and their errors of a batch of micrographs by the 2D fit, with rings and a picture of each.

As rule ctffind_pooled: again, with the rings' strength that the data set shares.
"""

from nephila.ctf import Optics
from nephila.defocus import failed_fit, fit_defocus
from nephila.defocus.batch import BatchResults
from nephila.defocus.pooling import strength_of
from nephila.defocus.tables import defocus_settings
from nephila.io.spectra import load_spectra
from nephila.io.tables import read_table
from nephila.job import Progress, start_job

with start_job(snakemake) as job:  # noqa: F821
    optics, settings = Optics(**job.params.optics), defocus_settings(job.params.ctf)
    pooled = [strength_of(read_table(path, block="ring_strength")) for path in job.input.strength]
    strength = pooled[0] if pooled else None
    results = BatchResults(job.output.pictures)
    progress = Progress(len(job.params.names), "fits")
    for name, spectrum in load_spectra(job.input.spectra):
        if isinstance(spectrum, str):
            results.add(name, None, failed_fit(spectrum))
        else:
            results.add(name, spectrum, fit_defocus(spectrum, optics, settings, strength))
        progress.step()
    results.write(job.output.defocus, job.output.rings, "2D fits.")
    if settings.heights:
        results.write_heights(job.output.heights)
