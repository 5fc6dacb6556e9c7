"""Resolution against particles: the B factor of an exact line, nested subsets, and a set that is too small."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import nephila.resolution_by_particles as module
from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.figures.validation import plot_local_resolution, plot_resolution_by_particles
from nephila.partial_sum import GridShape, PartialSum
from nephila.resolution_by_particles import fit_b_factor, resolution_by_particles

OPTICS = Optics(300, 2.7, 0.1)
SETTINGS = SimpleNamespace(
    box=32, pixel_size=4.0, symmetry="C1", mask_file=None, mask_shape="sphere", mask_diameter=88.0, mask_edge=12.0, seed=1,
    ctf="group",
)  # fmt: skip


def test_b_factor_of_a_line():
    resolution = np.array([12.0, 10.0, 8.5, 7.5, 4.1])
    particles = np.exp(3.0 + 150.0 / 2 / resolution**2)
    fit = fit_b_factor(particles, resolution, nyquist=4.0)
    assert fit is not None
    assert fit.b_factor == pytest.approx(150.0, rel=1e-6) and fit.intercept == pytest.approx(3.0, abs=1e-6)
    assert fit.error == pytest.approx(0.0, abs=1e-4)
    assert fit_b_factor([100], [9.0], 4.0) is None
    assert fit_b_factor([100, 200], [4.0, 4.0], 4.0) is None


def test_subsets_are_nested_and_each_particle_is_added_once(monkeypatch):
    seen = []

    def backproject(table, pixel_size, box, optics, mode, threads):
        seen.append(table.index.to_numpy())
        return PartialSum.empty(GridShape.of(box, 2.0, None))

    curve = np.linspace(1, 0, 17)
    monkeypatch.setattr(module, "backproject_table", backproject)
    monkeypatch.setattr(module, "finish", lambda *_, **__: np.zeros((32, 32, 32), dtype=np.float32))
    monkeypatch.setattr(module, "masked_fsc", lambda *_, **__: type("Curves", (), {"corrected": curve}))
    table = pd.DataFrame({"rlnRandomSubset": np.tile([1, 2], 203)})
    result = resolution_by_particles(table, SETTINGS, OPTICS)
    assert result["nphParticles"].tolist() == [50, 100, 202, 406]
    assert sorted(np.concatenate(seen)) == list(range(406))
    with pytest.raises(InputError, match="too few for a curve"):
        resolution_by_particles(table[:150], SETTINGS, OPTICS)


def test_figures(tmp_path):
    table = pd.DataFrame({"nphParticles": [100, 200, 400, 800], "nphResolution": [14.0, 11.5, 9.8, 8.9]})
    plot_resolution_by_particles(table, fit_b_factor(*table.to_numpy().T, 4.0), tmp_path / "particles.png")
    place = np.arange(24) - 12
    radius = np.sqrt(place[:, None, None] ** 2 + place[:, None] ** 2 + place**2)
    density = np.exp(-(radius**2) / 60).astype(np.float32)
    plot_local_resolution(
        5 + radius / 4, density, (radius < 9).astype(np.float32), tmp_path / "local.png", pixel_size=3.0
    )
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("particles.png", "local.png"))
    with pytest.raises(InputError, match="nothing to draw"):
        plot_resolution_by_particles(table[:0], None, tmp_path / "none.png")
