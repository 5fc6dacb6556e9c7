"""Draw resolution and FSC by iteration, and the final FSC curves."""

from nephila.figures.curves import plot_fsc, plot_fsc_by_iteration, plot_resolution_by_iteration
from nephila.io.tables import read_table
from nephila.job import start_job
from nephila.refinement.model import read_model, resolution_columns

with start_job(snakemake) as job:  # noqa: F821
    pixel_size, box = job.params.pixel_size, job.params.box
    models = [read_model(path) for path in job.input.models]
    curves = {model.row.iteration: model.fsc for model in models if model.row.search != "none"}
    plot_fsc_by_iteration(curves, job.output.iterations, pixel_size=pixel_size, box=box)
    plot_resolution_by_iteration(
        resolution_columns(read_table(job.input.iterations, kind="iterations")), job.output.resolution
    )
    fsc = read_table(job.input.fsc, kind="fsc")
    final = {
        "corrected": fsc["rlnFourierShellCorrelation"].to_numpy(),
        "masked": fsc["rlnFourierShellCorrelationMaskedMaps"].to_numpy(),
        "unmasked": fsc["rlnFourierShellCorrelationUnmaskedMaps"].to_numpy(),
        "randomised": fsc["rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"].to_numpy(),
    }
    plot_fsc(final, job.output.fsc, pixel_size=pixel_size, box=box)
