"""Beam tilt, Zernike terms and magnification that the optics groups state, corrected where particles are aligned and added up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nephila.aberrations import odd_correction, odd_term, tilt_scale, zernike
from nephila.alignment import AlignmentSettings, Poses, align_locally
from nephila.alignment.ctfs import ParticleCtfs
from nephila.backprojection import Backprojector
from nephila.config import parse_config
from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.extraction import ExtractionSettings
from nephila.finishing import finish
from nephila.fourier import centred_rfft2
from nephila.fsc import fourier_shell_correlation, masked_fsc, resolution_at
from nephila.geometry import angular_distance, euler_matrix
from nephila.import_particles import (
    check_aberrations,
    check_samplings,
    find_stacks,
    read_given_particles,
    take_windows,
)
from nephila.io.tables import read_blocks, read_table, write_blocks, write_table
from nephila.optics_groups import OpticsGroup, optics_frame
from nephila.optics_refinement.magnification import transform_defocus
from nephila.particle_groups import optics_block
from nephila.particle_images import CorrectedImages, ParticleImages
from nephila.particle_sums import backproject_table, kind_planes, pose_matrices
from nephila.projection import PRECISE_PADDING, FourierProjector
from nephila.references import filter_reference
from nephila.refinement.in_process import refine_in_process
from nephila.refinement.settings import IterationSettings, iteration_settings
from nephila.sampling import (
    ABERRATION_COLUMNS,
    ImageSampling,
    image_kinds,
    is_uniform,
    with_sampling,
    without_aberrations,
    without_sampling,
)
from nephila.simulate.aberrated import GroupTruth, Simulated, simulate_aberrated
from nephila.simulate.points import PointObject

PIXEL = 1.5
OPTICS = Optics(300.0, 2.7, 0.1)
MATRIX = (1.06, 0.02, -0.03, 0.95)
KINDS = {
    "magnification": {"magnification": MATRIX},
    "odd": {"beam_tilt": (1.0, -0.6), "odd": (0.0, 0.0, 25.0, 0.0, 0.0, -15.0)},
    "even": {"even": (0.3, 30.0, 0.0, -20.0, 0.0, 0.0, 40.0, 0.0, 25.0)},
}
KINDS["all"] = {key: value for kind in KINDS.values() for key, value in kind.items()}


def plain_group(box: int) -> OpticsGroup:
    return OpticsGroup(1, "one", 300.0, 2.7, 0.1, PIXEL, box, PIXEL)


def aberrated_group(box: int, kind: str) -> OpticsGroup:
    names = {"even": "even_zernike", "odd": "odd_zernike"}
    return replace(plain_group(box), **{names.get(key, key): value for key, value in KINDS[kind].items()})


def simulated(
    folder: Path, box: int, kind: str, particles: int = 400, snr: float = 20.0
) -> tuple[Simulated, pd.DataFrame]:
    """Particles and their table, as a fit of the optics leaves it: with the aberrations, defoci transformed."""
    truth = GroupTruth(plain_group(box), PIXEL, **KINDS[kind])
    made = simulate_aberrated([truth], particles, snr, box=box, b_factor=10.0, seed=3)
    made.write(folder, PIXEL, PIXEL)
    table = made.particles.particles
    names = [f"{name.partition('@')[0]}@{folder}/{name.partition('@')[2]}" for name in table["rlnImageName"]]
    table = table.assign(rlnImageName=names)
    table = transform_defocus(table, np.arange(len(table)), np.array(truth.magnification).reshape(2, 2))
    return made, with_sampling(table, optics_frame([aberrated_group(box, kind)]), box, PIXEL)


@pytest.mark.parametrize("box", [40, 45])
def test_slices_of_magnified_images_are_those_of_the_object_at_m_k(box: int) -> None:
    target = PointObject.random(0.28 * box * PIXEL, 60, 150.0, seed=1)
    matrices = euler_matrix(*np.random.default_rng(2).uniform(-90, 90, (3, 5)))
    projector = FourierProjector.from_volume(target.volume(box, PIXEL), PRECISE_PADDING)
    own = projector.for_images(box, 1.0, MATRIX)
    radius = own.max_radius
    assert radius < projector.max_radius and projector.for_images(box, 1.0) is projector
    slices = own.slices(matrices)
    worst = 0.0
    for row, matrix in enumerate(matrices):
        for ky in range(-radius, radius + 1, 3):
            for kx in range(0, radius + 1, 4):
                if kx**2 + ky**2 > radius**2:
                    continue
                u = (MATRIX[0] * kx + MATRIX[1] * ky) / (box * PIXEL)
                v = (MATRIX[2] * kx + MATRIX[3] * ky) / (box * PIXEL)
                expected = target.transform(u * matrix[0] + v * matrix[1])
                worst = max(worst, abs(slices[row, ky % box, kx] - expected * scale_of(projector, target, box)))
    assert worst < 5e-3 * np.abs(slices[:, 0, 0]).max()


def scale_of(projector: FourierProjector, target: PointObject, box: int) -> float:
    """Amplitude of the volume's transform over the object's."""
    return float(projector.slices(np.eye(3)[None])[0, 0, 0].real / target.transform(np.zeros(3)).real)


@pytest.mark.parametrize("box", [40, 45])
def test_odd_phases_are_taken_off_the_images_as_they_are_read(tmp_path: Path, box: int) -> None:
    group = aberrated_group(box, "all")
    _, table = simulated(tmp_path, box, "all", particles=6)
    sampling = image_kinds(table, box, PIXEL, OPTICS)[0].sampling
    images, corrected = ParticleImages(table), sampling.images_of(table)
    assert isinstance(corrected, CorrectedImages) and corrected.shape == images.shape
    before, after = centred_rfft2(images[1:4]), centred_rfft2(corrected[1:4])
    assert np.array_equal(corrected[2], corrected[1:4][1])
    for kx, ky in ((3, 2), (0, 7), (11, -9), (5, -15)):
        k = np.array(MATRIX).reshape(2, 2) @ np.array([kx, ky]) / (box * PIXEL)
        rho, phi = np.hypot(*k), np.arctan2(k[1], k[0])
        phase = sum(c * zernike(*odd_term(i), rho, phi) for i, c in enumerate(group.odd_zernike))
        phase -= tilt_scale(group) * rho**2 * (k @ group.beam_tilt)
        expected = before[:, ky % box, kx] * np.exp(-1j * phase)
        np.testing.assert_allclose(after[:, ky % box, kx], expected, atol=1e-4 * np.abs(before).max())
    with pytest.raises(InputError, match=f"images of {box} px where {box + 2} px are stated"):
        CorrectedImages(table, odd_correction(group, box + 2, PIXEL))


@pytest.mark.parametrize("box", [40, 45])
def test_ctfs_with_even_terms_are_taken_at_m_k(box: int) -> None:
    group = aberrated_group(box, "all")
    u, v, angle = 12000.0, 11000.0, 30.0
    found = ParticleCtfs([u], [v], [angle], OPTICS, PIXEL, group=group).planes(slice(None), box)[0]
    for kx, ky in ((0, 0), (4, 1), (0, -8), (13, 6), (7, -14)):
        x, y = np.array(MATRIX).reshape(2, 2) @ np.array([kx, ky]) / (box * PIXEL)
        rho, phi = np.hypot(x, y), np.arctan2(y, x)
        dz = (u + v + (u - v) * np.cos(2 * (phi - np.deg2rad(angle)))) / 2
        wavelength = group.wavelength
        gamma = -np.pi * wavelength * dz * rho**2 + np.pi / 2 * 2.7e7 * wavelength**3 * rho**4 - np.arcsin(0.1)
        even = group.even_zernike
        gamma += even[0] + even[1] * zernike(-2, 2, rho, phi) + even[3] * zernike(2, 2, rho, phi)
        gamma += even[6] * zernike(0, 4, rho, phi) + even[8] * zernike(4, 4, rho, phi)
        assert found[ky % box, kx] == pytest.approx(-np.sin(gamma), abs=2e-5)


@pytest.mark.parametrize(("kind", "box"), [("magnification", 45), ("odd", 48), ("even", 48), ("all", 45), ("all", 48)])
def test_the_true_map_comes_back_only_where_the_optics_are_applied(tmp_path: Path, kind: str, box: int) -> None:
    made, table = simulated(tmp_path, box, kind)
    true = made.target.volume(box, PIXEL)
    last = round(0.82 * box / 2)

    def agreement(rows: pd.DataFrame) -> np.ndarray:
        found = finish(backproject_table(rows, PIXEL, box, OPTICS, "particle"), "C1", 1e-3)
        return fourier_shell_correlation(found, true)[2:last]

    applied = agreement(table)
    ignored = agreement(without_aberrations(made_before_magnification(made, table)))
    assert applied.min() > 0.98  # 0.99 without aberrations
    assert ignored[-5:].mean() < applied[-5:].mean() - 0.015


def made_before_magnification(made: Simulated, table: pd.DataFrame) -> pd.DataFrame:
    """The table with the defoci of one who knows no magnification."""
    columns = ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
    return table.assign(**made.particles.particles[columns])


@pytest.mark.parametrize("box", [45, 48])
def test_poses_are_found_with_the_optics(tmp_path: Path, box: int) -> None:
    made, table = simulated(tmp_path, box, "all", particles=16)
    projector = FourierProjector.from_volume(made.target.volume(box, PIXEL))
    matrices, shifts = pose_matrices(table), table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() / PIXEL
    rng = np.random.default_rng(2)
    angles = table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy() + rng.normal(size=(16, 3)) * 1.5
    prior = Poses(*angles.T, *(shifts + 0.5).T)

    def errors(rows: pd.DataFrame) -> tuple[float, float]:
        own = image_kinds(rows, box, PIXEL, OPTICS)[0].sampling
        slicer = projector.for_images(own.box, own.scale, own.magnification)
        choice = AlignmentSettings(final_band=own.band(20), steps=12)
        planes = kind_planes(rows, own, "particle")
        found = align_locally(own.images_of(rows), slicer, planes, prior, choice).poses
        return float(np.median(angular_distance(found.matrices, matrices))), float(np.abs(found.shifts - shifts).max())

    angle, shift = errors(table)
    assert angle < 0.15 and shift < 0.03  # 0.06 degrees and 0.015 px without aberrations
    assert errors(without_aberrations(table))[0] > 3 * angle


def test_bands_stay_within_the_reference(tmp_path: Path) -> None:
    group = aberrated_group(48, "magnification")
    own = ImageSampling(1, 48, PIXEL, 48, PIXEL, OPTICS, group)
    projector = FourierProjector.from_volume(np.zeros((48, 48, 48), np.float32), max_radius=20)
    assert own.band(20) <= projector.for_images(48, own.scale, own.magnification).max_radius == 18
    curve = np.linspace(1, 0, 25)
    assert own.to_reference_shells(own.from_reference_shells(curve))[:20] == pytest.approx(curve[:20], abs=0.01)
    plain = ImageSampling(1, 48, PIXEL, 48, PIXEL, OPTICS)
    assert plain.magnification is None and plain.from_reference_shells(curve) is curve


def test_unit_magnification_adds_the_same_sums() -> None:
    rng = np.random.default_rng(5)
    transforms = centred_rfft2(rng.normal(size=(10, 24, 24)).astype(np.float32))
    matrices = euler_matrix(*rng.uniform(-90, 90, (3, 10)))
    plain, unit = Backprojector(24), Backprojector(24, image_magnification=(1.0, 0.0, 0.0, 1.0))
    for collector in (plain, unit):
        collector.insert(transforms, matrices)
    assert np.array_equal(plain.partial_sum().sums, unit.partial_sum().sums)


def test_aberrations_travel_with_the_particles(tmp_path: Path) -> None:
    """From the given table through the windows to the final table's optics block, and back."""
    made, _ = simulated(tmp_path, 48, "all", particles=8)
    groups = [aberrated_group(48, "all"), replace(plain_group(48), number=2, name="two")]
    mine = made.particles.particles.assign(rlnOpticsGroup=[1, 2] * 4, rlnMicrographName=["a.mrc", "b.mrc"] * 4)
    mine["rlnImageName"] = [
        name.replace("particles.mrcs", f"{tmp_path}/particles.mrcs") for name in mine["rlnImageName"]
    ]
    write_blocks(tmp_path / "given.star", {"optics": optics_frame(groups), "particles": mine})
    given = read_given_particles(tmp_path / "given.star")
    windows = take_windows(
        given, ["a.mrc", "b.mrc"], 48, PIXEL, ExtractionSettings(radius=20.0), tmp_path / "win.mrcs", True
    )
    write_table(tmp_path / "win.star", windows, kind="particles")
    windows = read_table(tmp_path / "win.star", kind="particles")
    first, second = image_kinds(windows, 48, PIXEL, OPTICS)
    assert first.sampling.group is not None and first.sampling.magnification == MATRIX
    assert second.sampling.group is None and type(second.sampling.images_of(windows)) is ParticleImages
    block = optics_block(windows, "project", OPTICS, PIXEL, 48)
    write_blocks(tmp_path / "final.star", {"optics": block, "particles": without_sampling(windows)})
    blocks = read_blocks(tmp_path / "final.star")
    assert is_uniform(blocks["particles"]) and not set(ABERRATION_COLUMNS) & set(blocks["particles"])
    assert set(ABERRATION_COLUMNS) <= set(blocks["optics"])
    back = image_kinds(with_sampling(blocks["particles"], blocks["optics"], 48, PIXEL), 48, PIXEL, OPTICS)
    assert back[0].sampling.group is not None and not back[0].sampling.group.same_optics(first.sampling.group)
    # one group of the map's own sampling counts for its aberrations
    alone = optics_frame(groups[:1])
    assert not is_uniform(with_sampling(blocks["particles"].query("rlnOpticsGroup == 1"), alone, 48, PIXEL))
    mixed = windows.assign(rlnBeamTiltX=np.arange(8.0))
    with pytest.raises(InputError, match="optics group 1 differ in aberrations"):
        image_kinds(mixed, 48, PIXEL, OPTICS)


