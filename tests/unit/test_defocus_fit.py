"""CTF fits against known truth, on simulated noise and on real micrographs; import of other programs' results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import naive_ctf_scan as naive
import numpy as np
import pandas as pd
import pytest
from noise_micrographs import STRONG, TITAN, WEAK, noise_micrograph

from nephila.ctf import Optics, ctf_2d
from nephila.defocus import DefocusSettings, fit_defocus, fit_micrograph, fit_profile, pool_strength
from nephila.defocus.diagnostics import ctf_figure, powchk, profile_curves
from nephila.defocus.given import check_given
from nephila.defocus.importers import imported_fit, read_ctffind, read_gctf_star, read_results
from nephila.defocus.pooling import pool_tables, strength_of, strength_table
from nephila.defocus.tables import defocus_table, ring_table
from nephila.errors import InputError
from nephila.kernels.ctf_scan import scan_table
from nephila.spectra import tile_spectra

REAL = Path(__file__).parents[3] / "shared/data/apoferritin"


def angle_between(a, b):
    return abs((a - b + 90) % 180 - 90)


@pytest.mark.parametrize(
    ("u", "v", "angle", "strength", "mean_limit", "astigmatism_limit", "angle_limit"),
    [
        (6500, 5700, 75, STRONG, 40, 100, 4),
        (20500, 19500, -30, STRONG, 40, 100, 4),
        (40300, 39700, 10, STRONG, 50, 120, 6),
        (21000, 20000, 60, WEAK, 170, 400, 15),
    ],
)
def test_defocus_astigmatism_and_angle_are_found(u, v, angle, strength, mean_limit, astigmatism_limit, angle_limit):
    image = noise_micrograph((2048, 2048), 2.0, TITAN, u, v, angle, seed=round(u), **strength)
    spectrum, fit = fit_micrograph(image, 2.0, TITAN)
    assert not fit.failed and fit.reason == "none"
    assert abs(fit.defocus - 0.5 * (u + v)) < min(mean_limit, 4 * fit.mean_error)
    assert abs(fit.astigmatism - (u - v)) < astigmatism_limit
    assert angle_between(fit.angle_deg, angle) < angle_limit
    assert fit.defocus_u >= fit.defocus_v and -90 <= fit.angle_deg < 90
    assert fit.gap > 50 and fit.figure_of_merit > 0.85
    curves = profile_curves(fit)
    assert np.corrcoef(curves["measured"], curves["fitted"])[0, 1] > 0.8
    picture, edge = powchk(spectrum, fit)
    assert picture.shape[0] == picture.shape[1] and edge == pytest.approx(5.0, rel=0.02)
    flipped = picture[::-1, ::-1]
    rings = (np.abs(picture) > 0) & (flipped != 0)
    left = np.arange(picture.shape[1])[None, :] < picture.shape[1] // 2
    assert (
        np.corrcoef(picture[rings & left], flipped[rings & left])[0, 1] > 0.1
    )  # the fitted half continues the measured one


def test_the_angle_is_that_of_the_ctf_of_reconstruction():
    """Rings fitted to |CTF|^2 of `ctf_2d` itself, so that the array's directions cannot be mistaken for one another."""
    optics = Optics(200, 2.0, 0.1)
    rng = np.random.default_rng(0)
    noise = np.fft.rfft2(rng.standard_normal((1024, 1024)))
    image = np.fft.irfft2(noise * ctf_2d(1024, 2.0, 15000, 13500, 35.0, optics), s=(1024, 1024))
    image += 0.5 * rng.standard_normal(image.shape)
    fit = fit_defocus(tile_spectra(image, 2.0), optics)
    assert angle_between(fit.angle_deg, 35.0) < 2
    assert fit.defocus_u == pytest.approx(15000, abs=60) and fit.defocus_v == pytest.approx(13500, abs=60)


def test_standard_errors_are_those_of_repeated_micrographs():
    fits = []
    for seed in range(24):
        image = noise_micrograph((1024, 1024), 2.0, TITAN, 18300, 17700, 20, seed=100 + seed, **STRONG)
        fits.append(fit_defocus(tile_spectra(image, 2.0), TITAN))
    z = np.array([(f.defocus - 18000) / f.mean_error for f in fits])
    assert 0.55 < np.sqrt(np.mean(z**2)) < 1.4
    assert abs(z.mean()) < 3 / np.sqrt(len(z))


