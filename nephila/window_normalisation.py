"""Background of particle windows: ramps, dust and normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Region:
    """Which pixels of a window are background: those further than `radius` px from its centre (box // 2)."""

    box: int
    radius: float
    background: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, box: int, radius: float | None = None) -> Region:
        """`radius` None means box / 2 - 2. InputError where fewer than 8 px of background are left."""
        r = box / 2 - 2 if radius is None else float(radius)
        axis = np.arange(box) - box // 2
        background = axis[:, None] ** 2 + axis[None, :] ** 2 > r**2
        if r <= 0 or int(background.sum()) < 8:
            raise InputError(f"particle radius {r:g} px in a box of {box} px leaves no background: make the box larger")
        return cls(box, r, background)


def remove_ramps(windows: npt.ArrayLike, region: Region) -> Float32:
    """Windows [m, n, n] less the plane that fits their background best."""
    data = np.asarray(windows, dtype=np.float32)
    axis = (np.arange(region.box) - region.box // 2) / region.box
    y, x = np.meshgrid(axis, axis, indexing="ij")
    terms = np.stack([np.ones_like(x), x, y], axis=-1)
    inverse = np.linalg.pinv(terms[region.background])
    out = np.empty_like(data)
    for i, window in enumerate(data):
        plane = terms @ (inverse @ window[region.background].astype(np.float64))
        out[i] = window - plane
    return out


def remove_dust(
    windows: npt.ArrayLike, region: Region, sigma: float, seed: int, keys: npt.NDArray[np.int64] | None = None
) -> Float32:
    """Windows with pixels beyond `sigma` standard deviations of their mean replaced by noise of their background.

    `keys` [m, k], integers that name each window (its position): the noise depends on them and `seed`, not on the
    order.
    """
    data = np.array(windows, dtype=np.float32)
    for i, window in enumerate(data):
        mean, spread = float(window.mean(dtype=np.float64)), float(window.std(dtype=np.float64))
        wrong = np.abs(window - mean) > sigma * spread
        if not wrong.any() or spread == 0:
            continue
        usable = window[region.background & ~wrong]
        level, width = (float(usable.mean()), float(usable.std())) if usable.size else (mean, spread)
        key = [i] if keys is None else [int(v) & 0xFFFFFFFF for v in keys[i]]
        random = np.random.default_rng([seed, *key])
        window[wrong] = random.normal(level, width, int(wrong.sum())).astype(np.float32)
    return data


def normalise_background(windows: npt.ArrayLike, region: Region) -> Float32:
    """Windows scaled so that their background has mean 0 and standard deviation 1 (RELION's normalisation)."""
    data = np.array(windows, dtype=np.float32)
    for window in data:
        background = window[region.background].astype(np.float64)
        window -= background.mean()
        window /= max(background.std(), 1e-20)
    return data


def fit_to_noise(windows: npt.ArrayLike, region: Region, noise: npt.ArrayLike) -> Float32:
    """Windows under the line a v + b that makes the histogram of their background most like that of `noise` [n, n].

    Quantiles of the background are regressed on those of the noise window, which is robust to a few particles' tails
    (SPIDER's CE FIT searches the same line by histogram comparison).
    """
    data = np.array(windows, dtype=np.float32)
    shares = np.linspace(0.02, 0.98, 97)
    target = np.quantile(np.asarray(noise, dtype=np.float64), shares)
    for window in data:
        own = np.quantile(window[region.background].astype(np.float64), shares)
        spread = own.std()
        slope = float(((own - own.mean()) * (target - target.mean())).mean() / spread**2) if spread > 0 else 1.0
        window *= slope
        window += target.mean() - slope * own.mean()
    return data
