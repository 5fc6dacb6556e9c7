"""Picking by a blob of the particle's size: disk minus ring, difference or Laplacian of Gaussians."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

from nephila.ctf import Optics, ctf_1d
from nephila.fourier import irfft2, rfft2
from nephila.kernels.peaks import suppress_neighbours
from nephila.picking.contaminants import mark_contaminants
from nephila.picking.peaks import Picks, local_maxima, sub_pixel_offset
from nephila.picking.prepare import MicrographBinner, centre_and_spread, check_micrograph, clip_outliers
from nephila.picking.settings import BlobSettings

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# In particle radii. Particles are denser at their middle than a disk of the longest diameter, which finds its edge
# as well
_GAUSSIANS = (0.4, 0.8)
_DISK = 0.65


def pick_blobs(
    image: npt.ArrayLike,
    pixel_size: float,
    diameter: float,
    settings: BlobSettings | None = None,
    ctf: tuple[float, float, float] | None = None,
    optics: Optics | None = None,
) -> Picks:
    """Candidates of one micrograph by their likeness to a round blob.

    Parameters
    ----------
    image : [ny, nx], protein bright
    pixel_size, diameter : A
    ctf : defocus_u, defocus_v (A, underfocus positive) and angle (deg); with `optics` the blob is filtered by the
        CTF of the mean defocus, so that it is searched for as the micrograph shows it

    Returns
    -------
    Picks, best first, as many as fit into the area. Scores are the filter's response over its robust standard
    deviation.

    Raises
    ------
    InputError : image constant, not finite, not 2D or too small; particle too small for the pixel size
    """
    options = settings or BlobSettings()
    data = check_micrograph(image, pixel_size, diameter)
    smallest = diameter * min(options.scales)
    target = smallest / options.pixels_per_diameter
    # Averaging whole pixels first is far cheaper than the transform of the full micrograph
    block = max(int(target / pixel_size / 1.5), 1)
    reduced = block_mean(clip_outliers(data, options.peaks.outlier_sigma), block)
    binned = MicrographBinner(reduced, pixel_size * block, 1e6).binned(target)
    size = binned.pixel_size
    ny, nx = binned.image.shape
    largest = diameter * max(options.scales)
    pad = int(options.ring * largest / size) + 1
    py, px = (int(scipy.fft.next_fast_len(n + pad, real=True)) for n in (ny, nx))
    padded = np.zeros((py, px), dtype=np.float32)
    padded[:ny, :nx] = binned.image
    k2 = np.fft.fftfreq(py, size)[:, None] ** 2 + np.fft.rfftfreq(px, size)[None, :] ** 2
    transform = rfft2(padded) * (1 - np.exp(-k2 * (options.highpass * largest / 2) ** 2)).astype(np.float32)
    contrast = None
    if ctf is not None and optics is not None:
        contrast = _contrast(k2, 0.5 * (ctf[0] + ctf[1]), optics)
    best, which = np.full((ny, nx), -np.inf, dtype=np.float32), np.zeros((ny, nx), dtype=np.int64)
    for index, scale in enumerate(options.scales):
        kernel = rfft2(np.fft.ifftshift(blob_kernel((py, px), 0.5 * diameter * scale / size, options)))
        if contrast is not None:
            kernel = kernel * contrast
        response = irfft2(transform * np.conj(kernel), px)[:ny, :nx]
        middle, spread = centre_and_spread(response)
        response = (response - np.float32(middle)) / np.float32(max(spread, 1e-20))
        better = response > best
        best[better], which[better] = response[better], index
    return _picks(
        best, which, binned.image, (binned.scale_y, binned.scale_x), block, pixel_size, diameter, options, data.shape
    )


def _picks(
    score: Float32,
    which: npt.NDArray[np.int64],
    image: Float32,
    scale: tuple[float, float],
    block: int,
    pixel_size: float,
    diameter: float,
    options: BlobSettings,
    shape: tuple[int, ...],
) -> Picks:
    scales = np.asarray(options.scales, dtype=np.float64)
    side = diameter / pixel_size
    at_most = max(int(options.peaks.max_filling * shape[0] * shape[1] / (side * scales.min()) ** 2), 1)
    step_y, step_x = scale[0] * block, scale[1] * block
    edge = (options.peaks.edge * side / step_y, options.peaks.edge * side / step_x)
    spacing = options.peaks.min_distance * side * scales.min() / np.sqrt(step_y * step_x)
    rows, columns = local_maxima(score, float(spacing), edge, at_most)
    mean, local = local_statistics(image, 0.5 * side / np.sqrt(step_y * step_x))
    dirt = mark_contaminants(mean, local, side / np.sqrt(step_y * step_x), options.peaks.contaminant_sigma)
    y = rows + sub_pixel_offset(score[rows - 1, columns], score[rows, columns], score[rows + 1, columns])
    x = columns + sub_pixel_offset(score[rows, columns - 1], score[rows, columns], score[rows, columns + 1])
    # Pixel i of a block mean has its centre at (i + 1/2) block - 1/2
    y, x = (y * scale[0] + 0.5) * block - 0.5, (x * scale[1] + 0.5) * block - 0.5
    value, chosen = score[rows, columns].astype(np.float64), which[rows, columns]
    kept = np.arange(len(y))
    if len(scales) > 1:
        # Bigger blobs keep their own distance
        kept = (
            kept[suppress_neighbours(y, x, float(options.peaks.min_distance * side * scales[chosen].mean()), at_most)]
            if len(y)
            else kept
        )
    typical = max(float(np.median(local)), 1e-20)
    zero = np.zeros(len(kept))
    return Picks(
        x=x[kept],
        y=y[kept],
        score=value[kept],
        local_mean=(mean[rows, columns] / typical)[kept].astype(np.float64),
        local_std=(local[rows, columns] / typical)[kept].astype(np.float64),
        scale=scales[chosen[kept]],
        rot=zero,
        tilt=zero.copy(),
        psi=zero.copy(),
        contaminated=dirt[rows, columns][kept],
    )


def block_mean(image: Float32, block: int) -> Float32:
    """Means of blocks of `block` x `block` px; a rest at the far edges is left out."""
    if block == 1:
        return image
    ny, nx = image.shape[0] // block, image.shape[1] // block
    cut = image[: ny * block, : nx * block]
    rows = cut[::block].copy()
    for i in range(1, block):
        rows += cut[i::block]
    out = rows[:, ::block].copy()
    for i in range(1, block):
        out += rows[:, i::block]
    out /= np.float32(block * block)
    return out


def blob_kernel(shape: tuple[int, int], radius: float, settings: BlobSettings) -> Float32:
    """Blob of `radius` px about (ny // 2, nx // 2), of sum 0."""
    y, x = (np.arange(n) - n // 2 for n in shape)
    r = np.hypot(y[:, None], x[None, :])
    if settings.method == "disk":
        inside = np.sqrt(np.clip(1 - (r / (_DISK * radius)) ** 2, 0, 1))
        ring = (r > _DISK * radius) & (r < settings.ring * _DISK * radius)
        kernel = inside / inside.sum() - ring / ring.sum()
    elif settings.method == "dog":
        narrow, wide = (np.exp(-0.5 * (r / (sigma * radius)) ** 2) for sigma in _GAUSSIANS)
        kernel = narrow / narrow.sum() - wide / wide.sum()
    else:
        sigma = radius / np.sqrt(2)
        kernel = (1 - 0.5 * (r / sigma) ** 2) * np.exp(-0.5 * (r / sigma) ** 2)
        kernel -= kernel.sum() / kernel.size
    return kernel.astype(np.float32)


def _contrast(k2: Float64, defocus: float, optics: Optics) -> Float32:
    """CTF by interpolation over k; high frequencies count little in a blob, so a coarse table serves."""
    k = np.sqrt(k2)
    table = np.linspace(0, float(k.max()), 2000)
    return np.interp(k, table, ctf_1d(table, defocus, optics)).astype(np.float32)


def local_statistics(image: Float32, radius: float) -> tuple[Float32, Float32]:
    """Mean and standard deviation of `image` over squares of a disk's area of `radius` px."""
    import scipy.ndimage

    side = max(round(radius * np.sqrt(np.pi)), 3)
    mean = scipy.ndimage.uniform_filter(image, side, mode="nearest")
    square = scipy.ndimage.uniform_filter(image * image, side, mode="nearest")
    return mean, np.sqrt(np.maximum(square - mean * mean, 0))
