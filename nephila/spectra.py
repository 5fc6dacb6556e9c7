"""Average power spectra of micrographs: what CTF estimation reads.

Tiles overlap by half, lose their mean plane, and are tapered by sin^2, so that the average spectrum is the true one smoothed by
a kernel of known shape, and tiles are nearly independent (Welch 1967).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft

from nephila.errors import InputError
from nephila.fourier import rfft2
from nephila.micrograph_repair import CONSTANT, MOSTLY_DEAD, level_and_spread, repair_micrograph

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_ARM = 2  # Fourier pixels beside the axes left out of sectors: stripes of the detector and edges live there
_FREQUENCY_CORRELATION = 35.0 / 18.0  # sum of squared correlations between neighbouring frequencies, sin^2 taper, 1D


@dataclass(frozen=True)
class SpectrumSettings:
    """How a micrograph is cut into tiles.

    tile_px: smallest tile side, px; tile_length: smallest tile side, A (at high defocus the rings are lost in shorter tiles);
    border: share of the micrograph's side left out at each edge; sectors: angular sectors over 180 degrees;
    clip_sigma: pixels further than this many standard deviations from the median are replaced (hot pixels).
    """

    tile_px: int = 512
    tile_length: float = 700.0
    border: float = 0.0
    sectors: int = 24
    clip_sigma: float = 8.0

    def __post_init__(self) -> None:
        if not 32 <= self.tile_px <= 8192:
            raise InputError(f"tile of {self.tile_px} px: must lie in 32 to 8192 px; 512 is usual")
        if not 0 <= self.border <= 0.4:
            raise InputError(f"border {self.border}: the share of the side left out must lie in 0 to 0.4")
        if self.sectors < 4:
            raise InputError(f"{self.sectors} sectors: at least 4 are needed to see astigmatism")


@dataclass(frozen=True)
class MicrographSpectrum:
    """Average power spectrum of a micrograph, in the forms that the fits and pictures need.

    pixel_size: A; tile_px: side of the tiles; power [tile, tile // 2 + 1]: average spectrum, numpy's half layout;
    sector_tiles [tiles, sectors, radii]: mean power of each tile by sector and radius (Fourier pixels, radius index = radius);
    samples [sectors, radii]: Fourier pixels per bin (0: nothing there); effective_samples: independent values behind the
    average of all tiles; k2, cos2, sin2 [sectors, radii]: mean k^2 (1/A^2), cos 2 theta and sin 2 theta of each bin, with
    theta = atan2(ky, kx); tile_mean, tile_std [rows, columns]: grey levels by tile; tile_y [rows], tile_x [columns]: centres of the
    tiles, A from the centre of the first pixel; replaced: share of pixels repaired;
    foreign: share of the area much darker or brighter than the rest at low resolution; problem: why no CTF can be fitted,
    or None.
    """

    pixel_size: float
    tile_px: int
    power: Float32
    sector_tiles: Float32
    samples: Float64
    effective_samples: Float64
    k2: Float64
    cos2: Float64
    sin2: Float64
    tile_mean: Float64
    tile_std: Float64
    tile_y: Float64
    tile_x: Float64
    replaced: float
    foreign: float
    problem: str | None = None

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.sector_tiles)

    @property
    def sector_mean(self) -> Float64:
        """Mean over tiles [sectors, radii]."""
        return self.sector_tiles.mean(axis=0, dtype=np.float64)

    @property
    def sector_variance(self) -> Float64:
        """Variance of `sector_mean`, from the scatter between tiles [sectors, radii]; NaN for one tile."""
        if self.tiles < 2:
            return np.full(self.samples.shape, np.nan)
        return self.sector_tiles.var(axis=0, dtype=np.float64, ddof=1) / self.tiles

    @property
    def frequency(self) -> Float64:
        """Spatial frequency (1/A) of each radius."""
        return np.arange(self.samples.shape[1]) / (self.tile_px * self.pixel_size)

    @property
    def roo(self) -> Float64:
        """Rotational average [radii] (SPIDER's `roo`)."""
        return (self.sector_mean * self.samples).sum(axis=0) / np.maximum(self.samples.sum(axis=0), 1)

    def full_power(self) -> Float32:
        """The average spectrum as an image [tile, tile] with the origin at tile // 2 (SPIDER's `pw_avg`)."""
        n = self.tile_px
        full = np.empty((n, n), dtype=np.float32)
        full[:, : n // 2 + 1] = self.power
        mirrored = np.roll(self.power[::-1], 1, axis=0)
        columns = np.arange(n // 2 + 1, n)
        full[:, columns] = mirrored[:, n - columns]
        return np.asarray(np.fft.fftshift(full))


def tile_spectra(
    image: npt.ArrayLike, pixel_size: float, settings: SpectrumSettings | None = None
) -> MicrographSpectrum:
    """Average the power spectra of the tiles of a micrograph.

    image: [ny, nx], any contrast; pixel_size: A. Dead rows and columns and hot pixels are replaced first. A micrograph without
    contrast gives a spectrum whose `problem` says so. InputError: not an image, under 96 px, NaN, or a bad pixel size.
    """
    settings = settings or SpectrumSettings()
    data = np.asarray(image)
    _check(data, pixel_size)
    tile = choose_tile(data.shape, pixel_size, settings)
    data, replaced, problem = repair(np.asarray(data, dtype=np.float32), settings.clip_sigma)
    rows, columns = (_origins(side, tile, settings.border) for side in data.shape)
    bins, samples, k2, cos2, sin2 = _bins(tile, float(pixel_size), settings.sectors)
    power, sector_tiles, means, stds = _accumulate(data, rows, columns, tile, bins, samples)
    share = _effective_tiles(rows, tile) * _effective_tiles(columns, tile) / _FREQUENCY_CORRELATION**2
    if problem is None and not sector_tiles.any():
        problem = "the micrograph has no contrast"
    return MicrographSpectrum(
        pixel_size=float(pixel_size),
        tile_px=tile,
        power=power,
        sector_tiles=sector_tiles,
        samples=samples,
        effective_samples=samples * share,
        k2=k2,
        cos2=cos2,
        sin2=sin2,
        tile_mean=means,
        tile_std=stds,
        tile_y=np.asarray((rows + 0.5 * (tile - 1)) * pixel_size, dtype=np.float64),
        tile_x=np.asarray((columns + 0.5 * (tile - 1)) * pixel_size, dtype=np.float64),
        replaced=replaced,
        foreign=_foreign_area(data, pixel_size),
        problem=problem,
    )


def _check(data: npt.NDArray[np.generic], pixel_size: float) -> None:
    if data.ndim != 2:
        raise InputError(
            f"micrograph has {data.ndim} axes: a single image [ny, nx] is needed (frames must be summed first)"
        )
    if min(data.shape) < 96:
        raise InputError(f"micrograph of {data.shape[1]} x {data.shape[0]} px: at least 96 px are needed to see rings")
    if not (np.isfinite(pixel_size) and 0.05 <= pixel_size <= 100):
        raise InputError(f"pixel size {pixel_size} A: must lie in 0.05 to 100 A")
    if not np.isfinite(np.sum(data, dtype=np.float64)):
        raise InputError("micrograph contains NaN or infinite pixels: make it again, or leave it out")


def choose_tile(shape: tuple[int, ...], pixel_size: float, settings: SpectrumSettings) -> int:
    """Side of the tiles in px: what the settings ask for, even, good for FFTs, inside the micrograph."""
    wanted = max(settings.tile_px, int(np.ceil(settings.tile_length / pixel_size)))
    inner = int(min(shape) * (1 - 2 * settings.border))
    if wanted > settings.tile_px:  # longer tiles only where enough of them remain
        wanted = max(settings.tile_px, min(wanted, inner // 3))
    side = int(min(wanted, inner))
    while side > 48 and (side % 2 or scipy.fft.next_fast_len(side) != side):
        side -= 1
    return side


def repair(image: Float32, clip_sigma: float) -> tuple[Float32, float, str | None]:
    """The mended micrograph less its median, 0 where it is beyond `clip_sigma` deviations (dirt too); the share of pixels
    replaced, and a problem or None."""
    mended = repair_micrograph(image)
    if mended.problem == CONSTANT:
        return np.zeros_like(image), 1.0, CONSTANT
    centre, spread = level_and_spread(mended.image)
    data = mended.image - np.float32(centre)
    beyond = np.abs(data) > np.float32(clip_sigma * spread)
    share = mended.replaced + float(beyond.mean())
    if beyond.any():
        data[beyond] = 0
    return data, float(min(share, 1.0)), mended.problem or (MOSTLY_DEAD if share > 0.5 else None)


def _origins(side: int, tile: int, border: float) -> npt.NDArray[np.int64]:
    """First pixels of tiles that overlap by at least a half and cover the side without its borders."""
    margin = int(border * side)
    room = side - 2 * margin - tile
    if room <= 0:
        return np.array([(side - tile) // 2])
    count = int(np.ceil(room / (tile / 2) - 0.1)) + 1  # an overlap slightly under a half saves a row of tiles
    return margin + np.round(np.linspace(0, room, count)).astype(np.int64)


def _effective_tiles(origins: npt.NDArray[np.int64], tile: int) -> float:
    """Independent tiles among overlapping ones in one dimension, sin^2 taper."""
    lag = np.abs(origins[:, None] - origins[None, :]) / tile
    return len(origins) ** 2 / float((taper_autocorrelation(lag) ** 2).sum())


def taper_autocorrelation(lag: npt.ArrayLike) -> Float64:
    """Autocorrelation of the sin^2 taper at a lag given in tile sides; 1 at 0, 0 from 1 on."""
    u = np.minimum(np.abs(np.asarray(lag, dtype=np.float64)), 1.0)
    return np.maximum((1 - u) * (2 + np.cos(2 * np.pi * u)) / 3 + np.sin(2 * np.pi * u) / (2 * np.pi), 0.0)


@lru_cache(maxsize=4)
def _bins(
    tile: int, pixel_size: float, sectors: int
) -> tuple[npt.NDArray[np.int32], Float64, Float64, Float64, Float64]:
    """Bin of each half-transform pixel (-1: none), and by bin [sectors, radii]: count, mean k^2, cos 2 theta, sin 2 theta."""
    kx = np.arange(tile // 2 + 1)[None, :]
    ky = np.fft.fftfreq(tile, 1 / tile)[:, None]
    k2 = (kx**2 + ky**2).astype(np.float64)
    radius = np.rint(np.sqrt(k2)).astype(np.int64)
    theta = np.arctan2(ky, kx)
    sector = np.rint(theta / np.pi * sectors).astype(np.int64) % sectors
    radii = tile // 2
    used = (radius < radii) & (np.abs(kx) > _ARM) & (np.abs(ky) > _ARM)
    bins = np.where(used, sector * radii + radius, -1).astype(np.int32)
    where = bins[used]
    count = np.bincount(where, minlength=sectors * radii).astype(np.float64)

    def mean(values: Float64) -> Float64:
        total = np.bincount(where, weights=np.broadcast_to(values, used.shape)[used], minlength=sectors * radii)
        return np.asarray((total / np.maximum(count, 1)).reshape(sectors, radii))

    k2_mean = mean(k2 / (tile * pixel_size) ** 2)
    cos2, sin2 = mean(np.cos(2 * theta)), mean(np.sin(2 * theta))
    return bins.ravel(), count.reshape(sectors, radii), k2_mean, cos2, sin2


@lru_cache(maxsize=4)
def _taper(tile: int) -> Float32:
    profile = np.sin(np.pi * (np.arange(tile) + 0.5) / tile) ** 2
    window = profile[:, None] * profile[None, :]
    return np.asarray(window / np.sqrt((window**2).sum()), dtype=np.float32)


def _accumulate(
    image: Float32,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    tile: int,
    bins: npt.NDArray[np.int32],
    samples: Float64,
) -> tuple[Float32, Float32, Float64, Float64]:
    from nephila.kernels.ctf_scan import add_tile_power

    power = np.zeros(tile * (tile // 2 + 1))
    means, stds = np.zeros((len(rows), len(columns))), np.zeros((len(rows), len(columns)))
    sector_tiles = np.zeros((len(rows) * len(columns), *samples.shape), dtype=np.float32)
    ramp = (np.arange(tile) - (tile - 1) / 2).astype(np.float32)
    ramp_square = float((ramp.astype(np.float64) ** 2).sum())
    window = _taper(tile)
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            part = image[y : y + tile, x : x + tile]
            by_row, by_column = part.mean(axis=1), part.mean(axis=0)
            mean = np.float32(by_row.mean())
            slope_y = np.float32(float(ramp @ by_row) / ramp_square)
            slope_x = np.float32(float(ramp @ by_column) / ramp_square)
            flat = part - (mean + slope_y * ramp)[:, None]
            flat -= slope_x * ramp
            means[i, j], stds[i, j] = mean, float(np.sqrt(np.dot(flat.ravel(), flat.ravel()) / flat.size))
            flat *= window
            sums = np.zeros(samples.size)
            add_tile_power(rfft2(flat).ravel(), bins, power, sums)
            sector_tiles[i * len(columns) + j] = sums.reshape(samples.shape) / np.maximum(samples, 1)
    average = (power / len(sector_tiles)).reshape(tile, tile // 2 + 1).astype(np.float32)
    return average, sector_tiles, means, stds


def _foreign_area(image: Float32, pixel_size: float) -> float:
    """Share of the area whose grey level, averaged over 100 A and freed of a ramp, is beyond 5 robust standard deviations."""
    block = max(4, int(round(100.0 / pixel_size)))
    ny, nx = image.shape[0] // block, image.shape[1] // block
    if ny < 4 or nx < 4:
        return 0.0
    coarse = image[: ny * block, : nx * block].reshape(ny, block, nx, block).mean(axis=(1, 3), dtype=np.float64)
    y, x = np.mgrid[-1 : 1 : ny * 1j, -1 : 1 : nx * 1j]
    basis = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1).reshape(-1, 6)
    values = coarse.ravel()
    residual = values - np.median(values)
    keep = np.abs(residual) < 4 * 1.4826 * np.median(np.abs(residual)) + 1e-12
    for _ in range(4):
        coefficients, *_ = np.linalg.lstsq(basis[keep], values[keep], rcond=None)
        residual = values - basis @ coefficients
        spread = 1.4826 * np.median(np.abs(residual[keep])) + 1e-12
        keep = np.abs(residual) < 4 * spread + 1e-12
    return float((np.abs(residual) > 5 * spread).mean())
