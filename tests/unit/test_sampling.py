"""Images of several pixel sizes and boxes against one reference, each on its own Fourier grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nephila.alignment import AlignmentSettings, Poses, align_locally
from nephila.backprojection import Backprojector
from nephila.config import parse_config
from nephila.ctf import Optics, ctf_2d
from nephila.defocus_groups import propose_groups
from nephila.errors import InputError
from nephila.finishing import finish
from nephila.fourier import centred_irfft2, centred_rfft2
from nephila.fsc import fourier_shell_correlation, masked_fsc, resolution_at
from nephila.geometry import angular_distance, euler_matrix
from nephila.import_particles import check_samplings, find_stacks
from nephila.io.mrc import write_stack
from nephila.io.tables import write_table
from nephila.particle_groups import optics_block
from nephila.particle_sums import backproject_table
from nephila.plan import assign_batches, form_groups
from nephila.projection import PRECISE_PADDING, FourierProjector
from nephila.references import filter_reference
from nephila.refinement.in_process import refine_in_process
from nephila.refinement.settings import IterationSettings, iteration_settings
from nephila.resize import resize_images
from nephila.sampling import (
    AMPLITUDE,
    SAMPLING_COLUMNS,
    ImageSampling,
    OpticsState,
    image_kinds,
    is_uniform,
    measured_amplitudes,
    noise_and_amplitude,
    one_sampling,
    refuse_own_sampling,
    with_sampling,
    without_sampling,
)
from nephila.simulate.density import density
from nephila.simulate.phantom import build_phantom

OPTICS = Optics(300.0, 2.7, 0.1)
N, PIXEL = 48, 2.0
OTHERS = [(48, 2.0), (40, 2.3), (54, 2.3), (45, 1.8)]
RNG = np.random.default_rng(7)
CENTRES = RNG.normal(size=(40, 3)) * 10.0  # A
WEIGHTS = RNG.uniform(0.5, 1.5, 40)
SIGMA = 3.0  # A


def gaussians(n: int, pixel: float, places: np.ndarray) -> np.ndarray:
    """Profiles [g, n] of the phantom's Gaussians along one axis."""
    x = (np.arange(n) - n // 2) * pixel
    return np.exp(-0.5 * ((x - places[:, None]) / SIGMA) ** 2)


def volume() -> np.ndarray:
    x, y, z = (gaussians(N, PIXEL, CENTRES[:, axis]) for axis in range(3))
    return np.einsum("g,gz,gy,gx->zyx", WEIGHTS, z, y, x).astype(np.float32)


def images(n: int, pixel: float, matrices: np.ndarray, shifts_a: np.ndarray) -> np.ndarray:
    """Exact line integrals, in units of the reference's pixel; `image(x) = P(x + o)`."""
    out = np.empty((len(matrices), n, n), dtype=np.float32)
    for i, matrix in enumerate(matrices):
        place = (CENTRES @ matrix.T)[:, :2] - shifts_a[i]
        profiles = (gaussians(n, pixel, place[:, axis]) for axis in range(2))
        out[i] = np.einsum("g,gx,gy->yx", WEIGHTS, *profiles) * SIGMA * np.sqrt(2 * np.pi) / PIXEL
    return out


def poses(m: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    angles = np.stack(
        [rng.uniform(-180, 180, m), np.degrees(np.arccos(rng.uniform(-1, 1, m))), rng.uniform(-180, 180, m)]
    )
    return angles.T.round(4), rng.uniform(-4, 4, (m, 2)).round(4)


def sampling(n: int, pixel: float, number: int = 1) -> ImageSampling:
    return ImageSampling(number, n, pixel, N, PIXEL, OPTICS)


@pytest.mark.parametrize(("n", "pixel"), OTHERS)
def test_projections_on_the_images_own_grid_are_exact(n: int, pixel: float) -> None:
    angles, shifts = poses(6)
    matrices = euler_matrix(*angles.T)
    projector = FourierProjector.from_volume(volume(), PRECISE_PADDING).for_images(n, sampling(n, pixel).scale)
    found = projector.project(matrices, shifts / pixel) * (PIXEL / pixel) ** 2
    expected = images(n, pixel, matrices, shifts)
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) < 4e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize(("n", "pixel"), OTHERS)
def test_poses_are_found_on_the_images_own_grid(n: int, pixel: float) -> None:
    angles, shifts = poses(16)
    matrices = euler_matrix(*angles.T)
    seen = images(n, pixel, matrices, shifts)
    own = sampling(n, pixel)
    projector = FourierProjector.from_volume(volume()).for_images(n, own.scale)
    rng = np.random.default_rng(2)
    prior = Poses(*(angles + rng.normal(size=angles.shape) * 1.5).T, *(shifts / pixel + 0.5).T)
    found = align_locally(seen, projector, None, prior, AlignmentSettings(final_band=own.band(16), steps=12))
    assert np.median(angular_distance(found.poses.matrices, matrices)) < 0.1
    assert np.median(np.abs(found.poses.shifts * pixel - shifts)) < 0.03


def test_sums_of_two_samplings_make_one_map() -> None:
    """Half of the views in either sampling: the map is that of all, on the reference's grid."""
    angles, shifts = poses(900)
    matrices = euler_matrix(*angles.T)
    total = None
    for (n, pixel), rows in zip(OTHERS[:3], (slice(0, 300), slice(300, 600), slice(600, 900)), strict=True):
        own = sampling(n, pixel)
        part = Backprojector(N, image_side=n, image_scale=own.scale)
        transforms = centred_rfft2(images(n, pixel, matrices[rows], shifts[rows]))
        planes = np.full((1, n, n // 2 + 1), (PIXEL / pixel) ** 2, np.float32)  # of the same integral
        weights = own.noise_weights(np.ones(n // 2 + 1))
        part.insert(transforms, matrices[rows], planes, None, weights, shifts[rows] / pixel)
        total = part.partial_sum() if total is None else total.add(part.partial_sum())
    assert total is not None
    found, true = finish(total, "C1", 1e-4), volume()
    assert fourier_shell_correlation(found, true)[1:16].min() > 0.995
    slope = float((found * true).sum() / (true * true).sum())
    assert slope == pytest.approx(1.0, abs=0.02)


def test_the_images_own_grid_is_the_same_as_the_volumes_where_they_agree() -> None:
    angles, shifts = poses(20)
    matrices = euler_matrix(*angles.T)
    transforms = centred_rfft2(images(N, PIXEL, matrices, shifts))
    plain, own = Backprojector(N), Backprojector(N, image_side=N, image_scale=1.0)
    for collector in (plain, own):
        collector.insert(transforms, matrices, shifts_px=shifts / PIXEL)
    assert np.array_equal(plain.partial_sum().sums, own.partial_sum().sums)
    projector = FourierProjector.from_volume(volume())
    assert projector.for_images(N, 1.0) is projector


def table_of(folder: Path, n: int, pixel: float, rows: int, number: int, seed: int) -> pd.DataFrame:
    """Particles with CTF and a little noise on disk, of one sampling, with the columns that state it."""
    angles, shifts = poses(rows, seed)
    rng = np.random.default_rng(seed)
    defocus = rng.uniform(8000, 16000, rows).round(1)
    planes = ctf_2d(n, pixel, defocus, defocus, np.zeros(rows), OPTICS)
    clean = images(n, pixel, euler_matrix(*angles.T), shifts)
    seen = centred_irfft2(centred_rfft2(clean) * planes, n) / clean.std() * 0.5 + rng.standard_normal(clean.shape)
    write_stack(folder / f"set{number}.mrcs", seen, pixel)
    return pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@{folder}/set{number}.mrcs" for i in range(rows)],
            "rlnMicrographName": [f"set{number}_{i // 50}.mrc" for i in range(rows)],
            "nphParticleNumber": np.arange(rows) % 50 + 1,
            "rlnAngleRot": angles[:, 0], "rlnAngleTilt": angles[:, 1], "rlnAnglePsi": angles[:, 2],
            "rlnOriginXAngst": shifts[:, 0], "rlnOriginYAngst": shifts[:, 1],
            "rlnDefocusU": defocus, "rlnDefocusV": defocus, "rlnDefocusAngle": 0.0,
            "rlnRandomSubset": 1 + np.arange(rows) % 2, "rlnOpticsGroup": number, "nphDefocusGroup": number,
            "rlnImagePixelSize": pixel, "rlnImageSize": n, "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
        }
    )  # fmt: skip


def test_a_table_of_two_samplings_is_backprojected_as_one(tmp_path: Path) -> None:
    parts = [table_of(tmp_path, n, p, 150, k, k) for k, (n, p) in enumerate(((48, 2.0), (40, 2.3)), 1)]
    mixed = pd.concat(parts).sort_values("rlnAngleRot", ignore_index=True)
    found = finish(backproject_table(mixed, PIXEL, N, OPTICS, "particle"), "C1", 1e-2)
    curves = [fourier_shell_correlation(found, volume())]
    curves += [
        fourier_shell_correlation(finish(backproject_table(t, PIXEL, N, OPTICS, "particle"), "C1", 1e-2), volume())
        for t in parts
    ]
    both, first, second = (curve[2:18].mean() for curve in curves)
    assert both > max(first, second)
    # the same rows in other order: the same sums
    again = backproject_table(pd.concat(parts, ignore_index=True), PIXEL, N, OPTICS, "particle")
    assert np.array_equal(again.sums, backproject_table(mixed, PIXEL, N, OPTICS, "particle").sums)


def kinds_table(**changes) -> pd.DataFrame:
    base = {
        "rlnOpticsGroup": [1, 2, 1], "rlnImagePixelSize": [2.0, 2.3, 2.0], "rlnImageSize": [48, 40, 48],
        "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": [0.1, 0.07, 0.1],
    }  # fmt: skip
    return pd.DataFrame(base | changes)


def test_kinds_of_a_table() -> None:
    first, second = image_kinds(kinds_table(), N, PIXEL, OPTICS)
    assert list(first.rows) == [0, 2] and first.sampling.scale == 1.0
    assert second.sampling.scale == pytest.approx(48 * 2 / (40 * 2.3))
    assert second.sampling.optics.amplitude_contrast == 0.07
    plain = kinds_table().drop(columns=[name for name in kinds_table() if name != "rlnOpticsGroup"])
    assert is_uniform(plain) and image_kinds(plain, N, PIXEL, OPTICS)[0].sampling.box == N
    with pytest.raises(InputError, match="48 px of 2 A"):
        one_sampling(kinds_table(), N, PIXEL, OPTICS, "this step")
    with pytest.raises(InputError, match="a map takes particles of the project's"):
        refuse_own_sampling(kinds_table(), "a map")
    refuse_own_sampling(plain, "a map")
    with pytest.raises(InputError, match="group 1 differ"):
        image_kinds(kinds_table(rlnVoltage=[300.0, 300.0, 200.0]), N, PIXEL, OPTICS)
    with pytest.raises(InputError, match="rlnVoltage"):
        image_kinds(kinds_table().drop(columns="rlnVoltage"), N, PIXEL, OPTICS)


@pytest.mark.parametrize(("n", "pixel"), OTHERS)
def test_bands_and_curves_go_over_to_the_images_shells(n: int, pixel: float) -> None:
    own = sampling(n, pixel)
    assert own.band(12) / (n * pixel) <= 12 / (N * PIXEL) + 1e-9 and own.band(10**6) == (n - 1) // 2
    curve = 1 / (1 + np.arange(N // 2 + 1) / 10)
    there = own.from_reference_shells(curve)
    assert len(there) == n // 2 + 1
    back = own.to_reference_shells(there)
    reach = int(min(N // 2, n // 2 * own.scale))
    assert back[:reach] == pytest.approx(curve[:reach], abs=0.01)


def test_amplitudes_come_from_the_better_particles_and_leave_the_common_scale() -> None:
    rng = np.random.default_rng(4)
    number = np.repeat([1, 2], [300, 100])
    pixel = np.where(number == 1, 2.0, 2.5)
    true = np.where(number == 1, 7.0, 7.0 * 1.5 * 2.0 / 2.5)  # the second group 1.5 times what its pixels explain
    right = rng.random(400) < 0.7
    table = pd.DataFrame(
        {
            "rlnOpticsGroup": number, "rlnImagePixelSize": pixel, "nphCorrelation": np.where(right, 0.3, 0.1),
            AMPLITUDE: np.where(right, true, 0.4 * true) * rng.normal(1, 0.05, 400),
        }
    )  # fmt: skip
    found = measured_amplitudes(table, 2.0)
    assert found[2] / found[1] == pytest.approx(1.5, rel=0.03)
    assert 0.75 * found[1] + 0.25 * found[2] == pytest.approx(1.0)


def test_noise_of_a_group_that_was_not_measured_is_the_maps() -> None:
    own = sampling(40, 2.3, 2)
    noise = np.linspace(2, 1, N // 2 + 1)
    power, amplitude = noise_and_amplitude(own, noise, {})
    assert len(power) == 21 and power[0] == 2 and amplitude == pytest.approx(2.0 / 2.3)
    power, amplitude = noise_and_amplitude(own, noise, {2: OpticsState(np.full(21, 3.0), 2.0)})
    assert (power == 3).all() and amplitude == pytest.approx(2 * 2.0 / 2.3)


@pytest.mark.parametrize(("n", "scale"), [(2, 1.0), (40, 100.0)])
def test_senseless_samplings_are_refused(n: int, scale: float) -> None:
    with pytest.raises(InputError, match="sampling"):
        FourierProjector.from_volume(volume()).for_images(n, scale)
    with pytest.raises(InputError, match="sampling"):
        Backprojector(N, image_side=n, image_scale=scale)


def test_the_optics_block_and_back() -> None:
    table = kinds_table().assign(rlnOpticsGroupName=["a", "b", "a"], rlnImageName="x")
    block = optics_block(table, "project", OPTICS, PIXEL, N)
    assert list(block["rlnOpticsGroup"]) == [1, 2] and list(block["rlnImageSize"]) == [48, 40]
    assert list(block["rlnOpticsGroupName"]) == ["a", "b"]
    plain = without_sampling(table)
    assert is_uniform(plain)
    back = with_sampling(plain, block, N, PIXEL)
    assert back[list(SAMPLING_COLUMNS)].equals(
        table[list(SAMPLING_COLUMNS)].astype(back[list(SAMPLING_COLUMNS)].dtypes)
    )
    one = optics_block(plain, "project", OPTICS, PIXEL, N)
    assert len(one) == 1 and with_sampling(plain, one, N, PIXEL) is plain
    # a single group that is not the project's counts too
    assert with_sampling(plain[:1], block[block["rlnOpticsGroup"] == 1], N, 2.5)["rlnImagePixelSize"].eq(2.0).all()


def test_groups_and_batches_do_not_mix_optics_groups() -> None:
    names = [f"m{i}" for i in range(10)]
    kinds = {name: 1 + i % 2 for i, name in enumerate(names)}
    batches = assign_batches(names, 3, None, kinds)
    assert all(len({kinds[n] for n in names if batches[n] == b}) == 1 for b in set(batches.values()))
    assert sorted(set(batches.values())) == [1, 2, 3, 4]
    kept = pd.DataFrame(
        {
            "rlnMicrographName": names, "rlnDefocusU": np.linspace(10000, 12000, 10), "rlnDefocusAngle": 0.0,
            "rlnDefocusV": np.linspace(10000, 12000, 10), "rlnOpticsGroup": list(kinds.values()),
        }
    )  # fmt: skip
    settings = {"method": "defsort", "width": 5000.0}
    groups = propose_groups(kept, {}, settings)
    assert sorted(groups["nphDefocusGroup"].unique()) == [1, 2]
    assert (groups["nphDefocusGroup"] == groups["rlnMicrographName"].map(kinds)).all()
    assert propose_groups(kept.drop(columns="rlnOpticsGroup"), {}, settings)["nphDefocusGroup"].eq(1).all()


def test_an_edit_may_not_mix_optics_groups(tmp_path: Path) -> None:
    kept = pd.DataFrame(
        {
            "rlnMicrographName": ["a", "b"], "rlnDefocusU": 10000.0, "rlnDefocusV": 10000.0, "rlnDefocusAngle": 0.0,
            "rlnOpticsGroup": [1, 2],
        }
    )  # fmt: skip
    groups = form_groups(kept, parse_config({}), None)
    assert [group.micrographs for group in groups] == [("a",), ("b",)]
    edit = pd.DataFrame({"rlnMicrographName": ["a", "b"], "nphDefocus": 10000.0, "nphDefocusGroup": 1})
    write_table(tmp_path / "def_sort.star", edit, kind="def_sort")
    with pytest.raises(InputError, match="defocus group 1 .* optics groups 1, 2"):
        form_groups(kept, parse_config({}), str(tmp_path / "def_sort.star"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rlnImagePixelSize": [2.0, 9.0, 2.0]}, "9 A/px"),
        ({"rlnImageSize": [48, 20, 48]}, "smaller than the particle"),
    ],
)
def test_samplings_that_make_no_sense_are_refused(changes: dict[str, list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_samplings(kinds_table(**changes), PIXEL, N, 70.0, "a.star")


def test_samplings_are_told() -> None:
    lines = check_samplings(kinds_table(), PIXEL, N, 70.0, "a.star")
    assert len(lines) == 1 and "optics group 2: 1 particles of 40 px of 2.3 A" in lines[0]
    with pytest.raises(InputError, match="rlnImageSize"):
        check_samplings(kinds_table().drop(columns="rlnImageSize"), PIXEL, N, 70.0, "a.star")
    with pytest.raises(InputError, match=r"input\.optics_groups"):
        parse_config({"input": {"optics_groups": "several"}})


@pytest.mark.parametrize(("pixel", "box"), [(2.3, 40), (2.0, 54), (1.7, 60)])
def test_images_are_resized_like_volumes(pixel: float, box: int) -> None:
    seen = images(N, PIXEL, euler_matrix(np.array([10.0]), np.array([40.0]), np.array([5.0])), np.zeros((1, 2)))
    expected = images(box, pixel, euler_matrix(np.array([10.0]), np.array([40.0]), np.array([5.0])), np.zeros((1, 2)))
    assert np.abs(resize_images(seen, PIXEL, pixel, box) - expected).max() < 0.01 * expected.max()


def projected_set(folder: Path, n: int, pixel: float, rows: int, number: int) -> pd.DataFrame:
    """Noisy projections of the protein-like phantom on disk, 40 particles to a defocus group, without their poses."""
    rng = np.random.default_rng(number)
    angles, shifts = poses(rows, number)
    defocus = np.repeat(rng.uniform(9000, 18000, rows // 40), 40).round(1)
    projector = FourierProjector.from_volume(density(build_phantom(80.0, 2), n, pixel, 60.0), PRECISE_PADDING)
    planes = ctf_2d(n, pixel, defocus, defocus, np.zeros(rows), OPTICS)
    clean = projector.project(euler_matrix(*angles.T), shifts / pixel, planes)
    write_stack(
        folder / f"set{number}.mrcs", clean * np.sqrt(0.15 / clean.var()) + rng.standard_normal(clean.shape), pixel
    )
    group = np.arange(rows) // 40
    return pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@{folder}/set{number}.mrcs" for i in range(rows)],
            "rlnMicrographName": [f"set{number}_{i}.mrc" for i in group], "nphParticleNumber": np.arange(rows) % 40 + 1,
            "nphGroupDefocusU": defocus, "nphGroupDefocusV": defocus, "nphGroupDefocusAngle": 0.0,
            "rlnRandomSubset": 1 + np.arange(rows) % 2, "rlnOpticsGroup": number, "nphDefocusGroup": 100 * number + group,
            "rlnImagePixelSize": pixel, "rlnImageSize": n, "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
        }
    )  # fmt: skip


@pytest.mark.slow
def test_two_sets_refined_together_are_better_than_the_better_one(tmp_path: Path) -> None:
    """2.0 and 2.3 A per pixel, boxes of 56 and 50 px: the map of both has the reference's grid and finer detail."""
    n, pixel = 56, 2.0
    first, second = projected_set(tmp_path, n, pixel, 240, 1), projected_set(tmp_path, 50, 2.3, 240, 2)
    config = parse_config(
        {"input": {"pixel_size": pixel}, "particle": {"diameter": 80, "box": n}, "reference": {"resolution": 25}}
    )
    settings = IterationSettings(**iteration_settings(config, 1))
    true = density(build_phantom(80.0, 2), n, pixel, 60.0)
    start, scores = filter_reference(true, pixel, 25.0), []
    for table in (without_sampling(first), pd.concat([first, second], ignore_index=True)):
        done = refine_in_process(table, start, settings, OPTICS, 3, end_method="direct", alignment={"shift_range": 8})
        assert done.volumes.map.shape == (n, n, n)
        curve = masked_fsc(done.volumes.map, true, done.volumes.mask).masked
        scores.append(resolution_at(curve, 0.5, n, pixel, interpolate=True) or 99.0)
    assert scores[1] < scores[0] - 0.3
    states = done.models[-1].optics
    assert set(states) == {1, 2} and len(states[2].noise) == 26
    # both sets have the same signal to noise in a pixel
    assert states[1].noise[5:].mean() == pytest.approx(1.0, abs=0.1)
    assert states[2].noise[5:].mean() == pytest.approx(1.0, abs=0.1)


def test_tables_of_other_projects_mean_the_stacks_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refined particles of two runs have stacks of the same name, which is also that of this project's own."""
    monkeypatch.chdir(tmp_path)
    stack = "results/alignment/group_001/data.mrcs"
    for place in ("a", "b", "."):
        write_stack(Path(place) / stack, np.zeros((1, 8, 8)), 2.0)
    table = pd.DataFrame({"rlnImageName": [f"000001@{stack}"]})
    for place in ("a", "b"):
        found = find_stacks(table, f"{place}/results/refinement/particles.star")["rlnImageName"].iloc[0]
        assert found == f"000001@{place}/{stack}"
    assert find_stacks(table, "given.star")["rlnImageName"].iloc[0] == f"000001@{stack}"
