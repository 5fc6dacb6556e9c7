"""Refinement of optics: what was put into simulated particles comes out, within the errors that the fits quote."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from nephila.cli import main
from nephila.errors import InputError
from nephila.io.mrc import read_volume, write_volume
from nephila.ledger import build_ledger
from nephila.optics_groups import OpticsGroup, ParticleSet, read_particle_set
from nephila.optics_refinement.aberrations import even_sums, fit_even, odd_sums
from nephila.optics_refinement.defocus import fit_defocus
from nephila.optics_refinement.magnification import from_matrix, transform_defocus
from nephila.optics_refinement.observations import Band, Observations, References
from nephila.optics_refinement.refine import OpticsSettings, fits_table, refine_optics
from nephila.optics_refinement.spectra import measure_spectra
from nephila.pixel_size import Calibration, anisotropy, apparent_cs, calibrate_from_cs, mean_magnification
from nephila.simulate.aberrated import GroupTruth, simulate_aberrated

BOX, PIXEL = 64, 1.2
EVEN = (0.1, 0.5, 0.8, -0.4, 1.0, 0.5, 3.0, -0.6, 0.7)
ODD = (0.05, -0.1, 0.9, 0.0, 0.0, -0.7)
TILT = (0.25, -0.4)
STATED = OpticsGroup(1, "one", 300.0, 2.7, 0.1, PIXEL, original_pixel_size=PIXEL)


def prepared(folder, truths, particles, snr, **options):
    """Simulated files, the set with whole paths, and the map as reference."""
    simulated = simulate_aberrated(truths, particles, snr, box=BOX, **options)
    simulated.write(folder, truths[0].stated.pixel_size, truths[0].true_pixel_size)
    table = simulated.particles.particles
    names = [name.replace("@", f"@{folder}/") for name in table["rlnImageName"]]
    found = replace(simulated.particles, particles=table.assign(rlnImageName=names))
    return found, References({0: read_volume(folder / "map.mrc")[0]}, truths[0].stated.pixel_size)


@pytest.fixture(scope="module")
def aberrated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aberrated")
    return folder, *prepared(folder, [GroupTruth(STATED, PIXEL, EVEN, ODD, beam_tilt=TILT)], 120, 2.0)


def test_aberrations_come_back(aberrated):
    _, particles, references = aberrated
    result = refine_optics(particles, references, OpticsSettings(2.5, even=True, odd=True))
    fit, group = result.fits[0], result.particles.optics[0]
    assert fit.even is not None and fit.odd is not None
    assert group.pixel_size == PIXEL and group.cs_mm == 2.7
    truth = Observations(
        particles, replace(STATED, even_zernike=EVEN, odd_zernike=ODD, beam_tilt=TILT), references, 20, 2.5
    )
    phase_error = fit.even.fitted - truth.even_phase()
    assert np.sqrt(np.mean(phase_error**2)) < 0.02
    found = replace(truth.group, odd_zernike=group.odd_zernike, beam_tilt=group.beam_tilt)
    odd_error = Observations(particles, found, references, 20, 2.5).odd_phase() - truth.odd_phase()
    assert np.sqrt(np.mean(odd_error**2)) < 0.02
    for values, wanted, errors in (
        (group.even_zernike, EVEN, fit.even.errors),
        (np.array(group.odd_zernike)[[2, 5]], np.array(ODD)[[2, 5]], fit.odd.errors[[2, 5]]),
    ):
        assert (np.abs(np.array(values) - wanted) < 4 * errors).all()
    np.testing.assert_allclose(group.beam_tilt, TILT, atol=0.02)
    assert fit.share[-1] > 4 * fit.share[0]
    table = fits_table(result)
    assert {"Z40", "apparent Cs", "beam tilt x"} <= set(table["nphTerm"])


def test_sums_against_the_plain_form(aberrated):
    """Per-pixel sums by particle, written out."""
    folder, particles, references = aberrated
    few = replace(particles, particles=particles.particles.iloc[:5].reset_index(drop=True))
    observations = Observations(few, replace(STATED, even_zernike=EVEN, odd_zernike=ODD), references, 20, 3.0, folder)
    spectra = measure_spectra(observations)
    sums = even_sums(observations, spectra)
    total, expected = odd_sums(observations, spectra)
    batch = next(observations.batches())
    noise, scale = (values[observations.band.shell] for values in (spectra.noise, spectra.scale))
    j = observations.band.size // 2
    a11 = sum(abs(v) ** 2 * np.cos(p) ** 2 for v, p in zip(batch.predictions[:, j], batch.phase[:, j], strict=True))
    assert sums.a[2, j] == pytest.approx(a11 / noise[j], rel=1e-4)
    ctf = np.sin(batch.phase[:, j] - observations.even_phase()[j])
    plain = sum(x * np.conj(c * v) for x, c, v in zip(batch.images[:, j], ctf, batch.predictions[:, j], strict=True))
    assert total[j] == pytest.approx(plain * scale[j] / noise[j], rel=1e-3)
    assert expected[j] >= 0


def test_particles_are_held_against_the_other_half(aberrated):
    """Their own half's map holds their noise, with the CTF that it was made with."""
    _, particles, references = aberrated
    volume = references.volumes[0]
    observations = Observations(particles, STATED, References({1: volume, 2: np.zeros_like(volume)}, PIXEL), 20, 3.0)
    batch = next(observations.batches())
    half = particles.particles["rlnRandomSubset"].to_numpy()[batch.rows]
    power = np.abs(batch.predictions).max(axis=1)
    assert (power[half == 2] > 0).all() and (power[half == 1] == 0).all()


