"""The power of a particle's details, whatever they are: the square of the band-passed image over a disk, less the ring
around it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nephila.ctf import Optics, ctf_1d
from nephila.fast_sides import fast_side
from nephila.fourier import irfft2, rfft2
from nephila.picking.prepare import centre_and_spread

Float32 = npt.NDArray[np.float32]
Complex64 = npt.NDArray[np.complex64]

_DISK = 0.71
_RING = 2.0
"""Radii of the disk, whose weight falls towards its edge, and of the ring around it over the disk's."""


class PaddedField:
    """A binned image ready for filters that reach `reach` px: padded shape, squared frequencies (1/A^2)."""

    def __init__(self, shape: tuple[int, int], pixel_size: float, reach: float) -> None:
        self.shape = shape
        ny, nx = (fast_side(n + int(reach) + 1) for n in shape)
        self.padded = (ny, nx)
        fy, fx = np.fft.fftfreq(ny, pixel_size), np.fft.rfftfreq(nx, pixel_size)
        self.k2 = (fy[:, None] ** 2 + fx[None, :] ** 2).astype(np.float32)

    def transform(self, image: Float32) -> Complex64:
        """Half transform of an image [ny, nx], 0 outside."""
        whole = np.zeros(self.padded, dtype=np.float32)
        whole[: self.shape[0], : self.shape[1]] = image
        return rfft2(whole)

    def filtered(self, transform: Complex64) -> Float32:
        """The image [ny, nx] of a half transform."""
        return irfft2(transform, self.padded[1])[: self.shape[0], : self.shape[1]]

    def response(self, transform: Complex64, kernel: Float32) -> Float32:
        """Correlation with a kernel about its middle, in robust standard deviations from its median [ny, nx]."""
        out = self.filtered(transform * np.conj(rfft2(np.fft.ifftshift(kernel))))
        middle, spread = centre_and_spread(out[::3, ::3])
        out -= np.float32(middle)
        out /= np.float32(max(spread, 1e-20))
        return out

    def contrast(self, defocus: float, optics: Optics) -> Float32:
        """CTF by interpolation over k; what it is wrong by at high frequencies counts little here."""
        k = np.sqrt(self.k2)
        table = np.linspace(0, float(k.max()), 2000)
        return np.interp(k, table, ctf_1d(table, defocus, optics)).astype(np.float32)

    def power(self, transform: Complex64, coarsest: float, finest: float) -> Complex64:
        """Half transform of the squared image in the band from `coarsest` to `finest` (A), its mean taken off.

        Times the CTF before, `transform` weights frequencies by what they carry. Squares far beyond the noise's are cut
        off: a hot spot is no texture.
        """
        band = (1 - np.exp(-self.k2 * np.float32(coarsest**2))) * np.exp(-self.k2 * self.k2 * np.float32(finest**4))
        texture = self.filtered(transform * band)
        spread = float(np.median(np.abs(texture[::3, ::3]))) / 0.6745
        power = np.minimum(texture * texture, np.float32((5 * spread) ** 2))
        power -= power.mean(dtype=np.float64)
        return self.transform(power)

    def disk(self, radius: float) -> Float32:
        """Kernel for the power of a particle of `radius` px, of sum 0: a disk less the ring around it."""
        return disk_and_ring(self.padded, _DISK * radius, _RING)


def disk_and_ring(shape: tuple[int, int], radius: float, ring: float) -> Float32:
    """A disk that falls towards its edge like a sphere's projection, less the ring out to `ring` radii; of sum 0, about the
    middle (ny // 2, nx // 2) of `shape`."""
    y, x = (np.arange(n, dtype=np.float32) - n // 2 for n in shape)
    r = np.hypot(y[:, None], x[None, :]) / np.float32(radius)
    inside = np.sqrt(np.clip(1 - r * r, 0, 1))
    around = (r > 1) & (r < ring)
    return (inside / inside.sum() - around / around.sum()).astype(np.float32)


def texture_response(
    image: Float32,
    pixel_size: float,
    diameter: float,
    band: tuple[float, float],
    defocus: float | None,
    optics: Optics | None,
) -> Float32:
    """Power of details over a particle's disk at each pixel, in robust standard deviations, [ny, nx].

    Parameters
    ----------
    image : [ny, nx], binned, of mean about 0
    band : coarsest and finest structures that count, A
    defocus : mean, A; None: no CTF
    """
    radius = 0.5 * diameter / pixel_size
    field = PaddedField((image.shape[0], image.shape[1]), pixel_size, _RING * radius)
    transform = field.transform(image)
    if defocus is not None and optics is not None:
        transform = transform * field.contrast(defocus, optics)
    return field.response(field.power(transform, *band), field.disk(radius))
