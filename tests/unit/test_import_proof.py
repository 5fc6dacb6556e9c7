"""What imports are checked by: picks inside their micrograph, and rings where the table's CTF has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nephila.ctf import Optics, ctf_2d
from nephila.fourier import irfft2, rfft2
from nephila.import_proof import draw_ctf, draw_given, draw_particles
from nephila.io.mrc import write_stack
from nephila.optics_groups import OpticsGroup

BOX, PIXEL, COUNT = 96, 2.5, 240
GROUP = OpticsGroup(1, "one", 300.0, 2.7, 0.1, pixel_size=PIXEL, image_size=BOX)


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Random structure of falling power times the CTF, and white noise of three times its deviation."""
    rng = np.random.default_rng(7)
    defocus = rng.uniform(9000, 22000, COUNT)
    ctf = ctf_2d(BOX, PIXEL, defocus, defocus, 0 * defocus, Optics(300.0, 2.7, 0.1))
    k = np.hypot(np.fft.fftfreq(BOX)[:, None], np.fft.rfftfreq(BOX)[None, :])
    signal = irfft2(rfft2(rng.normal(size=(COUNT, BOX, BOX))) * ctf * np.exp(-((k / 0.25) ** 2)), BOX)
    images = signal + 3 * signal.std() * rng.normal(size=signal.shape)
    stack = tmp_path_factory.mktemp("particles") / "s.mrcs"
    write_stack(stack, images, PIXEL)
    return pd.DataFrame(
        {
            "rlnImageName": [f"{i:06d}@{stack}" for i in range(1, COUNT + 1)],
            "rlnOpticsGroup": 1,
            "rlnDefocusU": defocus,
            "rlnDefocusV": defocus,
        }
    )


def test_rings_where_the_table_has_them(particles: pd.DataFrame, tmp_path: Path) -> None:
    check = draw_ctf(particles, tmp_path, tmp_path / "check.png", GROUP)
    assert check is not None and (tmp_path / "check.png").stat().st_size > 5000
    assert check.correlation > 0.6 and check.best_scale == pytest.approx(1.0, abs=0.011)


@pytest.mark.parametrize("ratio", [0.93, 1.07])
def test_a_wrong_pixel_size_shows(particles: pd.DataFrame, tmp_path: Path, ratio: float) -> None:
    """The table says ratio times the true pixel size: frequencies computed from it are too small by that."""
    check = draw_ctf(particles, tmp_path, tmp_path / "check.png", replace(GROUP, pixel_size=ratio * PIXEL))
    assert check is not None and check.best_scale == pytest.approx(ratio, abs=0.02)
    assert check.best_correlation > check.correlation + 0.2


def test_wrong_defoci_show(particles: pd.DataFrame, tmp_path: Path) -> None:
    mixed = particles.assign(rlnDefocusU=particles["rlnDefocusU"].to_numpy()[::-1])
    mixed["rlnDefocusV"] = mixed["rlnDefocusU"]
    check = draw_ctf(mixed, tmp_path, tmp_path / "check.png", GROUP)
    assert check is not None and check.correlation < 0.3


def test_nothing_is_drawn_where_there_is_nothing_to_compare(particles: pd.DataFrame, tmp_path: Path) -> None:
    picture = tmp_path / "none.png"
    alike = particles.assign(rlnDefocusU=15000.0, rlnDefocusV=15000.0)
    assert draw_ctf(alike, tmp_path, picture, GROUP) is None
    assert draw_ctf(particles.drop(columns="rlnDefocusU"), tmp_path, picture, GROUP) is None
    assert draw_ctf(particles, tmp_path, picture, replace(GROUP, pixel_size=None)) is None
    assert not picture.exists()
    assert draw_particles(particles.iloc[:5], tmp_path, picture, PIXEL) == 5 and picture.exists()


def test_given_particles_are_drawn_by_optics_group(particles: pd.DataFrame, tmp_path: Path) -> None:
    optics = {
        "rlnImagePixelSize": PIXEL,
        "rlnVoltage": 300.0,
        "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1,
    }
    table = particles.assign(**optics, rlnOpticsGroup=[1] * 200 + [2] * 40)
    lines = draw_given(table, tmp_path / "given", PIXEL)
    assert {path.name for path in (tmp_path / "given").iterdir()} == {
        "particles_1.png", "ctf_1.png", "particles_2.png", "ctf_2.png",
    }  # fmt: skip
    assert lines[0] == "optics group 1: 24 particles are drawn" and "better" not in lines[1]
    wrong = draw_given(table.assign(rlnImagePixelSize=0.93 * PIXEL), tmp_path / "wrong", PIXEL)
    assert "fits better with 0.93 times" in wrong[1] or "fits better with 0.92 times" in wrong[1]
    # one defocus, as a group of the Nature Protocols data has: nothing to compare
    draw_given(table.assign(rlnDefocusU=15000.0, rlnDefocusV=15000.0, rlnOpticsGroup=1), tmp_path / "one", PIXEL)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["particles_1.png"]
    draw_given(particles.drop(columns="rlnOpticsGroup"), tmp_path / "old", PIXEL)
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["particles_1.png"]