@pytest.mark.parametrize(("cs", "kv", "pixel_size"), [(0.0, 300, 1.5), (2.0, 120, 2.5), (0.01, 200, 1.0)])
def test_other_microscopes(cs, kv, pixel_size):
    optics = Optics(kv, cs, 0.07)
    image = noise_micrograph((1200, 1240), pixel_size, optics, 15200, 14800, -60, seed=3, **STRONG)
    _, fit = fit_micrograph(image, pixel_size, optics)
    assert abs(fit.defocus - 15000) < 80 and not fit.failed


def test_a_data_set_shares_the_strength_of_its_rings():
    defoci = (9000, 15000, 21000)
    spectra = [tile_spectra(noise_micrograph((1024, 1024), 2.0, TITAN, z, z, seed=z, **STRONG), 2.0) for z in defoci]
    fits = [fit_defocus(spectrum, TITAN) for spectrum in spectra]
    assert pool_strength(fits[:2]) is None
    shared = pool_strength(fits)
    assert shared.at(np.array([1 / 20.0, 1 / 5.0])) == pytest.approx([0.75, 0.09], rel=0.35)
    for z, spectrum in zip(defoci, spectra, strict=True):
        assert abs(fit_defocus(spectrum, TITAN, None, shared).defocus - z) < 90
    # the same by way of tables, and fits in doubt do not count
    names = ["a.mrc", "b.mrc", "c.mrc"]
    rings = pd.concat([ring_table(n, f) for n, f in zip(names, fits, strict=True)])
    table = defocus_table(names, spectra, fits)
    again = strength_of(strength_table(pool_tables(table, rings)))
    s = np.linspace(0.04, 0.24, 9)
    np.testing.assert_allclose(again.at(s), shared.at(s), rtol=1e-5)
    doubtful = table.assign(nphScoreGap=[100.0, 5.0, 100.0])
    assert pool_tables(doubtful, rings) is None and strength_of(strength_table(None)) is None


def test_phase_shift_is_fitted_on_request():
    plate = dataclasses.replace(TITAN, phase_shift_deg=70.0)
    spectrum = tile_spectra(noise_micrograph((1536, 1536), 2.0, plate, 12000, 11600, 0, seed=5, **STRONG), 2.0)
    fit = fit_defocus(spectrum, TITAN, DefocusSettings(phase_shift=True))
    assert abs(fit.phase_shift_deg - 70) < 3.5 * fit.phase_shift_error < 14
    assert abs(fit.defocus - 11800) < 3.5 * fit.mean_error < 200
    known = fit_defocus(spectrum, plate)
    assert known.phase_shift_deg == 70.0 and abs(known.defocus - 11800) < 60


def test_given_values_are_held_against_the_rings():
    spectrum = tile_spectra(noise_micrograph((1536, 1536), 2.0, TITAN, 15300, 14700, 40, seed=12, **STRONG), 2.0)
    own = fit_defocus(spectrum, TITAN)
    true = check_given(spectrum, imported_fit(15300, 14700, 40), TITAN)
    assert (true.defocus_u, true.defocus_v, true.angle_deg) == (15300, 14700, 40) and true.reason == "none"
    assert own.score - 15 < true.score <= own.score + 1e-6 and true.gap == pytest.approx(own.gap, abs=40)
    assert true.resolution == pytest.approx(own.resolution, rel=0.15) and true.figure_of_merit > 0.95
    assert np.isnan(true.mean_error)
    wrong = check_given(spectrum, imported_fit(25000, 24600, 40), TITAN)
    assert wrong.gap < -1000 and wrong.runner_up == pytest.approx(15000, abs=60)
    assert "no rings at the given defocus" in wrong.reason and wrong.defocus == 24800
    shifted = check_given(spectrum, imported_fit(15300, 14700, 40, phase_shift_deg=90), TITAN)
    assert shifted.phase_shift_deg == 90 and shifted.score < 0.5 * true.score


@pytest.mark.parametrize(("optics", "ratio"), [(TITAN, 1.0), (TITAN, 1.1), (Optics(300, 0.0, 0.1), 1.0)])
def test_the_rings_tell_the_spherical_aberration(optics, ratio):
    """A pixel size that is 10 % too large bends the rings as Cs * 1.1^4 would."""
    fits = []
    for seed in range(4):
        z = 9000 + 5000 * seed
        image = noise_micrograph((1024, 1024), 1.5, optics, z, z, seed=40 + seed, at_20=0.5, at_5=0.2)
        fits.append(fit_defocus(tile_spectra(image, 1.5 * ratio), optics))
    weights = np.array([f.apparent_cs_error for f in fits]) ** -2.0
    found = weights @ np.array([f.apparent_cs for f in fits]) / weights.sum()
    assert abs(found - optics.cs_mm * ratio**4) < 3.5 * weights.sum() ** -0.5 < 0.9


