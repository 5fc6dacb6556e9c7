"""3D classes: products of images and maps, likelihood, first assignment, and particles of two kinds put right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.classes import refine_all, separate, settings_of, share_right, simulate_mixture
from benchmarks.particle_sets import SetSettings, grouped, phantom
from benchmarks.phantom import OPTICS
from nephila.classes.assign import SPREAD, ClassSettings, classify, score
from nephila.classes.components import cluster_scores
from nephila.classes.data import Frame, Particles, inner_products, shrink_images
from nephila.classes.final import class_volumes
from nephila.classes.maps import frame_support
from nephila.classes.results import between_classes, class_table, classified_particles, selection_of_classes
from nephila.errors import InputError
from nephila.figures.classes import plot_classes
from nephila.fourier import centred_rfft2
from nephila.fsc import fsc_table
from nephila.projection import FourierProjector
from nephila.refinement.final import FinalSettings


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """300 particles of two conformations in their true poses, at box 32."""
    folder = tmp_path_factory.mktemp("mixed")
    chosen = SetSettings(n=32, count=300, snr=0.3, shift_px=2.0)
    subject = phantom(chosen)
    true = grouped(simulate_mixture(folder, chosen, "moved"), folder)
    settings = settings_of(chosen, subject.pixel_size)
    frame = Frame.of(32, subject.pixel_size, 35.0, np.ones(17), OPTICS, "particle", "C1")
    return true, settings, frame, shrink_images(true, frame, folder / "small.mrcs"), subject


def test_frame_holds_what_is_asked_for_and_windows_keep_their_noise(mixed):
    true, settings, frame, small, _ = mixed
    assert frame.n < 32 and frame.n * frame.pixel_size == pytest.approx(32 * settings.pixel_size)
    assert 2 * frame.band < frame.n and frame.n * frame.pixel_size / frame.band <= 36
    particles = Particles(small, frame, 2)
    assert particles.images.shape == (300, frame.n, frame.n)
    # high shells of the cropped windows hold noise only: still of deviation 1 per pixel
    power = np.abs(centred_rfft2(particles.images[:])[:, 0, frame.band]) ** 2 / frame.n**2
    assert power.mean() == pytest.approx(1.0, rel=0.25)
    assert list(true["nphParticleNumber"]) == list(small["nphParticleNumber"])


def test_products_are_those_of_projections(mixed):
    _, _, frame, small, subject = mixed
    particles = Particles(small.iloc[:5], frame, 2)
    rng = np.random.default_rng(3)
    volumes = [rng.standard_normal((frame.n,) * 3).astype(np.float32) for _ in range(2)]
    cross, gram = inner_products(particles, volumes, same_pose=True)
    root = frame.root_weights()
    images = centred_rfft2(particles.images[:]) * root
    planes = particles.planes(0, 5)
    models = []
    for volume in volumes:
        projector = FourierProjector.from_volume(volume, max_radius=frame.band)
        views = projector.project(particles.matrices[0], particles.shifts[0])
        models.append(centred_rfft2(views) * planes * root)
    for i in range(2):
        assert cross[:, i] == pytest.approx((models[i].conj() * images).real.sum(axis=(1, 2)), rel=2e-3, abs=0.05)
        for j in range(2):
            assert gram[:, i, j] == pytest.approx(
                (models[i].conj() * models[j]).real.sum(axis=(1, 2)), rel=2e-3, abs=0.05
            )


def test_likelihood_integrates_over_the_amplitude(mixed):
    _, _, frame, small, _ = mixed
    halves = tuple(Particles(small.iloc[rows], frame, 2) for rows in (slice(0, 3), slice(3, 6)))
    rng = np.random.default_rng(4)
    pair = [tuple((0.02 * rng.standard_normal((frame.n,) * 3)).astype(np.float32) for _ in range(2)) for _ in range(2)]
    logs = score(halves, pair)
    a = np.linspace(0.2, 1.8, 4001)
    for half in range(2):
        cross, gram = inner_products(halves[half], [one[half] for one in pair], same_pose=True)
        for row in range(3):
            values = [
                np.log(np.exp(2 * a * cross[row, k] - a**2 * gram[row, k, k] - 0.5 * ((a - 1) / SPREAD) ** 2).sum())
                for k in range(2)
            ]
            found = logs[3 * half + row]
            assert found[1] - found[0] == pytest.approx(values[1] - values[0], abs=1e-3)


def test_states_are_parted_and_not_what_varies_evenly():
    rng = np.random.default_rng(5)
    state = rng.random(600) < 0.3
    scores = np.stack([rng.standard_normal(600), np.where(state, 1.4, -0.6) + 0.35 * rng.standard_normal(600)], axis=1)
    share = cluster_scores(scores, 2, 1)
    found = share.argmax(axis=1).astype(bool)
    assert max((found == state).mean(), (found != state).mean()) > 0.97
    assert np.array_equal(share, cluster_scores(scores, 2, 1))


def test_two_conformations_are_separated(mixed, tmp_path):
    true, settings, frame, small, _ = mixed
    support = frame_support(frame, settings)
    assignment = classify(small, frame, support, ClassSettings(count=2))
    whole, major, minor = share_right(assignment, true)
    assert whole > 0.95 and major > 0.93 and minor > 0.93
    particles = classified_particles(true, assignment)
    assert list(particles["rlnImageName"]) == list(true["rlnImageName"])
    assert particles["rlnAngleRot"].to_numpy() == pytest.approx(true["rlnAngleRot"].to_numpy())
    sizes = particles["rlnClassNumber"].value_counts()
    assert sizes[1] > sizes[2] and (particles["nphClassProbability"] >= 0.5).all()
    volumes = [
        class_volumes(
            particles[particles["rlnClassNumber"] == k], np.ones(17), settings, OPTICS, FinalSettings("direct")
        )
        for k in (1, 2)
    ]
    curves = {k: fsc_table(one.fsc, 32, settings.pixel_size) for k, one in enumerate(volumes, 1)}
    table = class_table(particles, curves, 32, settings.pixel_size)
    assert table["nphParticles"].sum() == 300 and (table["nphResolution"] > 0).all()
    between = between_classes([one.map for one in volumes], volumes[0].mask, settings.pixel_size)
    low = between.loc[between["rlnSpectralIndex"].between(1, 3), "rlnFourierShellCorrelation"].mean()
    assert 0.5 < low < 0.995
    plot_classes(
        [one.filtered for one in volumes], volumes[0].mask, table, curves, particles["nphClassProbability"],
        tmp_path / "classes.png", pixel_size=settings.pixel_size,
    )  # fmt: skip
    assert (tmp_path / "classes.png").stat().st_size > 10_000
    # from the maps found, in turned order: the same classes, in the order of the maps
    again = classify(
        small, frame, support, ClassSettings(count=2), [resized(one, frame, settings) for one in volumes[::-1]]
    )
    assert (again.probability.argmax(axis=1) != assignment.probability.argmax(axis=1)).mean() > 0.95


def resized(volumes, frame, settings):
    from nephila.resize import resize_volume

    return resize_volume(volumes.filtered, settings.pixel_size, frame.pixel_size, frame.n)[0]


def test_refusals(mixed):
    _, settings, frame, small, _ = mixed
    support = frame_support(frame, settings)
    with pytest.raises(InputError, match="too few"):
        classify(small.iloc[:60], frame, support, ClassSettings(count=2))
    with pytest.raises(InputError, match="1 maps for 2 classes"):
        classify(small, frame, support, ClassSettings(count=2), [np.zeros((frame.n,) * 3, dtype=np.float32)])


def test_a_class_without_particles_has_no_map(mixed):
    true, settings, *_ = mixed
    none = class_volumes(true.iloc[:0], np.ones(17), settings, OPTICS, FinalSettings("direct"))
    assert not none.map.any() and not none.fsc.corrected.any()


def test_selection_drops_the_other_classes():
    particles = pd.DataFrame(
        {"rlnMicrographName": ["a", "a", "b"], "nphParticleNumber": [1, 2, 1], "rlnClassNumber": [1, 2, 2]}
    )
    edit = selection_of_classes(particles, [1], None)
    assert edit.to_dict("list") == {"rlnMicrographName": ["a", "b"], "nphParticleNumber": [2, 1], "nphKeep": [0, 0]}
    before = pd.DataFrame({"rlnMicrographName": ["a", "b"], "nphParticleNumber": [7, 1], "nphKeep": [0, 1]})
    both = selection_of_classes(particles, [1], before)
    assert dict(zip(zip(both["rlnMicrographName"], both["nphParticleNumber"], strict=True), both["nphKeep"], strict=True)) == {
        ("a", 7): 0, ("a", 2): 0, ("b", 1): 0
    }  # fmt: skip
    with pytest.raises(InputError, match="class 3 has no particles"):
        selection_of_classes(particles, [3], None)


@pytest.mark.slow
def test_classes_from_the_poses_of_one_refinement(tmp_path):
    """70 % and 30 %, a fifth of the mass missing, SNR 0.1."""
    chosen = SetSettings(n=48, count=600, snr=0.1)
    subject = phantom(chosen)
    true = grouped(simulate_mixture(tmp_path, chosen, "absent"), tmp_path)
    settings = settings_of(chosen, subject.pixel_size)
    refined = refine_all(true, subject, settings)
    assignment = separate(refined.particles, refined.models[-1].noise, settings, tmp_path)
    assert share_right(assignment, true)[0] > 0.9
