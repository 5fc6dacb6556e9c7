"""The phantom and the density of atoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from nephila.errors import InputError
from nephila.fourier import lowpass, rfftn, shell_index_3d
from nephila.simulate.density import SOLVENT_B, Atoms, density, symmetrise
from nephila.simulate.micrographs import random_rotations
from nephila.simulate.phantom import build_phantom
from nephila.simulate.structure import read_structure, scattering_factor
from nephila.symmetry import point_group_matrices


def naive_density(atoms: Atoms, box: int, pixel_size: float, b_factor: float) -> np.ndarray:
    """The sum of Gaussians, voxel by voxel: exp(-B k^2 / 4) is a Gaussian of variance B / (8 pi^2)."""
    axis = (np.arange(box) - box // 2) * pixel_size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    variance = b_factor / (8 * np.pi**2)
    out = np.zeros((box, box, box))
    for (ax, ay, az), weight in zip(atoms.positions, atoms.weights, strict=True):
        squared = (x - ax) ** 2 + (y - ay) ** 2 + (z - az) ** 2
        out += weight * (2 * np.pi * variance) ** -1.5 * np.exp(-squared / (2 * variance))
    return out


@pytest.mark.parametrize("box", [32, 33])
@pytest.mark.parametrize("solvent", [0.0, 0.45])
def test_density_is_the_sum_of_gaussians(box: int, solvent: float) -> None:
    rng = np.random.default_rng(3)
    atoms = Atoms(rng.uniform(-10, 10, size=(6, 3)), rng.uniform(1, 5, size=6))
    b_factor = 250.0  # broad enough for the grid: no detail beyond Nyquist, so that the plain sum is exact too
    expected = naive_density(atoms, box, 1.5, b_factor) - solvent * naive_density(atoms, box, 1.5, SOLVENT_B)
    found = density(atoms, box, 1.5, b_factor, solvent)
    assert found.shape == (box,) * 3 and found.dtype == np.float32
    assert np.abs(found - expected).max() < 2e-3 * expected.max()
    assert found.sum() * 1.5**3 == pytest.approx(atoms.weights.sum() * (1 - solvent), rel=1e-3)


def test_density_does_not_alias() -> None:
    """A coarse grid holds the low frequencies of a fine one, also where atoms are much sharper than a voxel."""
    rng = np.random.default_rng(4)
    atoms = Atoms(rng.uniform(-25, 25, size=(200, 3)), np.ones(200))
    coarse = rfftn(np.fft.ifftshift(density(atoms, 24, 4.0, 20.0))) * 4.0**3
    fine = rfftn(np.fft.ifftshift(density(atoms, 96, 1.0, 20.0)))
    keep = np.fft.fftfreq(24, 1 / 24).astype(int)
    part = fine[np.ix_(keep, keep, np.arange(12))]
    inside = (np.abs(keep) < 12)[:, None, None] & (np.abs(keep) < 12)[None, :, None]
    difference = np.abs(coarse[..., :12] - part) * inside
    assert difference.max() < 2e-3 * np.abs(part).max()


def test_density_needs_room() -> None:
    with pytest.raises(InputError, match="needs 61 px, the box has 40"):
        density(Atoms(np.array([[30.5, 0, 0]]), np.ones(1)), 40, 1.0)


@pytest.fixture(scope="module")
def phantom() -> Atoms:
    return build_phantom(180.0, seed=0)


def test_phantom_is_like_a_protein(phantom: Atoms) -> None:
    assert phantom.diameter == pytest.approx(180, rel=0.05)
    assert 1500 < len(phantom) / 7 < 4000
    np.testing.assert_allclose(np.average(phantom.positions, axis=0, weights=phantom.weights), 0, atol=1e-9)
    nearest = cKDTree(phantom.positions).query(phantom.positions, k=2)[0][:, 1]
    assert 1.0 < np.median(nearest) < 1.7 and (nearest < 0.5).mean() < 0.01
    small, again, other = (build_phantom(100.0, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(again.positions, small.positions)
    assert len(other) != len(small)


def test_phantom_has_power_to_3_angstrom(phantom: Atoms) -> None:
    """Helices side by side show at 10 A, their pitch at 5 A; between and beyond there is less, but no gap."""
    box, pixel_size = 144, 1.5
    power = np.abs(rfftn(density(phantom, box, pixel_size, b_factor=0.0))) ** 2
    shells = shell_index_3d(box).ravel()
    mean = np.bincount(shells, power.ravel()) / np.maximum(np.bincount(shells), 1)

    def at(resolution: float) -> float:
        shell = round(box * pixel_size / resolution)
        return float(mean[shell - 2 : shell + 3].mean())

    assert at(60) > 20 * at(10)
    assert at(9.0) > 1.5 * at(6.5)
    assert at(5.0) > 1.3 * at(6.5)
    assert at(3.1) > 0.05 * at(5.0)


def test_phantom_is_asymmetric(phantom: Atoms) -> None:
    """At 25 A no rotation beyond 40 degrees brings it back near itself, nor does a mirror."""
    n, pixel_size = 32, 8.0

    def low(positions: np.ndarray) -> np.ndarray:
        atoms = Atoms(positions[::9], phantom.weights[::9])
        volume = lowpass(density(atoms, n, pixel_size, 200.0), pixel_size, 25.0).ravel()
        volume -= volume.mean()
        return volume / np.linalg.norm(volume)

    own = low(phantom.positions)
    rotations = random_rotations(120, np.random.default_rng(0))
    far = rotations[np.rad2deg(np.arccos((np.trace(rotations, axis1=1, axis2=2) - 1) / 2)) > 40]
    assert max(float(own @ low(phantom.positions @ r.T)) for r in far) < 0.75
    mirrored = phantom.positions * np.array([1, 1, -1])
    assert max(float(own @ low(mirrored @ r.T)) for r in rotations) < 0.85


@pytest.mark.parametrize(
    ("symmetry", "diameter"), [("C3", 120.0), ("D2", 120.0), ("T", 120.0), ("O", 150.0), ("I", 200.0)]
)
def test_symmetric_phantom(symmetry: str, diameter: float) -> None:
    atoms = build_phantom(diameter, 1, symmetry)
    group = point_group_matrices(symmetry)
    assert atoms.diameter == pytest.approx(diameter, rel=0.1) and len(atoms) % len(group) == 0
    tree = cKDTree(atoms.positions)
    for matrix in group:
        assert tree.query(atoms.positions[::25] @ matrix.T)[0].max() < 1e-6
    nearest = tree.query(atoms.positions, k=2)[0][:, 1]
    assert (nearest < 0.5).mean() < 0.02, "copies run into each other"


def test_phantom_refuses() -> None:
    with pytest.raises(InputError, match="diameter"):
        build_phantom(20.0)
    with pytest.raises(InputError, match="point group"):
        build_phantom(100.0, 0, "X5")
    with pytest.raises(InputError, match="too small"):
        build_phantom(90.0, 0, "I")


def test_symmetrise_keeps_the_weights() -> None:
    atoms = symmetrise(Atoms(np.array([[1.0, 2, 3], [4, 5, 6]]), np.array([2.0, 3.0])), point_group_matrices("C2"))
    np.testing.assert_allclose(atoms.positions, [[1, 2, 3], [4, 5, 6], [-1, -2, 3], [-4, -5, 6]], atol=1e-12)
    np.testing.assert_array_equal(atoms.weights, [2, 3, 2, 3])


PDB = """\
CRYST1   50.000   50.000   50.000  90.00  90.00  90.00 P 1           1
REMARK 350 BIOMOLECULE: 1
REMARK 350 APPLY THE FOLLOWING TO CHAINS: A
REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000
REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000
REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000
REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        0.00000
ATOM      1  N   GLY A   1      10.000   0.000   0.000  1.00 10.00           N
ATOM      2  CA  GLY A   1      12.000   0.000   0.000  1.00 10.00           C
ATOM      3  O   GLY A   1      12.000   4.000   1.000  0.50 10.00           O
HETATM    4  O   HOH A   2      30.000   0.000   0.000  1.00 10.00           O
END
"""


def test_structure(tmp_path: Path) -> None:
    path = tmp_path / "a.pdb"
    path.write_text(PDB)
    atoms = read_structure(path)
    np.testing.assert_allclose(atoms.weights, [2.21, 2.51, 0.99])
    np.testing.assert_allclose(np.average(atoms.positions, axis=0, weights=atoms.weights), 0, atol=1e-9)
    np.testing.assert_allclose(atoms.positions[1] - atoms.positions[0], [2, 0, 0], atol=1e-6)
    assert len(read_structure(path, assembly="1")) == 6
    with pytest.raises(InputError, match="no assembly '7'; the file has: 1"):
        read_structure(path, assembly="7")
    with pytest.raises(InputError, match="no such file"):
        read_structure(tmp_path / "b.pdb")
    (tmp_path / "c.cif").write_text("hello")
    with pytest.raises(InputError, match=r"c\.cif"):
        read_structure(tmp_path / "c.cif")
    assert scattering_factor("U", 92) > scattering_factor("Fe", 26) > scattering_factor("C", 6)
