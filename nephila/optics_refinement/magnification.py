"""Anisotropic magnification of an optics group against a map, iterated to convergence.

With the reference sampled at M k, an increment M' = 1 + E moves each sample by E M k. Per Fourier pixel, normal equations of that
displacement are summed over the particles, then E is fitted to all of them. Defoci are transformed with it, D -> M'^-T D M'^-1, so
that the CTFs stay what they were. One pass falls short, because a displacement is only small against a speckle near the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.optics_refinement.observations import Observations
from nephila.optics_refinement.spectra import Spectra

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MagnificationStep:
    """An increment and what it was fitted to.

    increment : [2, 2], M'; the new matrix is M' M
    errors : [2, 2], standard errors
    observed, fitted : [2, s], displacements, 1/A of the reference's frequency
    weight : [s], mean weight of the displacements
    """

    increment: Float64
    errors: Float64
    observed: Float64
    fitted: Float64
    weight: Float64

    @property
    def size(self) -> float:
        """Largest change."""
        return float(np.abs(self.increment - np.eye(2)).max())


def magnification_step(
    observations: Observations, spectra: Spectra, table: pd.DataFrame | None = None
) -> MagnificationStep:
    """One pass over the particles of a group with its present magnification."""
    band = observations.band
    matrix, vector = np.zeros((3, band.size)), np.zeros((2, band.size))
    even, scale = observations.even_phase(), spectra.scale[band.shell]
    for batch in observations.batches(table, slopes=True):
        assert batch.slope is not None
        factor = (scale * np.sin(batch.phase - even)).astype(np.float32)
        rest = batch.images - factor * batch.predictions
        slope = factor[:, None, :] * batch.slope
        for target, (i, j) in zip(matrix, ((0, 0), (0, 1), (1, 1)), strict=True):
            target += np.real(slope[:, i] * np.conj(slope[:, j])).sum(axis=0, dtype=np.float64)
        for i in (0, 1):
            vector[i] += np.real(np.conj(slope[:, i]) * rest).sum(axis=0, dtype=np.float64)
    noise = spectra.noise[band.shell]
    matrix, vector = matrix / noise, vector / noise
    x, y = observations.stretched
    return _solve(matrix, vector, np.stack([x, y]))


def _solve(matrix: Float64, vector: Float64, k: Float64) -> MagnificationStep:
    """E of displacement E k from the per-pixel systems matrix [3, s] and vector [2, s]."""
    whole = np.zeros((4, 4))
    right = np.zeros(4)
    blocks = np.array([[matrix[0], matrix[1]], [matrix[1], matrix[2]]])
    for i in (0, 1):
        for a in (0, 1):
            right[2 * i + a] = (vector[i] * k[a]).sum()
            for j in (0, 1):
                for b in (0, 1):
                    whole[2 * i + a, 2 * j + b] = (blocks[i, j] * k[a] * k[b]).sum()
    change = np.linalg.solve(whole, right).reshape(2, 2)
    # the misfit is |residual|^2 over a complex number's variance: the Hessian of the log likelihood is twice `whole`
    errors = np.sqrt(np.diag(np.linalg.inv(2 * whole))).reshape(2, 2)
    determinant = matrix[0] * matrix[2] - matrix[1] ** 2
    safe = np.where(determinant > 0, determinant, np.inf)
    observed = (
        np.stack([matrix[2] * vector[0] - matrix[1] * vector[1], matrix[0] * vector[1] - matrix[1] * vector[0]]) / safe
    )
    return MagnificationStep(np.eye(2) + change, errors, observed, change @ k, 0.5 * (matrix[0] + matrix[2]))


def transform_defocus(table: pd.DataFrame, rows: npt.NDArray[np.int64], increment: Float64) -> pd.DataFrame:
    """The table with the defoci of `rows` transformed by an increment M' of their magnification: D -> M'^-T D M'^-1."""
    u, v, angle = (table[f"rlnDefocus{name}"].to_numpy(dtype=float).copy() for name in ("U", "V", "Angle"))
    theta = np.deg2rad(angle[rows])
    mean, half = 0.5 * (u[rows] + v[rows]), 0.5 * (u[rows] - v[rows])
    d = np.empty((len(rows), 2, 2))
    d[:, 0, 0], d[:, 1, 1] = mean + half * np.cos(2 * theta), mean - half * np.cos(2 * theta)
    d[:, 0, 1] = d[:, 1, 0] = half * np.sin(2 * theta)
    inverse = np.linalg.inv(increment)
    new = inverse.T @ d @ inverse
    u[rows], v[rows], angle[rows] = from_matrix(new, old_angle=angle[rows])
    return table.assign(rlnDefocusU=u, rlnDefocusV=v, rlnDefocusAngle=angle)


def from_matrix(d: Float64, old_angle: Float64) -> tuple[Float64, Float64, Float64]:
    """Defocus U >= V and the angle (degrees) of symmetric matrices [m, 2, 2]; where there is no astigmatism, `old_angle`."""
    mean = 0.5 * (d[:, 0, 0] + d[:, 1, 1])
    cosine, sine = 0.5 * (d[:, 0, 0] - d[:, 1, 1]), d[:, 0, 1]
    half = np.hypot(cosine, sine)
    angle = np.where(half > 1e-6, np.degrees(0.5 * np.arctan2(sine, cosine)), old_angle)
    return mean + half, mean - half, angle % 180.0
