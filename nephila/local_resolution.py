"""Resolution by place: how well two half maps agree about each voxel's surroundings, and a filter that follows it.

Both half maps are cut into bands of spatial frequency; in each band they are correlated within a Gaussian window about every
voxel (a windowed FSC as in Cardone, Heymann & Steven 2013, J. Struct. Biol. 184, 226, for all voxels at once). The window is a few
wavelengths wide, wider where needed for a stated number of independent samples. A mask acts on the windows, after the
bands have been cut, so that it cannot correlate the halves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fourier import centred_irfftn, centred_rfftn, frequency_radius_3d, irfftn, rfftn
from nephila.fsc import reference_correlation
from nephila.job import Progress

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

BAND_RATIO = 1.25
"""Width of a band: the frequency at which it has fallen to half, over its centre's."""


@dataclass(frozen=True)
class LocalResolutionSettings:
    """How the resolution by place is measured.

    Attributes:
        threshold: of the local correlation.
        wavelengths: standard deviation of the window, in wavelengths of the band.
        samples: at least so many independent samples in a window; the chance correlation is about 1 / sqrt(samples).
        coarsest: A, where the bands begin; also what a voxel gets at which nothing agrees.
    """

    threshold: float = 0.143
    wavelengths: float = 1.0
    samples: float = 200.0
    coarsest: float = 40.0


@dataclass(frozen=True)
class LocalResolution:
    """resolution: A, float32 [n, n, n]; filtered: the map, each place filtered to its own resolution (None without a map)."""

    resolution: Float32
    filtered: Float32 | None


def measure_local_resolution(
    half1: npt.ArrayLike,
    half2: npt.ArrayLike,
    pixel_size: float,
    mask: npt.ArrayLike | None = None,
    volume: npt.ArrayLike | None = None,
    settings: LocalResolutionSettings | None = None,
    threads: int = 1,
) -> LocalResolution:
    """Resolution at every voxel, from two independent half maps without filter.

    The resolution is that of the last band before two bands in a row are below the threshold, interpolated between bands.

    Args:
        half1, half2: [n, n, n].
        pixel_size: A.
        mask: [n, n, n] from 0 to 1: where the particle is; windows look only there.
        volume: [n, n, n], the whole map: each band of it is weighted by C_ref = sqrt(2 C / (1 + C)) of the local correlation C.

    Raises:
        InputError: volumes that are not cubic, finite and of one shape, or a mask that is empty.
    """
    chosen = settings or LocalResolutionSettings()
    first, second = _volume(half1, "half map 1"), _volume(half2, "half map 2")
    n = len(first)
    window = np.ones((n, n, n), dtype=np.float32) if mask is None else _volume(mask, "mask")
    whole = None if volume is None else _volume(volume, "map")
    for name, array in (("half map 2", second), ("mask", window), ("map", whole)):
        if array is not None and array.shape != first.shape:
            raise InputError(f"{name} has {array.shape} voxels, half map 1 {first.shape}; they must agree")
    if not window.any():
        raise InputError("the mask is empty: nothing is left to measure the resolution in")
    bands = band_centres(n, pixel_size, chosen.coarsest)
    transforms = [centred_rfftn(part, threads) for part in (first, second)]
    map_transform = None if whole is None else centred_rfftn(whole, threads)
    radius = frequency_radius_3d(n)
    tracker = _Tracker(np.full(first.shape, bands[0], dtype=np.float32), chosen.threshold)
    kept = np.zeros_like(first)
    left = np.ones_like(radius)  # the share of each frequency that no band has taken: it stays as it is
    progress = Progress(len(bands), "bands")
    for index, centre in enumerate(bands):
        band = _band(radius, bands, index)
        a, b = (centred_irfftn((part * band).astype(np.complex64), n, threads) for part in transforms)
        correlation = _windowed_correlation(a, b, window, window_sigma(n, float(centre), chosen), threads)
        tracker.add(float(centre), correlation)
        if map_transform is not None:
            share = reference_correlation(correlation * tracker.alive).astype(np.float32)
            kept += share * centred_irfftn((map_transform * band).astype(np.complex64), n, threads)
            left -= band
        progress.step()
    if map_transform is not None:
        left[radius > bands[0]] = 0  # coarser than the bands, nothing is filtered
        kept += centred_irfftn((map_transform * left).astype(np.complex64), n, threads)
    resolution = (n * pixel_size / tracker.shell()).astype(np.float32)
    return LocalResolution(resolution, None if map_transform is None else kept)


