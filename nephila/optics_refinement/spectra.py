"""How strong the prediction is in the images, and how strong the noise, shell by shell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.optics_refinement.observations import Observations

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spectra:
    """By shell of the images' box.

    scale : what the images hold of the predictions; a B factor and the references' own noise lower it
    noise : mean square of what remains, of the transforms
    """

    scale: Float64
    noise: Float64


def measure_spectra(observations: Observations, table: pd.DataFrame | None = None) -> Spectra:
    """Scale and noise of a group with its present optics. table : with newer defoci, if any"""
    shell = observations.band.shell
    size = int(shell.max()) + 1
    cross, power, total, count = (np.zeros(size) for _ in range(4))
    even = observations.even_phase()
    for batch in observations.batches(table):
        expected = np.sin(batch.phase - even) * batch.predictions
        cross += _by_shell(np.real(batch.images * np.conj(expected)), shell, size)
        power += _by_shell(np.abs(expected) ** 2, shell, size)
        total += _by_shell(np.abs(batch.images) ** 2, shell, size)
        count += len(batch.rows) * np.bincount(shell, minlength=size)
    scale = np.maximum(cross, 0) / np.maximum(power, 1e-30)
    noise = (total - scale * cross) / np.maximum(count, 1)
    return Spectra(scale, np.maximum(noise, 1e-6 * total.sum() / count.sum()))


def _by_shell(values: npt.NDArray[np.float32], shell: npt.NDArray[np.int64], size: int) -> Float64:
    summed: Float64 = np.bincount(shell, weights=values.sum(axis=0, dtype=np.float64), minlength=size).astype(
        np.float64
    )
    return summed
