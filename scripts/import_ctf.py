"""CTFs of a batch of micrographs as another program found them, held against the micrographs' own rings."""

from nephila.ctf import Optics
from nephila.defocus import failed_fit
from nephila.defocus.batch import BatchResults
from nephila.defocus.given import check_given
from nephila.defocus.importers import read_results
from nephila.defocus.result_optics import check_result_optics
from nephila.defocus.tables import defocus_settings
from nephila.io.spectra import load_spectra
from nephila.job import Progress, start_job

with start_job(snakemake) as job:  # noqa: F821
    optics, settings = Optics(**job.params.optics), defocus_settings(job.params.ctf)
    source = job.params.ctf["import_from"]
    check_result_optics(job.params.names, source, job.params.optics, job.params.pixel_size)
    given = dict(zip(job.params.names, read_results(job.params.names, source), strict=True))
    results = BatchResults(job.output.pictures)
    progress = Progress(len(job.params.names), "CTFs checked")
    for name, spectrum in load_spectra(job.input.spectra):
        if isinstance(spectrum, str):
            results.add(name, None, failed_fit(spectrum))
        else:
            results.add(name, spectrum, check_given(spectrum, given[name], optics, settings))
        progress.step()
    results.write(job.output.defocus, job.output.rings, f"Imported from {source}.")
