"""Bias of the defocus fit, to a hundredth of a standard error: `python -m benchmarks.defocus_bias`.

The error of a fit is to first order a known linear function of the noise in the spectrum, whose mean is 0: the fit to the spectrum
that is expected without noise gives it. Taken off, it leaves the bias with a tenth of the scatter, so that 64 fits tell what
takes thousands otherwise. Spectra are drawn about the expected one, or come from micrographs (`--images`).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks.defocus import OPTICS, RINGS
from nephila.ctf import ctf_2d
from nephila.defocus import DefocusSettings, fit_defocus
from nephila.defocus.fit_2d import ring_data
from nephila.defocus.model import RingData, RingModel, taper_shift
from nephila.simulate.ring_noise import RingNoise, noise_micrograph
from nephila.spectra import MicrographSpectrum, taper_autocorrelation, tile_spectra

Float64 = npt.NDArray[np.float64]

SIDE, PIXEL_SIZE = 2048, 2.0


@dataclass(frozen=True)
class Linear:
    """How far the fit moves, to first order, with the power in the bins of `data`: lever @ (change of power).

    error: standard error of the mean defocus, A.
    """

    data: RingData
    lever: Float64
    error: float

    def move(self, change: Float64) -> float:
        """change [sectors, radii] of the spectrum; A."""
        return float(self.lever @ (change[self.data.sector, self.data.radius] / self.data.level))


def expected_power(noise: RingNoise, tile: int, defocus: float, astigmatism: float, angle: float) -> Float64:
    """The power spectrum [tile, tile // 2 + 1] that tapered tiles of a micrograph have on average."""
    n, p = SIDE, PIXEL_SIZE
    k2 = np.fft.fftfreq(n, p)[:, None] ** 2 + np.fft.rfftfreq(n, p)[None, :] ** 2
    transfer = ctf_2d((n, n), p, defocus + astigmatism / 2, defocus - astigmatism / 2, angle, OPTICS)
    power = noise.background(k2) * (1 + noise.rings(k2) * transfer.astype(np.float64) ** 2)
    agreement = np.fft.irfft2(power, s=(n, n))
    along = taper_autocorrelation(np.fft.fftfreq(n, 1 / n) / tile)
    agreement *= along[:, None] * along[None, :]
    place = np.fft.fftfreq(n, 1 / n).astype(int) % tile  # lags within a tile fold onto its grid
    rows, folded = np.zeros((tile, n)), np.zeros((tile, tile))
    np.add.at(rows, place, agreement)
    np.add.at(folded.T, place, rows.T)
    return np.asarray(np.fft.rfft2(folded).real)


def expected_spectrum(like: MicrographSpectrum, power: Float64) -> MicrographSpectrum:
    """A spectrum like another, of five equal tiles with this power."""
    from nephila.spectra import _bins

    bins = _bins(like.tile_px, like.pixel_size, len(like.samples))[0]
    used = bins >= 0
    sums = np.bincount(bins[used], weights=power.ravel()[used], minlength=like.samples.size)
    mean = (sums.reshape(like.samples.shape) / np.maximum(like.samples, 1)).astype(np.float32)
    return replace(like, power=power.astype(np.float32), sector_tiles=np.repeat(mean[None], 5, 0))


def linearised(spectrum: MicrographSpectrum) -> tuple[float, Linear]:
    """The mean defocus (A) fitted to a spectrum without noise, and how noise moves it."""
    settings = DefocusSettings()
    fit = fit_defocus(spectrum, OPTICS, settings)
    data = ring_data(spectrum, settings)
    assert not isinstance(data, str)
    turn, half = np.deg2rad(2 * fit.angle_deg), fit.astigmatism / 2
    start = (fit.defocus, half * float(np.cos(turn)), half * float(np.sin(turn)), 0.0)
    model = RingModel(data, OPTICS)
    model.shift = taper_shift(data, model.fit(start, True, False), OPTICS)
    best = model.fit(start, True, False)
    scaled = best.jacobian * np.sqrt(best.weights)
    matrix = scaled @ scaled.T
    matrix[np.diag_indices_from(matrix)] *= 1 + 1e-9
    last = np.arange(len(matrix) - len(best.precision), len(matrix))
    matrix[last, last] += best.precision
    inverse = np.linalg.inv(matrix)[-best.free]
    return fit.defocus, Linear(data, inverse @ (best.jacobian * best.weights), float(np.sqrt(inverse[-best.free])))


def trials(rings: str, number: int, each: int, seed: int, images: bool) -> Float64:
    """By fit [number * each, 4]: defocus (A); errors over standard errors: of the fit without noise, of the fit, of that less its
    first order."""
    noise = RingNoise(*RINGS[rings], PIXEL_SIZE)
    blank = tile_spectra(np.random.default_rng(0).standard_normal((SIDE, SIDE)).astype(np.float32), PIXEL_SIZE)
    rows = []
    for i in range(number):
        rng = np.random.default_rng([seed, i, 3])
        mean, astigmatism, angle = rng.uniform(6000, 40000), rng.uniform(0, 1500), rng.uniform(-90, 90)
        exact = expected_spectrum(blank, expected_power(noise, blank.tile_px, mean, astigmatism, angle))
        found, linear = linearised(exact)
        for _ in range(each):
            if images:
                u, v = mean + astigmatism / 2, mean - astigmatism / 2
                image = noise_micrograph(noise, (SIDE, SIDE), OPTICS, u, v, angle, int(rng.integers(2**31)))
                noisy = tile_spectra(image, PIXEL_SIZE)
            else:
                shape = np.maximum(exact.effective_samples, 1e-3)
                drawn = exact.sector_tiles[0] * rng.gamma(shape) / shape
                noisy = replace(exact, sector_tiles=np.repeat(drawn[None].astype(np.float32), 5, 0))
            error = fit_defocus(noisy, OPTICS).defocus - mean
            first = linear.move(noisy.sector_mean - exact.sector_mean)
            rows.append((mean, *np.array([found - mean, error, error - first]) / linear.error))
    return np.array(rows)


def main() -> None:
    """Print the bias of each kind of rings, whole and by defocus."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defocus_bias", description=__doc__)
    parser.add_argument("--rings", default="strong,weak", help=f"which of {', '.join(RINGS)}")
    parser.add_argument("--micrographs", type=int, default=32)
    parser.add_argument("--each", type=int, default=4, help="fits of each")
    parser.add_argument("--seed", type=int, default=202651)
    parser.add_argument("--images", action="store_true", help="spectra of simulated micrographs, not drawn ones")
    chosen = parser.parse_args()
    print("| rings | defocus, um | fits | without noise | plain mean | bias |\n|---|---|---:|---:|---:|---:|")
    for name in chosen.rings.split(","):
        rows = trials(name, chosen.micrographs, chosen.each, chosen.seed, chosen.images)
        rows = rows[np.abs(rows[:, 2]) < 6]
        for label, low, high in (("all", 0.0, 5.0), ("0.6 to 1.5", 0.0, 1.5), ("1.5 to 4", 1.5, 5.0)):
            part = rows[(rows[:, 0] >= 1e4 * low) & (rows[:, 0] < 1e4 * high), 1:]
            if len(part) > 1:
                values = zip(part.mean(axis=0), part.std(axis=0) / len(part) ** 0.5, strict=True)
                texts = [f"{value:.3f} +- {error:.3f}" for value, error in values]
                print(f"| {name} | {label} | {len(part)} | {' | '.join(texts)} |", flush=True)


if __name__ == "__main__":
    main()