def band_centres(n: int, pixel_size: float, coarsest: float) -> Float64:
    """Centres of the bands, in shells, from `coarsest` (A) to the last whole shell, in equal steps of their logarithm.

    A band of width d about shell s blurs over n / d voxels, so bands are as wide as their frequency is high.
    """
    first = max(2.0, n * pixel_size / coarsest)
    last = float((n - 1) // 2)
    if last < 1.5 * first:
        raise InputError(f"a box of {n} px of {pixel_size:g} A holds no bands between {coarsest:g} A and Nyquist")
    return np.geomspace(first, last, 1 + max(2, round(2 * np.log(last / first) / np.log(BAND_RATIO))))


def window_sigma(n: int, shell: float, settings: LocalResolutionSettings) -> float:
    """Standard deviation (px) of the Gaussian window for the band about `shell`.

    A window of standard deviation s averages over (4 pi s^2)^(3/2) voxels, of which the band's share of Fourier space, 4 pi shell^2
    width / n^3, is independent.
    """
    share = 4 * np.pi * shell**3 * np.log(BAND_RATIO) / n**3
    for_samples = np.sqrt((settings.samples / share) ** (2 / 3) / (4 * np.pi))
    return float(max(settings.wavelengths * n / shell, for_samples))


class _Tracker:
    """The last shell at which the halves still agree, voxel by voxel, as bands come in from coarse to fine."""

    def __init__(self, start: Float32, threshold: float) -> None:
        self.threshold = threshold
        self.alive = np.ones(start.shape, dtype=np.float32)  # 0 from the second failure in a row on
        self._failed = np.zeros(start.shape, dtype=bool)
        self._shell = start.copy()
        self._before: tuple[float, Float32] | None = None

    def add(self, centre: float, correlation: Float32) -> None:
        """Take in the next finer band."""
        good = (correlation >= self.threshold) & (self.alive > 0)
        if self._before is not None:
            last, previous = self._before
            drop = np.maximum(previous - correlation, np.float32(1e-6))
            crossing = last + (centre - last) * np.clip((previous - self.threshold) / drop, 0.0, 1.0)
            fails_now = (self.alive > 0) & ~good & ~self._failed
            self._shell[fails_now] = np.maximum(self._shell, crossing.astype(np.float32))[fails_now]
        self.alive[~good & self._failed] = 0.0
        self._failed = ~good & (self.alive > 0)
        self._shell[good] = np.float32(centre)
        self._before = (centre, correlation)

    def shell(self) -> Float32:
        """The shell reached, [n, n, n]."""
        return self._shell


def _windowed_correlation(a: Float32, b: Float32, mask: Float32, sigma: float, threads: int) -> Float32:
    cross, power_a, power_b = (_smooth(mask * product, sigma, threads) for product in (a * b, a * a, b * b))
    norm = np.sqrt(np.maximum(power_a, 0) * np.maximum(power_b, 0))
    floor = np.float32(1e-6) * norm.max()  # far from the mask there is nothing but rounding
    return np.clip(np.divide(cross, norm, out=np.zeros_like(cross), where=norm > floor), -1.0, 1.0).astype(np.float32)


def _smooth(volume: Float32, sigma: float, threads: int) -> Float32:
    """Gaussian average with a standard deviation in px; periodic."""
    n = len(volume)
    along = np.exp(-2.0 * (np.pi * sigma * np.fft.fftfreq(n)) ** 2).astype(np.float32)
    half = along[: n // 2 + 1]
    transform = rfftn(volume, threads)
    transform *= along[:, None, None] * along[None, :, None] * half[None, None, :]
    return irfftn(transform, n, threads)


def _band(radius: Float32, bands: Float64, index: int) -> Float32:
    """Raised cosine in the logarithm of the frequency, half of it 1 high: neighbours are half a width apart, and all add up to 1
    between the first centre and the last. The last one is flat beyond its centre."""
    step = np.log(bands[1] / bands[0])
    distance = np.log(np.maximum(radius, 0.5) / bands[index]) / (2 * step)
    if index == len(bands) - 1:
        distance = np.minimum(distance, 0)
    return np.where(np.abs(distance) < 1, 0.25 + 0.25 * np.cos(np.pi * distance), 0).astype(np.float32)


def _volume(array: npt.ArrayLike, name: str) -> Float32:
    data = np.asarray(array, dtype=np.float32)
    if data.ndim != 3 or len(set(data.shape)) != 1 or not np.isfinite(data).all():
        raise InputError(f"{name}: a cubic volume of finite values is needed, this one has the shape {data.shape}")
    return data