def test_the_profile_alone_gives_the_mean_defocus():
    spectrum = tile_spectra(noise_micrograph((2048, 2048), 2.0, TITAN, 15100, 14900, 0, seed=6, **STRONG), 2.0)
    result = fit_profile(spectrum, TITAN)
    assert abs(result.fit.defocus - 15000) < 60 and result.fit.astigmatism == 0
    assert 1 / 6 < result.cutoff < 0.25
    assert len(result.frequency) == len(result.background) == len(result.subtracted) == len(result.envelope)
    assert np.all(result.envelope >= 0)
    without = fit_defocus(spectrum, TITAN, DefocusSettings(astigmatism=False))
    assert without.astigmatism == 0 and abs(without.defocus - 15000) < 60


def test_same_spectrum_gives_the_same_fit_whatever_the_scale():
    image = noise_micrograph((1024, 1024), 2.0, TITAN, 12000, 11500, 0, seed=7, **STRONG)
    first, again, scaled = (fit_micrograph(i, 2.0, TITAN)[1] for i in (image, image, 1000 - 50 * image))
    assert first.defocus_u == again.defocus_u and first.score == again.score
    assert scaled.defocus_u == pytest.approx(first.defocus_u, abs=0.5)


@pytest.mark.parametrize(
    ("image", "pixel_size", "reason"),
    [
        (np.random.default_rng(0).standard_normal((1024, 1024)), 2.0, "no rings"),
        (np.full((1024, 1024), 3.0), 2.0, "constant"),
        (np.random.default_rng(0).standard_normal((64, 64)), 2.0, "64 x 64 px"),
        (np.random.default_rng(0).standard_normal((1024, 1024)), 60.0, "pixel size"),
        (np.random.default_rng(0).standard_normal((1024, 1024)), 0.0, "pixel size"),
        (np.full((1024, 1024), np.nan), 2.0, "NaN"),
    ],
)
def test_what_cannot_be_fitted_has_a_reason(image, pixel_size, reason, tmp_path):
    spectrum, fit = fit_micrograph(image, pixel_size, TITAN)
    assert fit.failed and reason in fit.reason
    assert np.isnan(fit.defocus_u)
    if spectrum is not None:
        assert fit_profile(spectrum, TITAN).fit.failed
        ctf_figure(spectrum, fit, tmp_path / "x.png", "x")
        assert (tmp_path / "x.png").stat().st_size > 1000


def test_a_damaged_micrograph_is_fitted_all_the_same():
    image = noise_micrograph((2048, 2048), 2.0, TITAN, 20200, 19800, 0, seed=9, **STRONG)
    image = (image + 50) * (1 + 0.05 * np.repeat([0, 1], 1024)[None, :])
    image[:, 1000:1003] = 0
    image[np.random.default_rng(1).integers(0, 2048, 300), np.random.default_rng(2).integers(0, 2048, 300)] = 1e5
    image += 0.2 * np.random.default_rng(3).standard_normal((1, 2048))
    _, fit = fit_micrograph(image, 2.0, TITAN)
    assert abs(fit.defocus - 20000) < 50 and not fit.failed


def test_the_scan_equals_its_naive_form():
    rng = np.random.default_rng(4)
    signal = rng.standard_normal((6, 30, 3)).astype(np.float32)
    norm = rng.uniform(0.5, 1, (30, 3)).astype(np.float32)
    offsets = rng.integers(-5, 6, (7, 6)).astype(np.int32)
    centres = np.arange(5, 25, dtype=np.int32)
    np.testing.assert_allclose(
        scan_table(signal, norm, offsets, centres), naive.scan_table(signal, norm, offsets, centres), rtol=1e-4
    )


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="um"):
        DefocusSettings(defocus_min=0.5, defocus_max=3)
    with pytest.raises(InputError, match="larger"):
        DefocusSettings(resolution_low=3, resolution_high=30)


