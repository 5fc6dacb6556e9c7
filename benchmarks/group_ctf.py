"""One CTF for a defocus group against each particle's own: what the group costs, over its width and resolution.

    python -m benchmarks.group_ctf

Particles of known poses whose defocus lies evenly within +-spread of their group's mean are reconstructed twice, with
`refinement.ctf: group` and `particle`; the ratio of what either map shares with the truth, by shell, is the mean cosine of the
phase error.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.particle_sets import RADIUS, SetSettings, grouped, phantom, simulate
from benchmarks.phantom import OPTICS
from nephila.ctf import electron_wavelength
from nephila.finishing import finish
from nephila.fourier import half_weights, rfftn, shell_index_3d
from nephila.fsc import fourier_shell_correlation, resolution_at
from nephila.kernels.shells import shell_products
from nephila.masks import spherical_mask
from nephila.particle_sums import backproject_table
from nephila.refinement.merge import STABILISER

SPREADS = (100.0, 250.0, 500.0, 1000.0, 2000.0)


def expected_amplitude(frequency: np.ndarray, spread: float) -> np.ndarray:
    """Mean of cos(pi lambda dz k^2) over dz evenly within +-spread (A), at frequencies k (1/A)."""
    return np.sinc(electron_wavelength(OPTICS.voltage_kv) * spread * frequency**2)


def measure(folder: Path, settings: SetSettings) -> tuple[np.ndarray, float, float]:
    """Amplitude of the groups' map over that of the particles' by shell, and FSC 0.5 with the truth (A) of both."""
    table = grouped(simulate(folder, settings), folder)
    n, pixel = settings.n, float(settings.pixel_size or 1.0)
    truth = phantom(settings).volume()
    mask = spherical_mask(n, RADIUS * n, 0.06 * n)
    target = rfftn(truth * mask)
    shared, resolutions = [], []
    for mode in ("group", "particle"):
        volume = finish(backproject_table(table, pixel, n, OPTICS, mode), "C1", STABILISER)
        cross, _, _ = shell_products(rfftn(volume * mask), target, shell_index_3d(n), half_weights(n), n // 2 + 1)
        shared.append(cross)
        curve = fourier_shell_correlation(volume * mask, truth * mask)
        resolutions.append(resolution_at(curve, 0.5, n, pixel, interpolate=True) or float("nan"))
    return shared[0] / shared[1], resolutions[0], resolutions[1]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.group_ctf", description=__doc__)
    parser.add_argument("--box", type=int, default=96)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--pixel-size", type=float, default=1.2)
    parser.add_argument("--snr", type=float, default=0.1)
    given = parser.parse_args()
    wanted = (8.0, 6.0, 5.0, 4.0, 3.0)
    print("| spread | 90 degrees at | group | particle | " + " | ".join(f"{d:g} A" for d in wanted) + " |")
    print("|---:|---:|---:|---:|" + "---|" * len(wanted))
    for spread in SPREADS:
        settings = SetSettings(
            given.box, given.count, given.snr, 3, defocus_spread=spread, pixel_size=given.pixel_size, shift_px=3.0
        )
        with tempfile.TemporaryDirectory(prefix="nephila_ctf_") as name:
            ratio, group, particle = measure(Path(name), settings)
        cells = []
        for d in wanted:
            shell = round(given.box * given.pixel_size / d)
            expected = expected_amplitude(np.array([shell / (given.box * given.pixel_size)]), spread)[0]
            near = ratio[shell - 1 : shell + 2].mean()
            cells.append(f"{near:.2f} ({expected:.2f})")
        limit = np.sqrt(2 * electron_wavelength(OPTICS.voltage_kv) * spread)
        print(
            f"| +-{spread:g} A | {limit:.1f} A | {group:.2f} A | {particle:.2f} A | {' | '.join(cells)} |", flush=True
        )


if __name__ == "__main__":
    main()