@pytest.mark.slow
def test_weak_data_leave_good_defoci_alone(tmp_path):
    """Particles that say next to nothing, in micrographs whose defoci are right, stay near them; quoted errors say so."""
    particles, references = prepared(tmp_path, [GroupTruth(STATED, PIXEL)], 160, 0.0015, micrographs=10)
    observations = Observations(particles, STATED, references, 20, 3.0)
    fit = fit_defocus(observations, measure_spectra(observations))
    fisher = fit_defocus(observations, measure_spectra(observations), unit="micrograph")
    assert float(np.median(np.abs(fit.change))) < 60 and fit.prior.inflation >= 1
    assert float(np.median(np.abs(fisher.change))) < 60


def test_a_phase_of_many_turns_is_found(tmp_path):
    """6 % of pixel size with signal to 1.2 A: the k^4 phase makes several turns, and the defocus had been fitted without it."""
    nominal, true = 0.54, 0.51
    truth = GroupTruth(replace(STATED, pixel_size=nominal, original_pixel_size=nominal), true)
    particles, references = prepared(tmp_path, [truth], 120, 1.0, defocus=(4000.0, 9000.0), b_factor=4.0)
    table = particles.particles
    moved = replace(
        particles, particles=table.assign(rlnDefocusU=table["rlnDefocusU"] - 80, rlnDefocusV=table["rlnDefocusV"] - 80)
    )
    observations = Observations(moved, moved.optics[0], references, 15, 1.2)
    fit = fit_even(even_sums(observations, measure_spectra(observations)), observations, cs_mm=2.7)
    assert np.abs(fit.fitted).max() > 4 * np.pi
    found = calibrate_from_cs(nominal, apparent_cs(2.7, float(fit.coefficients[6]), 300.0), 2.7, 300.0)
    assert found.pixel_size == pytest.approx(true, rel=1e-3)


@pytest.mark.slow
def test_magnification_comes_back(tmp_path):
    c, s = np.cos(np.deg2rad(30)), np.sin(np.deg2rad(30))
    turn = np.array([[c, -s], [s, c]])
    matrix = turn @ np.diag([1.03, 0.99]) @ turn.T
    truths = [
        GroupTruth(STATED, PIXEL),
        GroupTruth(replace(STATED, number=2, name="two"), PIXEL, magnification=tuple(matrix.ravel())),
    ]
    particles, references = prepared(tmp_path, truths, 160, 2.0)
    result = refine_optics(particles, references, OpticsSettings(2.5, magnification=True, rounds=1))
    one, two = (group.magnification for group in result.particles.optics)
    np.testing.assert_allclose(one, [1, 0, 0, 1], atol=1e-3)
    assert mean_magnification(two) == pytest.approx(mean_magnification(matrix), rel=1e-3)
    assert anisotropy(two)[0] == pytest.approx(anisotropy(matrix)[0], abs=0.1)
    assert anisotropy(two)[1] == pytest.approx(30.0, abs=1.0)
    assert 2 < result.fits[1].passes < 12
    # the CTFs of the images are what they were: with the defoci transformed, the new table explains them as well
    assert result.fits[1].share[-1] > result.fits[1].share[0]


