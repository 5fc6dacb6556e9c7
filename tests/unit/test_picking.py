"""Picking: known positions are found, scores are what they claim to be, the threshold holds up to what it meets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from naive_peaks import local_correlation_naively, suppress_neighbours_naively

from nephila.ctf import Optics, ctf_2d
from nephila.errors import InputError
from nephila.fourier import irfft2, rfft2
from nephila.kernels.peaks import suppress_neighbours
from nephila.picking import (
    BlobSettings,
    ChoiceSettings,
    PeakSettings,
    Picks,
    TemplateSet,
    TemplateSettings,
    candidates_table,
    choose_picks,
    fit_score_mixture,
    pick_blobs,
    pick_by_templates,
)
from nephila.picking.local_correlation import correlate_locally
from nephila.picking.peaks import local_maxima, sub_pixel_offset
from nephila.picking.prepare import MicrographBinner, remove_plane
from nephila.picking.templates import apply_ctf
from nephila.projection import FourierProjector
from nephila.simulate.micrographs import random_rotations

PIXEL = 4.0
DIAMETER = 160.0
OPTICS = Optics(300, 2.7, 0.1)
DEFOCUS = (18000.0, 17000.0, 30.0)
QUICK = TemplateSettings(views=16, in_plane_deg=20, fine_views=60, fine_in_plane_deg=15)


def phantom(n: int = 60, seed: int = 3) -> np.ndarray:
    """Gaussian balls inside a sphere of DIAMETER, without symmetry."""
    rng = np.random.default_rng(seed)
    axis = (np.arange(n) - n // 2) * PIXEL
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = np.zeros((n, n, n))
    for _ in range(9):
        centre = rng.normal(size=3)
        centre *= rng.uniform(0.2, 1) * 0.36 * DIAMETER / np.linalg.norm(centre)
        r2 = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
        volume += np.exp(-0.5 * r2 / rng.uniform(8, 16) ** 2)
    return volume.astype(np.float32)


def micrograph(volume: np.ndarray, seed: int, shape=(500, 620), count=16, noise=1.5, dirt=False):
    """Particles at whole pixels on a jittered grid, with CTF and noise; positions (x, y)."""
    rng = np.random.default_rng(seed)
    n = volume.shape[0]
    images = FourierProjector.from_volume(volume).project(random_rotations(count, rng))
    field = np.zeros(shape, dtype=np.float32)
    cells = [(y, x) for y in range(60, shape[0] - 59, 76) for x in range(60, shape[1] - 59, 76)]
    places = []
    for image, index in zip(images, rng.permutation(len(cells))[:count], strict=True):
        y, x = (int(v + rng.integers(-12, 13)) for v in cells[index])
        field[y - n // 2 : y - n // 2 + n, x - n // 2 : x - n // 2 + n] += image
        places.append((x, y))
    field = irfft2(rfft2(field) * ctf_2d(shape, PIXEL, *DEFOCUS, OPTICS), shape[1])
    signal = float(images.std())
    field += rng.normal(0, noise * signal, shape) + np.linspace(0, 3 * signal, shape[1])[None, :]
    if dirt:
        y, x = np.indices(shape)
        field += 60 * signal * (np.hypot(y - 250, x - 300) < 35)
    return field.astype(np.float32), np.array(places, dtype=float)


def matched(picks_x, picks_y, truth, tolerance=0.25 * DIAMETER / PIXEL):
    distance = np.hypot(np.asarray(picks_x)[:, None] - truth[:, 0], np.asarray(picks_y)[:, None] - truth[:, 1])
    return distance.min(axis=0), distance.min(axis=1) < tolerance


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return phantom()


@pytest.fixture(scope="module")
def templates(volume: np.ndarray) -> TemplateSet:
    return TemplateSet.from_volume(volume, PIXEL, DIAMETER, QUICK)


def test_suppression_is_the_greedy_one() -> None:
    rng = np.random.default_rng(0)
    y, x = rng.uniform(0, 100, (2, 300))
    for distance, at_most in ((7.0, 300), (25.0, 300), (0.5, 40), (500.0, 300)):
        kept = suppress_neighbours(y, x, distance, at_most)
        assert kept.tolist() == suppress_neighbours_naively(y, x, distance, at_most)


def test_maxima_keep_their_distance_and_stay_inside() -> None:
    score = np.zeros((40, 50), dtype=np.float32)
    for row, column, value in ((10, 10, 5), (12, 13, 4), (20, 30, 3), (2, 25, 9), (20, 48, 9)):
        score[row, column] = value
    rows, columns = local_maxima(score, 5.0, (4.0, 4.0), 2)
    assert list(zip(rows, columns, strict=True)) == [(10, 10), (20, 30)]


def test_parabola_finds_the_top() -> None:
    values = -((np.array([-1.0, 0.0, 1.0]) - 0.3) ** 2)
    assert sub_pixel_offset(*values) == pytest.approx(0.3)
    assert sub_pixel_offset(1.0, 1.0, 1.0) == 0


def test_binning_keeps_positions_by_the_actual_factor() -> None:
    y, x = np.indices((509, 613))
    image = np.exp(-0.5 * ((y - 300.0) ** 2 + (x - 411.0) ** 2) / 12.0**2).astype(np.float32)
    image += 1e-3 * np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    binned = MicrographBinner(image, 1.0, 1e6).binned(3.7)
    row, column = np.unravel_index(binned.image.argmax(), binned.image.shape)
    assert row * binned.scale_y == pytest.approx(300, abs=binned.scale_y / 2 + 0.2)
    assert column * binned.scale_x == pytest.approx(411, abs=binned.scale_x / 2 + 0.2)
    assert binned.pixel_size == pytest.approx(3.7, rel=0.01)


def test_plane_goes() -> None:
    y, x = np.indices((130, 170))
    assert np.abs(remove_plane((3 + 0.1 * y - 0.02 * x).astype(np.float32))).max() < 1e-3


def test_score_is_the_local_correlation_coefficient(templates: TemplateSet) -> None:
    level = templates.coarse
    settings = replace(QUICK, refine=False)
    ctf = ctf_2d(level.box, level.pixel_size, *DEFOCUS, OPTICS)
    masked = apply_ctf(level, ctf, DIAMETER, settings)
    image = np.random.default_rng(5).normal(size=(90, 80)).astype(np.float32)
    score = correlate_locally(image, masked)
    n = level.box
    whole = np.zeros((len(masked.coefficients), n, n))
    mask = np.zeros((n, n))
    at = (masked.rows + n // 2, masked.columns + n // 2)
    mask[at] = masked.weight
    whole[:, at[0], at[1]] = masked.coefficients @ (masked.stamps / masked.weight)
    for y, x in ((40, 40), (33, 51)):
        expected = max(local_correlation_naively(image, t, mask, y, x) for t in whole)
        assert score[y, x] == pytest.approx(expected, abs=2e-4)


def test_templates_find_and_centre_particles(volume: np.ndarray, templates: TemplateSet) -> None:
    picks, truths = {}, {}
    for seed in range(3):
        image, truth = micrograph(volume, seed)
        picks[f"m{seed}"], truths[f"m{seed}"] = pick_by_templates(image, PIXEL, templates, DEFOCUS, OPTICS), truth
    table, model = choose_picks(candidates_table(picks))
    assert model.reason == "none"
    kept = table[table.nphKeep == 1]
    offsets, right = [], []
    for name, truth in truths.items():
        mine = kept[kept.rlnMicrographName == name]
        nearest, good = matched(mine.rlnCoordinateX, mine.rlnCoordinateY, truth)
        offsets += list(nearest)
        right += list(good)
    assert np.mean(np.array(offsets) < 0.25 * DIAMETER / PIXEL) >= 0.95
    assert np.mean(right) >= 0.95
    assert np.median(offsets) < 0.03 * DIAMETER / PIXEL
    assert (table[table.nphKeep == 0].nphReason != "none").all()


def test_blobs_find_round_particles_in_one_of_several_sizes() -> None:
    rng = np.random.default_rng(2)
    y, x = np.indices((400, 400))
    image = rng.normal(0, 0.5, (400, 400))
    places = [(80, 90, 20.0), (200, 120, 20.0), (300, 300, 32.0), (120, 290, 32.0)]
    for py, px, radius in places:
        image += np.clip(1 - ((y - py) ** 2 + (x - px) ** 2) / radius**2, 0, None)
    picks = pick_blobs(image, 1.0, 40.0, BlobSettings(scales=(1.0, 1.6)))
    best = sorted(zip(picks.y[:4], picks.x[:4], picks.scale[:4], strict=True))
    for (py, px, scale), (ty, tx, radius) in zip(best, sorted(places), strict=True):
        assert np.hypot(py - ty, px - tx) < 4
        assert scale == pytest.approx(1.0 if radius == 20.0 else 1.6)


@pytest.mark.parametrize("method", ["dog", "disk", "log"])
def test_each_blob_is_centred(method: str) -> None:
    y, x = np.indices((300, 330))
    image = np.exp(-0.5 * (((y - 140.3) / 15) ** 2 + ((x - 170.7) / 15) ** 2))
    image += np.random.default_rng(0).normal(0, 0.2, image.shape)
    picks = pick_blobs(image, 2.0, 100.0, BlobSettings(method=method))
    assert np.hypot(picks.y[0] - 140.3, picks.x[0] - 170.7) < 2.0


def test_dirt_is_left_out_with_a_reason(volume: np.ndarray, templates: TemplateSet) -> None:
    image, _ = micrograph(volume, 1, dirt=True)
    clipless = replace(QUICK, peaks=PeakSettings(outlier_sigma=1e3))
    picks = pick_by_templates(image, PIXEL, templates, DEFOCUS, OPTICS, clipless)
    table, _ = choose_picks(candidates_table({"m": picks}))
    on_dirt = np.hypot(table.rlnCoordinateX - 300, table.rlnCoordinateY - 250) < 30
    assert (table[on_dirt].nphKeep == 0).all()
    assert table[on_dirt].nphReason.str.contains("contaminant").all()


@pytest.mark.parametrize("pick", ["blob", "templates"])
def test_unusable_micrographs_are_refused(pick: str, templates: TemplateSet) -> None:
    def run(image: np.ndarray, pixel_size: float = PIXEL) -> Picks:
        if pick == "blob":
            return pick_blobs(image, pixel_size, DIAMETER)
        return pick_by_templates(image, pixel_size, templates, None, None)

    good = np.random.default_rng(0).normal(size=(200, 200)).astype(np.float32)
    spoilt = good.copy()
    spoilt[3, 4] = np.nan
    for image, text in (
        (np.full((200, 200), 7.0), "constant"),
        (spoilt, "NaN"),
        (good[:60, :60], "smaller than"),
        (good[0], "two dimensions"),
    ):
        with pytest.raises(InputError, match=text):
            run(image)
    with pytest.raises(InputError, match="at least 6 px"):
        run(np.tile(good, (4, 4)), 40.0)
    assert len(run(good)) > 0  # candidates of pure noise; the choice is made over all micrographs


def test_templates_need_a_reference_that_fits() -> None:
    with pytest.raises(InputError, match="cubic"):
        TemplateSet.from_volume(np.zeros((8, 8, 9)), 1.0, 20.0)
    with pytest.raises(InputError, match="constant"):
        TemplateSet.from_volume(np.ones((16, 16, 16)), 1.0, 10.0)
    with pytest.raises(InputError, match="box is only"):
        TemplateSet.from_volume(phantom(20), PIXEL, 400.0)
    with pytest.raises(InputError, match="in-plane"):
        TemplateSettings(in_plane_deg=0)


def scores(rng: np.random.Generator, noise: int, particles: int, mean: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    values = np.r_[rng.gumbel(0.14, 0.01, noise), rng.normal(mean, 0.04, particles)]
    return values, np.r_[np.zeros(noise), np.ones(particles)].astype(bool)


@pytest.mark.parametrize("noise,particles,extra", [(250, 100, 0), (60, 250, 0), (400, 12, 0), (250, 100, 4)])
def test_mixture_parts_noise_from_particles(noise: int, particles: int, extra: int) -> None:
    rng = np.random.default_rng(noise + extra)
    sets = [scores(rng, noise, particles, mean) for mean in (0.24, 0.28, 0.32, 0.36)]
    model = fit_score_mixture([np.r_[s, rng.uniform(2, 6, extra)] for s, _ in sets])
    assert model.reason == "none"
    kept = [s >= model.thresholds[str(i)] for i, (s, _) in enumerate(sets)]
    true = sum(int(k[t].sum()) for k, (_, t) in zip(kept, sets, strict=True))
    number = sum(int(k.sum()) for k in kept)
    least = 0.93 if particles > 20 else 0.8
    assert true / number > least
    assert true / (4 * particles) > least
    claimed = np.mean([model.expected_precision[str(i)] for i in range(4)])
    assert claimed == pytest.approx(true / number, abs=0.05)
    if extra:
        assert all((model.probabilities[str(i)][-extra:] == 0).all() for i in range(4))


@pytest.mark.parametrize("law", ["gumbel", "normal"])
def test_noise_alone_is_recognised(law: str) -> None:
    rng = np.random.default_rng(1)
    model = fit_score_mixture([getattr(rng, law)(0.14, 0.01, 300) for _ in range(5)])
    assert "two populations" in model.reason or "too few" in model.reason
    assert sum(int((p > 0).sum()) for p in model.probabilities.values()) <= 15


def test_a_micrograph_without_particles_among_others_gets_none() -> None:
    rng = np.random.default_rng(12)
    sets = [scores(rng, 300, 110, mean)[0] for mean in (0.24, 0.28, 0.34)] + [scores(rng, 1500, 0)[0]]
    model = fit_score_mixture(sets)
    assert model.reason == "none"
    assert (sets[3] >= model.thresholds["3"]).sum() <= 15
    assert model.probabilities["3"].mean() < 0.05


def test_few_candidates_and_none() -> None:
    assert "too few" in fit_score_mixture([np.array([0.1, 0.2, 0.5])]).reason
    assert "too few" in fit_score_mixture([]).reason
    table, model = choose_picks(candidates_table({"a": Picks(), "b": Picks()}))
    assert len(table) == 0 and np.isnan(model.threshold)
    with pytest.raises(InputError, match="NaN"):
        fit_score_mixture([np.array([0.1, np.nan])])


def test_choice_by_fixed_threshold_limit_and_overlap() -> None:
    table = pd.DataFrame(
        {
            "rlnMicrographName": ["a"] * 4 + ["b"] * 2,
            "rlnCoordinateX": [10.0, 14.0, 200.0, 300.0, 10.0, 500.0],
            "rlnCoordinateY": [10.0, 10.0, 10.0, 10.0, 10.0, 10.0],
            "rlnAutopickFigureOfMerit": [0.5, 0.4, 0.3, 0.1, 0.6, 0.35],
        }
    )
    chosen, _ = choose_picks(table, ChoiceSettings(threshold=0.2, overlap=0.9, at_most=1), 2.0, 20.0)
    assert chosen.nphKeep.tolist() == [1, 0, 0, 0, 1, 0]
    assert chosen.nphReason.tolist() == [
        "none",
        "overlaps a better pick",
        "beyond the most per micrograph",
        "score below the threshold",
        "none",
        "beyond the most per micrograph",
    ]
    with pytest.raises(InputError, match="rlnCoordinateY"):
        choose_picks(table.drop(columns="rlnCoordinateY"))
    with pytest.raises(InputError, match="diameter"):
        choose_picks(table, ChoiceSettings(overlap=1.0))


def test_strong_particles_that_look_like_dirt_to_their_micrograph_are_kept():
    rng = np.random.default_rng(3)
    background, particles, dirt = 400, 60, 5
    number = background + particles + dirt
    mean = np.r_[rng.normal(0, 0.1, background), rng.uniform(0.8, 1.5, particles), rng.uniform(4, 8, dirt)]
    table = pd.DataFrame(
        {
            "rlnMicrographName": np.resize(["a.mrc", "b.mrc", "c.mrc"], number),
            "rlnCoordinateX": np.arange(number) * 100.0,
            "rlnCoordinateY": 50.0,
            "rlnAutopickFigureOfMerit": np.r_[
                rng.normal(0.1, 0.04, background), rng.uniform(0.6, 1.0, particles), rng.uniform(0.6, 1.0, dirt)
            ],
            "nphLocalMean": mean,
            "nphLocalDeviation": 1.0,
            "nphContaminated": (mean > 1.1).astype(int),
        }
    )
    chosen, _ = choose_picks(table)
    kind = np.repeat([0, 1, 2], [background, particles, dirt])
    assert chosen["nphKeep"][kind == 1].mean() > 0.85  # the mark alone would leave 45 %
    assert chosen["nphKeep"][kind != 1].sum() == 0
    assert set(chosen["nphReason"][kind == 2]) == {"on a contaminant"}
