"""Correlation of a large image with many small stamps, tile by tile.

Transforms of tiles stay in the processor's cache: a hundred of them cost a fraction of one of the whole image, and the
stamps are transformed at the tile's size, once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nephila.fast_sides import fast_side
from nephila.fourier import irfft2, rfft2

Float32 = npt.NDArray[np.float32]
Complex64 = npt.NDArray[np.complex64]
Int = npt.NDArray[np.int64]

_SIDES = (48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024)


class TiledCorrelation:
    """Correlates images with stamps that share their pixels.

    rows, columns : offsets of the stamps' pixels from their centre, px [p]
    stamps : float32 [k, p]
    """

    def __init__(self, rows: Int, columns: Int, stamps: Float32) -> None:
        self.reach = int(max(np.abs(rows).max(), np.abs(columns).max()))
        self.side = tile_side(self.reach)
        self.number = len(stamps)
        self._transforms = np.empty((len(stamps), self.side, self.side // 2 + 1), dtype=np.complex64)
        stamp = np.zeros((self.side, self.side), dtype=np.float32)
        for k, values in enumerate(stamps):
            stamp[rows, columns] = values
            self._transforms[k] = np.conj(rfft2(stamp))

    def tiles(self, image: Float32) -> Iterator[tuple[slice, slice, Float32]]:
        """Correlations sum_p stamp(p) image(x + p) by tile: rows and columns of `image` [ny, nx] and values [k, rows, columns].

        Outside, the image counts as 0.
        """
        ny, nx = image.shape
        valid = self.side - 2 * self.reach
        # Tiles of equal size rather than a rest at the far edges
        high, wide = (-(-n // -(-n // valid)) for n in (ny, nx))
        padded = np.zeros((ny + high + 2 * self.side, nx + wide + 2 * self.side), dtype=np.float32)
        padded[self.reach : self.reach + ny, self.reach : self.reach + nx] = image
        product = np.empty_like(self._transforms)
        for y in range(0, ny, high):
            for x in range(0, nx, wide):
                np.multiply(self._transforms, rfft2(padded[y : y + self.side, x : x + self.side]), out=product)
                rows, columns = slice(y, min(y + high, ny)), slice(x, min(x + wide, nx))
                inner = irfft2(product, self.side)[:, self.reach :, self.reach :]
                yield rows, columns, inner[:, : rows.stop - y, : columns.stop - x]


def tile_side(reach: int) -> int:
    """Side of the tiles, px, that costs least per valid pixel for stamps that reach `reach` px from their centre."""
    sides = [s for s in _SIDES if s > 2.5 * reach] or [fast_side(4 * reach)]
    # Beyond 256 px a transform no longer stays in the cache
    cost = [s * s * np.log2(s) * (1 if s <= 256 else 1.5) / (s - 2 * reach) ** 2 for s in sides]
    return int(sides[int(np.argmin(cost))])
