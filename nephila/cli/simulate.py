"""`nephila simulate`: micrographs with known truth, ready to run."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Simulate micrographs with known truth, ready to run.")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0), help="Seed of everything random.")
@click.option("--micrographs", default=24, show_default=True, type=click.IntRange(min=1), help="Number of micrographs.")
@click.option("--map", "map", type=FILE, help="Simulate from this MRC volume, protein bright.")
@click.option("--pdb", "structure", type=FILE, help="Simulate from this atomic model, PDB or mmCIF.")
@click.option("--assembly", help="Biological assembly of the model to build.")
@click.option("--symmetry", metavar="GROUP", help="Point group; the phantom is built with it. [default: C1]")
@click.option("--diameter", type=float, help="Diameter of the phantom or the map, A. [default: 180, or measured]")
@click.option("--size", type=int, help="Side of the micrographs, px. [default: 1024]")
@click.option("--pixel-size", type=float, help="A. [default: 3]")
@click.option("--particles", type=int, help="Particles per micrograph. [default: 70]")
@click.option("--defocus-range", type=float, nargs=2, help="Lowest and highest, A. [default: 8000 30000]")
@click.option("--max-astigmatism", type=float, help="Largest defocusU - defocusV, A. [default: 500]")
@click.option("--noise", type=float, help="Shot noise, in deviations of a particle's projection. [default: 1.2]")
@click.option("--structural-noise", type=float, help="Noise before the CTF, in the same unit. [default: 0.5]")
@click.option("--dirt", type=float, help="Mean number of contaminations per micrograph. [default: 1]")
@click.option("--voltage", "voltage_kv", type=float, help="kV. [default: 300]")
@click.option("--cs", "cs_mm", type=float, help="Spherical aberration, mm. [default: 2.7]")
@click.option("--amplitude-contrast", type=float, help="A fraction. [default: 0.1]")
def simulate(out: Path, seed: int, micrographs: int, **given: Any) -> None:
    """Make the project folder OUT: micrographs/, reference.mrc, config.yaml, and the truth in truth/.

    Without --map or --pdb a made-up molecule of protein-like density is simulated, without symmetry unless told otherwise.
    """
    from nephila.simulate.micrographs import MicrographSettings
    from nephila.simulate.project import OPTICS, ObjectSettings, simulate_project

    values = {key: value for key, value in given.items() if value is not None}
    subject = {
        key: values.pop(key) for key in ("map", "structure", "assembly", "symmetry", "diameter") if key in values
    }
    optics = {key: values.pop(key) for key in ("voltage_kv", "cs_mm", "amplitude_contrast") if key in values}
    if "size" in values:
        values["shape"] = (values["size"], values.pop("size"))
    simulate_project(
        out,
        seed=seed,
        micrographs=micrographs,
        settings=MicrographSettings(**values),
        subject=ObjectSettings(**subject),
        optics=replace(OPTICS, **optics),
        threads=os.cpu_count() or 1,
        progress=_show_progress if sys.stderr.isatty() else None,
    )
    click.echo(f"Simulated {micrographs} micrographs in {out}. Next: nephila run {out}")


def _show_progress(done: int, total: int) -> None:
    click.echo(f"\rmicrograph {done} of {total}", err=True, nl=done == total)
