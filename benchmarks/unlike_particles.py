"""Particles whose noise or amplitude differ: what a refinement of 800 of them reaches.

python -m benchmarks.unlike_particles                 all cases, seed 1
python -m benchmarks.unlike_particles noise --seed 2
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.particle_sets import SetSettings, grouped, phantom, simulate
from benchmarks.phantom import OPTICS, Phantom
from benchmarks.refinement import START, common_frame, judge
from nephila.config import parse_config
from nephila.fsc import fourier_shell_correlation
from nephila.io.mrc import read_image
from nephila.references import filter_reference
from nephila.refinement.in_process import refine_in_process
from nephila.refinement.settings import IterationSettings, iteration_settings

CASES: dict[str, dict[str, Any]] = {
    "alike": {"snr": 0.05},
    "alike_faint": {"snr": 0.0111},
    "noise": {"snr": 0.05, "noise": (0.8, 1.6)},
    "amplitude": {"snr": 0.05, "amplitude_spread": 0.35},
    "amplitude_faint": {"snr": 0.0111, "amplitude_spread": 0.35},
}
SHELLS = 25  # over which the FSC with the truth is averaged


def measure(name: str, seed: int, folder: Path) -> str:
    """Simulate and refine one case; a row of the table."""
    chosen = SetSettings(n=64, count=800, seed=seed, **CASES[name])
    subject = phantom(chosen)
    pixel = subject.pixel_size
    true = simulate(folder, chosen)
    config = parse_config(
        {
            "input": {"pixel_size": pixel},
            "particle": {"diameter": 2 * 0.33 * 64 * pixel, "box": 64},
            "reference": {"resolution": START},
            "refinement": {"shift_range": [5 * pixel], "mask": {"file": str(folder / "mask.mrc")}},
        }
    )
    settings = IterationSettings(**iteration_settings(config, 1))
    start = filter_reference(read_image(folder / "reference.mrc")[0], pixel, START)
    begun = time.process_time()
    refined = refine_in_process(
        grouped(true, folder), start, settings, OPTICS, alignment={"shift_range": 5 * pixel}, end_method="direct"
    )
    cpu = time.process_time() - begun
    found = refined.particles.reset_index(drop=True)
    true = true.iloc[found["rlnImageName"].str[:6].astype(int).to_numpy() - 1].reset_index(drop=True)
    mask, volumes = read_image(folder / "mask.mrc")[0], refined.volumes
    maps = (volumes.map, volumes.half1, volumes.half2)
    outcome = judge(name, found, true, maps, subject, mask, pixel, (cpu, cpu))
    frame, shift, _ = common_frame(found, true)
    truth = Phantom(64, subject.positions @ frame + shift / pixel, subject.weights).volume()
    mean = fourier_shell_correlation(volumes.map * mask, truth * mask)[1:SHELLS].mean()
    return (
        f"| {name} | {seed} | {outcome.truth_05:.2f} | {mean:.4f} | {outcome.median_deg:.2f} | {100 * outcome.outliers:.1f} % | "
        f"{cpu:.1f} |"
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unlike_particles", description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="cases; none: all")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    print("| case | seed | FSC 0.5 with the truth, A | mean FSC | median error | outliers | CPU s |")
    for name in chosen.cases or CASES:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(name, chosen.seed, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
