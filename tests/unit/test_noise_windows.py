"""The noise window is the one without particles and without a gradient."""

from __future__ import annotations

import numpy as np
import pytest

from nephila.errors import InputError
from nephila.noise_windows import NoiseSettings, find_noise_windows, quadrant_variance


@pytest.mark.parametrize("box", [20, 21])
def test_empty_corner_is_chosen(box: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0, 2, (200, 240))
    image[:80, :80] = rng.normal(0, 1, (80, 80))
    found = find_noise_windows(image, box, NoiseSettings(candidates=4))
    assert found.chosen.shape == (box, box)
    assert (found.x + box <= 85).all() and (found.y + box <= 85).all()
    assert np.array_equal(found.chosen, found.windows[0])
    assert np.array_equal(
        found.windows[2], image[found.y[2] : found.y[2] + box, found.x[2] : found.x[2] + box].astype(np.float32)
    )
    assert (np.diff(found.quadrant_variance) >= 0).all()


def test_even_window_comes_before_a_sloping_one() -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(0, 1, (40, 80)).astype(np.float32)
    image[:, 40:] = 0.5 * image[:, 40:] + np.linspace(-1, 1, 40)[None, :]
    found = find_noise_windows(image, 40, NoiseSettings(overlap=0.0, candidates=2))
    assert found.x.tolist() == [0, 40]
    assert find_noise_windows(image, 40, NoiseSettings(overlap=0.0, candidates=2, index=1)).chosen[0, 0] == image[0, 40]


def test_quadrants_of_known_means() -> None:
    window = np.kron(np.array([[1.0, 2.0], [3.0, 4.0]]), np.ones((3, 3)))
    assert quadrant_variance(window[None])[0] == pytest.approx(np.var([1, 2, 3, 4]))


def test_central_region_alone_is_searched() -> None:
    image = np.random.default_rng(2).normal(size=(200, 200))
    found = find_noise_windows(image, 20, NoiseSettings(region=60, candidates=99))
    assert found.x.min() >= 70 and (found.x + 20).max() <= 130


def test_bad_input_is_refused() -> None:
    image = np.zeros((50, 50))
    with pytest.raises(InputError, match="do not fit"):
        find_noise_windows(image, 60)
    with pytest.raises(InputError, match="there are only"):
        find_noise_windows(image, 50, NoiseSettings(index=3))
    with pytest.raises(InputError, match="overlap"):
        find_noise_windows(image, 20, NoiseSettings(overlap=1.0))
    with pytest.raises(InputError, match="NaN"):
        find_noise_windows(np.full((50, 50), np.nan), 20)
