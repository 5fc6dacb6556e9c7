"""The same two optics groups through relion_ctf_refine: magnification, and an apparent Cs where its phases wrap."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.optics import relion as ctf_refine
from nephila.ctf import Optics
from nephila.io.mrc import read_volume
from nephila.optics_groups import OpticsGroup, write_particle_set
from nephila.optics_refinement.observations import References
from nephila.optics_refinement.refine import OpticsSettings, refine_optics
from nephila.pixel_size import absorbed, anisotropy, apparent_cs, calibrate_from_cs, mean_magnification, refit_defocus
from nephila.simulate.aberrated import GroupTruth, simulate_aberrated

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_ctf_refine") is None, reason="RELION is not installed"),
]


def relion(folder, out, box, pixel_size, *options, table="particles.star"):
    """One run of relion_ctf_refine against map.mrc for both halves; the optics groups that it writes."""
    return ctf_refine(folder, table, out, pixel_size, *options, box=box, timeout=300)


def turned(stretch, degrees):
    angle = np.deg2rad(degrees)
    r = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return tuple((r @ np.diag(stretch) @ r.T).ravel())


def test_magnification_beside_relion(tmp_path):
    """True difference within 0.1 %, its axes within 0.1 degree; RELION's first pass falls short of it."""
    truth = turned((1.035, 1.005), 30.0)
    groups = [
        GroupTruth(OpticsGroup(1, "one", 300.0, 2.7, 0.1, 1.2, original_pixel_size=1.2), 1.2),
        GroupTruth(OpticsGroup(2, "two", 300.0, 2.7, 0.1, 1.2, original_pixel_size=1.2), 1.2, magnification=truth),
    ]
    simulated = simulate_aberrated(groups, 500, 1.0)
    simulated.write(tmp_path, 1.2, 1.2)
    theirs = relion(tmp_path, "mag", 96, 1.2, "--fit_aniso", "--kmin_mag", "20")
    volume, _ = read_volume(tmp_path / "map.mrc")
    particles = replace(
        simulated.particles,
        particles=simulated.particles.particles.assign(
            rlnImageName=[name.replace("@", f"@{tmp_path}/") for name in simulated.particles.particles["rlnImageName"]]
        ),
    )
    ours = refine_optics(
        particles, References({0: volume}, 1.2), OpticsSettings(2.5, magnification=True, rounds=1)
    ).particles
    (size, wanted), angle = (anisotropy(truth)[0], mean_magnification(truth)), anisotropy(truth)[1]
    found = ours.optics[1].magnification
    for name, optics in (("ours", ours.optics), ("relion", theirs.optics)):
        m = optics[1].magnification
        print(name, np.round(m, 5), anisotropy(m), mean_magnification(m) / wanted - 1, optics[0].magnification)
    assert mean_magnification(found) == pytest.approx(wanted, rel=1e-3)
    assert anisotropy(found)[1] == pytest.approx(angle, abs=0.1)
    assert anisotropy(found)[0] == pytest.approx(size, abs=0.1)
    assert np.abs(np.array(ours.optics[0].magnification) - [1, 0, 0, 1]).max() < 1e-3
    # RELION reads what we wrote, and agrees within what its one pass can reach
    assert mean_magnification(theirs.optics[1].magnification) == pytest.approx(wanted, rel=0.01)
    write_particle_set(
        tmp_path / "ours.star",
        replace(
            ours,
            particles=simulated.particles.particles.assign(
                **{c: ours.particles[c] for c in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")}
            ),
        ),
    )
    again = relion(tmp_path, "again", 96, 1.2, "--fit_aniso", "--kmin_mag", "20", table="ours.star")
    assert np.abs(np.array(again.optics[1].magnification) - found).max() < 2e-3


def test_cs_of_a_wrong_pixel_size_beside_relion(tmp_path):
    """0.51 taken for 0.54 A/px, signal to 1.1 A: the calibrated pixel size is within 0.1 % of the truth."""
    nominal, true = 0.54, 0.51
    groups = [GroupTruth(OpticsGroup(1, "one", 300.0, 2.7, 0.1, nominal, original_pixel_size=nominal), true)]
    simulated = simulate_aberrated(groups, 300, 1.0, defocus=(4000.0, 9000.0), b_factor=4.0)
    shift = refit_defocus(5000, Optics(300, 2.7, 0.1), nominal, true, 3.5) - absorbed(5000, 2.7, nominal, true)[0]
    table = simulated.particles.particles
    table["rlnDefocusU"] += shift
    table["rlnDefocusV"] += shift
    simulated.write(tmp_path, nominal, true)
    theirs = relion(
        tmp_path, "aberrations", 96, nominal, "--fit_aberr", "--even_aberr_max_n", "4", "--kmin_aberr", "20"
    )
    volume, _ = read_volume(tmp_path / "map.mrc")
    here = table.assign(rlnImageName=[name.replace("@", f"@{tmp_path}/") for name in table["rlnImageName"]])
    ours = refine_optics(
        replace(simulated.particles, particles=here),
        References({0: volume}, nominal),
        OpticsSettings(1.12, even=True, rounds=1),
    ).particles
    sizes = {}
    for name, optics in (("ours", ours.optics), ("relion", theirs.optics)):
        cs = apparent_cs(2.7, optics[0].even_zernike[6], 300)
        sizes[name] = calibrate_from_cs(nominal, cs, 2.7, 300).pixel_size if cs > 0 else np.nan
        print(name, optics[0].even_zernike, cs, sizes[name], 100 * (sizes[name] / true - 1), "%")
    assert sizes["ours"] == pytest.approx(true, rel=1e-3)
    assert not abs(sizes["relion"] / true - 1) < 1e-3


@pytest.mark.parametrize("kind", ["even", "odd"])
def test_aberrations_beside_relion(tmp_path, kind):
    """Small aberrations of one kind at a time, which RELION can separate: both find the same numbers, with the same signs."""
    even = (0.1, 0.5, 0.8, -0.4, 1.0, 0.5, 3.0, -0.6, 0.7) if kind == "even" else ()
    odd, tilt = ((0.0, 0.0, 0.9, 0.0, 0.0, -0.7), (0.15, -0.25)) if kind == "odd" else ((), (0.0, 0.0))
    stated = OpticsGroup(1, "one", 300.0, 2.7, 0.1, 1.2, original_pixel_size=1.2)
    simulated = simulate_aberrated([GroupTruth(stated, 1.2, even, odd, beam_tilt=tilt)], 300, 1.0)
    simulated.write(tmp_path, 1.2, 1.2)
    options = {
        "even": ["--fit_aberr", "--kmin_aberr", "20"],
        "odd": ["--fit_beamtilt", "--odd_aberr_max_n", "3", "--kmin_tilt", "20"],
    }
    theirs = relion(tmp_path, "out", 96, 1.2, *options[kind]).optics[0]
    table = simulated.particles.particles
    here = table.assign(rlnImageName=[name.replace("@", f"@{tmp_path}/") for name in table["rlnImageName"]])
    volume, _ = read_volume(tmp_path / "map.mrc")
    settings = OpticsSettings(2.5, even=kind == "even", odd=kind == "odd")
    ours = refine_optics(replace(simulated.particles, particles=here), References({0: volume}, 1.2), settings)
    group = ours.particles.optics[0]
    for name, found in (("ours", group), ("relion", theirs)):
        print(name, np.round(found.even_zernike, 2), np.round(found.odd_zernike, 2), found.beam_tilt)
    for found in (group, theirs):
        if kind == "odd":
            np.testing.assert_allclose(found.beam_tilt, tilt, atol=0.03)
            np.testing.assert_allclose(np.array(found.odd_zernike)[[2, 5]], np.array(odd)[[2, 5]], atol=0.3)
        else:
            assert found.even_zernike[6] == pytest.approx(even[6], abs=0.6)
