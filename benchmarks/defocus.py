"""CTF fits of simulated micrographs against the truth and the Fisher bound: `python -m benchmarks.defocus`.

Micrographs are coloured noise with rings of known strength; defocus 0.6 to 4 um and astigmatism to 1,500 A are drawn uniformly.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nephila.ctf import Optics
from nephila.defocus import DefocusFit, DefocusSettings, fit_defocus, pool_strength, screen_micrograph
from nephila.defocus.heights import expected_heights
from nephila.simulate.ring_noise import RingNoise, fisher_bound, noise_micrograph
from nephila.spectra import MicrographSpectrum, tile_spectra

Float64 = npt.NDArray[np.float64]

OPTICS = Optics(300.0, 2.7, 0.1)
RINGS = {"strong": (0.5, 0.06), "weak": (0.15, 0.0075), "weakest": (0.15, 0.005), "faint": (0.08, 0.003)}
"""Power of the rings over the background at 20 A and at 5 A."""
SIZES = {"2k": ((2048, 2048), 2.0), "4k": ((4096, 4096), 1.0)}


@dataclass(frozen=True)
class Trial:
    """A simulated micrograph's truth (defocus and astigmatism in A, angle and phase shift in degrees), its spectrum, the first
    fit, the least standard error of the mean defocus (A), and CPU seconds of spectrum and fit."""

    defocus: float
    astigmatism: float
    angle: float
    phase_shift: float
    spectrum: MicrographSpectrum
    fit: DefocusFit
    bound: float
    seconds: float


def trials(rings: str, size: str, number: int, seed: int, phase_plate: bool = False) -> Iterator[Trial]:
    """Simulate and fit; micrograph i does not depend on how many there are."""
    shape, pixel_size = SIZES[size]
    noise = RingNoise(*RINGS[rings], pixel_size)
    settings = DefocusSettings(phase_shift=phase_plate)
    for i in range(number):
        rng = np.random.default_rng([seed, i])
        mean, astigmatism, angle = rng.uniform(6000, 40000), rng.uniform(0, 1500), rng.uniform(-90, 90)
        shift = float(rng.uniform(20, 160)) if phase_plate else 0.0
        u, v = mean + astigmatism / 2, mean - astigmatism / 2
        optics = replace(OPTICS, phase_shift_deg=shift)
        image = noise_micrograph(noise, shape, optics, u, v, angle, seed=int(rng.integers(2**31)))
        start = time.process_time()
        spectrum = tile_spectra(image, pixel_size)
        fit = fit_defocus(spectrum, OPTICS, settings)
        seconds = time.process_time() - start
        bound = float(fisher_bound(noise, shape, optics, u, v, angle)[0])
        yield Trial(mean, astigmatism, angle, shift, spectrum, fit, bound, seconds)


def between(a: Float64, b: Float64, period: float = 180.0) -> Float64:
    """Difference of angles, within half a period."""
    return np.asarray((a - b + period / 2) % period - period / 2)


def summary(made: list[Trial], fits: list[DefocusFit] | None = None) -> dict[str, float]:
    """Figures of a set of trials; failures are fits that failed, or lie more than 1,000 A off."""
    found = fits or [t.fit for t in made]
    truth = np.array([(t.defocus, t.astigmatism, t.angle, t.bound, t.phase_shift) for t in made])
    values = np.array(
        [(f.defocus, f.astigmatism, f.angle_deg, f.mean_error, f.angle_error, f.phase_shift_deg) for f in found]
    )
    wrong = ~(np.abs(values[:, 0] - truth[:, 0]) < 1000)
    good, real = values[~wrong], truth[~wrong]
    error = good[:, 0] - real[:, 0]
    z = error / good[:, 3]
    spread = np.array([(f.defocus_u_error, f.defocus_v_error) for f in found])[~wrong]
    sides = np.array([0.5, -0.5])
    z_sides = (good[:, :1] + sides * good[:, 1:2] - real[:, :1] - sides * real[:, 1:2]) / spread
    oval = real[:, 1] > 200
    turn = np.abs(between(good[oval, 2], real[oval, 2]))
    kept = np.array([screen_micrograph(t.spectrum, f).keep for t, f in zip(made, found, strict=True)])
    return {
        "micrographs": len(made),
        "failed": int(wrong.sum()),
        "failed and kept": int((wrong & kept).sum()),
        "good and dropped": int((~wrong & ~kept).sum()),
        "median error (A)": float(np.median(np.abs(error))),
        "within 150 A (%)": float(100 * np.mean(np.append(np.abs(error), np.full(wrong.sum(), np.inf)) < 150)),
        "largest (A)": float(np.abs(error).max()),
        "astigmatism, median (A)": float(np.median(np.abs(good[:, 1] - real[:, 1]))),
        "angle, median (degrees)": float(np.median(turn)) if oval.any() else float("nan"),
        "angle within 5 degrees (%)": float(100 * np.mean(turn < 5)) if oval.any() else float("nan"),
        "bias / standard error": float(np.mean(z)),
        "its uncertainty": float(np.std(z) / np.sqrt(len(z))),
        "z-score, rms": float(np.sqrt(np.mean(z**2))),
        "z-score of U, rms": float(np.sqrt(np.mean(z_sides[:, 0] ** 2))),
        "z-score of V, rms": float(np.sqrt(np.mean(z_sides[:, 1] ** 2))),
        "z-score of the angle, rms (astigmatism over 200 A)": float(np.sqrt(np.mean((turn / good[oval, 4]) ** 2))),
        "error / Fisher bound": float(np.sqrt(np.mean((error / real[:, 3]) ** 2))),
        "least score lead": float(min((f.gap for f, w in zip(found, wrong, strict=True) if not w), default=np.nan)),
        "phase shift, median (degrees)": float(np.median(np.abs(between(good[:, 5], real[:, 4])))),
        "CPU s": float(np.mean([t.seconds for t in made[1:]] or [made[0].seconds])),
    }


def table(columns: dict[str, dict[str, float]]) -> str:
    """Figures as Markdown, one column per set."""
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for row in next(iter(columns.values())):
        lines.append(f"| {row} | " + " | ".join(f"{figures[row]:.4g}" for figures in columns.values()) + " |")
    return "\n".join(lines)


def tilts(rings: str, size: str, number: int, seed: int) -> dict[str, float]:
    """Figures of planes fitted to micrographs tilted by 0 to 40 degrees about any axis."""
    shape, pixel_size = SIZES[size]
    noise = RingNoise(*RINGS[rings], pixel_size)
    rows = []
    for i in range(number):
        rng = np.random.default_rng([seed, i, 1])
        angle, axis = rng.uniform(0, 40), rng.uniform(0, 2 * np.pi)
        slope = np.tan(np.deg2rad(angle)) * np.array([np.cos(axis), np.sin(axis)])
        mean, astigmatism, turn = rng.uniform(10000, 35000), rng.uniform(0, 800), rng.uniform(-90, 90)
        image = noise_micrograph(
            noise, shape, OPTICS, mean + astigmatism / 2, mean - astigmatism / 2, turn, int(rng.integers(2**31)),
            tilt=(float(slope[0]), float(slope[1])),
        )  # fmt: skip
        spectrum = tile_spectra(image, pixel_size)
        start = time.process_time()
        fit = fit_defocus(spectrum, OPTICS, DefocusSettings(tilt=True))
        seconds = time.process_time() - start
        plane = fit.plane
        if plane is None:
            rows.append([np.inf] * 5 + [seconds])
            continue
        off = np.array([plane.slope_x, plane.slope_y]) - slope
        corner = 0.25 * float(np.abs(off).sum()) * shape[0] * pixel_size  # halfway to a corner
        z = np.nan if plane.level else float(np.sqrt(0.5 * (off @ off))) / plane.error
        rows.append([abs(plane.tilt_deg - angle), float(np.hypot(*off)), z, abs(fit.defocus - mean), corner, seconds])
    values = np.array(rows)
    middle = np.median(values, axis=0)
    return {
        "micrographs": number,
        "tilt, median error (degrees)": middle[0],
        "tilt, largest error (degrees)": float(values[:, 0].max()),
        "slope, median error (A per A)": middle[1],
        "slope, z-score rms where not level": float(np.sqrt(np.nanmean(values[:, 2] ** 2))),
        "taken for level": int(np.isnan(values[:, 2]).sum()),
        "defocus in the middle, median error (A)": middle[3],
        "defocus halfway to a corner, median error of the plane (A)": middle[4],
        "CPU s of the fit": float(np.mean(values[:, 5])),
    }


def surface(shape: tuple[int, int], pixel_size: float, spread: float, length: float, seed: int) -> Float64:
    """A random height [ny, nx] (A): Gaussian covariance of this standard deviation and length (A), mean 0."""
    rng = np.random.default_rng([seed, 7])
    side = [2 * n for n in shape]  # no agreement between opposite edges
    ky, kx = np.fft.fftfreq(side[0], pixel_size)[:, None], np.fft.rfftfreq(side[1], pixel_size)[None, :]
    response = np.exp(-(np.pi**2) * length**2 * (kx**2 + ky**2))
    rough = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(side)) * response, side)[: shape[0], : shape[1]]
    norm = np.sqrt((response**2 * np.where((np.arange(response.shape[1]) == 0), 1, 2)).sum() / np.prod(side))
    return np.asarray(spread * (rough - rough.mean()) / norm)


def local_heights(rings: str, size: str, number: int, seed: int, spread: float) -> dict[str, float]:
    """Figures of defoci at 400 places of micrographs whose surface rises and falls by `spread` (A) over 1,500 A."""
    shape, pixel_size = SIZES[size]
    noise = RingNoise(*RINGS[rings], pixel_size)
    fits, truths, places, seconds = [], [], [], []
    for i in range(number):
        rng = np.random.default_rng([seed, i, 2])
        height = surface(shape, pixel_size, spread, 1500.0, int(rng.integers(2**31)))
        mean = rng.uniform(10000, 25000)
        image = noise_micrograph(
            noise, shape, OPTICS, mean + 150, mean - 150, rng.uniform(-90, 90), int(rng.integers(2**31)),
            heights=height if spread else None,
        )  # fmt: skip
        spectrum = tile_spectra(image, pixel_size)
        start = time.process_time()
        fits.append(fit_defocus(spectrum, OPTICS, DefocusSettings(tilt=True, heights=True)))
        seconds.append(time.process_time() - start)
        place = (rng.uniform(0.05, 0.95, (400, 2)) * np.array(shape)).astype(int)
        truths.append(mean + height[place[:, 0], place[:, 1]])
        places.append(place[:, ::-1] * pixel_size)
    tiles = [f.heights for f in fits if f.heights is not None]
    found = expected_heights(tiles, places)
    errors: dict[str, list[Float64]] = {"micrograph": [], "plane": [], "particle": []}
    for fit, true, place, height in zip(fits, truths, places, found, strict=True):
        plane = fit.plane
        sloped = 0.0 if plane is None else (place - [plane.centre_x, plane.centre_y]) @ [plane.slope_x, plane.slope_y]
        errors["micrograph"].append(fit.defocus - true)
        errors["plane"].append(fit.defocus + sloped - true)
        errors["particle"].append(fit.defocus + sloped + height - true)
    rms = {f"rms error at places, by {name} (A)": float(np.sqrt(np.mean(np.square(e)))) for name, e in errors.items()}
    z = np.concatenate([t.height / t.error for t in tiles])
    return {"micrographs": number, **rms, "tile heights over their errors, rms": float(np.sqrt(np.mean(z**2))),
            "CPU s of the fit": float(np.mean(seconds))}  # fmt: skip


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defocus", description=__doc__)
    parser.add_argument("--rings", default="strong,weak", help=f"which of {', '.join(RINGS)}")
    parser.add_argument("--size", default="2k", choices=list(SIZES))
    parser.add_argument("--micrographs", type=int, default=200, help="of each kind")
    parser.add_argument("--seed", type=int, default=202601)
    parser.add_argument(
        "--tilted", action="store_true", help="specimens tilted by 0 to 40 degrees; the planes' figures"
    )
    parser.add_argument(
        "--heights", type=float, default=None, help="uneven specimens, standard deviation in A; defoci by place"
    )
    parser.add_argument("--pooled", action="store_true", help="a column more: refitted with the rings' pooled strength")
    parser.add_argument("--phase-plate", action="store_true", help="phase shifts of 20 to 160 degrees, fitted")
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    chosen = options()
    columns = {}
    for name in chosen.rings.split(","):
        if chosen.tilted:
            columns[f"{name} {chosen.size}"] = tilts(name, chosen.size, chosen.micrographs, chosen.seed)
            continue
        if chosen.heights is not None:
            columns[f"{name} {chosen.size}"] = local_heights(
                name, chosen.size, chosen.micrographs, chosen.seed, chosen.heights
            )
            continue
        made = list(trials(name, chosen.size, chosen.micrographs, chosen.seed, chosen.phase_plate))
        columns[f"{name} {chosen.size}"] = summary(made)
        if chosen.pooled:
            strength = pool_strength([t.fit for t in made[:100]])
            settings = DefocusSettings(phase_shift=chosen.phase_plate)
            again = [fit_defocus(t.spectrum, OPTICS, settings, strength) for t in made]
            columns[f"{name} {chosen.size}, pooled"] = summary(made, again)
    print(table(columns))


if __name__ == "__main__":
    main()
