"""Defocus at a particle's place beyond the micrograph's plane: tiles' heights, what is expected between them, and the table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from noise_micrographs import STRONG, TITAN

from nephila.defocus import DefocusSettings, fit_defocus
from nephila.defocus.heights import expected_heights, height_table, heights_of
from nephila.defocus.settings import TileHeights
from nephila.defocus.tables import defocus_table
from nephila.io.tables import read_table, write_table
from nephila.particle_defocus import particle_defoci
from nephila.simulate.ring_noise import RingNoise, noise_micrograph
from nephila.spectra import tile_spectra

SIDE = 1400
PIXEL = 2.0


def tiles(height, error: float) -> TileHeights:
    """A grid of 7 x 7 tiles of 1,000 A, 500 A apart; `height` by place (x, y)."""
    y, x = (a.ravel() for a in np.meshgrid(*[500.0 * np.arange(1, 8)] * 2, indexing="ij"))
    return TileHeights(x, y, 1000.0, height(x, y), np.full(len(x), error))


def hill(x, y):
    """Smooth over 1,500 A, some 150 A high."""
    return 150 * np.sin(x / 900) * np.cos(y / 1100)


def test_without_information_the_plane_remains() -> None:
    noise = np.random.default_rng(3).standard_normal((5, 49)) * 300
    found = [tiles(lambda x, y, n=n: n, 300.0) for n in noise]
    place = np.random.default_rng(4).uniform(0, 4000, (50, 2))
    for heights in expected_heights(found, [place] * 5):
        assert np.sqrt(np.mean(heights**2)) < 25
    assert expected_heights([], []) == []


@pytest.mark.parametrize(("error", "most"), [(10.0, 20.0), (60.0, 50.0)])
def test_the_surface_comes_out_as_well_as_the_errors_allow(error: float, most: float) -> None:
    rng = np.random.default_rng(5)
    noisy = tiles(lambda x, y: hill(x, y) + error * rng.standard_normal(x.shape), error)
    place = rng.uniform(500, 3500, (200, 2))
    (found,) = expected_heights([noisy], [place])
    off = found - hill(*place.T)
    assert np.sqrt(np.mean(off**2)) < most < np.std(hill(*place.T))


def test_a_tile_of_large_error_counts_little() -> None:
    rng = np.random.default_rng(5)
    good = tiles(lambda x, y: hill(x, y) + 10 * rng.standard_normal(x.shape), 10.0)
    height, error = good.height.copy(), good.error.copy()
    height[24], error[24] = 2000.0, 3000.0
    place = np.array([[good.x[24], good.y[24]]])
    (plain,), (spoilt,) = (
        expected_heights([good], [place]),
        expected_heights([TileHeights(good.x, good.y, good.side, height, error)], [place]),
    )
    assert spoilt[0] == pytest.approx(plain[0], abs=30)


@pytest.fixture(scope="module")
def uneven():
    """Defocus 18,000 A on a saddle: 600 A more at the left and right, 600 A less at the top and bottom."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 2, indexing="ij")
    height = 600 * (x**2 - y**2)
    noise = RingNoise(STRONG["at_20"], STRONG["at_5"], PIXEL)
    image = noise_micrograph(noise, (SIDE, SIDE), TITAN, 18100, 17900, 30, seed=5, heights=height)
    spectrum = tile_spectra(image, PIXEL)
    return height, spectrum, fit_defocus(spectrum, TITAN, DefocusSettings(tilt=True, heights=True))


def test_particles_take_the_height_of_their_place(uneven, tmp_path) -> None:
    height, spectrum, fit = uneven
    write_table(tmp_path / "h.star", height_table(["a.mrc", "b.mrc"], [fit.heights, None]), block="heights")
    stored = read_table(tmp_path / "h.star", block="heights")
    assert list(heights_of(stored)) == ["a.mrc"]
    place = np.random.default_rng(6).integers(100, SIDE - 100, (300, 2))
    particles = pd.DataFrame(
        {
            "rlnMicrographName": np.where(np.arange(300) < 290, "a.mrc", "b.mrc"),
            "rlnCoordinateX": place[:, 1], "rlnCoordinateY": place[:, 0], "rlnDefocusU": 18100.0, "rlnDefocusV": 17900.0,
        }
    )  # fmt: skip
    ctf = defocus_table(["a.mrc", "b.mrc"], [spectrum, None], [fit, fit])
    by_plane = particle_defoci(particles, ctf, PIXEL)
    by_place = particle_defoci(particles, ctf, PIXEL, stored)
    true = 18100 + height[place[:, 0], place[:, 1]]
    rms = [float(np.sqrt(np.mean((t["rlnDefocusU"] - true)[:290] ** 2))) for t in (by_plane, by_place)]
    assert rms[1] < 0.5 * rms[0]
    pd.testing.assert_frame_equal(by_place[290:], by_plane[290:])
    np.testing.assert_allclose(by_place["rlnDefocusU"] - by_place["rlnDefocusV"], 200, atol=0.01)


def test_an_even_specimen_stays_on_its_plane() -> None:
    noise = RingNoise(STRONG["at_20"], STRONG["at_5"], PIXEL)
    image = noise_micrograph(noise, (1024, 1024), TITAN, 18100, 17900, 30, seed=6)
    fit = fit_defocus(tile_spectra(image, PIXEL), TITAN, DefocusSettings(tilt=True, heights=True))
    z = fit.heights.height / fit.heights.error
    assert 0.5 < np.sqrt(np.mean(z**2)) < 1.6
    place = np.random.default_rng(4).uniform(200, 1800, (50, 2))
    assert np.abs(expected_heights([fit.heights], [place])[0]).max() < 40