def test_what_is_applied_is_not_refused(tmp_path: Path) -> None:
    _, table = simulated(tmp_path, 48, "all", particles=4)
    with pytest.raises(InputError, match="input.optics_groups: several, or accept"):
        check_aberrations(table, PIXEL, 40.0, False, "a.star")
    assert check_aberrations(table, PIXEL, 40.0, False, "a.star", several=True) == []
    assert all("is ignored" in line for line in check_aberrations(table, PIXEL, 40.0, True, "a.star", several=True))
    lines = check_samplings(table, PIXEL, 48, 40.0, "a.star")
    assert len(lines) == 4 and all("without its correction" in line for line in lines)


@pytest.mark.slow
def test_a_refinement_with_the_optics_is_as_good_as_one_without_aberrations(tmp_path: Path) -> None:
    box, start = 48, 9.0
    effects = {
        "beam_tilt": (1.5, -1.0), "odd": (0.0, 0.0, 40.0, 0.0, 0.0, -30.0), "magnification": (1.04, 0.015, -0.03, 0.96),
        "even": (0.0, 15.0, 0.0, -10.0, 0.0, 0.0, 0.0, 0.0, 20.0),
    }  # fmt: skip
    truth = GroupTruth(plain_group(box), PIXEL, **effects)  # type: ignore[arg-type]
    made = simulate_aberrated([truth], 600, 0.5, box=box, b_factor=40.0, seed=5, defocus=(11900.0, 12100.0))
    made.write(tmp_path, PIXEL, PIXEL)
    stated = made.particles.particles
    stated = find_stacks(stated, tmp_path / "particles.star").assign(
        nphParticleNumber=np.arange(600) + 1, nphDefocusGroup=1, nphGroupDefocusU=stated["rlnDefocusU"].mean(),
        nphGroupDefocusV=stated["rlnDefocusV"].mean(), nphGroupDefocusAngle=0.0,
    )  # fmt: skip
    group = replace(
        plain_group(box),
        even_zernike=truth.even,
        odd_zernike=truth.odd,
        magnification=truth.magnification,
        beam_tilt=truth.beam_tilt,
    )
    fitted = transform_defocus(stated, np.arange(600), np.array(truth.magnification).reshape(2, 2))
    config = parse_config(
        {
            "input": {"pixel_size": PIXEL},
            "particle": {"diameter": 54, "box": box},
            "reference": {"resolution": start},
            "refinement": {"shift_range": [8.0]},
        }
    )
    settings = replace(IterationSettings(**iteration_settings(config, 1)), ctf="particle")
    true = made.target.volume(box, PIXEL)
    matrices = pose_matrices(stated)

    def refined(table: pd.DataFrame) -> tuple[float, float]:
        done = refine_in_process(
            table, filter_reference(true, PIXEL, start), settings, OPTICS, 4, alignment={"shift_range": 8.0, "usectf": True},
            end_method="direct",
        )  # fmt: skip
        curve = masked_fsc(done.volumes.map, true, done.volumes.mask).masked
        found = done.particles.sort_values("rlnImageName", ignore_index=True)
        error = float(np.median(angular_distance(pose_matrices(found), matrices)))
        return float(resolution_at(curve, 0.5, box, PIXEL, interpolate=True) or np.inf), error

    resolution, error = refined(with_sampling(fitted, optics_frame([group]), box, PIXEL))
    assert resolution < 3.1 and error < 0.7  # 3.0 A and 0.5 degrees without aberrations
    resolution, error = refined(stated)
    assert resolution > 3.4 and error > 1.0


def test_refined_optics_below_a_projects_results_find_its_stacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stack = "results/alignment/group_001/data.mrcs"
    (tmp_path / "a" / stack).parent.mkdir(parents=True)
    (tmp_path / "a" / stack).touch()
    table = pd.DataFrame({"rlnImageName": [f"000001@{stack}"]})
    assert find_stacks(table, "a/results/optics/particles.star")["rlnImageName"].iloc[0] == f"000001@a/{stack}"