def test_magnifications_of_the_example_are_found(tmp_path):
    """Groups of 1.00 and 0.90 A that say 1.00 and 0.95, a map of 0.99 that says 1.00: M is 0.9900 and 1.0450."""
    first = replace(STATED, pixel_size=1.0, original_pixel_size=1.0)
    second = replace(STATED, number=2, name="two", pixel_size=0.95, original_pixel_size=0.95)
    simulated = simulate_aberrated([GroupTruth(first, 1.0), GroupTruth(second, 0.9)], 160, 2.0, box=BOX)
    simulated.write(tmp_path, 1.0, 0.99)
    table = simulated.particles.particles
    names = [name.replace("@", f"@{tmp_path}/") for name in table["rlnImageName"]]
    particles = replace(simulated.particles, particles=table.assign(rlnImageName=names))
    references = References({0: read_volume(tmp_path / "map.mrc")[0]}, 1.0)
    result = refine_optics(particles, references, OpticsSettings(2.6, even=True, magnification=True))
    found = [mean_magnification(group.magnification) for group in result.particles.optics]
    np.testing.assert_allclose(found, [0.9900, 1.0450], atol=2e-4)
    entries = {
        entry.what: entry
        for entry in build_ledger(
            result.particles, {"one": Calibration(1.0, None, "known")}, reference=("map.mrc", 1.0)
        ).entries
    }
    assert entries["optics group two"].relative == pytest.approx(0.9091, abs=3e-4)
    assert entries["optics group two"].calibrated == pytest.approx(0.900, abs=5e-4)
    assert entries["map on the grid of the reference"].calibrated == pytest.approx(0.99, abs=5e-4)


@pytest.mark.parametrize(("unit", "spread", "limit"), [("particle", 250.0, 60.0), ("micrograph", 0.0, 30.0)])
def test_defocus_at_low_snr(tmp_path, unit, spread, limit):
    particles, references = prepared(tmp_path, [GroupTruth(STATED, PIXEL)], 120, 0.05)
    table = particles.particles
    rng = np.random.default_rng(3)
    wrong = rng.normal(0, spread, len(table)) + (150.0 if unit == "micrograph" else 0.0)
    moved = table.assign(rlnDefocusU=table["rlnDefocusU"] + wrong, rlnDefocusV=table["rlnDefocusV"] + wrong)
    observations = Observations(replace(particles, particles=moved), STATED, references, 20, 2.5)
    fit = fit_defocus(observations, measure_spectra(observations), unit=unit)
    left = fit.table["rlnDefocusU"] - table["rlnDefocusU"]
    assert float(np.median(np.abs(left))) < limit
    np.testing.assert_allclose(
        fit.table["rlnDefocusU"] - fit.table["rlnDefocusV"], moved["rlnDefocusU"] - moved["rlnDefocusV"], atol=1e-6
    )
    if unit == "micrograph":
        assert fit.table.assign(change=fit.change).groupby("rlnMicrographName")["change"].nunique().eq(1).all()


@pytest.mark.slow
def test_astigmatism_comes_back(tmp_path):
    particles, references = prepared(tmp_path, [GroupTruth(STATED, PIXEL)], 60, 1.0)
    table = particles.particles
    mean = 0.5 * (table["rlnDefocusU"] + table["rlnDefocusV"])
    round_ = table.assign(rlnDefocusU=mean, rlnDefocusV=mean, rlnDefocusAngle=0.0)
    observations = Observations(replace(particles, particles=round_), STATED, references, 20, 2.5)
    fit = fit_defocus(observations, measure_spectra(observations), astigmatism=True)

    def vector(frame):
        return (frame["rlnDefocusU"] - frame["rlnDefocusV"]) * np.exp(2j * np.deg2rad(frame["rlnDefocusAngle"]))

    assert float(np.median(np.abs(vector(fit.table) - vector(table)))) < 60


def test_transformed_defocus_is_that_of_the_matrix(aberrated):
    table = aberrated[1].particles.iloc[:4]
    m = np.array([[1.02, 0.01], [0.015, 0.99]])
    new = transform_defocus(table, np.arange(4), m)
    k = np.array([0.11, -0.07])

    def phase(frame, q):
        u, v, angle = frame["rlnDefocusU"], frame["rlnDefocusV"], np.deg2rad(frame["rlnDefocusAngle"])
        theta = np.arctan2(q[1], q[0])
        return 0.5 * (u + v + (u - v) * np.cos(2 * (theta - angle))) * (q @ q)

    np.testing.assert_allclose(phase(new, m @ k), phase(table, k), rtol=1e-9)
    u, v, angle = from_matrix(np.array([[[2.0, 0.0], [0.0, 2.0]]]), np.array([33.0]))
    assert (u[0], v[0], angle[0]) == (2.0, 2.0, 33.0)


