"""Projections against closed forms, plain sums and the slow form of the kernel."""

from __future__ import annotations

import numpy as np
import pytest
from naive_projection import Blobs, slice_sample, transform_at

from nephila.errors import InputError
from nephila.fourier import centred_irfft2, centred_rfft2, frequency_radius_2d
from nephila.geometry import euler_matrix
from nephila.kernels.kaiser import (
    kaiser_bessel,
    kaiser_bessel_beta,
    kaiser_bessel_transform,
    weight_polynomials,
)
from nephila.projection import FourierProjector


def random_matrices(m: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng([seed, 3])
    return euler_matrix(rng.uniform(-180, 180, m), np.rad2deg(np.arccos(rng.uniform(-1, 1, m))), rng.uniform(0, 360, m))


@pytest.mark.parametrize(("width", "padding"), [(2, 2.0), (4, 1.5), (4, 2.0), (6, 1.5)])
def test_window_transform_and_polynomials(width: int, padding: float) -> None:
    beta = kaiser_bessel_beta(width, padding)
    x = np.linspace(-width / 2, width / 2, 20001)
    for f in (0.0, 0.2, 0.45, 1.3):
        expected = np.trapezoid(kaiser_bessel(x, width, beta) * np.cos(2 * np.pi * f * x), x)
        assert kaiser_bessel_transform(f, width, beta) == pytest.approx(expected, abs=1e-6)
    assert kaiser_bessel([-width / 2 - 0.01, width / 2 + 0.01], width, beta) == pytest.approx(0)
    coefficients = weight_polynomials(width, beta, 7)
    t = np.linspace(0, 0.999, 50)
    for tap in range(width):
        direct = kaiser_bessel(t + width / 2 - 1 - tap, width, beta)
        assert np.polyval(coefficients[:, tap], 2 * t - 1) == pytest.approx(direct, abs=1e-5)


def test_odd_window_is_refused() -> None:
    with pytest.raises(ValueError, match="width is 3"):
        weight_polynomials(3, 5.0)


@pytest.mark.parametrize(("padding", "limit"), [(1.5, 1.0e-3), (2.0, 4e-4)])
@pytest.mark.parametrize("n", [48, 49, 64])
def test_projections_of_gaussians(n: int, padding: float, limit: float) -> None:
    blobs, matrices = Blobs.random(n), random_matrices(20)
    shifts = np.random.default_rng(5).uniform(-3, 3, (20, 2))
    images = FourierProjector.from_volume(blobs.volume(n), padding).project(matrices, shifts)
    exact = np.array([blobs.projection(n, a, o) for a, o in zip(matrices, shifts, strict=True)])
    assert images.dtype == np.float32
    assert np.linalg.norm(images - exact) / np.linalg.norm(exact) < limit


def test_projection_along_z_is_the_sum(n: int = 33) -> None:
    volume = Blobs.random(n, sigma=2.0).volume(n)
    image = FourierProjector.from_volume(volume, 2.0).project(np.eye(3)[None])[0]
    assert np.abs(image - volume.sum(axis=0)).max() < 2e-3 * image.max()


def test_hand_and_axes() -> None:
    """One blob at (x, y, z) = (6, 0, 0): rot turns it towards -y, tilt 90 brings z to -x (RELION's convention)."""
    n = 32
    blob = Blobs(np.array([[6.0, 0.0, 3.0]]), np.ones(1), 1.5)
    projector = FourierProjector.from_volume(blob.volume(n))
    for angles, (x, y) in {(0, 0, 0): (6, 0), (90, 0, 0): (0, -6), (0, 90, 0): (-3, 0), (0, 0, 90): (0, -6)}.items():
        image = projector.project(euler_matrix(*angles)[None])[0]
        row, column = np.unravel_index(np.argmax(image), image.shape)
        assert (column - n // 2, row - n // 2) == (x, y)
    moved = projector.project(np.eye(3)[None], [[2.0, -4.0]])[0]
    row, column = np.unravel_index(np.argmax(moved), moved.shape)
    assert (column - n // 2, row - n // 2) == (4, 4)  # image(x) = P(x + o)


def test_kernel_equals_plain_taps() -> None:
    n = 24
    projector = FourierProjector.from_volume(Blobs.random(n).volume(n), 1.5)
    matrices = random_matrices(5)
    points = np.array([[0, 0], [3, -4], [7, 2], [0, 11], [0, -11], [12, 0], [5.5, 3.25]])
    fast = projector.sample(matrices, points.T)
    plain = np.array([[slice_sample(projector, a, kx, ky) for kx, ky in points] for a in matrices])
    assert np.abs(fast - plain).max() < 1e-4 * np.abs(plain).max()
    true = transform_at(Blobs.random(n).volume(n), (points @ matrices[0][:2]))
    assert np.abs(fast[0] - true).max() < 2e-3 * np.abs(true).max()


@pytest.mark.parametrize("n", [24, 25])
def test_slices_are_the_transforms_of_projections(n: int) -> None:
    projector = FourierProjector.from_volume(Blobs.random(n).volume(n))
    matrices = random_matrices(4)
    slices, images = projector.slices(matrices), projector.project(matrices)
    assert np.abs(centred_irfft2(slices, n) - images).max() < 1e-5 * images.max()
    assert (
        np.abs(centred_rfft2(images) - slices)[:, frequency_radius_2d(n) < n // 2].max() < 1e-3 * np.abs(slices).max()
    )


def test_band_limits() -> None:
    n = 32
    volume = Blobs.random(n).volume(n)
    radius = frequency_radius_2d(n)
    whole = FourierProjector.from_volume(volume).slices(random_matrices(3))
    small = FourierProjector.from_volume(volume, max_radius=9)
    assert small.transform.size < 40**3 / 2
    limited = small.slices(random_matrices(3))
    assert np.abs(limited[:, radius > 9]).max() == 0
    assert np.array_equal(limited[:, radius <= 9], whole[:, radius <= 9])
    assert np.array_equal(small.slices(random_matrices(3), max_radius=5)[:, radius <= 5], whole[:, radius <= 5])


def test_ctf_multiplies() -> None:
    n = 32
    projector = FourierProjector.from_volume(Blobs.random(n).volume(n))
    matrices = random_matrices(3)
    ctf = np.random.default_rng(0).uniform(-1, 1, (3, n, n // 2 + 1)).astype(np.float32)
    expected = centred_irfft2(projector.slices(matrices) * ctf, n)
    assert np.abs(projector.project(matrices, ctf=ctf) - expected).max() < 1e-5 * np.abs(expected).max()
    single = projector.project(matrices, ctf=ctf[1])
    assert np.array_equal(single[1], projector.project(matrices, ctf=ctf)[1])


def test_no_projections() -> None:
    projector = FourierProjector.from_volume(np.zeros((16, 16, 16)))
    assert projector.project(np.zeros((0, 3, 3))).shape == (0, 16, 16)
    assert projector.slices(np.zeros((0, 3, 3))).shape == (0, 16, 9)
    assert np.abs(projector.project(np.eye(3)[None])).max() == 0


@pytest.mark.parametrize("n", [16, 17])
def test_blocks_do_not_change_a_byte(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    projector = FourierProjector.from_volume(Blobs.random(n).volume(n))
    matrices, shifts = random_matrices(7), rng.uniform(-2, 2, (7, 2))
    ctf = rng.uniform(-1, 1, (7, n, n // 2 + 1)).astype(np.float32)
    whole = projector.project(matrices, shifts, ctf)
    one = [projector.project(matrices[i : i + 1], shifts[i : i + 1], ctf[i])[0] for i in range(7)]
    assert np.array_equal(whole, one)
    monkeypatch.setattr("nephila.projection.BLOCK_IMAGES", 3)
    assert projector.project(matrices, shifts, ctf).tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    ("volume", "padding", "message"),
    [
        (np.zeros((16, 16, 8)), 1.5, "cubic"),
        (np.zeros((4, 4, 4)), 1.5, "at least 8"),
        (np.full((16, 16, 16), np.nan), 1.5, "finite"),
        (np.zeros((16, 16, 16)), 1.0, "padding 1.0"),
    ],
)
def test_bad_volumes(volume: np.ndarray, padding: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FourierProjector.from_volume(volume, padding)


def test_bad_requests() -> None:
    projector = FourierProjector.from_volume(np.zeros((16, 16, 16)), max_radius=5)
    with pytest.raises(InputError, match="matrices of shape"):
        projector.project(np.eye(3))
    with pytest.raises(InputError, match="row 1 is not finite"):
        projector.slices(np.stack([np.eye(3), np.full((3, 3), np.nan)]))
    with pytest.raises(InputError, match="shifts of shape"):
        projector.project(np.eye(3)[None], [[0, 0], [1, 1]])
    with pytest.raises(InputError, match="CTF of shape"):
        projector.project(np.eye(3)[None], ctf=np.zeros((16, 16)))
    with pytest.raises(InputError, match="CTF holds values that are not finite"):
        projector.project(np.eye(3)[None], ctf=np.full((16, 9), np.nan))
    with pytest.raises(InputError, match="beyond the projector's limit of 5"):
        projector.sample(np.eye(3)[None], [[6.0], [0.0]])
