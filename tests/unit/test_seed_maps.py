"""The seed's numbers measured on maps: particles of one true pixel size, a table and a reference that say others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nephila.backprojection import Backprojector
from nephila.ctf import Optics
from nephila.finishing import finish
from nephila.fourier import centred_rfft2
from nephila.geometry import euler_matrix
from nephila.ledger import build_ledger, expected_map
from nephila.model_scale import fit_scale
from nephila.optics_groups import OpticsGroup, ParticleSet
from nephila.partial_sum import PartialSum
from nephila.pixel_size import Calibration
from nephila.sampling import ImageSampling

N = 40
RNG = np.random.default_rng(3)
CENTRES = RNG.uniform(-9, 9, (30, 3))  # A
WEIGHTS = RNG.uniform(0.5, 1.5, 30)
SIGMA = 1.3  # A


def profiles(pixel: float, places: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * (((np.arange(N) - N // 2) * pixel - places[:, None]) / SIGMA) ** 2)


def model(pixel: float) -> np.ndarray:
    """The object on a grid of that true pixel size."""
    x, y, z = (profiles(pixel, CENTRES[:, axis]) for axis in range(3))
    return np.einsum("g,gz,gy,gx->zyx", WEIGHTS, z, y, x, optimize=True).astype(np.float32)


def sums(true: float, nominal: float, reference: float, views: int = 700, seed: int = 1) -> PartialSum:
    """Noise-free images of the true pixel size, added to the map as the workflow adds those of the nominal one."""
    rng = np.random.default_rng(seed)
    angles = (
        rng.uniform(-180, 180, views),
        np.degrees(np.arccos(rng.uniform(-1, 1, views))),
        rng.uniform(-180, 180, views),
    )
    matrices = euler_matrix(*angles)
    images = np.empty((views, N, N), np.float32)
    for i, matrix in enumerate(matrices):
        x, y = (profiles(true, place) for place in (CENTRES @ matrix.T).T[:2])
        images[i] = np.einsum("g,gy,gx->yx", WEIGHTS, y, x, optimize=True)
    own = ImageSampling(1, N, nominal, N, reference, Optics(300.0, 2.7, 0.1))
    collector = Backprojector(N, image_side=N, image_scale=own.scale)
    collector.insert(centred_rfft2(images), matrices)
    return collector.partial_sum()


def measured(total: PartialSum, header: float) -> float:
    """The true pixel size of a map whose header says `header`, A."""
    return fit_scale(finish(total, "C1", 1e-4), header, model, 3.0, 12.0).pixel_size


def test_a_relabelled_reference_makes_a_map_of_0_9604() -> None:
    """1.00 A in the table, 0.98 in truth: on a reference of 1.00 the map has 0.98; on the one relabelled 0.98 it has 0.9604."""
    group = OpticsGroup(1, "one", 300.0, 2.7, 0.1, pixel_size=1.0, image_size=N)
    for reference, wanted in ((1.0, 0.98), (0.98, 0.9604)):
        found = measured(sums(0.98, 1.0, reference), reference)
        assert found == pytest.approx(wanted, rel=0.002)
        assert expected_map(group, 0.98, reference) == pytest.approx(wanted, abs=5e-5)


def test_a_second_group_of_a_wrong_pixel_size_lies_in_the_map_at_0_947() -> None:
    """Groups of 1.00 and 0.95 A on a reference of 1.00; in truth 1.00 and 0.90."""
    second = sums(0.90, 0.95, 1.0, seed=2)
    assert measured(second, 1.0) == pytest.approx(0.947, rel=0.002)
    first = sums(1.0, 1.0, 1.0)
    assert measured(first, 1.0) == pytest.approx(1.0, rel=0.002)
    mixed = measured(first.add(second), 1.0)
    groups = tuple(
        OpticsGroup(i, name, 300.0, 2.7, 0.1, pixel_size=p) for i, name, p in ((1, "one", 1.0), (2, "two", 0.95))
    )
    known = {"one": Calibration(1.0, None, "given"), "two": Calibration(0.9, None, "given")}
    entries = build_ledger(ParticleSet(groups, pd.DataFrame({"rlnOpticsGroup": [1, 2]})), known).entries
    low, high = next((e.low, e.high) for e in entries if e.what == "map on the grid of the reference")
    assert low == pytest.approx(0.947, abs=5e-4) and high == 1.0
    assert low < mixed < high
