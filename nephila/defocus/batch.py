"""What a job leaves of its batch of micrographs: table of CTFs, rings, pictures."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from nephila.defocus.diagnostics import ctf_figure
from nephila.defocus.heights import height_table
from nephila.defocus.settings import DefocusFit
from nephila.defocus.tables import defocus_table, ring_table
from nephila.io.tables import write_table
from nephila.spectra import MicrographSpectrum

PathLike = str | os.PathLike[str]


class BatchResults:
    """Fits as they come, each drawn into the folder `pictures`."""

    def __init__(self, pictures: PathLike) -> None:
        self.pictures = Path(pictures)
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.names: list[str] = []
        self.spectra: list[MicrographSpectrum | None] = []
        self.fits: list[DefocusFit] = []

    def add(self, name: str, spectrum: MicrographSpectrum | None, fit: DefocusFit) -> None:
        """The next micrograph; without a spectrum there is no picture of it."""
        if spectrum is not None:
            ctf_figure(spectrum, fit, self.pictures / f"{Path(name).stem}.png", Path(name).name)
        self.names.append(name)
        self.spectra.append(spectrum)
        self.fits.append(fit)

    def write(self, defocus: PathLike, rings: PathLike, comment: str) -> None:
        """Table of CTFs (kind `defocus`) and table of rings."""
        write_table(defocus, defocus_table(self.names, self.spectra, self.fits), kind="defocus", comment=comment)
        curves = pd.concat([ring_table(n, f) for n, f in zip(self.names, self.fits, strict=True)], ignore_index=True)
        write_table(
            rings, curves, block="profiles", comment="Rings along the radius, astigmatism taken out, and their fit."
        )

    def write_heights(self, heights: PathLike) -> None:
        """Table of the tiles' heights."""
        table = height_table(self.names, [fit.heights for fit in self.fits])
        write_table(heights, table, block="heights", comment="Defocus of the tiles from their micrograph's plane.")
