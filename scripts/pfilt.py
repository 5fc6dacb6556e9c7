"""Low-pass the windows of a batch for looking at them, by their micrograph's defocus."""

from nephila.extraction import lowpass_windows
from nephila.io.mrc import open_stack, stack_writer
from nephila.io.tables import read_table
from nephila.job import start_job

with start_job(snakemake) as job:  # noqa: F821
    windows = open_stack(job.input.stack)
    names = read_table(job.input.table, kind="particles")["rlnMicrographName"].to_numpy()
    ctf = read_table(job.input.defocus, kind="defocus").set_index("rlnMicrographName")
    with stack_writer(job.output[0], windows.shape, windows.pixel_size) as filtered:
        for name in dict.fromkeys(names):
            rows = names == name
            filtered[rows] = lowpass_windows(windows[rows], float(ctf.loc[name, ["rlnDefocusU", "rlnDefocusV"]].mean()))
