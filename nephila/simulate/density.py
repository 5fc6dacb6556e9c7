"""Atoms, and their density on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.fourier import centred_irfftn, rfftn

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

SPREAD_SIGMA = 1.0  # px of the fine grid
SOLVENT_FRACTION = 0.45
SOLVENT_B = 300.0


@dataclass(frozen=True)
class Atoms:
    """Atoms of a molecule.

    Attributes
    ----------
    positions : float64 [n, 3], (x, y, z) in A, origin at the molecule's centre
    weights : float64 [n], electron scattering factors at zero angle, A
    """

    positions: Float64
    weights: Float64

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def diameter(self) -> float:
        """Twice the largest distance of an atom from the origin, A."""
        return float(2 * np.sqrt((self.positions**2).sum(axis=1).max()))


def symmetrise(atoms: Atoms, matrices: npt.ArrayLike) -> Atoms:
    """Copies of `atoms` under rotation matrices [m, 3, 3], all in one set."""
    group = np.asarray(matrices, dtype=np.float64)
    positions = np.einsum("gij,nj->gni", group, atoms.positions).reshape(-1, 3)
    return Atoms(positions, np.tile(atoms.weights, len(group)))


def density(
    atoms: Atoms, box: int, pixel_size: float, b_factor: float = 60.0, solvent: float = SOLVENT_FRACTION
) -> Float32:
    """Density of atoms on a grid, band-limited exactly (no aliasing at any pixel size).

    Each atom is spread as a Gaussian over a grid of half the pixel size; in the transform the spread is divided out,
    the B factor multiplied in, and what lies beyond the map's own Nyquist frequency cut off.

    Parameters
    ----------
    box : side, px; the origin of the atoms lands on index box // 2
    pixel_size : A
    b_factor : A^2, exp(-B k^2 / 4) for thermal motion and the fall of the scattering factors together
    solvent : share of the atoms' weight that the displaced water takes away, as Gaussians of B = 300 A^2 (Fraser et al.
        1978): low frequencies lose that share of their amplitude, details none

    Returns
    -------
    float32 [box, box, box], protein bright; scaled so that the sum times pixel_size^3 is (1 - solvent) x sum of weights

    Raises
    ------
    InputError
        Atoms reach outside the box.
    """
    from nephila.simulate.spread import spread_atoms

    if box < 4 or pixel_size <= 0:
        raise InputError(f"density: box {box} px and pixel size {pixel_size} A must be positive, the box at least 4")
    if len(atoms) and np.abs(atoms.positions).max() > (box / 2 - 1) * pixel_size:
        reach = 2 * np.abs(atoms.positions).max() / pixel_size
        raise InputError(f"density: the molecule needs {reach:.0f} px, the box has {box}; give a larger box")
    fine = 2 * box
    grid = spread_atoms(atoms.positions * (2 / pixel_size) + fine // 2, atoms.weights, fine, SPREAD_SIGMA)
    transform = rfftn(np.fft.ifftshift(grid))
    keep = np.fft.fftfreq(box, 1 / box).astype(int)
    cut = transform[np.ix_(keep, keep, np.arange(box // 2 + 1))]
    half = np.arange(box // 2 + 1)
    k2 = (keep[:, None, None] ** 2 + keep[None, :, None] ** 2 + half[None, None, :] ** 2).astype(np.float64)
    undo = np.exp(2 * np.pi**2 * SPREAD_SIGMA**2 * k2 / fine**2)
    s2 = k2 / (box * pixel_size) ** 2
    gain = np.exp(-b_factor * s2 / 4) - solvent * np.exp(-SOLVENT_B * s2 / 4)
    cut = cut * (undo * gain).astype(np.float32)
    if box % 2 == 0:  # the Nyquist planes have no partner of opposite sign
        cut[box // 2], cut[:, box // 2], cut[:, :, box // 2] = 0, 0, 0
    return np.asarray(centred_irfftn(cut, box) * np.float32(pixel_size**-3), dtype=np.float32)
