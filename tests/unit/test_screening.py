"""Screening: each reason appears when, and only when, there is cause."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from noise_micrographs import STRONG, TITAN, WEAK, noise_micrograph

from nephila.defocus import ScreeningSettings, fit_micrograph, micrograph_table, screen_micrograph
from nephila.defocus.screening import ice_ring
from nephila.defocus.tables import common_trouble
from nephila.errors import InputError
from nephila.spectra import tile_spectra


@pytest.fixture(scope="module")
def good():
    image = noise_micrograph((1536, 1536), 1.5, TITAN, 20200, 19800, 30, seed=1, **STRONG)
    return fit_micrograph(image, 1.5, TITAN)


def test_a_good_micrograph_is_kept_for_reason_none(good):
    result = screen_micrograph(*good)
    assert result.keep and result.reason == "none"
    assert result.ice == pytest.approx(1, abs=0.15)


def test_weak_rings_are_no_reason_to_drop():
    image = noise_micrograph((2048, 2048), 2.0, TITAN, 15100, 14900, 0, seed=4, **WEAK)
    assert screen_micrograph(*fit_micrograph(image, 2.0, TITAN)).keep


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gap": 3.0, "runner_up": 9000.0}, "9000 A"),
        ({"resolution": 14.0}, "rings only to 14.0 A"),
        ({"mean_error": 900.0}, "uncertain"),
        ({"defocus_u": 25000.0, "defocus_v": 20000.0}, "astigmatism 5000"),
        ({"anisotropy": 9.0}, "drift"),
        ({"defocus_u": 60000.0, "defocus_v": 60000.0}, "above 50000"),
        ({"defocus_u": 3000.0, "defocus_v": 3000.0}, "below 5000"),
    ],
)
def test_each_doubt_has_its_words(good, change, words):
    spectrum, fit = good
    settings = ScreeningSettings(defocus_min=5000, defocus_max=50000)
    result = screen_micrograph(spectrum, dataclasses.replace(fit, **change), settings)
    assert not result.keep and words in result.reason
    off = ScreeningSettings(*([0.0] * len(dataclasses.fields(ScreeningSettings))))
    assert screen_micrograph(spectrum, dataclasses.replace(fit, **change), off).keep


def test_drift_is_seen_as_rings_that_fade_in_one_direction(good):
    image = noise_micrograph((1536, 1536), 1.5, TITAN, 20200, 19800, 30, seed=1, drift=12.0, **STRONG)
    _, fit = fit_micrograph(image, 1.5, TITAN)
    assert fit.anisotropy > 2 > 1.3 > good[1].anisotropy
    assert abs(fit.defocus - 20000) < 3.5 * fit.mean_error < 1000


def test_ice_ring_is_measured():
    rng = np.random.default_rng(0)
    k = np.hypot(np.fft.fftfreq(1024, 1.2)[:, None], np.fft.rfftfreq(1024, 1.2)[None, :])
    ft = np.fft.rfft2(rng.standard_normal((1024, 1024)))
    icy = np.fft.irfft2(ft * np.sqrt(1 + 1.5 * np.exp(-(((k - 1 / 3.7) / 0.004) ** 2))))
    assert ice_ring(tile_spectra(icy, 1.2)) > 1.7
    assert ice_ring(tile_spectra(np.fft.irfft2(ft), 1.2)) == pytest.approx(1, abs=0.12)
    assert np.isnan(ice_ring(tile_spectra(icy, 2.0)))


def test_contamination_and_failure_are_named():
    image = noise_micrograph((1536, 1536), 1.5, TITAN, 20200, 19800, 30, seed=2, **STRONG)
    image[:, :600] -= 2 * image.std()
    spectrum, fit = fit_micrograph(image, 1.5, TITAN)
    result = screen_micrograph(spectrum, fit)
    assert not result.keep and "contamination" in result.reason
    spectrum, fit = fit_micrograph(np.ones((512, 512)), 1.5, TITAN)
    failed = screen_micrograph(spectrum, fit)
    assert not failed.keep and "constant" in failed.reason
    tiny = screen_micrograph(*fit_micrograph(np.ones((8, 8)), 1.5, TITAN))
    assert not tiny.keep and "8 x 8" in tiny.reason


def test_the_table_has_a_row_for_each_micrograph(good):
    failed = fit_micrograph(np.ones((512, 512)), 1.5, TITAN)
    pairs = [good, failed]
    table = micrograph_table(["a.mrc", "b.mrc"], [f for _, f in pairs], [screen_micrograph(s, f) for s, f in pairs])
    assert list(table.nphKeep) == [1, 0] and table.nphReason[0] == "none" and "constant" in table.nphReason[1]
    assert table.rlnDefocusU[0] == pytest.approx(20200, abs=100) and table.rlnDefocusU[1] == 0
    assert not table.isna().any().any()
    with pytest.raises(InputError, match="one of each"):
        micrograph_table(["a"], [], [])


def defocus_rows(number=5, **columns):
    """A screened table of good micrographs with some columns changed."""
    values = {
        "rlnMicrographName": [f"m{i}.mrc" for i in range(number)],
        "rlnDefocusU": 15000.0,
        "rlnPhaseShift": 0.0,
        "nphApparentCs": 2.7,
        "nphApparentCsError": 0.4,
        "nphKeep": 1,
        "nphReason": "none",
    }
    return pd.DataFrame(values | columns)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, None),
        (
            {"nphReason": ["no rings: score 9 below 36"] * 3 + ["none"] * 2, "nphKeep": 0},
            "3 of 5 micrographs show no rings",
        ),
        ({"nphReason": ["no rings: score 9 below 36"] * 2 + ["none"] * 3}, None),
        ({"nphApparentCs": 3.95}, "1.10"),
        ({"nphApparentCs": 3.95, "nphApparentCsError": 2.0}, None),
        ({"nphApparentCs": 3.95, "nphApparentCsError": 0.0}, None),
        ({"nphApparentCs": 0.0}, "spherical aberration of 0.00"),
        ({"rlnPhaseShift": [88.0, 92.0, 90.0, 75.0, 120.0]}, "88 degrees"),
        ({"rlnPhaseShift": 176.0}, None),
    ],
)
def test_what_ails_a_whole_data_set_is_said_once(columns, words):
    remarks = common_trouble(defocus_rows(**columns), TITAN)
    if words is None:
        assert remarks == []
        return
    assert len(remarks) == 1
    if words == "1.10":
        assert "input.pixel_size (then 0.909 times it fits)" in remarks[0] and "3.95 +- 0.18 mm" in remarks[0]
    else:
        assert words in remarks[0]


def test_an_import_without_a_single_result_ends_the_run():
    with pytest.raises(InputError, match="none of the 5 micrographs has a result.*all.star"):
        common_trouble(defocus_rows(nphReason="no CTF result: all.star has no row for this micrograph"), TITAN)


@pytest.mark.parametrize(
    ("shape", "damage", "words"),
    [
        ((128, 160), None, None),
        ((1024, 1024), "dead columns", "dead or saturated"),
        ((1024, 1024), "stripes", None),
    ],
)
def test_rough_micrographs_have_a_fit_or_a_reason(shape, damage, words):
    image = noise_micrograph(shape, 2.0, TITAN, 15200, 14800, 30, seed=8, **STRONG)
    if damage == "dead columns":
        image[:, : int(0.6 * shape[1])] = 0
    if damage == "stripes":
        image *= 1 + 0.1 * np.random.default_rng(0).standard_normal((1, shape[1])).astype(np.float32)
    spectrum, fit = fit_micrograph(image, 2.0, TITAN)
    result = screen_micrograph(spectrum, fit)
    if words:
        assert not result.keep and words in result.reason
    else:
        assert abs(fit.defocus - 15000) < 4 * fit.mean_error if result.keep else len(result.reason) > 10
    assert len(micrograph_table(["x.mrc"], [fit], [result])) == 1


def test_an_ice_ring_and_dead_pixels_are_reasons_to_drop(good):
    """At the limits of the configuration, and not where these are off."""
    rng = np.random.default_rng(4)
    image = noise_micrograph((1536, 1536), 1.2, TITAN, 20200, 19800, 30, seed=1, **STRONG)
    k = np.hypot(np.fft.fftfreq(1536, 1.2)[:, None], np.fft.rfftfreq(1536, 1.2)[None, :])
    icy = np.fft.irfft2(np.fft.rfft2(image) * np.sqrt(1 + 3 * np.exp(-(((k - 1 / 3.7) / 0.004) ** 2))))
    fitted = fit_micrograph(icy, 1.2, TITAN)
    result = screen_micrograph(*fitted)
    words = f"ice ring {result.ice:.1f} times its surroundings"
    assert not result.keep and result.ice > 1.5 and words in result.reason
    assert words not in screen_micrograph(*fitted, ScreeningSettings(max_ice=0.0)).reason

    hurt = noise_micrograph((1536, 1536), 1.5, TITAN, 20200, 19800, 30, seed=1, **STRONG)
    hurt[:, rng.permutation(1536)[:400]] = 0  # a quarter of the columns
    spectrum, fit = fit_micrograph(hurt, 1.5, TITAN)
    result = screen_micrograph(spectrum, fit)
    assert not fit.failed and result.replaced == pytest.approx(400 / 1536, abs=0.01)
    assert not result.keep and "26 % of the pixels are dead or hot" in result.reason
    assert "dead or hot" not in screen_micrograph(spectrum, fit, ScreeningSettings(max_replaced=0.3)).reason
    assert screen_micrograph(*good).keep


def test_the_error_of_a_fitted_phase_shift_stands_in_the_table(good):
    spectrum, fit = good
    shifted = dataclasses.replace(fit, phase_shift_deg=80.0, phase_shift_error=3.5)
    table = micrograph_table(["a", "b"], [shifted, fit], [screen_micrograph(spectrum, f) for f in (shifted, fit)])
    assert table["nphPhaseShiftError"].tolist() == [3.5, 0.0]


def test_a_wrong_voltage_is_told_by_four_micrographs_with_strong_rings():
    """200 instead of 300 kV: Cs would have to be 1.3 instead of 2.7 mm."""
    wrong = dataclasses.replace(TITAN, voltage_kv=200.0)
    tables = []
    for optics in (wrong, TITAN):
        made = []
        for i in range(4):
            image = noise_micrograph((1536, 1536), 1.5, TITAN, 20200 + 2000 * i, 19800 + 2000 * i, 30, seed=i, **STRONG)
            made.append(fit_micrograph(image, 1.5, optics))
        screenings = [screen_micrograph(spectrum, fit, ScreeningSettings(min_gap=0.0)) for spectrum, fit in made]
        tables.append(micrograph_table([f"m{i}" for i in range(4)], [fit for _, fit in made], screenings))
    (remark,) = common_trouble(tables[0], wrong)
    assert "optics.voltage_kv" in remark
    assert common_trouble(tables[1], TITAN) == []
