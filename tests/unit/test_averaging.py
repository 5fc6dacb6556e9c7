"""Views, alignment geometry, averages and variances."""

from __future__ import annotations

import naive_averaging as naive
import numpy as np
import pandas as pd
import pytest

from nephila.averaging import align_images, average_views, how_many, pool_averages, pool_variances, select_by_view
from nephila.errors import InputError
from nephila.geometry import euler_matrix, matrix_to_euler, quasi_even_directions, view_direction
from nephila.projection import FourierProjector

POINTS = np.random.default_rng(7).uniform(-0.15, 0.15, size=(12, 3))
WEIGHTS = np.random.default_rng(8).uniform(0.5, 1.5, size=12)
D3 = np.array([euler_matrix(a, b, 0.0) for b in (0, 180) for a in (0, 120, 240)])


def project(side, matrix, shift=(0.0, 0.0), width=1.7):
    """Projection of Gaussian blobs, written down directly: image(x) = P(x + shift)."""
    x = np.arange(side) - side // 2
    image = np.zeros((side, side))
    for point, weight in zip(POINTS * side, WEIGHTS, strict=True):
        px, py, _ = matrix @ point
        image += weight * np.exp(
            -((x[None, :] + shift[0] - px) ** 2 + (x[:, None] + shift[1] - py) ** 2) / (2 * width**2)
        )
    return image.astype(np.float32)


def table(rot, tilt, psi, shift_x=0.0, shift_y=0.0):
    rot, tilt, psi, x, y = np.broadcast_arrays(*np.atleast_1d(rot, tilt, psi, shift_x, shift_y))
    return pd.DataFrame(
        {
            "rlnAngleRot": rot,
            "rlnAngleTilt": tilt,
            "rlnAnglePsi": psi,
            "rlnOriginXAngst": x,
            "rlnOriginYAngst": y,
        }
    )


def random_table(number, seed=0, shift=4.0):
    rng = np.random.default_rng(seed)
    return table(
        rng.uniform(-180, 180, number),
        np.rad2deg(np.arccos(rng.uniform(-1, 1, number))),
        rng.uniform(-180, 180, number),
        *rng.uniform(-shift, shift, (2, number)),
    )


@pytest.mark.parametrize("side", [32, 33])
@pytest.mark.parametrize(("rot", "tilt", "psi"), [(20, 35, 70), (-130, 88, -15), (10, 140, 200), (0, 0, 33)])
def test_aligned_projection_is_the_view(side, rot, tilt, psi):
    shift = (1.3, -2.6)
    image = project(side, euler_matrix(rot, tilt, psi), shift)
    aligned = align_images(image, psi, *shift)
    view = project(side, euler_matrix(rot, tilt, 0.0))
    assert np.abs(aligned - view).max() < 0.005 * view.max()
    assert np.abs(image - view).max() > 0.2 * view.max()


@pytest.mark.parametrize("side", [32, 33])
@pytest.mark.parametrize(("rot", "tilt", "psi"), [(20, 135, 70), (-130, 95, -15)])
def test_mirrored_projection_is_the_opposite_view(side, rot, tilt, psi):
    shift = (-0.7, 1.9)
    image = project(side, euler_matrix(rot, tilt, psi), shift)
    aligned = align_images(image, -psi, *shift, mirrored=True)
    view = project(side, euler_matrix(rot + 180, 180 - tilt, 0.0))
    assert np.abs(aligned - view).max() < 0.005 * view.max()


