"""A wrong pixel size: the worked example's numbers, and what a fit of Cs or of a model gives back."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from nephila.cli import main
from nephila.ctf import Optics, ctf_1d
from nephila.errors import InputError
from nephila.io.mrc import write_volume
from nephila.model_scale import fit_scale, model_from_atoms, model_from_map, splat
from nephila.pixel_size import (
    absorbed,
    anisotropy,
    apparent_cs,
    calibrate_from_cs,
    cs_per_radian,
    left_over_defocus,
    mean_magnification,
    phase_error,
    refit_defocus,
    resolutions_in_phase,
    voltage_slope,
)

OPTICS = Optics(300.0, 2.7, 0.1)
NOMINAL, TRUE = 0.54, 0.51


def test_both_refitted_absorb_the_error():
    defocus, cs = absorbed(5000.0, 2.7, NOMINAL, TRUE)
    assert (round(defocus, 2), round(cs, 4)) == (5605.54, 3.3936)
    k = np.linspace(0, 0.9, 500)
    np.testing.assert_allclose(
        ctf_1d(k, defocus, Optics(300.0, cs, 0.1)), ctf_1d(k * NOMINAL / TRUE, 5000.0, OPTICS), atol=1e-9
    )
    assert np.abs(phase_error(k, 5000, OPTICS, NOMINAL, TRUE, defocus, cs)).max() < 1e-9


@pytest.mark.parametrize(("finest", "wanted"), [(5.0, 5566), (3.5, 5526), (3.3, 5516), (3.0, 5501)])
def test_refitted_defocus_depends_on_the_range(finest, wanted):
    assert refit_defocus(5000.0, OPTICS, NOMINAL, TRUE, finest) == pytest.approx(wanted, abs=0.6)


def test_the_ctfs_meet_again_at_the_bump():
    refitted = refit_defocus(5000.0, OPTICS, NOMINAL, TRUE, 3.5)
    assert resolutions_in_phase(5000.0, OPTICS, NOMINAL, TRUE, refitted, 2.7)[0] == pytest.approx(1.81, abs=0.01)


@pytest.mark.slow
def test_the_bump_of_the_fsc_is_reproduced():
    from nephila.simulate.pixel_error import simulate_fsc

    found = simulate_fsc(5000.0, OPTICS, NOMINAL, TRUE, 3.5, box=48, particles=500)
    truth = found.truth["defocus refitted"]
    bump = int(np.argmin(np.abs(found.frequency - 1 / 1.81)))
    dip = (found.frequency > 1 / 2.3) & (found.frequency < 1 / 2.05)
    assert truth[bump] > 0.7 and truth[dip].max() < -0.5  # upside down between: half a turn
    assert found.truth["defocus and Cs refitted"][:-2].min() > 0.7
    assert found.halves["defocus refitted"][bump] > 0.5


def test_cs_gives_the_pixel_size_back():
    assert cs_per_radian(300.0) == pytest.approx(0.050056, abs=1e-6)
    z40 = (absorbed(5000, 2.7, NOMINAL, TRUE)[1] - 2.7) / cs_per_radian(300.0)
    found = calibrate_from_cs(NOMINAL, apparent_cs(2.7, z40, 300.0), 2.7, 300.0, apparent_error_mm=0.034)
    assert found.pixel_size == pytest.approx(TRUE, rel=1e-9)
    assert found.error == pytest.approx(0.51 * 0.25 * 0.01, rel=0.01)
    assert "voltage" in found.caveats[1] and voltage_slope(300.0) == pytest.approx(-0.46, abs=0.005)
    with pytest.raises(InputError, match="cannot tell the pixel size"):
        calibrate_from_cs(1.0, 2.7, 0.0, 300.0)
    with pytest.raises(InputError, match="no pixel size explains"):
        calibrate_from_cs(1.0, -0.1, 2.7, 300.0)


def test_defocus_in_zernike_terms():
    k = np.linspace(0, 0.4, 50)
    phase = 0.7 * (2 * k**2 - 1) + 3.0 * (6 * k**4 - 6 * k**2 + 1)
    defocus = left_over_defocus(0.7, 3.0, 300.0)
    second = np.polyfit(k, phase, 4)[2]
    assert second == pytest.approx(-np.pi * OPTICS.wavelength * defocus, rel=1e-6)


def test_matrices_in_words():
    assert mean_magnification((1.02, 0, 0, 0.98)) == pytest.approx(np.sqrt(1.02 * 0.98))
    percent, angle = anisotropy((1.0, 0.01, 0.01, 1.0))
    assert (percent, angle) == (pytest.approx(2.0), pytest.approx(45.0))


def test_command_states_the_example(tmp_path):
    out = tmp_path / "error.png"
    result = CliRunner().invoke(main, ["pixel-error", "-o", str(out), "--no-fsc"])
    assert result.exit_code == 0, result.output
    assert "5525.5 A" in result.output and "5605.5 A, Cs 3.3936" in result.output and "1.81" in result.output
    assert out.stat().st_size > 10_000
    assert CliRunner().invoke(main, ["pixel-error", "--nominal", "2"]).exit_code == 2


@pytest.fixture(scope="module")
def molecule(tmp_path_factory):
    """A random chain as PDB, and its map at 1.2 A/px that claims 1.25; both middle on the grid."""
    folder = tmp_path_factory.mktemp("molecule")
    rng = np.random.default_rng(5)
    n, true, nominal = 48, 1.2, 1.25
    steps = rng.normal(size=(400, 3))
    places = rng.normal(size=(400, 3)) * 7 + 0.2 * steps
    volume = splat(places / true + n // 2, np.full(400, 7.0), n, 1.0)
    write_volume(folder / "map.mrc", volume + rng.normal(size=volume.shape).astype(np.float32) * volume.std(), nominal)
    write_volume(folder / "scaled.mrc", volume, true)
    lines = [
        f"ATOM  {i + 1:5d}  N   ALA A{i % 999 + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           N"
        for i, (x, y, z) in enumerate(places + (n // 2) * nominal)
    ]
    (folder / "model.pdb").write_text("\n".join([*lines, "END"]) + "\n")
    return folder


@pytest.mark.parametrize("name", ["model.pdb", "scaled.mrc"])
def test_a_model_gives_the_scale(molecule, name):
    from nephila.io.mrc import read_volume

    data, nominal = read_volume(molecule / "map.mrc")
    model = (
        model_from_map(molecule / name, 48)[0]
        if name.endswith("mrc")
        else model_from_atoms(molecule / name, 48, nominal, 3.2)
    )
    found = fit_scale(data, nominal, model, 3.2)
    assert found.pixel_size == pytest.approx(1.2, rel=3e-3)
    assert 0 < found.error < 6e-3


def test_models_that_cannot_be_used(molecule, tmp_path):
    with pytest.raises(InputError, match="dock the model"):
        model_from_atoms(molecule / "model.pdb", 16, 1.2, 3.0)
    (tmp_path / "two.pdb").write_text("\n".join((molecule / "model.pdb").read_text().splitlines()[:2]) + "\nEND\n")
    with pytest.raises(InputError, match="too few"):
        model_from_atoms(tmp_path / "two.pdb", 48, 1.2, 3.0)
