"""The absolute scale of a map against a model: the pixel size at which an atomic model, or a map of known scale, fits best.

The model's density is put on the map's grid for each trial pixel size, about the place where it sits; its correlation with the map,
whitened shell by shell and with the shift taken out, is a smooth function of the pixel size with its maximum at the true one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fourier import centred_irfftn, centred_rfftn, frequency_radius_3d
from nephila.io.mrc import read_volume
from nephila.resize import resize_volume

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]

SEARCHED = 0.08
"""Relative, either way."""
COARSE_STEPS = 17
FINE_STEPS = 5
FINE_STEP = 0.0015
FEWEST_ATOMS = 20
_SHIFT_PX = 3
"""How far the model may sit beside its place in the map, px."""


@dataclass(frozen=True)
class ScaleFit:
    """A fitted pixel size.

    pixel_size : A; error : A, the spread of fits to four bands of resolution over its root, which also holds errors of the model
    correlation : at the maximum; trials, correlations : the curve
    """

    pixel_size: float
    error: float
    correlation: float
    trials: Float64
    correlations: Float64


def fit_scale(
    volume: Float32, nominal: float, model: Callable[[float], Float32], finest: float, coarsest: float = 20.0
) -> ScaleFit:
    """Pixel size at which `model` correlates best with a map.

    Parameters
    ----------
    volume : [n, n, n]
    nominal : A, where the search begins
    model : gives the model's density [n, n, n] on the map's grid for a pixel size (A)
    finest, coarsest : A, frequencies that count, at the nominal pixel size
    """
    n = len(volume)
    radius = frequency_radius_3d(n)
    low, high = n * nominal / coarsest, min(n * nominal / finest, n / 2 - 1)
    if high - low < 4:
        raise InputError(
            f"{coarsest:g} to {finest:g} A leave {max(high - low, 0):.0f} shells of the map; widen the range"
        )
    inside = (radius >= low) & (radius <= high)
    shell = np.rint(radius).astype(np.int64)
    target = _whitened(centred_rfftn(volume), shell, inside)
    edges = np.linspace(low**3, high**3, 5) ** (1 / 3)
    bands = [inside & (radius >= a) & (radius <= b) for a, b in zip(edges[:-1], edges[1:], strict=True)]

    def correlations(pixel_size: float) -> Float64:
        trial = _whitened(centred_rfftn(model(pixel_size)), shell, inside)
        return _correlations(target, trial, [inside, *bands], n)

    trials = nominal * np.linspace(1 - SEARCHED, 1 + SEARCHED, COARSE_STEPS)
    curve = [correlations(float(trial)) for trial in trials]
    step = float(trials[1] - trials[0])
    best = float(trials[int(np.argmax([values[0] for values in curve]))])
    while step > FINE_STEP * nominal:
        step = max(step / 3, FINE_STEP * nominal)
        near = best + step * np.arange(-2, 3)
        more = [correlations(float(trial)) for trial in near]
        trials, curve = np.r_[trials, near], [*curve, *more]
        best = float(near[int(np.argmax([values[0] for values in more]))])
    near = np.asarray(best + step * (np.arange(FINE_STEPS) - FINE_STEPS // 2), dtype=np.float64)
    fine = np.array([correlations(float(trial)) for trial in near])
    if not abs(best / nominal - 1) < 0.99 * SEARCHED:
        raise InputError(
            f"the model fits best at {best:.4g} A/px, the end of the range that was searched: is it docked into this map, and of "
            "the same hand?"
        )
    found = np.array([_vertex(near, column) for column in fine.T])
    spread = found[1:][np.isfinite(found[1:])]
    error = float(np.std(spread, ddof=1) / np.sqrt(len(spread))) if len(spread) > 1 else 0.0
    order = np.argsort(np.r_[trials, near])
    values = np.r_[[row[0] for row in curve], fine[:, 0]]
    return ScaleFit(float(found[0]), error, float(fine[:, 0].max()), np.r_[trials, near][order], values[order])


def model_from_atoms(path: str | os.PathLike[str], n: int, nominal: float, finest: float) -> Callable[[float], Float32]:
    """Density of an atomic model (PDB or mmCIF) on a grid [n, n, n] for any pixel size.

    Coordinates are in A from the grid's first voxel, as the map's header had them when the model was docked: at another pixel size
    its middle keeps its place on the grid. Atoms are Gaussians of their number of electrons, as wide as `finest` (A) calls for;
    hydrogens do not count.
    """
    import gemmi

    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: not a PDB or mmCIF file that gemmi reads ({error})") from error
    if len(structure) == 0:
        raise InputError(f"{path}: no model in it")
    atoms = [site.atom for site in structure[0].all() if not site.atom.is_hydrogen()]
    if len(atoms) < FEWEST_ATOMS:
        raise InputError(f"{path}: {len(atoms)} atoms are too few to tell a scale")
    places = np.array([[a.pos.x, a.pos.y, a.pos.z] for a in atoms])
    weights = np.array([a.occ * a.element.atomic_number for a in atoms])
    middle = np.average(places, axis=0, weights=weights)
    low, high = places.min(axis=0) / nominal, places.max(axis=0) / nominal
    if (low < 0).any() or (high > n - 1).any():
        raise InputError(
            f"{path}: atoms from {np.round(low).astype(int)} to {np.round(high).astype(int)} px leave the map's {n} px: "
            "dock the model into the map first (origin at the first voxel)"
        )
    sigma = max(0.225 * finest, 0.6)  # A Gaussian's transform at 1 / finest is then 0.37

    def density(pixel_size: float) -> Float32:
        at = (places - middle) / pixel_size + middle / nominal
        return splat(at, weights, n, sigma / pixel_size)

    return density


def model_from_map(path: str | os.PathLike[str], n: int) -> tuple[Callable[[float], Float32], float]:
    """A map of known scale on a grid [n, n, n] for any pixel size, middle on middle, and its own pixel size (A)."""
    volume, own = read_volume(path)

    def density(pixel_size: float) -> Float32:
        return resize_volume(volume, own, pixel_size, n)[0]

    return density, own


def splat(places_px: Float64, weights: Float64, n: int, sigma_px: float) -> Float32:
    """Gaussians at places [a, 3] (x, y, z in px from voxel 0) on a grid float32 [n, n, n]."""
    reach = int(np.ceil(3.5 * sigma_px))
    offsets = np.arange(-reach, reach + 1)
    base = np.rint(places_px).astype(np.int64)
    profile = np.exp(-0.5 * ((base - places_px)[:, :, None] + offsets) ** 2 / sigma_px**2)
    index = np.clip(base[:, :, None] + offsets, 0, n - 1)
    out = np.zeros(n**3)
    for dz in range(len(offsets)):
        plane = weights[:, None] * profile[:, 2, dz, None] * profile[:, 1]
        rows = (index[:, 2, dz, None] * n + index[:, 1]) * n
        values = plane[:, :, None] * profile[:, None, 0]
        out += np.bincount((rows[:, :, None] + index[:, None, 0]).ravel(), values.ravel(), minlength=n**3)
    return out.reshape(n, n, n).astype(np.float32)


def _whitened(transform: Complex64, shell: npt.NDArray[np.int64], inside: npt.NDArray[np.bool_]) -> Complex64:
    """The transform with equal power in all shells, 0 outside."""
    power = np.bincount(shell[inside], np.abs(transform[inside]) ** 2) / np.maximum(np.bincount(shell[inside]), 1)
    out = np.zeros_like(transform)
    out[inside] = transform[inside] / np.sqrt(np.maximum(power[shell[inside]], 1e-30))
    return out


def _correlations(a: Complex64, b: Complex64, parts: list[npt.NDArray[np.bool_]], n: int) -> Float64:
    """Correlation of two whitened transforms in each part, at the shift that the first part likes best."""
    product = a * np.conj(b)
    around = centred_irfftn(product, n)
    centre = n // 2
    cut = around[tuple([slice(centre - _SHIFT_PX, centre + _SHIFT_PX + 1)] * 3)]
    peak = np.array(np.unravel_index(int(cut.argmax()), cut.shape)) - _SHIFT_PX
    shift = peak.astype(np.float64)
    for axis in range(3):  # parabola through the peak
        at = [centre + p for p in peak]
        values = []
        for offset in (-1, 0, 1):
            place = list(at)
            place[axis] += offset
            values.append(float(around[tuple(place)]))
        bend = values[0] - 2 * values[1] + values[2]
        shift[axis] += 0.5 * (values[0] - values[2]) / bend if bend < 0 else 0.0
    kz, ky, kx = np.fft.fftfreq(n)[:, None, None], np.fft.fftfreq(n)[None, :, None], np.fft.rfftfreq(n)[None, None, :]
    turned = np.real(product * np.exp(2j * np.pi * (kz * shift[0] + ky * shift[1] + kx * shift[2])))
    return np.array(
        [
            float(turned[part].sum() / np.sqrt((np.abs(a[part]) ** 2).sum() * (np.abs(b[part]) ** 2).sum()))
            for part in parts
        ]
    )


def _vertex(x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> float:
    """Place of the maximum of a parabola through points; NaN where it has none near them."""
    bend, slope, _ = np.polyfit(x - x.mean(), y, 2)
    if bend >= 0:
        return float("nan")
    place = x.mean() - 0.5 * slope / bend
    return float(place) if abs(place - x.mean()) < 3 * (x[-1] - x[0]) else float("nan")
