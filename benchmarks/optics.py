"""Refinement of optics against the truth, and relion_ctf_refine on the same files: `python -m benchmarks.optics`.

Particles are projections of 250 points with signal to the stated resolution, exact at every frequency; poses are true.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from nephila.ctf import Optics
from nephila.io.mrc import read_volume, write_volume
from nephila.io.tables import write_blocks
from nephila.optics_groups import OpticsGroup, ParticleSet, read_particle_set, write_particle_set
from nephila.optics_refinement.observations import References
from nephila.optics_refinement.refine import OpticsSettings, RefinedOptics, refine_optics
from nephila.pixel_size import absorbed, anisotropy, apparent_cs, calibrate_from_cs, mean_magnification, refit_defocus
from nephila.simulate.aberrated import GroupTruth, Simulated, simulate_aberrated

BOX = 96
STATED = OpticsGroup(1, "one", 300.0, 2.7, 0.1, 1.2, original_pixel_size=1.2)


def ours(simulated: Simulated, folder: Path, settings: OpticsSettings, halves: Sequence[Path] = ()) -> RefinedOptics:
    """Our refinement of the files in a folder, against map.mrc or half maps."""
    table = simulated.particles.particles
    names = [name.replace("@", f"@{folder}/") for name in table["rlnImageName"]]
    here = replace(simulated.particles, particles=table.assign(rlnImageName=names))
    maps = {i: read_volume(path)[0] for i, path in enumerate(halves, 1)} or {0: read_volume(folder / "map.mrc")[0]}
    return refine_optics(here, References(maps, float(simulated.particles.optics[0].pixel_size or 0)), settings)


def relion(
    folder: Path, table: str, out: str, pixel_size: float, *options: str, box: int = BOX, timeout: float = 600
) -> ParticleSet:
    """One pass of relion_ctf_refine against map.mrc for both halves; the table that it writes."""
    shells = np.arange(box // 2 + 1)
    fsc = pd.DataFrame(
        {
            "rlnSpectralIndex": shells,
            "rlnResolution": shells / (box * pixel_size),
            "rlnAngstromResolution": box * pixel_size / np.maximum(shells, 0.01),
            "rlnFourierShellCorrelationCorrected": np.where(shells < box // 2, 0.99, 0.0),
        }
    )
    general = pd.DataFrame(
        {
            "rlnFinalResolution": [2 * pixel_size],
            "rlnUnfilteredMapHalf1": ["map.mrc"],
            "rlnUnfilteredMapHalf2": ["map.mrc"],
        }
    )
    write_blocks(folder / "fsc.star", {"general": general, "fsc": fsc})
    command = [
        "relion_ctf_refine",
        "--i",
        table,
        "--o",
        f"{out}/",
        "--f",
        "fsc.star",
        "--m1",
        "map.mrc",
        "--m2",
        "map.mrc",
    ]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return read_particle_set(folder / out / "particles_ctf_refine.star")


def magnification(folder: Path, particles: int, snr: float, passes: int) -> None:
    """Two groups, one of them stretched by 3.5 and 0.5 % along axes turned by 30 degrees; signal to 2.5 A."""
    c, s = np.cos(np.deg2rad(30)), np.sin(np.deg2rad(30))
    turn = np.array([[c, -s], [s, c]])
    matrix = turn @ np.diag([1.035, 1.005]) @ turn.T
    truth: tuple[float, float, float, float] = tuple(float(v) for v in matrix.ravel())  # type: ignore[assignment]
    groups = [GroupTruth(STATED, 1.2), GroupTruth(replace(STATED, number=2, name="two"), 1.2, magnification=truth)]
    simulated = simulate_aberrated(groups, particles, snr, box=BOX)
    simulated.write(folder, 1.2, 1.2)
    start = time.process_time()
    result = ours(simulated, folder, OpticsSettings(2.5, magnification=True, rounds=1))
    seconds = time.process_time() - start
    _say_magnification(f"ours, {result.fits[1].passes} passes, {seconds:.1f} CPU s", result.particles, truth)
    table = "particles.star"
    for number in range(1, passes + 1):
        found = relion(folder, table, f"mag{number}", 1.2, "--fit_aniso", "--kmin_mag", "20")
        table = f"mag{number}/particles_ctf_refine.star"
        _say_magnification(f"relion_ctf_refine, pass {number}", found, truth)


def _say_magnification(name: str, found: ParticleSet, truth: Sequence[float]) -> None:
    one, two = (group.magnification for group in found.optics)
    off = 100 * (mean_magnification(two) / mean_magnification(one) / mean_magnification(truth) - 1)
    (percent, angle), (wanted, direction) = anisotropy(two), anisotropy(truth)
    print(f"{name:34} size {off:+.4f} %, anisotropy {percent - wanted:+.4f} %, axes {angle - direction:+.3f} degrees")


def aberrations(folder: Path, particles: int, snr: float, with_relion: bool) -> None:
    """Even terms to 2.3 radians, and trefoil and beam tilt to 1.7 radians, at once; signal to 2.5 A."""
    even, odd, tilt = (0.1, 0.5, 0.8, -0.4, 1.0, 0.5, 3.0, -0.6, 0.7), (0.0, 0.0, 0.9, 0.0, 0.0, -0.7), (0.25, -0.4)
    simulated = simulate_aberrated([GroupTruth(STATED, 1.2, even, odd, beam_tilt=tilt)], particles, snr, box=BOX)
    simulated.write(folder, 1.2, 1.2)
    start = time.process_time()
    result = ours(simulated, folder, OpticsSettings(2.5, even=True, odd=True))
    found = {f"ours, {time.process_time() - start:.1f} CPU s": result.particles}
    if with_relion:
        options = ["--fit_beamtilt", "--odd_aberr_max_n", "3", "--fit_aberr", "--kmin_tilt", "20", "--kmin_aberr", "20"]
        first = relion(folder, "particles.star", "both1", 1.2, *options)
        second = relion(folder, "both1/particles_ctf_refine.star", "both2", 1.2, *options)
        found |= {"relion_ctf_refine, both at once": first, "the same, second pass": second}
    for name, table in found.items():
        group = table.optics[0]
        z = np.array(group.odd_zernike)
        print(
            f"{name:34} Z40 {group.even_zernike[6]:+.2f} ({even[6]:+.2f}), trefoil {z[2]:+.2f} {z[5]:+.2f} ({odd[2]:+.2f} "
            f"{odd[5]:+.2f}), tilt {group.beam_tilt[0]:+.3f} {group.beam_tilt[1]:+.3f} ({tilt[0]:+.3f} {tilt[1]:+.3f}) mrad"
        )


def spherical(folder: Path, particles: int, snr: float, nominal: float, finest: float, with_relion: bool) -> None:
    """A pixel size that is 5.9 % too large, its defoci fitted with Cs held."""
    true = nominal * 0.51 / 0.54
    fine = finest < 2
    truth = GroupTruth(replace(STATED, pixel_size=nominal, original_pixel_size=nominal), true)
    options = {"defocus": (4000.0, 9000.0), "b_factor": 4.0} if fine else {}
    simulated = simulate_aberrated([truth], particles, snr, box=BOX, **options)  # type: ignore[arg-type]
    shift = refit_defocus(5000, Optics(300, 2.7, 0.1), nominal, true, 3.5) - absorbed(5000, 2.7, nominal, true)[0]
    simulated.particles.particles[["rlnDefocusU", "rlnDefocusV"]] += shift
    simulated.write(folder, nominal, true)
    start = time.process_time()
    result = ours(simulated, folder, OpticsSettings(finest, even=True, rounds=1))
    seconds = time.process_time() - start
    _say_size(f"ours, {seconds:.1f} CPU s", result.particles, nominal, true)
    if with_relion:
        found = relion(folder, "particles.star", "even", nominal, "--fit_aberr", "--kmin_aberr", "20")
        _say_size("relion_ctf_refine", found, nominal, true)


def _say_size(name: str, found: ParticleSet, nominal: float, true: float) -> None:
    cs = apparent_cs(2.7, found.optics[0].even_zernike[6], 300.0)
    size = calibrate_from_cs(nominal, cs, 2.7, 300.0).pixel_size
    print(f"{name:34} apparent Cs {cs:.4f} mm, pixel size {size:.5f} A, {100 * (size / true - 1):+.4f} %")


def defocus(folder: Path, particles: int, snr: float, with_relion: bool) -> None:
    """Defoci off by 250 A (standard deviation); against the true map, and against half maps with noise."""
    simulated = simulate_aberrated([GroupTruth(STATED, 1.2)], particles, snr, box=BOX)
    table = simulated.particles.particles
    truth = 0.5 * (table["rlnDefocusU"] + table["rlnDefocusV"]).to_numpy()
    wrong = np.random.default_rng(3).normal(0, 250, particles)
    table["rlnDefocusU"] += wrong
    table["rlnDefocusV"] += wrong
    simulated.write(folder, 1.2, 1.2)
    volume, _ = read_volume(folder / "map.mrc")
    noise = np.random.default_rng(4)
    paths = [folder / f"half{half}.mrc" for half in (1, 2)]
    for path in paths:
        added = noise.normal(0, volume.std(), volume.shape).astype(np.float32)
        write_volume(path, volume + added, 1.2)
    for name, halves, finest in (("true map", [], 2.5), ("half maps with noise as strong", paths, 2.5)):
        start = time.process_time()
        result = ours(simulated, folder, OpticsSettings(finest, defocus="particle", rounds=2), halves)
        seconds = time.process_time() - start
        _say_defocus(f"ours, {name}, {seconds:.1f} CPU s", result.particles, truth)
    if with_relion:
        write_particle_set(folder / "particles.star", simulated.particles)
        found = relion(folder, "particles.star", "defocus", 1.2, "--fit_defocus", "--bf_only", "--kmin_defocus", "20")
        _say_defocus("relion_ctf_refine", found, truth)


def _say_defocus(name: str, found: ParticleSet, truth: np.ndarray) -> None:
    number = found.particles["rlnImageName"].str.partition("@")[0].astype(int)
    new = found.particles.iloc[np.argsort(number.to_numpy())]  # RELION sorts by micrograph
    off = np.abs(0.5 * (new["rlnDefocusU"] + new["rlnDefocusV"]).to_numpy() - truth)
    print(f"{name:50} median {np.median(off):.1f} A, 90 % within {np.quantile(off, 0.9):.1f} A")


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optics", description=__doc__)
    parser.add_argument("--parts", default="magnification,aberrations,cs,defocus")
    parser.add_argument("--passes", type=int, default=3, help="of relion_ctf_refine's magnification")
    parser.add_argument("--no-relion", action="store_true")
    given = parser.parse_args()
    with_relion = shutil.which("relion_ctf_refine") is not None and not given.no_relion
    with tempfile.TemporaryDirectory(prefix="nephila_optics_") as name:
        for part in given.parts.split(","):
            folder = Path(name) / part
            if part == "magnification":
                print("Magnification, 500 particles, SNR 1, signal to 2.5 A")
                magnification(folder, 500, 1.0, given.passes if with_relion else 0)
            elif part == "aberrations":
                print("Even and odd aberrations, 300 particles, SNR 1, signal to 2.5 A; in brackets the truth")
                aberrations(folder, 300, 1.0, with_relion)
            elif part == "cs":
                for nominal, finest in ((0.54, 1.12), (1.2, 2.5)):
                    print(f"Pixel size from Cs, 300 particles, SNR 1, to {finest} A")
                    spherical(folder / str(nominal), 300, 1.0, nominal, finest, with_relion)
            elif part == "defocus":
                print("Defocus of each particle, 300 particles, SNR 0.05")
                defocus(folder, 300, 0.05, with_relion)
            else:
                parser.error(f"--parts {part}: choose from magnification, aberrations, cs, defocus")


if __name__ == "__main__":
    main()
