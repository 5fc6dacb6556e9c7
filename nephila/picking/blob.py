"""Picking by a blob of the particle's size: disk minus ring, difference or Laplacian of Gaussians, and by its texture.

A blob has but the mean density of a particle. Its details, whatever they are, raise the power of the image there: the
square of the band-passed image (times the CTF, which weights frequencies by what they carry) over a disk, less that over
the ring around, tells as much. The sum of both finds more than either, and a particle without low frequencies as well.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nephila.ctf import Optics
from nephila.kernels.peaks import suppress_neighbours
from nephila.picking.contaminants import CORE, LARGE, local_statistics, mark_contaminants, mark_large
from nephila.picking.peaks import Picks, edge_maxima, local_maxima, sub_pixel_offset
from nephila.picking.prepare import MicrographBinner, check_micrograph, clip_outliers
from nephila.picking.settings import BlobSettings
from nephila.picking.texture import PaddedField, disk_and_ring

Float32 = npt.NDArray[np.float32]

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
    Picks, best first, as many as fit into the area. Scores are the sum of the responses of blob and texture, each over its
    robust standard deviation.

    Raises
    ------
    InputError : image constant, not finite, not 2D or too small; particle too small for the pixel size
    """
    options = settings or BlobSettings()
    data = check_micrograph(image, pixel_size, diameter)
    target = min(diameter * min(options.scales) / options.pixels_per_diameter, options.finest / 2.4)
    # Averaging whole pixels first is far cheaper than the transform of the full micrograph
    block = max(int(target / pixel_size / 1.25), 1)
    reduced = block_mean(clip_outliers(data, options.peaks.outlier_sigma), block)
    binned = MicrographBinner(reduced, pixel_size * block, 1e6).binned(target)
    size = binned.pixel_size
    ny, nx = binned.image.shape
    largest = diameter * max(options.scales)
    field = PaddedField((ny, nx), size, options.ring * largest / size)
    transform = field.transform(binned.image)
    if ctf is not None and optics is not None:
        transform *= field.contrast(0.5 * (ctf[0] + ctf[1]), optics)
    band = options.coarsest * diameter, options.finest
    energy = field.power(transform, *band) if options.texture > 0 else None
    transform *= 1 - np.exp(-field.k2 * np.float32((options.highpass * largest / 2) ** 2))
    best, which = np.full((ny, nx), -np.inf, dtype=np.float32), np.zeros((ny, nx), dtype=np.int64)
    for index, scale in enumerate(options.scales):
        radius = 0.5 * diameter * scale / size
        response = field.response(transform, blob_kernel(field.padded, radius, options))
        if energy is not None:
            response += np.float32(options.texture) * field.response(energy, field.disk(radius))
            response /= np.float32(np.hypot(1, options.texture))
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
    inside = len(rows)
    rows, columns = (np.concatenate(v) for v in zip((rows, columns), edge_maxima(score, spacing, edge), strict=True))
    mean, local = local_statistics(image, CORE * 0.5 * side / np.sqrt(step_y * step_x))
    dirt = mark_contaminants(mean, local, options.peaks.contaminant_sigma).astype(np.int64)
    dirt[mark_large(image, side / float(np.sqrt(step_y * step_x)), options.peaks.contaminant_sigma)] = LARGE
    y = rows + sub_pixel_offset(score[rows - 1, columns], score[rows, columns], score[rows + 1, columns])
    x = columns + sub_pixel_offset(score[rows, columns - 1], score[rows, columns], score[rows, columns + 1])
    # Pixel i of a block mean has its centre at (i + 1/2) block - 1/2
    y, x = (y * scale[0] + 0.5) * block - 0.5, (x * scale[1] + 0.5) * block - 0.5
    value, chosen = score[rows, columns].astype(np.float64), which[rows, columns]
    kept = np.arange(inside)
    if len(scales) > 1 and inside:
        # Bigger blobs keep their own distance
        own = float(options.peaks.min_distance * side * scales[chosen[:inside]].mean())
        kept = kept[suppress_neighbours(y[:inside], x[:inside], own, at_most)]
    kept = np.concatenate([kept, np.arange(inside, len(y))])
    step = max(min(local.shape) // 256, 1)
    typical = max(float(np.median(local[::step, ::step])), 1e-20)
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
        at_edge=(kept >= inside).astype(np.int64),
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
    if settings.method == "disk":
        return disk_and_ring(shape, _DISK * radius, settings.ring)
    y, x = (np.arange(n, dtype=np.float32) - n // 2 for n in shape)
    if settings.method == "dog":
        kernel = np.zeros(shape, dtype=np.float32)
        for sigma, sign in zip(_GAUSSIANS, (1, -1), strict=True):
            rows, columns = (np.exp(-0.5 * (v / np.float32(sigma * radius)) ** 2) for v in (y, x))
            kernel += (sign / (rows.sum() * columns.sum()) * rows)[:, None] * columns[None, :]
        return kernel
    r2 = (y[:, None] ** 2 + x[None, :] ** 2) / np.float32(radius**2 / 2)
    kernel = (1 - 0.5 * r2) * np.exp(-0.5 * r2)
    return kernel - kernel.sum() / np.float32(kernel.size)