def test_command_writes_what_relion_reads(aberrated, tmp_path):
    folder = aberrated[0]
    volume, _ = read_volume(folder / "map.mrc")
    rng = np.random.default_rng(1)
    for half in (1, 2):
        noise = rng.normal(0, 0.02 * volume.std(), volume.shape).astype(np.float32)
        write_volume(tmp_path / f"half{half}.mrc", volume + noise, PIXEL)
    out = tmp_path / "optics"
    command = ["refine-optics", str(folder / "particles.star"), "-o", str(out), "--half1", str(tmp_path / "half1.mrc"),
               "--half2", str(tmp_path / "half2.mrc"), "--even", "--odd", "--magnification", "--defocus", "particle",
               "--rounds", "1", "--diameter", "60"]  # fmt: skip
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    written, given = read_particle_set(out / "particles.star"), read_particle_set(folder / "particles.star")
    assert written.optics[0].pixel_size == given.optics[0].pixel_size
    assert len(written.optics[0].even_zernike) == 9 and len(written.optics[0].odd_zernike) == 6
    assert list(written.particles["rlnImageName"]) == list(given.particles["rlnImageName"])
    assert {path.name for path in out.glob("*.png")} == {
        f"group1_{n}.png" for n in ("even", "odd", "magnification", "defocus")
    }
    calibrated = CliRunner().invoke(main, ["pixelsize", "cs", str(out / "particles.star")])
    assert calibrated.exit_code == 0 and "+-" in calibrated.output
    assert CliRunner().invoke(main, command).exit_code == 2  # the folder is not empty
    post = tmp_path / "post.mrc"
    write_volume(post, volume, 1.18)
    refused = CliRunner().invoke(
        main, [*command[:3], str(tmp_path / "x"), "--map", str(post), "--even", "--finest", "3"]
    )
    assert refused.exit_code == 2 and "must not be a reference" in refused.output


def test_bad_input(aberrated):
    _, particles, references = aberrated
    with pytest.raises(InputError, match="nothing to refine"):
        OpticsSettings(3.0)
    with pytest.raises(InputError, match="together with the defocus"):
        OpticsSettings(3.0, even=True, astigmatism=True)
    with pytest.raises(InputError, match="widen the range"):
        Band.of(BOX, PIXEL, 20.0, 19.0)
    with pytest.raises(InputError, match="_rlnAnglePsi"):
        Observations(
            replace(particles, particles=particles.particles.drop(columns="rlnAnglePsi")), STATED, references, 20, 3
        )
    halves = References({1: references.volumes[0], 2: references.volumes[0]}, PIXEL)
    with pytest.raises(InputError, match="_rlnRandomSubset"):
        Observations(
            replace(particles, particles=particles.particles.drop(columns="rlnRandomSubset")), STATED, halves, 20, 3
        )


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["refine-optics", ".", "-o", "o", "--defocus", "particle", "--reach", "-5"], "--reach"),
        (["refine-optics", ".", "-o", "o", "--even", "--finest", "nan"], "--finest"),
        (["refine-optics", ".", "-o", "o", "--even", "--rounds", "0"], "--rounds"),
        (["pixel-error", "--defocus", "nan"], "--defocus"),
        (["pixel-error", "--cs", "inf"], "--cs"),
        (["pixel-error", "--nominal", "0"], "--nominal"),
        (["pixel-error", "--fit-to", "-3"], "--fit-to"),
    ],
)
def test_numbers_that_make_no_sense_are_usage_errors(command: list[str], option: str) -> None:
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2 and f"'{option}'" in result.output and not isinstance(result.exception, ValueError)


def test_nothing_is_fitted_beyond_nyquist() -> None:
    from nephila.optics_refinement.refine import _check_nyquist

    groups = (
        OpticsGroup(1, "one", 300, 2.7, 0.1, pixel_size=1.5),
        OpticsGroup(2, "two", 300, 2.7, 0.1, pixel_size=2.0),
    )
    both = ParticleSet(groups, pd.DataFrame({"rlnOpticsGroup": [1, 2]}))
    told: list[str] = []
    _check_nyquist(both, 1.5, 3.0, told.append)
    assert told == ["two: fits end at its Nyquist limit, 4 A"]
    with pytest.raises(InputError, match=r"2\.5 A.*Nyquist limit, 3 A"):
        _check_nyquist(both, 1.5, 2.5, told.append)
    with pytest.raises(InputError, match="Nyquist limit, 4 A"):
        _check_nyquist(both, 2.0, 3.5, told.append)
    with pytest.raises(InputError, match="reach -5 A"):
        OpticsSettings(3.0, defocus="particle", reach=-5)
