"""Match the amplitudes of a half's reference to the scattering curve, up to the resolution reached."""

from nephila.io.mrc import read_volume, write_volume
from nephila.io.tables import read_table
from nephila.job import start_job
from nephila.refinement.model import read_model
from nephila.sharpening import enhance_amplitudes

with start_job(snakemake) as job:  # noqa: F821
    volume, pixel_size = read_volume(job.input.volume)
    curve = read_table(str(job.input.scattering), kind="scattering")
    frequency, intensity = curve["nphSpatialFrequency"], curve["nphIntensity"]
    limit = read_model(job.input.model).row.resolution_0143 or 40.0
    write_volume(job.output[0], enhance_amplitudes(volume, frequency, intensity, pixel_size, limit), pixel_size)
