"""Defocus, astigmatism and their errors of a batch of micrographs by the 2D fit, with a picture of each."""

from pathlib import Path

from nephila.ctf import Optics
from nephila.defocus import failed_fit, fit_defocus
from nephila.defocus.diagnostics import ctf_figure
from nephila.defocus.tables import defocus_settings, defocus_table
from nephila.io.spectra import load_spectra
from nephila.io.tables import write_table
from nephila.job import Progress, start_job

with start_job(snakemake) as job:  # noqa: F821
    optics, settings = Optics(**job.params.optics), defocus_settings(job.params.ctf)
    pictures = Path(job.output.pictures)
    pictures.mkdir(parents=True, exist_ok=True)
    names, spectra, fits = [], [], []
    progress = Progress(len(job.params.names), "fits")
    for name, spectrum in load_spectra(job.input.spectra):
        fit = failed_fit(spectrum) if isinstance(spectrum, str) else fit_defocus(spectrum, optics, settings)
        spectra.append(None if isinstance(spectrum, str) else spectrum)
        if not isinstance(spectrum, str):
            ctf_figure(spectrum, fit, pictures / f"{Path(name).stem}.png", Path(name).name)
        names.append(name)
        fits.append(fit)
        progress.step()
    write_table(job.output.defocus, defocus_table(names, spectra, fits), kind="defocus", comment="2D fits.")
