"""Masks and sizes on objects whose extent is known."""

from __future__ import annotations

import numpy as np
import pytest

from nephila.errors import InputError
from nephila.masks import (
    AutomaticMaskSettings,
    apply_mask,
    automatic_mask,
    half_map_mask,
    particle_radius,
    radius_from_centre,
    radius_of_gyration,
    soft_edge,
    spherical_mask,
)


def ball(n: int, radius: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    volume = (radius_from_centre(n) <= radius).astype(np.float32)
    return volume + noise * np.random.default_rng(seed).standard_normal(volume.shape).astype(np.float32)


@pytest.mark.parametrize("n", [20, 21])
def test_sphere(n: int) -> None:
    mask = spherical_mask(n, 6.0, 3.0)
    radius = radius_from_centre(n)
    assert radius[n // 2, n // 2, n // 2] == 0
    assert (mask[radius <= 6] == 1).all() and not mask[radius >= 9].any()
    assert mask[n // 2, n // 2, n // 2 + 7] == pytest.approx(0.75)
    assert (spherical_mask(n, 6.0, 0.0) == (radius <= 6)).all()
    assert np.array_equal(mask, mask.transpose(2, 1, 0))


def test_edge_and_refusals() -> None:
    assert soft_edge([-1.0, 0.0, 1.0, 2.0, 5.0], 2.0) == pytest.approx([1, 1, 0.5, 0, 0])
    for arguments in ((10, 0.0, 1.0), (10, 3.0, -1.0)):
        with pytest.raises(InputError):
            spherical_mask(*arguments)
    with pytest.raises(InputError, match="above"):
        automatic_mask(np.zeros((16, 16, 16)), 2.0, settings=AutomaticMaskSettings(threshold=0.5))


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_automatic_mask_covers_the_particle_and_little_more(noise: float) -> None:
    n, pixel_size, radius = 48, 3.0, 12
    settings = AutomaticMaskSettings(resolution=15, extend=6, edge=9)
    mask = automatic_mask(ball(n, radius, noise), pixel_size, diameter=100.0, settings=settings)
    distance = radius_from_centre(n)
    assert mask.min() >= 0 and mask.max() == 1
    assert (mask[distance <= radius] == 1).all()
    # boundary of the low-passed ball (at most half a resolution out), 6 A of growth, 9 A of edge
    assert not mask[distance > radius + (7.5 + 6 + 9) / pixel_size + 1].any()


def test_automatic_mask_leaves_dust_out_and_fills_holes() -> None:
    n = 48
    volume = ball(n, 12) - ball(n, 5)
    volume[3:5, 3:5, 24] = 1.0
    mask = automatic_mask(volume, 3.0, settings=AutomaticMaskSettings(resolution=6, extend=0, edge=0, threshold=0.3))
    assert mask[24, 24, 24] == 1
    assert not mask[:8].any()


def test_apply_mask() -> None:
    volume = ball(16, 4) + 2.0
    masked = apply_mask(volume, spherical_mask(16, 5, 0))
    assert masked[0, 0, 0] == pytest.approx(2.0)
    assert masked[8, 8, 8] == 3.0
    assert apply_mask(volume, spherical_mask(16, 5, 0), fill=0.0)[0, 0, 0] == 0


def test_sizes_of_a_ball() -> None:
    volume = np.roll(ball(48, 12), 3, axis=2)
    assert radius_of_gyration(volume, 2.0, threshold=0.5) == pytest.approx(np.sqrt(3 / 5) * 12 * 2.0, rel=0.01)
    assert particle_radius(ball(48, 12), 2.0, threshold=0.5) == pytest.approx(24.0, abs=2.0)
    for function in (radius_of_gyration, particle_radius):
        with pytest.raises(InputError):
            function(np.zeros((16, 16, 16)), 1.0)


def test_mask_of_half_maps_follows_what_both_show() -> None:
    n, pixel_size, radius = 48, 4.0, 9
    rng = np.random.default_rng(2)
    halves = [ball(n, radius) + 0.5 * rng.standard_normal((n, n, n)).astype(np.float32) for _ in range(2)]
    mask = half_map_mask(*halves, pixel_size, diameter=120.0, sphere=170.0)
    assert mask is not None
    distance = radius_from_centre(n)
    assert (mask[distance <= radius] == 1).all() and not mask[distance >= 170 / 2 / pixel_size + 6].any()
    assert mask.sum() < 0.8 * spherical_mask(n, 170 / 2 / pixel_size, 3).sum()
    # details that differ between the halves, and those finer than the low-pass, change next to nothing
    fine = [half + 0.5 * rng.standard_normal((n, n, n)).astype(np.float32) for half in halves]
    again = half_map_mask(*fine, pixel_size, diameter=120.0, sphere=170.0)
    assert again is not None and np.abs(again - mask).mean() < 0.01


def test_noise_has_no_mask() -> None:
    for seed in range(3):
        noise = np.random.default_rng(seed).standard_normal((2, 40, 40, 40)).astype(np.float32)
        assert half_map_mask(*noise, 4.0, diameter=100.0, sphere=120.0) is None
