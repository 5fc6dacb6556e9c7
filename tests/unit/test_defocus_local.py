"""Defocus across a micrograph: the plane of a tilted specimen, and what particles take from it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from noise_micrographs import STRONG, TITAN, noise_micrograph

from nephila.defocus import DefocusSettings, fit_defocus
from nephila.defocus.tables import defocus_table, screen_table, screening_settings
from nephila.particle_defocus import particle_defoci
from nephila.simulate.ring_noise import RingNoise, fisher_bound
from nephila.spectra import tile_spectra

SHAPE = (1500, 1700)


@pytest.fixture(scope="module")
def tilted():
    """Tilted by 25 degrees; fitted as level and as tilted."""
    slope = (0.40, -0.24)
    image = noise_micrograph(SHAPE, 2.0, TITAN, 18300, 17700, 30, seed=3, tilt=slope, **STRONG)
    spectrum = tile_spectra(image, 2.0)
    return slope, spectrum, fit_defocus(spectrum, TITAN), fit_defocus(spectrum, TITAN, DefocusSettings(tilt=True))


def test_the_tilt_is_found(tilted):
    slope, _, level, fit = tilted
    plane = fit.plane
    assert level.plane is None
    assert plane.slope_x == pytest.approx(slope[0], abs=4 * plane.error)
    assert plane.slope_y == pytest.approx(slope[1], abs=4 * plane.error)
    assert plane.error < 0.02 and plane.tilt_deg == pytest.approx(25.0, abs=2.0)
    assert abs(fit.defocus - 18000) < 4 * fit.mean_error < 120
    assert fit.mean_error < level.mean_error and fit.resolution < level.resolution
    assert (plane.centre_x, plane.centre_y) == pytest.approx([SHAPE[1] - 1, SHAPE[0] - 1], abs=2.0)  # A: the middle


def test_a_level_specimen_stays_level():
    image = noise_micrograph((1024, 1024), 2.0, TITAN, 18300, 17700, 30, seed=4, **STRONG)
    fit = fit_defocus(tile_spectra(image, 2.0), TITAN, DefocusSettings(tilt=True))
    assert fit.plane.slope_x == fit.plane.slope_y == 0 and 0 <= fit.plane.gain < 9.2
    narrow = fit_defocus(tile_spectra(image[:600], 2.0), TITAN, DefocusSettings(tilt=True))
    assert narrow.plane.slope_x == 0 and not narrow.failed


def test_particles_have_the_defocus_of_their_place(tilted):
    slope, spectrum, _, fit = tilted
    nothing = fit_defocus(tile_spectra(np.ones((512, 512)), 2.0), TITAN, DefocusSettings(tilt=True))
    table = pd.concat(
        [
            defocus_table(["a.mrc", "b.mrc"], [spectrum, None], [fit, nothing]),
            defocus_table(["c.mrc"], [None], [nothing]),
        ],
        ignore_index=True,
    )
    table = screen_table(table, screening_settings({"min_gap": 0.0}))
    assert table["nphTilt"].tolist() == pytest.approx([fit.plane.tilt_deg, 0, 0])
    particles = pd.DataFrame(
        {
            "rlnMicrographName": "a.mrc",
            "rlnCoordinateX": [849.5, 0.0, 1699.0],
            "rlnCoordinateY": [749.5, 749.5, 0.0],
            "rlnDefocusU": 18300.0,
            "rlnDefocusV": 17700.0,
        }
    )
    moved = particle_defoci(particles, table, 2.0)
    true = 18300 + np.array([0, -1699 * slope[0], 1699 * slope[0] - 1499 * slope[1]])
    np.testing.assert_allclose(moved["rlnDefocusU"], true, atol=90)
    np.testing.assert_allclose(moved["rlnDefocusU"] - moved["rlnDefocusV"], 600, atol=0.01)
    pd.testing.assert_frame_equal(particle_defoci(particles, table.drop(columns="nphDefocusSlopeX"), 2.0), particles)
    bare = particles.drop(columns=["rlnCoordinateX", "rlnCoordinateY"])
    pd.testing.assert_frame_equal(particle_defoci(bare, table, 2.0), bare)


def test_the_bound_is_the_curvature_of_the_expected_likelihood():
    """By finite differences of the mean log likelihood on the image's own Fourier grid."""
    noise, shape = RingNoise(0.5, 0.06, 2.0), (512, 512)
    ky, kx = np.fft.fftfreq(512, 2.0)[:, None], np.fft.fftfreq(512, 2.0)[None, :]
    k2 = kx**2 + ky**2
    safe = np.where(k2 == 0, 1, k2)
    cos2, sin2 = (kx**2 - ky**2) / safe, 2 * kx * ky / safe
    inside = k2 < 0.0625

    def power(change):
        turn = np.deg2rad(60.0)
        local = 15000 + change[0] + (300 * np.cos(turn) + change[1]) * cos2 + (300 * np.sin(turn) + change[2]) * sin2
        phase = TITAN.k2_factor * local * k2 - TITAN.k4_factor * k2**2 + TITAN.constant_phase
        return (noise.background(k2) * (1 + noise.rings(k2) * np.sin(phase) ** 2))[inside]

    slopes = np.stack([(np.log(power(s)) - np.log(power(-s))) / 2 for s in np.eye(3)])
    information = 0.5 * slopes @ slopes.T
    expected = np.sqrt(np.diag(np.linalg.inv(information)))
    np.testing.assert_allclose(fisher_bound(noise, shape, TITAN, 15300, 14700, 30), expected, rtol=0.02)
