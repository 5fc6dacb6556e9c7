"""Differences of maps: an added ligand is found where it is, noise alone is not significant, position and scale are undone."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from nephila.cli import main
from nephila.difference import DifferenceSettings, MapWithHalves, compare_maps, significance_threshold
from nephila.errors import InputError
from nephila.fourier import lowpass
from nephila.geometry import rotation_vector_to_matrix
from nephila.io.mrc import write_volume
from nephila.io.tables import read_table
from nephila.resize import resize_volume
from nephila.rigid_fit import transform_volume

N, PIXEL = 56, 2.0
SETTINGS = DifferenceSettings(resolution=8.0, diameter=84.0)
IN_PLACE = DifferenceSettings(resolution=8.0, diameter=84.0, fit=False)
LIGAND = (34, 24, 30)  # x, y, z


def blob(centre, sigma, n=N):
    z, y, x = np.mgrid[:n, :n, :n].astype(np.float32)
    return np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2) / (2 * sigma**2))


@pytest.fixture(scope="module")
def body():
    rng = np.random.default_rng(3)
    places = N // 2 + rng.uniform(-13, 13, size=(40, 3))
    return sum(blob(place, rng.uniform(1.8, 2.6)) for place in places).astype(np.float32)


def noisy(signal, seed, level=0.35):
    rng = np.random.default_rng(seed)
    first, second = (signal + level * rng.standard_normal(signal.shape).astype(np.float32) for _ in range(2))
    return MapWithHalves(((first + second) / 2).astype(np.float32), PIXEL, (first, second))


def test_equal_objects_differ_by_noise_only(body):
    found = compare_maps(noisy(body, 1), noisy(body, 2), SETTINGS)
    assert found.significant is None and len(found.peaks) == 0
    assert found.rotation_deg < 0.5 and np.abs(found.shift).max() < 0.3
    inside = found.score != 0
    assert np.std(found.score[inside]) == pytest.approx(1.0, abs=0.1)
    assert np.mean(np.abs(found.score[inside]) > 3) < 0.006


@pytest.mark.parametrize("halves", ["both", "one", "none"])
def test_a_ligand_is_found(body, halves):
    a, b = noisy(body + 1.2 * blob(LIGAND, 2.0), 1), noisy(body, 2)
    if halves != "both":
        b = MapWithHalves(b.volume, PIXEL)
    if halves == "none":
        a = MapWithHalves(a.volume, PIXEL)
    found = compare_maps(a, b, IN_PLACE)
    assert len(found.peaks) >= 1
    top = found.peaks.iloc[0]
    assert np.abs(np.array([top["rlnCoordinateX"], top["rlnCoordinateY"], top["rlnCoordinateZ"]]) - LIGAND).max() <= 1
    assert top["nphScore"] > 5 and top["nphVolume"] > 100 and top["nphIntegral"] > 0
    assert (found.peaks["nphVolume"].iloc[1:] < 0.2 * top["nphVolume"]).all()
    swapped = compare_maps(b, a, IN_PLACE)
    assert swapped.peaks.iloc[0]["nphScore"] < -5


def test_position_scale_and_amplitudes_are_undone(body):
    a = noisy(body + 1.2 * blob(LIGAND, 2.0), 1)
    rotation = rotation_vector_to_matrix(np.deg2rad([2.0, -3.0, 1.5]))
    away = transform_volume(lowpass(body, PIXEL, 9.0, 8.0) * 3.0, rotation, np.array([0.8, -1.1, 0.4]))
    moved = noisy(away, 2, 0.5)
    assert moved.halves is not None
    coarse = [resize_volume(volume, PIXEL, 2.4, 50) for volume in (moved.volume, *moved.halves)]
    b = MapWithHalves(coarse[0][0], coarse[0][1], (coarse[1][0], coarse[2][0]))
    found = compare_maps(a, b, SETTINGS)
    assert found.rotation_deg == pytest.approx(np.linalg.norm([2.0, 3.0, 1.5]), abs=0.7)
    assert found.correlation > 0.95
    top = found.peaks.iloc[0]
    assert np.abs(np.array([top["rlnCoordinateX"], top["rlnCoordinateY"], top["rlnCoordinateZ"]]) - LIGAND).max() <= 1
    unmatched = compare_maps(a, b, DifferenceSettings(8.0, 84.0, fit=False, match=False))
    assert np.abs(unmatched.difference).sum() > 3 * np.abs(found.difference).sum()


def test_false_discovery_rate():
    rng = np.random.default_rng(8)
    noise = rng.standard_normal(20_000)
    assert significance_threshold(noise, 0.01) is None
    mixed = np.concatenate([noise, rng.normal(7.0, 1.0, size=400)])
    threshold = significance_threshold(mixed, 0.01)
    assert threshold is not None and 3.0 < threshold < 5.5
    beyond = np.abs(mixed) >= threshold
    assert beyond[:20_000].sum() <= 0.03 * beyond.sum() and beyond[20_000:].mean() > 0.9
    assert significance_threshold([], 0.01) is None


def test_bad_input(body):
    a = noisy(body, 1)
    with pytest.raises(InputError, match="beyond Nyquist"):
        compare_maps(a, a, DifferenceSettings(3.0, 84.0))
    with pytest.raises(InputError, match="does not fit into A's box"):
        compare_maps(a, a, DifferenceSettings(8.0, 200.0))
    with pytest.raises(InputError, match="map B: a cubic volume"):
        compare_maps(a, MapWithHalves(body[:40], PIXEL), SETTINGS)


def test_command(body, tmp_path):
    a, b = noisy(body + 1.2 * blob(LIGAND, 2.0), 1), noisy(body, 2)
    for folder, made in (("a", a), ("b", b)):
        (tmp_path / folder).mkdir()
        write_volume(tmp_path / folder / "map.mrc", made.volume, PIXEL)
        assert made.halves is not None
        for number, half in enumerate(made.halves, 1):
            write_volume(tmp_path / folder / f"half{number}.mrc", np.asarray(half), PIXEL)
    out = tmp_path / "out" / "ligand"
    done = CliRunner().invoke(
        main,
        [
            "diff",
            f"{tmp_path}/a/map.mrc",
            f"{tmp_path}/b/map.mrc",
            "--resolution",
            "8",
            "--diameter",
            "84",
            "-o",
            str(out),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "half maps: a/half1.mrc" in done.output.replace(f"{tmp_path}/", "")
    peaks = read_table(f"{out}_peaks.star", kind="peaks")
    assert (
        np.abs(peaks.iloc[0][["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]].to_numpy(float) - LIGAND).max()
        <= 1
    )
    assert (tmp_path / "out" / "ligand.mrc").is_file() and (tmp_path / "out" / "ligand_score.mrc").is_file()
    refused = CliRunner().invoke(main, ["diff", f"{tmp_path}/a/map.mrc", f"{tmp_path}/b/map.mrc", "--resolution", "3"])
    assert refused.exit_code == 2 and "Nyquist" in refused.output
