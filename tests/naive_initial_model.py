"""Probabilities of poses by the plain formula, particle by particle."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nephila.initial_model.settings import BOX


def naive_expectation(
    particles: Any, projector: Any, grid: Any, band: int, noise: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[Any], ...]:
    """Numerator and denominator by rotation, mean residual power by sample, log evidence by particle."""
    count = particles.count(band)
    kx, ky = particles.samples.band.kx[:count], particles.samples.band.ky[:count]
    slices = projector.sample(grid.rotations, np.stack([kx, ky])).astype(np.complex128) / BOX
    numerator, denominator = np.zeros(slices.shape, np.complex128), np.zeros(slices.shape)
    residual, evidence = np.zeros(count), np.zeros(len(particles))
    for i in range(len(particles)):
        image, ctf = particles.values[i, :count], particles.factors[i, :count]
        logs = np.zeros((len(slices), len(grid.shifts)))
        moved = [image * np.exp(-2j * np.pi * (kx * x + ky * y) / BOX) for x, y in grid.shifts]
        for r, s in np.ndindex(*logs.shape):
            logs[r, s] = (
                grid.log_prior[s] + ((np.abs(image) ** 2 - np.abs(moved[s] - ctf * slices[r]) ** 2) / noise).sum()
            )
        evidence[i] = np.log(np.exp(logs - logs.max()).sum()) + logs.max()
        likely = np.exp(logs - evidence[i])
        for r, s in np.ndindex(*logs.shape):
            numerator[r] += likely[r, s] * ctf * moved[s] / noise
            denominator[r] += likely[r, s] * ctf**2 / noise
            residual += likely[r, s] * np.abs(moved[s] - ctf * slices[r]) ** 2 / len(particles)
    return numerator, denominator, residual, evidence
