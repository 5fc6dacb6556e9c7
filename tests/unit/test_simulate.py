"""Simulated micrographs: the truth is true, and nothing depends on what it should not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest

from nephila.ctf import Optics, ctf_2d
from nephila.errors import InputError
from nephila.fourier import lowpass
from nephila.geometry import euler_matrix
from nephila.io.micrographs import check_uniform, list_micrographs, read_micrograph
from nephila.io.mrc import read_image, write_volume
from nephila.io.tables import read_blocks
from nephila.simulate.density import density
from nephila.simulate.micrographs import (
    MicrographSettings,
    Molecule,
    place_particles,
    random_rotations,
    simulate_micrograph,
)
from nephila.simulate.phantom import build_phantom
from nephila.simulate.project import ObjectSettings, make_object, map_diameter, project_config, simulate_project

OPTICS = Optics(300.0, 2.7, 0.1)
SMALL = MicrographSettings(shape=(400, 440), pixel_size=4.0, particles=25)
QUIET = replace(SMALL, noise=0.05, structural_noise=0.0, dirt=0.0, ice_gradient=0.0, b_factor=0.0)


@pytest.fixture(scope="module")
def molecule() -> Molecule:
    atoms = build_phantom(120.0, 0)
    return Molecule.from_volume(density(atoms, 64, 4.0), 4.0, atoms.diameter)


def windows(image: np.ndarray, table: pd.DataFrame, n: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Particles at the rounded coordinates, those that lie wholly inside."""
    x, y = (table[c].to_numpy().astype(int) - n // 2 for c in ("rlnCoordinateX", "rlnCoordinateY"))
    inside = (x >= 0) & (y >= 0) & (x + n <= image.shape[1]) & (y + n <= image.shape[0])
    cut = [image[b : b + n, a : a + n] for a, b in zip(x[inside], y[inside], strict=True)]
    return np.array(cut, dtype=np.float32), table[inside]


def reprojections(molecule: Molecule, table: pd.DataFrame, pixel_size: float) -> np.ndarray:
    n = molecule.projector.n
    row = table.iloc[0]
    ctf = ctf_2d(n, pixel_size, row.rlnDefocusU, row.rlnDefocusV, row.rlnDefocusAngle, OPTICS)
    matrices = euler_matrix(table.rlnAngleRot, table.rlnAngleTilt, table.rlnAnglePsi)
    shifts = table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() / pixel_size
    return molecule.projector.project(matrices, shifts, ctf)


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (v.reshape(len(v), -1) - v.reshape(len(v), -1).mean(axis=1, keepdims=True) for v in (a, b))
    return np.sum(a * b, axis=1) / np.sqrt(np.sum(a * a, axis=1) * np.sum(b * b, axis=1))


@pytest.mark.parametrize("contrast", ["dark", "bright"])
def test_windows_at_the_true_places_are_the_reprojections(molecule: Molecule, contrast: str) -> None:
    settings = replace(QUIET, contrast=contrast, particles=12, defocus_range=(9000.0, 12000.0), min_distance=2.2)
    made = simulate_micrograph(molecule, OPTICS, settings, seed=1, number=1)
    image = made.image.astype(np.float32) * (-1 if contrast == "dark" else 1)
    found, table = windows(image, made.particles, molecule.projector.n)
    assert len(found) >= 6
    assert correlation(found, reprojections(molecule, table, 4.0)).min() > 0.9
    shuffled = table.assign(rlnAngleRot=table.rlnAngleRot + 120)
    assert correlation(found, reprojections(molecule, shuffled, 4.0)).mean() < 0.8
    opposite = table.assign(rlnOriginXAngst=-table.rlnOriginXAngst, rlnOriginYAngst=-table.rlnOriginYAngst)
    far = np.hypot(table.rlnOriginXAngst, table.rlnOriginYAngst) > 1.0
    right = correlation(found, reprojections(molecule, table, 4.0))[far]
    assert np.all(correlation(found, reprojections(molecule, opposite, 4.0))[far] < right)


def test_truth_reconstructs_the_map(molecule: Molecule) -> None:
    """Solve for the volume in Fourier space from windows at the truth (nearest-neighbour insertion)."""
    n = molecule.projector.n
    total, weight = np.zeros((n, n, n), complex), np.zeros((n, n, n))
    k = np.fft.fftfreq(n, 1 / n)
    kx, ky = k[None, : n // 2], k[:, None]
    for number in range(1, 7):
        made = simulate_micrograph(molecule, OPTICS, replace(QUIET, noise=0.3), seed=2, number=number)
        found, table = windows(-made.image.astype(np.float32), made.particles, n)
        row = table.iloc[0]
        ctf = ctf_2d(n, 4.0, row.rlnDefocusU, row.rlnDefocusV, row.rlnDefocusAngle, OPTICS)[:, : n // 2]
        for image, (_, p) in zip(found, table.iterrows(), strict=True):
            a = euler_matrix(p.rlnAngleRot, p.rlnAngleTilt, p.rlnAnglePsi)
            ft = np.fft.fft2(np.fft.ifftshift(image - image.mean()))[:, : n // 2]
            back = np.exp(-2j * np.pi * (kx * p.rlnOriginXAngst + ky * p.rlnOriginYAngst) / 4.0 / n)
            place = kx[..., None] * a[0] + ky[..., None] * a[1]
            inside = np.broadcast_to(np.hypot(kx, ky) < n // 3, ft.shape)
            index = np.rint(place[inside]).astype(int) % n
            where = (index[:, 2], index[:, 1], index[:, 0])
            np.add.at(total, where, (ft * back * ctf)[inside])
            np.add.at(weight, where, (ctf**2)[inside])
    volume = np.fft.fftshift(np.fft.ifftn(total / np.maximum(weight, 0.3)).real)
    truth, _ = make_object(ObjectSettings(diameter=120.0), 4.0, 0)
    size = len(truth)
    part = slice(n // 2 - size // 2, n // 2 - size // 2 + size)
    found_map = lowpass(volume[part, part, part], 4.0, 20.0) if size <= n else volume
    assert np.corrcoef(found_map.ravel(), lowpass(truth, 4.0, 20.0).ravel())[0, 1] > 0.85
    mirrored = lowpass(truth[::-1], 4.0, 20.0)
    assert np.corrcoef(found_map.ravel(), mirrored.ravel())[0, 1] < 0.8


def test_same_arguments_same_bytes(molecule: Molecule) -> None:
    a = simulate_micrograph(molecule, OPTICS, SMALL, seed=3, number=2)
    b = simulate_micrograph(molecule, OPTICS, SMALL, seed=3, number=2)
    np.testing.assert_array_equal(a.image, b.image)
    pd.testing.assert_frame_equal(a.particles, b.particles)
    for seed, number in ((3, 1), (4, 2)):
        other = simulate_micrograph(molecule, OPTICS, SMALL, seed=seed, number=number)
        assert other.defocus_u != a.defocus_u and np.any(other.image != a.image)


def test_noise_does_not_move_the_particles(molecule: Molecule) -> None:
    a = simulate_micrograph(molecule, OPTICS, replace(SMALL, dirt=0.0), seed=3, number=2)
    b = simulate_micrograph(molecule, OPTICS, replace(QUIET, noise=0.0), seed=3, number=2)
    pd.testing.assert_frame_equal(a.particles, b.particles)
    assert (a.defocus_u, a.defocus_v, a.defocus_angle) == (b.defocus_u, b.defocus_v, b.defocus_angle)


@pytest.mark.parametrize("pixel_size", [3.0, 4.0])
def test_noise_is_what_was_asked_for(molecule: Molecule, pixel_size: float) -> None:
    """Shot noise of 1.2 signals per px of 3 A on top of the particles: measured against the noiseless twin."""
    base = replace(SMALL, pixel_size=pixel_size, structural_noise=0.0, dirt=0.0, ice_gradient=0.0, particles=4)
    loud = simulate_micrograph(molecule, OPTICS, base, seed=5, number=1).image.astype(float)
    quiet = simulate_micrograph(molecule, OPTICS, replace(base, noise=1e-3), seed=5, number=1).image.astype(float)
    noise_std = 300.0  # what the scale of the file makes of the noise
    signal = (quiet - quiet.mean()) * 1e-3 / 1.2
    assert (loud - loud.mean() - signal).std() == pytest.approx(noise_std, rel=0.02)
    assert loud.mean() == pytest.approx(3000, abs=5)


def test_defocus_and_astigmatism_stay_in_range(molecule: Molecule) -> None:
    settings = replace(SMALL, shape=(100, 100), particles=1, defocus_range=(10000.0, 11000.0), max_astigmatism=300.0)
    made = [simulate_micrograph(molecule, OPTICS, settings, 1, i) for i in range(20)]
    mean = np.array([(m.defocus_u + m.defocus_v) / 2 for m in made])
    astigmatism = np.array([m.defocus_u - m.defocus_v for m in made])
    assert mean.min() >= 10000 and mean.max() <= 11000 and np.ptp(mean) > 500
    assert astigmatism.min() >= 0 and astigmatism.max() <= 300 and np.ptp(astigmatism) > 100
    assert len({m.defocus_angle for m in made}) == 20


@pytest.mark.parametrize("overlapping", [0.0, 0.3])
def test_particles_keep_their_distance(overlapping: float) -> None:
    settings = replace(SMALL, shape=(900, 800), particles=100, overlapping=overlapping)
    forbidden = np.zeros(settings.shape, bool)
    forbidden[300:500, 100:300] = True
    centres = place_particles(settings, 120.0, np.random.default_rng(0), forbidden)
    assert centres.shape == (100, 2)
    x, y = centres.T
    assert x.min() >= 15 and x.max() <= 799 - 15 and y.min() >= 15 and y.max() <= 899 - 15
    assert not forbidden[np.rint(y).astype(int), np.rint(x).astype(int)].any()
    distance = np.hypot(x[:, None] - x, y[:, None] - y) + 1e9 * np.eye(100)
    assert distance.min() >= (15 if overlapping else 30)
    if overlapping:
        assert 0 < (distance.min(axis=1) < 30).sum() <= 60


def test_dirt_is_dark_and_kept_clear(molecule: Molecule) -> None:
    settings = replace(SMALL, shape=(600, 600), dirt=4.0)
    made = simulate_micrograph(molecule, OPTICS, settings, seed=8, number=1)
    clean = simulate_micrograph(molecule, OPTICS, replace(settings, dirt=0.0), seed=8, number=1)
    assert made.image.min() < clean.image.min() - 500
    dark = lowpass(made.image.astype(np.float32), 4.0, 80.0) < 2400
    assert 0.001 < dark.mean() < 0.5
    x, y = made.particles.rlnCoordinateX.astype(int), made.particles.rlnCoordinateY.astype(int)
    assert not dark[y, x].any()


def test_orientations_are_uniform() -> None:
    matrices = random_rotations(20000, np.random.default_rng(0))
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(3), matrices.shape), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1)
    np.testing.assert_allclose(matrices.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose((matrices**2).mean(axis=0), 1 / 3, atol=0.01)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "project"
    simulate_project(out, 1, 3, SMALL, ObjectSettings(diameter=120.0), OPTICS, threads=2)
    return out


def test_project_folder(project: Path) -> None:
    paths = list_micrographs(project / "micrographs", "*.mrc")
    assert [p.name for p in paths] == ["mic_0001.mrc", "mic_0002.mrc", "mic_0003.mrc"]
    found = check_uniform(paths, 4.0)
    assert found.shape == (400, 440) and found.warnings == ()
    with mrcfile.open(paths[0]) as handle:
        assert handle.data.dtype == np.int16
    assert mrcfile.validate(paths[0], print_file=None) in (True, None)
    truth, pixel_size = read_image(project / "truth" / "map.mrc")
    reference, _ = read_image(project / "reference.mrc")
    assert pixel_size == pytest.approx(4.0) and truth.shape == reference.shape
    assert 1.5 * 120 / 4.0 * 0.95 < len(truth) < 1.5 * 120 / 4.0 * 1.3 and len(truth) % 2 == 0
    assert np.corrcoef(reference.ravel(), truth.ravel())[0, 1] > 0.5
    assert reference.max() > -2 * reference.min()  # protein bright


def test_project_truth(project: Path) -> None:
    micrographs = read_blocks(project / "truth" / "micrographs.star")
    particles = read_blocks(project / "truth" / "particles.star")
    for blocks in (micrographs, particles):
        optics = blocks["optics"].iloc[0]
        assert (optics.rlnVoltage, optics.rlnSphericalAberration, optics.rlnAmplitudeContrast) == (300, 2.7, 0.1)
        assert optics.rlnMicrographPixelSize == 4.0
    table = particles["particles"]
    counts = table.groupby("rlnMicrographName").size()
    assert list(counts.index) == [f"micrographs/mic_000{i}.mrc" for i in (1, 2, 3)]
    assert list(counts) == list(micrographs["micrographs"]["nphParticles"])
    merged = table.merge(micrographs["micrographs"], on="rlnMicrographName", suffixes=("", "_of"))
    np.testing.assert_array_equal(merged.rlnDefocusU, merged.rlnDefocusU_of)
    assert (table[["rlnOriginXAngst", "rlnOriginYAngst"]].abs() <= 2.0).all(axis=None)
    assert (table.rlnCoordinateX % 1 == 0).all()


def test_project_micrograph_does_not_depend_on_the_others(project: Path, tmp_path: Path) -> None:
    simulate_project(tmp_path / "p", 1, 2, SMALL, ObjectSettings(diameter=120.0), OPTICS)
    for name in ("micrographs/mic_0002.mrc", "truth/map.mrc", "reference.mrc"):
        assert (tmp_path / "p" / name).read_bytes() == (project / name).read_bytes(), name
    assert read_micrograph(tmp_path / "p/micrographs/mic_0001.mrc").image.std() > 0


def test_project_configuration_is_valid(project: Path) -> None:
    from nephila import config

    loaded = config.load_config(project / "config.yaml")
    assert loaded.input.pixel_size == 4.0 and loaded.particle.diameter >= 110 and loaded.optics.cs_mm == 2.7
    assert loaded.particle.box == len(read_image(project / "truth/map.mrc")[0])
    values = project_config("p", 3, SMALL, OPTICS, ObjectSettings(), 118.2)
    assert values["particle"]["diameter"] == 120.0 and values["project"]["seed"] == 3


def test_map_as_object(tmp_path: Path) -> None:
    atoms = build_phantom(120.0, 0)
    fine = density(atoms, 101, 2.0)
    write_volume(tmp_path / "m.mrc", fine, 2.0)
    assert map_diameter(fine, 2.0) == pytest.approx(atoms.diameter, rel=0.15)
    volume, diameter = make_object(ObjectSettings(map=tmp_path / "m.mrc", diameter=120.0), 4.0, 0)
    assert diameter == 120.0
    coarse = density(atoms, len(volume), 4.0)
    assert np.corrcoef(volume.ravel(), coarse.ravel())[0, 1] > 0.99
    write_volume(tmp_path / "inverted.mrc", -fine, 2.0)
    with pytest.raises(InputError, match="bright"):
        make_object(ObjectSettings(map=tmp_path / "inverted.mrc"), 4.0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"defocus_range": (2e4, 1e4)}, "defocus range"),
        ({"pixel_size": 0.0}, "pixel_size"),
        ({"noise": -1.0}, "noise"),
        ({"contrast": "grey"}, "contrast"),
        ({"particles": -1}, "particles"),
    ],
)
def test_bad_settings(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_what_cannot_be_done(molecule: Molecule, project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not fit"):
        simulate_micrograph(molecule, OPTICS, replace(SMALL, particles=2000), 1, 1)
    with pytest.raises(InputError, match="does not fit into"):
        simulate_micrograph(molecule, OPTICS, replace(SMALL, shape=(20, 400)), 1, 1)
    with pytest.raises(InputError, match="at least 1"):
        simulate_project(tmp_path / "a", 1, 0)
    with pytest.raises(InputError, match="holds a project already"):
        simulate_project(project, 1, 1)
    with pytest.raises(InputError, match="not both"):
        make_object(ObjectSettings(map="a", structure="b"), 4.0, 0)
    with pytest.raises(InputError, match="empty"):
        Molecule.from_volume(np.zeros((16, 16, 16)), 4.0, 40.0)
    assert len(simulate_micrograph(molecule, OPTICS, replace(SMALL, particles=0), 1, 1).particles) == 0
