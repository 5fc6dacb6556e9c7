"""Backprojection against a naive oracle and against phantoms with exact projections; sums that do not depend on the
way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from naive_backprojection import GaussianPhantom, grid_slices, random_matrices, shell_correlation

from nephila.backprojection import Backprojector
from nephila.ctf import Optics, ctf_2d
from nephila.errors import InputError
from nephila.finishing import finish, mean_weight_by_shell, memory_bytes
from nephila.fourier import shift_phases
from nephila.partial_sum import GridShape, PartialSum
from nephila.symmetry import point_group_matrices, symmetrise_volume

OPTICS = Optics(300.0, 2.7, 0.1)


def noise_slices(n: int, m: int, seed: int = 0) -> np.ndarray:
    """Half transforms of noise; Hermitian in the column kx = 0 as those of images are."""
    rng = np.random.default_rng(seed)
    return np.fft.rfft2(rng.standard_normal((m, n, n))).astype(np.complex64)


def scattered_ctf(n: int, m: int) -> np.ndarray:
    u = np.linspace(6000, 22000, m)
    return ctf_2d(n, 3.0, u, u - 700, np.linspace(0, 170, m), OPTICS)


@pytest.mark.parametrize(("n", "padding", "radius"), [(12, 2.0, None), (13, 2.0, None), (12, 1.5, 4), (11, 3.0, 3)])
def test_sums_equal_the_naive_ones(n: int, padding: float, radius: int | None) -> None:
    m = 5
    images, matrices, ctf = noise_slices(n, m), random_matrices(m), scattered_ctf(n, m)
    weights, noise_weights = np.array([1.0, 0.5, 0.0, 2.0, 1.0]), np.linspace(1.0, 0.3, n // 2 + 1)
    collector = Backprojector(n, padding, radius)
    collector.insert(images, matrices, ctf, weights, noise_weights)
    total = collector.partial_sum()
    numerator, denominator = total.expand()
    expected = grid_slices(images, matrices, ctf, weights, noise_weights, total.grid)
    side = total.grid.n_pad
    # cells on the grid's own Nyquist planes are left out
    inner = np.abs(np.fft.fftfreq(side, 1 / side)) < side // 2
    box = np.ix_(inner, inner, inner[: side // 2 + 1])
    for got, naive in ((numerator, expected[0]), (denominator, expected[1])):
        reference = naive[:, :, : side // 2 + 1][box]
        assert np.abs(got[box] - reference).max() < 1e-4 * np.abs(reference).max() + 3 * total.grid.value_step
    assert total.particles == 4
    assert total.weight == pytest.approx(4.5, rel=1e-4)


@pytest.mark.parametrize("n", [32, 33])
@pytest.mark.parametrize("with_ctf", [False, True])
def test_projections_give_the_volume_back(n: int, with_ctf: bool) -> None:
    m = 500
    phantom, matrices = GaussianPhantom.random(n, sigma=(0.8, 1.3)), random_matrices(m)
    images, truth = phantom.slices(n, matrices), phantom.volume(n)
    ctf = scattered_ctf(n, m) if with_ctf else None
    collector = Backprojector(n)
    collector.insert(images * ctf if with_ctf else images, matrices, ctf)
    volume = finish(collector.partial_sum())
    fsc = shell_correlation(volume, truth)
    assert fsc[: n // 2 - 2].min() > 0.99
    assert fsc[1 : n // 4].min() > 0.998
    assert (volume * truth).sum() / (truth * truth).sum() == pytest.approx(1.0, abs=0.03)


def test_shifts_bring_particles_to_the_centre() -> None:
    n, m = 24, 40
    matrices, shifts = random_matrices(m), np.random.default_rng(2).normal(scale=2.0, size=(m, 2))
    images = GaussianPhantom.random(n).slices(n, matrices)
    straight, shifted = Backprojector(n), Backprojector(n)
    straight.insert(images, matrices)
    # image(x) = P(x + o): the particle lies at -o
    shifted.insert(images * shift_phases(n, -shifts[:, 0], -shifts[:, 1]), matrices, shifts_px=shifts)
    a, b = straight.partial_sum().sums, shifted.partial_sum().sums
    assert np.abs(a - b).max() < 1e-5 * np.abs(a).max()


@pytest.mark.parametrize(("name", "m"), [("C4", 60), ("D3", 40), ("T", 24), ("O", 12), ("I", 8)])
def test_symmetry(name: str, m: int) -> None:
    n = 32
    group = point_group_matrices(name)
    phantom = GaussianPhantom.random(n, 20, sigma=(1.0, 1.6)).repeated(group)
    matrices, ctf = random_matrices(m), scattered_ctf(n, m)
    collector = Backprojector(n)
    collector.insert(phantom.slices(n, matrices) * ctf, matrices, ctf)
    volume = finish(collector.partial_sum(), name)
    assert np.linalg.norm(volume - symmetrise_volume(volume, group)) < 1e-3 * np.linalg.norm(volume) + edge_of(volume)
    assert shell_correlation(volume, phantom.volume(n))[:11].min() > 0.98


def edge_of(volume: np.ndarray) -> float:
    """Norm of what lies outside the sphere that symmetrising keeps."""
    place = np.arange(len(volume)) - len(volume) // 2
    radius2 = place[:, None, None] ** 2 + place[None, :, None] ** 2 + place[None, None, :] ** 2
    return 1.5 * float(np.linalg.norm(volume[radius2 > (0.45 * len(volume)) ** 2]))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 7, 40, 100])
def test_same_bytes_for_threads_and_chunks(threads: int, chunk: int, tmp_path: Path) -> None:
    n, m = 20, 100
    images, matrices, ctf = noise_slices(n, m), random_matrices(m), scattered_ctf(n, m)
    whole = Backprojector(n)
    whole.insert(images, matrices, ctf)
    total = PartialSum.empty(whole.grid)
    for first in reversed(range(0, m, chunk)):
        part = Backprojector(n)
        rows = slice(first, first + chunk)
        part.insert(images[rows], matrices[rows], ctf[rows], threads=threads)
        total.add(part.partial_sum())
    assert total.sums.tobytes() == whole.partial_sum().sums.tobytes()
    assert (total.particles, total.weight_units) == (m, whole.partial_sum().weight_units)
    assert finish(total, threads=threads).tobytes() == finish(whole.partial_sum()).tobytes()


@pytest.mark.parametrize("images", [1, 7, 30, 100])
def test_same_bytes_whenever_pending_images_are_gridded(images: int) -> None:
    n, m = 16, 40
    transforms, matrices, ctf = noise_slices(n, m), random_matrices(m), scattered_ctf(n, m)
    whole, later = Backprojector(n), Backprojector(n, pending_bytes=images * 16 * n * (n // 2 + 1))
    whole.insert(transforms, matrices, ctf)
    expected = whole.partial_sum().sums
    for first in range(0, m, 12):
        part = slice(first, first + 12)
        later.insert(transforms[part], matrices[part], ctf[part])
        if first == 12:
            later.partial_sum()
    total = later.partial_sum()
    assert total.sums.tobytes() == expected.tobytes() and total.particles == m
    assert later.partial_sum().sums.tobytes() == expected.tobytes()


def test_large_values_are_split_into_runs_not_lost() -> None:
    n, m = 16, 30
    images, matrices = noise_slices(n, m), random_matrices(m)
    usual, fine = Backprojector(n), Backprojector(n, data_scale=n / 2.0**11)
    usual.insert(images, matrices)
    fine.insert(images, matrices)
    a, b = finish(usual.partial_sum()), finish(fine.partial_sum())
    assert np.linalg.norm(a - b) < 1e-3 * np.linalg.norm(a)


def test_save_and_load(tmp_path: Path) -> None:
    collector = Backprojector(16, max_radius=6)
    collector.insert(noise_slices(16, 9), random_matrices(9))
    for name, factor in (("small", 1), ("large", 2**31)):
        total = collector.partial_sum().copy()
        total.sums *= factor
        total.save(tmp_path / f"{name}.npz")
        back = PartialSum.load(tmp_path / f"{name}.npz")
        assert back.grid == total.grid and back.particles == 9 and back.weight_units == total.weight_units
        assert back.sums.tobytes() == total.sums.tobytes()
    assert (tmp_path / "small.npz").stat().st_size < 0.6 * (tmp_path / "large.npz").stat().st_size
    (tmp_path / "broken.npz").write_bytes(b"PK not an archive")
    for name in ("broken", "missing"):
        with pytest.raises(InputError, match=name):
            PartialSum.load(tmp_path / f"{name}.npz")


@pytest.mark.parametrize("symmetry", ["C1", "D3"])
def test_no_particles_one_particle_and_blank_images(symmetry: str) -> None:
    n = 16
    nothing = Backprojector(n)
    nothing.insert(np.zeros((0, n, n // 2 + 1)), np.zeros((0, 3, 3)))
    assert not finish(nothing.partial_sum(), symmetry).any()
    one = Backprojector(n)
    one.insert(GaussianPhantom.random(n).slices(n, random_matrices(1)), random_matrices(1))
    volume = finish(one.partial_sum(), symmetry)
    assert np.isfinite(volume).all() and volume.any()
    blank = Backprojector(n)
    blank.insert(np.zeros((3, n, n // 2 + 1)), random_matrices(3), np.zeros((n, n // 2 + 1)))
    assert not finish(blank.partial_sum(), symmetry, 1 / 3).any()
    zero = Backprojector(n)
    zero.insert(np.zeros((3, n, n // 2 + 1)), random_matrices(3))
    assert not finish(zero.partial_sum(), symmetry).any()
    weightless = Backprojector(n)
    weightless.insert(noise_slices(n, 2), random_matrices(2), weights=[0, 0])
    assert weightless.partial_sum().particles == 0


def test_regulariser_and_snr_filter() -> None:
    n, m = 24, 300
    phantom, matrices = GaussianPhantom.random(n), random_matrices(m)
    collector = Backprojector(n)
    collector.insert(phantom.slices(n, matrices), matrices)
    total = collector.partial_sum()
    plain = finish(total)
    third = finish(total, regulariser=1 / 3)
    same = finish(total, snr=3.0)
    ratio = (third * plain).sum() / (plain * plain).sum()
    assert ratio == pytest.approx(0.75, abs=0.04)
    assert (same * plain).sum() / (plain * plain).sum() == pytest.approx(0.75, abs=0.08)
    assert mean_weight_by_shell(total)[2:10] == pytest.approx(np.ones(8), abs=0.25)


def test_closed_shells_hold_nothing() -> None:
    n, m = 24, 200
    collector = Backprojector(n)
    collector.insert(noise_slices(n, m), random_matrices(m))
    total = collector.partial_sum()
    plain = shell_power(finish(total))
    for volume in (finish(total, snr=np.where(np.arange(n // 2 + 1) < 6, 100.0, 0.0)), finish(total, max_radius=5)):
        power = shell_power(volume)
        assert power[9] < 0.02 * plain[9]
        assert power[3] > 0.7 * plain[3]


def shell_power(volume: np.ndarray) -> np.ndarray:
    n = len(volume)
    k = np.fft.fftfreq(n, 1 / n)
    shells = np.rint(np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)).astype(int)
    return np.bincount(shells.ravel(), weights=(np.abs(np.fft.fftn(volume)) ** 2).ravel())


def _insert(**changes: object) -> None:
    n = 8
    arguments: dict[str, object] = {"images_ft": noise_slices(n, 2), "matrices": random_matrices(2)}
    Backprojector(n).insert(**(arguments | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images_ft": np.full((2, 8, 5), np.nan, np.complex64)}, "NaN"),
        ({"images_ft": np.full((2, 8, 5), np.inf, np.complex64)}, "infinite"),
        ({"images_ft": np.full((2, 8, 5), 1e12, np.complex64)}, "too large"),
        ({"images_ft": np.zeros((2, 8, 8))}, "half transforms"),
        ({"matrices": random_matrices(3)}, "matrices"),
        ({"matrices": np.full((2, 3, 3), np.nan)}, "NaN"),
        ({"ctf": np.ones((3, 8, 5))}, "CTF"),
        ({"ctf": np.full((8, 5), np.nan)}, "NaN"),
        ({"weights": [1.0, -1.0]}, "weights"),
        ({"weights": [1.0, np.nan]}, "weights"),
        ({"noise_weights": np.ones(4)}, "noise weights"),
        ({"shifts_px": np.zeros((2, 3))}, "shifts"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _insert(**changes)


def test_bad_settings_are_refused() -> None:
    for arguments in ({"n": 2}, {"n": 8, "padding": 1.0}, {"n": 8, "max_radius": 9}, {"n": 8, "data_scale": -1.0}):
        with pytest.raises(InputError):
            Backprojector(**arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="grids"):
        PartialSum.empty(GridShape.of(8, 2.0, None)).add(PartialSum.empty(GridShape.of(8, 2.0, 3)))
    total = PartialSum.empty(GridShape.of(8, 2.0, None))
    with pytest.raises(InputError, match="point group"):
        finish(total, "X1")
    collector = Backprojector(8)
    collector.insert(noise_slices(8, 2), random_matrices(2))
    for wrong in (
        {"regulariser": np.nan},
        {"regulariser": -1.0},
        {"regulariser": np.ones(4)},
        {"snr": np.full(5, np.nan)},
    ):
        with pytest.raises(InputError, match="regulariser|SNR"):
            finish(collector.partial_sum(), **wrong)  # type: ignore[arg-type]


def test_memory_plan() -> None:
    plan = memory_bytes(256)
    cells = len(PartialSum.empty(GridShape.of(32, 2.0, None)).sums)
    assert memory_bytes(32)["file"] == 12 * cells
    assert plan["insert"] < 2 * 2**30 and memory_bytes(256, sums=2)["insert"] < 4 * 2**30
    assert memory_bytes(256, max_radius=64)["insert"] < 0.7 * plan["insert"]