@pytest.mark.skipif(not REAL.exists(), reason="real micrographs are not here")
def test_real_micrographs_are_fitted_and_the_bad_one_is_not():
    from nephila.io.mrc import read_image

    optics = Optics(300, 0.0, 0.07)
    expected = {"May08_03.13.02": (22380, 21373), "May08_05.59.52": (23888, 23622), "May08_06.09.02": None}
    for name, defocus in expected.items():
        _, fit = fit_micrograph(*read_image(REAL / f"{name}.mrc"), optics)
        if defocus is None:
            assert fit.failed and "no rings" in fit.reason
        else:
            assert fit.defocus_u == pytest.approx(defocus[0], abs=100) and fit.defocus_v == pytest.approx(
                defocus[1], abs=100
            )
            assert angle_between(fit.angle_deg, -55) < 10 and fit.resolution < 5.5


CTFFIND = """# Output from CTFFind version 4.1.14
# Columns: #1 - micrograph number; #2 - defocus 1; ...
1.000000 15000.000000 16000.000000 30.000000 0.500000 0.150000 4.200000
"""
STAR = """
data_

loop_
_rlnMicrographName #1
_rlnDefocusU #2
_rlnDefocusV #3
_rlnDefocusAngle #4
_rlnCtfFigureOfMerit #5
_rlnFinalResolution #6
Micrographs/a.mrc 16000.0 15000.0 120.0 0.2 4.0
Micrographs/b.mrc 0.0 0.0 0.0 0.0 10.0
"""


def test_import_of_ctffind_and_gctf(tmp_path):
    (tmp_path / "a.txt").write_text(CTFFIND)
    fit = read_ctffind(tmp_path / "a.txt")[0]
    assert (fit.defocus_u, fit.defocus_v, fit.angle_deg) == (
        16000,
        15000,
        -60,
    )  # larger first: the angle turns by 90 degrees
    assert fit.phase_shift_deg == pytest.approx(np.degrees(0.5)) and fit.resolution == 4.2
    found, missing = read_results(["x/a.mrc", "x/c.mrc"], str(tmp_path / "*.txt"))
    assert not found.failed and missing.failed and "c.txt" in missing.reason
    (tmp_path / "two.txt").write_text(CTFFIND + CTFFIND.splitlines()[-1])
    with pytest.raises(InputError, match=r"two\.txt: holds results of 2 micrographs"):
        read_results(["two.mrc"], str(tmp_path / "*.txt"))
    (tmp_path / "all.star").write_text(STAR)
    names, fits = read_gctf_star(tmp_path / "all.star", ["m/b.mrc", "m/a.tif", "m/z.mrc"])
    assert names == ["m/b.mrc", "m/a.tif", "m/z.mrc"]
    assert fits[0].failed and "not underfocus" in fits[0].reason
    assert (fits[1].defocus_u, fits[1].angle_deg, fits[1].resolution) == (16000, -60, 4.0)
    assert fits[2].failed
    assert imported_fit(1.5, 1.4, 0).failed  # um


@pytest.mark.parametrize("text", ["", "# only a comment\n", "1 2 3\n", "a b c d e f g\n"])
def test_a_bad_ctffind_file_is_named(tmp_path, text):
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(InputError, match="bad.txt"):
        read_ctffind(tmp_path / "bad.txt")


def test_a_star_file_without_a_column_is_named(tmp_path):
    (tmp_path / "bad.star").write_text(STAR.replace("_rlnDefocusV #3", "_rlnOther #3"))
    with pytest.raises(InputError, match=r"bad.star.*rlnDefocusV"):
        read_gctf_star(tmp_path / "bad.star")


def test_the_range_follows_the_rings_where_the_data_choose_it():
    from nephila.config import parse_config
    from nephila.defocus.tables import defocus_settings

    settings = defocus_settings(parse_config({"ctf": {"max_resolution": "auto"}}).ctf.model_dump())
    assert settings.resolution_high is None
    image = noise_micrograph((1024, 1024), 1.5, TITAN, 20200, 19800, 30, seed=3, **WEAK)
    spectrum = tile_spectra(image, 1.5)
    own, fixed = (fit_defocus(spectrum, TITAN, s) for s in (settings, DefocusSettings()))
    assert fixed.profile is not None and own.profile is not None and fixed.resolution > 4
    assert 1 / own.profile.frequency[-1] == pytest.approx(fixed.resolution / 1.5, rel=0.03)
    assert 1 / fixed.profile.frequency[-1] == pytest.approx(3.5, rel=0.03)
    assert abs(own.defocus - 20000) < 4 * own.mean_error
    assert own.score == fixed.score