@pytest.mark.parametrize("side", [32, 33])
def test_projections_of_a_volume_become_their_views(side):
    """From projector to view: any pose at a view of the grid, in front or behind, with a shift, becomes (rot, tilt, 0)."""
    x = np.arange(side) - side // 2
    z, y, x = np.meshgrid(x, x, x, indexing="ij")
    volume = np.zeros((side, side, side), dtype=np.float32)
    for (px, py, pz), weight in zip(POINTS * side, WEIGHTS, strict=True):
        volume += weight * np.exp(-((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) / (2 * 1.7**2))
    projector = FourierProjector.from_volume(volume, padding=2.0)
    grid = quasi_even_directions(30)
    number = len(grid)
    rng = np.random.default_rng(11)
    behind = np.arange(number) % 2
    alignment = table(
        grid[:, 0] + 180 * behind,
        np.where(behind, 180 - grid[:, 1], grid[:, 1]),
        rng.uniform(-180, 180, number),
        *rng.uniform(-3, 3, (2, number)),
    )
    shifts = alignment[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy()
    images = projector.project(euler_matrix(*alignment.iloc[:, :3].to_numpy().T), shifts)
    found = select_by_view(alignment, grid)
    assert found["nphView"].tolist() == list(range(1, number + 1)) and found["nphMirrored"].tolist() == list(behind)
    averages, _, _ = average_views(images, alignment, found, number, pixel_size=1.0)
    views = projector.project(euler_matrix(grid[:, 0], grid[:, 1], 0.0))
    # Within the circle that the shift leaves: beyond it the periodic box brings the other side's tail.
    inner = np.hypot(x[0], y[0]) < side // 2 - 4
    assert np.abs(averages - views)[:, inner].max() < 0.005 * views.max()


@pytest.mark.parametrize("side", [9, 12])
@pytest.mark.parametrize("mirrored", [False, True])
def test_align_against_naive(side, mirrored):
    image = np.random.default_rng(1).normal(size=(side, side)).astype(np.float32)
    aligned = align_images(image, 37.0, 1.25, -3.5, mirrored)
    np.testing.assert_allclose(aligned, naive.align_image(image, 37.0, 1.25, -3.5, mirrored), atol=2e-6)


def test_align_by_whole_pixels_is_a_roll():
    image = np.random.default_rng(2).normal(size=(16, 16)).astype(np.float32)
    np.testing.assert_allclose(align_images(image, 0, 3, -2), np.roll(image, (-2, 3), axis=(0, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((np.zeros((2, 8, 9)), 0, 0, 0), "square"),
        ((np.zeros((2, 8, 8)), [0, 1, 2], 0, 0), "single values"),
        ((np.zeros((2, 8, 8)), [0, np.nan], 0, 0), "not a number"),
    ],
)
def test_align_refuses(arguments, word):
    with pytest.raises(InputError, match=word):
        align_images(*arguments)


def test_views_against_naive():
    grid = quasi_even_directions(15)
    alignment = random_table(200)
    found = select_by_view(alignment, grid)
    views = view_direction(grid[:, 0], grid[:, 1])
    seen = view_direction(alignment["rlnAngleRot"], alignment["rlnAngleTilt"])
    expected = [naive.nearest_view(direction, views) for direction in seen]
    assert list(zip(found["nphView"], found["nphMirrored"], strict=True)) == expected
    assert 60 < found["nphMirrored"].sum() < 140
    assert found["nphViewDistance"].max() < 15


def test_views_themselves_are_found():
    grid = quasi_even_directions(15)
    front = select_by_view(table(grid[:, 0], grid[:, 1], 25.0), grid)
    behind = select_by_view(table(grid[:, 0] + 180, 180 - grid[:, 1], -25.0), grid)
    for found, mirrored in ((front, 0), (behind, 1)):
        assert found["nphView"].tolist() == list(range(1, len(grid) + 1))
        assert (found["nphMirrored"] == mirrored).all()
        np.testing.assert_allclose(found["nphViewPsi"], 25.0, atol=1e-6)
        np.testing.assert_allclose(found["nphViewDistance"], 0.0, atol=1e-5)


def test_full_sphere_needs_no_mirrors():
    half = quasi_even_directions(15)
    whole = np.concatenate([half, np.stack([half[:, 0] + 180, 180 - half[:, 1]], axis=1)])
    assert select_by_view(table(whole[:, 0], whole[:, 1], 0.0), whole)["nphMirrored"].sum() == 0


def test_in_plane_angle_near_the_pole():
    # Just beside the pole rot is arbitrary: only rot + psi turns the image.
    found = select_by_view(table(100.0, 0.5, -60.0), [[0.0, 0.0], [0.0, 90.0]])
    assert found["nphView"].tolist() == [1]
    assert found["nphViewPsi"][0] == pytest.approx(40.0, abs=0.01)


@pytest.mark.parametrize("operator", range(6))
def test_symmetry_does_not_matter(operator):
    grid = quasi_even_directions(10, theta_max=90)
    alignment = random_table(60, seed=3)
    angles = alignment[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy().T
    turned = table(*matrix_to_euler(euler_matrix(*angles) @ D3[operator]))
    one, other = (select_by_view(x, grid, D3) for x in (alignment, turned))
    np.testing.assert_allclose(one["nphViewDistance"], other["nphViewDistance"], atol=1e-6)
    alone = select_by_view(alignment, grid)
    assert (one["nphViewDistance"] <= alone["nphViewDistance"] + 1e-9).all()


def test_symmetric_pose_gives_the_same_image():
    """The aligned image equals the view although another equivalent of the pose was nearest."""
    grid = np.array([[0.0, 30.0], [40.0, 60.0]])
    pose = euler_matrix(40.0, 60.0, 77.0) @ D3[4]
    alignment = table(*(float(x) for x in matrix_to_euler(pose)))
    found = select_by_view(alignment, grid, D3)
    assert found["nphView"].tolist() == [2]
    symmetric = sum(project(32, pose @ s) for s in D3)
    view = sum(project(32, euler_matrix(40.0, 60.0, 0.0) @ s) for s in D3)
    aligned = align_images(symmetric, found["nphViewPsi"], 0, 0, found["nphMirrored"])
    assert np.abs(aligned - view).max() < 0.005 * view.max()


def test_how_many_counts_every_particle_once():
    grid = quasi_even_directions(15)
    assignments = select_by_view(random_table(500), grid)
    group = np.arange(500) % 3 + 1
    counts = how_many(assignments, group, grid)
    totals = counts.groupby("nphDefocusGroup")["nphParticles"].sum()
    assert totals.to_dict() == {0: 500, 1: 167, 2: 167, 3: 166}
    assert len(counts) == 4 * 83
    overall = counts[counts["nphDefocusGroup"] == 0]["nphParticles"].to_numpy()
    assert overall[assignments["nphView"][0] - 1] == (assignments["nphView"] == assignments["nphView"][0]).sum()


@pytest.fixture(scope="module")
def particles():
    """Noisy projections near the views of a 30 degree grid, with shifts and mirrors."""
    alignment = random_table(90, seed=5)
    matrices = euler_matrix(*alignment[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy().T)
    shifts = alignment[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() / 2.0
    images = np.stack([project(24, m, s) for m, s in zip(matrices, shifts, strict=True)])
    images += np.random.default_rng(6).normal(scale=0.1, size=images.shape).astype(np.float32)
    return images, alignment, quasi_even_directions(30)


def test_averages_are_the_means_and_variances(particles):
    images, alignment, grid = particles
    found = select_by_view(alignment, grid)
    averages, variances, counts = average_views(images, alignment, found, len(grid), pixel_size=2.0)
    aligned = align_images(
        images,
        found["nphViewPsi"],
        alignment["rlnOriginXAngst"] / 2.0,
        alignment["rlnOriginYAngst"] / 2.0,
        found["nphMirrored"],
    )
    for view in range(len(grid)):
        members = aligned[(found["nphView"] == view + 1).to_numpy()].astype(np.float64)
        assert counts[view] == len(members)
        if len(members) > 1:
            np.testing.assert_allclose(averages[view], members.mean(axis=0), atol=1e-6)
            np.testing.assert_allclose(variances[view], members.var(axis=0, ddof=1), atol=1e-5)
        else:
            assert not variances[view].any()
    assert averages.dtype == variances.dtype == np.float32


def test_averages_resemble_their_views(particles):
    images, alignment, grid = particles
    found = select_by_view(alignment, grid)
    averages, _, counts = average_views(images, alignment, found, len(grid), pixel_size=2.0)
    for view in np.flatnonzero(counts >= 4):
        expected = project(24, euler_matrix(*grid[view], 0.0))
        assert np.corrcoef(averages[view].ravel(), expected.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("block_size", [1, 7, 1000])
def test_blocks_do_not_change_a_byte(particles, block_size):
    images, alignment, grid = particles
    found = select_by_view(alignment, grid)
    whole = average_views(images, alignment, found, len(grid), pixel_size=2.0)
    blocks = average_views(images, alignment, found, len(grid), pixel_size=2.0, block_size=block_size)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(whole, blocks, strict=True))


def test_averages_of_a_selection_from_a_stack_on_disk(particles, tmp_path):
    from nephila.io.mrc import open_stack, write_stack

    images, alignment, grid = particles
    write_stack(tmp_path / "stack.mrcs", images, 2.0)
    found = select_by_view(alignment, grid)
    chosen = np.arange(3, 90, 4)
    rows = [alignment.iloc[chosen], found.iloc[chosen]]
    lazy = average_views(
        open_stack(tmp_path / "stack.mrcs"), *rows, len(grid), pixel_size=2.0, image_index=chosen, block_size=5
    )
    direct = average_views(images[chosen], *rows, len(grid), pixel_size=2.0)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(lazy, direct, strict=True))


def test_pooled_groups_are_the_average_of_all(particles):
    images, alignment, grid = particles
    found = select_by_view(alignment, grid)
    whole, spread, _ = average_views(images, alignment, found, len(grid), pixel_size=2.0)
    group = np.arange(len(alignment)) % 3
    stacks, variances, counts = [], [], []
    for number in range(3):
        mine = np.flatnonzero(group == number)
        parts = average_views(
            images, alignment.iloc[mine], found.iloc[mine], len(grid), pixel_size=2.0, image_index=mine
        )
        stacks.append(parts[0])
        variances.append(parts[1])
        counts.append(parts[2])
    references = np.where(whole.any(axis=(1, 2), keepdims=True), 3 * whole + 7, 1.0)
    pooled, correlation = pool_averages(stacks, counts, references)
    np.testing.assert_allclose(pooled, whole, atol=1e-6)
    np.testing.assert_allclose(correlation, np.sum(counts, axis=0) > 0, atol=1e-5)
    assert spread.any()
    np.testing.assert_allclose(pool_variances(stacks, variances, counts), spread, atol=1e-5 * spread.max())


def test_empty_views_are_blank():
    images = np.ones((1, 8, 8), dtype=np.float32)
    alignment = table(np.zeros(1), 0.0, 0.0)
    found = select_by_view(alignment, [[0.0, 0.0], [0.0, 90.0]])
    averages, variances, counts = average_views(images, alignment, found, 2, pixel_size=1.0)
    assert counts.tolist() == [1, 0]
    assert not averages[1].any() and not variances.any()
    none = average_views(images[:0], alignment[:0], found[:0], 2, pixel_size=1.0)
    assert none[2].tolist() == [0, 0] and not none[0].any()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda t: t.drop(columns="rlnAngleTilt"), "rlnAngleTilt"),
        (lambda t: t.assign(rlnAnglePsi=np.nan), "rlnAnglePsi of particle 1"),
    ],
)
def test_bad_tables_are_refused(change, word):
    with pytest.raises(InputError, match=word):
        select_by_view(change(random_table(3)), [[0.0, 0.0]])


def test_more_particles_than_images_are_refused(particles):
    images, alignment, grid = particles
    found = select_by_view(alignment, grid)
    with pytest.raises(InputError, match="stack of 5 images"):
        average_views(images[:5], alignment, found, len(grid), pixel_size=2.0)
