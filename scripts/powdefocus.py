"""Power spectra of a batch of micrographs, their profiles, and defocus by the 1D fit."""

import pandas as pd

from nephila.ctf import Optics
from nephila.defocus.fit_1d import fit_profile
from nephila.defocus.settings import failed_fit
from nephila.defocus.tables import defocus_settings, defocus_table, profile_table, spectrum_settings
from nephila.errors import InputError
from nephila.io.mrc import write_stack
from nephila.io.spectra import power_stack, save_spectra
from nephila.io.tables import write_table
from nephila.job import Progress, logger, start_job
from nephila.micrograph_input import read_input
from nephila.spectra import tile_spectra

with start_job(snakemake) as job:  # noqa: F821
    optics, settings = Optics(**job.params.optics), defocus_settings(job.params.ctf)
    spectra, fits, profiles = {}, [], []
    progress = Progress(len(job.params.names), "spectra")
    for name in job.params.names:
        try:
            micrograph = read_input(name, job.params.input)
            spectra[name] = tile_spectra(micrograph.image, micrograph.pixel_size, spectrum_settings(job.params.ctf))
            fit = fit_profile(spectra[name], optics, settings)
            profiles.append(profile_table(name, spectra[name], fit))
            fits.append(fit.fit)
        except InputError as error:
            logger.warning("%s", error)
            spectra[name] = str(error)
            fits.append(failed_fit(str(error)))
        progress.step()
    save_spectra(job.output.spectra, spectra)
    power, pixel_size = power_stack(spectra.values())
    write_stack(job.output.power, power, pixel_size)
    columns = pd.concat(profiles, ignore_index=True) if profiles else pd.DataFrame({"rlnMicrographName": []})
    write_table(job.output.profiles, columns, block="profiles", comment="Rotational profiles (roo) and their fit.")
    known = [None if isinstance(spectrum, str) else spectrum for spectrum in spectra.values()]
    write_table(job.output.defocus, defocus_table(job.params.names, known, fits), kind="defocus", comment="1D fits.")
