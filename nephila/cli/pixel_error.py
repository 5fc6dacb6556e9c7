"""`nephila pixel-error`: what a wrong pixel size does to CTF and FSC."""

from __future__ import annotations

from pathlib import Path

import click

from nephila.cli.numbers import AMPLITUDE_CONTRAST, CS, DEFOCUS, PIXEL_SIZE, POSITIVE, VOLTAGE


@click.command("pixel-error", short_help="What a wrong pixel size does to the CTF and the FSC.")
@click.option("--defocus", type=DEFOCUS, default=5000.0, show_default=True, help="True defocus, A.")
@click.option("--cs", type=CS, default=2.7, show_default=True, help="True spherical aberration, mm.")
@click.option("--voltage", type=VOLTAGE, default=300.0, show_default=True, help="Acceleration voltage, kV.")
@click.option("--amplitude-contrast", type=AMPLITUDE_CONTRAST, default=0.1, show_default=True, help="A fraction.")
@click.option("--true", "true_size", type=PIXEL_SIZE, default=0.51, show_default=True, help="True pixel size, A.")
@click.option("--nominal", type=PIXEL_SIZE, default=0.54, show_default=True, help="Pixel size in the tables, A.")
@click.option(
    "--fit-to", type=POSITIVE, default=3.5, show_default=True,
    help="Finest resolution (A, nominal) that the fit of the defocus uses.",
)  # fmt: skip
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("pixel_error.png"), show_default=True,
    help="Figure of the CTFs, .png or .svg; the FSC goes beside it, _fsc at the end of its name.",
)  # fmt: skip
@click.option("--no-fsc", is_flag=True, help="Leave out the simulated FSC, which takes some seconds.")
def pixel_error(
    defocus: float,
    cs: float,
    voltage: float,
    amplitude_contrast: float,
    true_size: float,
    nominal: float,
    fit_to: float,
    out: Path,
    no_fsc: bool,
) -> None:
    """Compare the CTF of images with the one that is computed at a wrong pixel size: unfitted, with the defocus refitted, and with
    defocus and Cs refitted. Draws them, the phase error, and the FSC of simulated half maps.

    The defaults are the worked example of docs/pixel-size.md.
    """
    import numpy as np

    from nephila.ctf import Optics, ctf_1d
    from nephila.errors import InputError
    from nephila.figures.pixel_error import CtfPanel, plot_ctf_error, plot_fsc_error
    from nephila.pixel_size import absorbed, phase_error, refit_defocus, resolution_of_phase, resolutions_in_phase

    optics = Optics(voltage, cs, amplitude_contrast)
    both_defocus, both_cs = absorbed(defocus, cs, nominal, true_size)
    if both_cs > 20:
        raise InputError(
            f"pixel sizes {true_size:g} and {nominal:g} A: the ratio is beyond what a calibration error can be"
        )
    refitted = refit_defocus(defocus, optics, nominal, true_size, fit_to)
    k = np.linspace(0, 0.5 / nominal, 2500)
    images = ctf_1d(k * nominal / true_size, defocus, optics)
    panels = []
    for title, used_defocus, used_cs in (
        ("As it is", defocus, cs),
        ("Defocus refitted", refitted, cs),
        ("Defocus and Cs refitted", both_defocus, both_cs),
    ):
        used = Optics(voltage, used_cs, amplitude_contrast)
        turns = phase_error(k, defocus, optics, nominal, true_size, used_defocus, used_cs) / (2 * np.pi)
        label = f"{title}: {used_defocus:.0f} A, {used_cs:.2f} mm"
        panels.append(CtfPanel(label, images, ctf_1d(k, used_defocus, used), turns))
        ends = resolution_of_phase(np.pi / 2, defocus, optics, nominal, true_size, used_defocus, used_cs)
        reach = f"90 degrees off from {ends:.2f} A on" if ends else "in phase to Nyquist"
        again = resolutions_in_phase(defocus, optics, nominal, true_size, used_defocus, used_cs)
        text = f"; in phase again at {', '.join(f'{d:.2f}' for d in again[:4])} A" if again else ""
        click.echo(f"{title + ':':25}defocus {used_defocus:8.1f} A, Cs {used_cs:.4f} mm: {reach}{text}")
    click.echo(
        f"(fit of the defocus: 0 to {fit_to:g} A, spatial frequencies weighted equally; resolutions are nominal)"
    )
    plot_ctf_error(k, panels, out, mark=fit_to)
    click.echo(f"wrote {out}")
    if no_fsc:
        return
    from nephila.simulate.pixel_error import simulate_fsc

    found = simulate_fsc(defocus, optics, nominal, true_size, fit_to)
    again = resolutions_in_phase(defocus, optics, nominal, true_size, refitted, cs)
    picture = out.with_name(f"{out.stem}_fsc{out.suffix}")
    plot_fsc_error(found.frequency, found.halves, found.truth, picture, marks=again[:1])
    click.echo(f"wrote {picture}")
