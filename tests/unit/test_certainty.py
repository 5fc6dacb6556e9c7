"""Which poses are likely to be right, from correlations, runners-up and leads."""

from __future__ import annotations

import numpy as np
import pytest

from nephila.refinement.certainty import Certainty, measure_certainty, share_by_leads


@pytest.mark.parametrize(("share", "right"), [(0.4, 0.30), (0.7, 0.34), (1.0, 0.50)])
def test_certainty_tells_right_poses_from_wrong_ones(share, right):
    rng = np.random.default_rng(11)
    number = 3000
    is_right = rng.uniform(size=number) < share
    extremes = np.sort(0.22 + 0.02 * rng.gumbel(size=(number, 2)), axis=1)
    correlation = np.where(is_right, np.maximum(rng.normal(right, 0.03, number), extremes[:, 1]), extremes[:, 1])
    runner_up = np.where(is_right, extremes[:, 1], extremes[:, 0])
    found = measure_certainty(correlation, runner_up)
    weights = found.weights(correlation)
    assert weights.min() >= 0.05 and (np.diff(found.weights(np.linspace(0, 1, 50))) >= 0).all()
    if share == 1.0:
        assert weights.mean() > 0.98
    else:
        assert found.share_right == pytest.approx(share, abs=0.15)
        assert weights[is_right].mean() > 0.7 and weights[~is_right].mean() < 0.35


def near_symmetry(share, number=2000, samples=800.0):
    """Correlations and runners-up [number] that follow each other, and which poses are right."""
    rng = np.random.default_rng(6)
    is_right = np.arange(number) < share * number
    runner_up = rng.normal(0.43, 0.05, number)
    lead = np.where(is_right, rng.normal(25.0, 6.0, number).clip(3.0), rng.exponential(2.0, number))
    return np.sqrt(runner_up**2 + lead / samples), runner_up, is_right


@pytest.mark.parametrize("share", [0.0, 0.4, 0.8, 1.0])
def test_leads_tell_the_share_of_right_poses(share):
    correlation, runner_up, is_right = near_symmetry(share)
    assert share_by_leads(correlation, runner_up, 800.0) == pytest.approx(is_right.mean(), abs=0.04)


def test_where_all_lead_by_much_all_poses_of_a_near_symmetry_count():
    correlation, runner_up, _ = near_symmetry(1.0)
    assert measure_certainty(correlation, runner_up).weights(correlation).mean() < 0.5
    assert measure_certainty(correlation, runner_up, 1.0, 800.0).weights(correlation).min() > 0.95


def test_where_poses_are_wrong_leads_change_nothing():
    correlation, runner_up, _ = near_symmetry(0.7)
    assert measure_certainty(correlation, runner_up, 1.0, 800.0) == measure_certainty(correlation, runner_up)


def test_what_fits_badly_does_not_count_for_its_lead():
    """Dirt with features of its own: as sure of its pose as particles are, and yet as far from the reference as a wrong pose."""
    rng = np.random.default_rng(8)
    is_dirt = np.arange(2000) < 100
    runner_up = np.where(is_dirt, rng.normal(0.15, 0.01, 2000), rng.normal(0.20, 0.02, 2000))
    correlation = np.where(is_dirt, runner_up + 0.04, rng.normal(0.36, 0.03, 2000))
    found = measure_certainty(correlation, runner_up, 1.0, 800.0)
    assert found.weights(correlation)[is_dirt].max() < 0.2
    assert found == measure_certainty(correlation, runner_up)


def test_certainty_expects_less_of_noisy_images():
    """Right poses of images with four times the noise exceed wrong ones half as far: told so, it knows right from wrong better."""
    rng = np.random.default_rng(11)
    number = 3000
    level = np.where(np.arange(number) % 2, 1.6, 0.4)
    noisy = level > 1
    is_right = rng.uniform(size=number) < np.where(noisy, 0.85, 1.0)
    extremes = np.sort(0.22 + 0.012 * rng.gumbel(size=(number, 2)), axis=1)
    right = np.maximum(rng.normal(0.23 + 0.1 / np.sqrt(level), 0.015), extremes[:, 1])
    correlation = np.where(is_right, right, extremes[:, 1])
    runner_up = np.where(is_right, extremes[:, 1], extremes[:, 0])
    means = []
    for known in (np.ones(number), level):
        found = measure_certainty(correlation, runner_up, known)
        weights = found.weights(correlation, known)
        means.append(weights[noisy & ~is_right].mean())
        assert weights[is_right].mean() > 0.98
    assert means[1] < 0.6 * means[0]
    assert found.right_mean == pytest.approx(0.33, abs=0.01)


def test_without_rivals_all_poses_count():
    assert measure_certainty(np.full(500, 0.3), np.zeros(500)) == Certainty()
    assert np.array_equal(Certainty().weights([0.1, 0.9]), [1.0, 1.0])
