"""cryoSPARC's tables: each field against its definition, both ways of stating shifts, passthrough files, bad files.

The record arrays are made here from the field names and types that cryosparc-tools' own tests use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from nephila.cli import main
from nephila.errors import InputError
from nephila.geometry import euler_matrix, rotation_vector_to_matrix
from nephila.import_particles import read_given_particles
from nephila.io.cryosparc import CryosparcSettings, cryosparc_particles, pose_angles, read_cs
from nephila.io.mrc import write_image, write_stack
from nephila.optics_groups import ParticleSet

N = 6
UID = np.array([50, 10, 30, 20, 60, 40], dtype="<u8")


def fields(**changes: Any) -> dict[str, np.ndarray]:
    """Fields of a refinement's particles; None takes one out."""
    rng = np.random.default_rng(8)
    values: dict[str, Any] = {
        "uid": UID,
        "blob/path": np.array([b"J3/extract/mic_a.mrc"] * 3 + [b">J3/extract/mic_b.mrc"] * 3, dtype="S40"),
        "blob/idx": np.array([0, 4, 2, 1, 0, 3], dtype="<u4"),
        "blob/shape": np.full((N, 2), 64, dtype="<u4"),
        "blob/psize_A": np.full(N, 1.31, dtype="<f4"),
        "blob/sign": np.full(N, -1.0, dtype="<f4"),
        "ctf/exp_group_id": np.array([0, 0, 0, 1, 1, 1], dtype="<u4"),
        "ctf/accel_kv": np.full(N, 300.0, dtype="<f4"),
        "ctf/cs_mm": np.full(N, 2.7, dtype="<f4"),
        "ctf/amp_contrast": np.full(N, 0.1, dtype="<f4"),
        "ctf/df1_A": np.linspace(15000, 16000, N).astype("<f4"),
        "ctf/df2_A": np.linspace(14000, 15500, N).astype("<f4"),
        "ctf/df_angle_rad": np.array([0.0, 0.5, -1.546, 4.63, 1.0, 2.0], dtype="<f4"),
        "ctf/phase_shift_rad": np.zeros(N, dtype="<f4"),
        "ctf/tilt_A": np.zeros((N, 2), dtype="<f4"),
        "ctf/anisomag": np.zeros((N, 4), dtype="<f4"),
        "alignments3D/split": np.array([0, 1, 1, 0, 0, 1], dtype="<u4"),
        "alignments3D/pose": rng.normal(size=(N, 3)).astype("<f4"),
        "alignments3D/shift": rng.normal(size=(N, 2)).astype("<f4"),
    }
    return {name: value for name, value in (values | changes).items() if value is not None}


def locations() -> dict[str, np.ndarray]:
    """The passthrough file of an extraction: another order, and particles that are not asked for."""
    uid = np.array([10, 20, 30, 40, 50, 60, 70], dtype="<u8")
    return {
        "uid": uid,
        "location/micrograph_path": np.array([f"J2/motioncorrected/m{u // 40}.mrc".encode() for u in uid]),
        "location/micrograph_shape": np.tile(np.array([400, 600], dtype="<u4"), (7, 1)),
        "location/center_x_frac": (uid / 100).astype("<f4"),
        "location/center_y_frac": (uid / 200).astype("<f4"),
    }


def write_cs(path: Path, values: dict[str, np.ndarray]) -> Path:
    dtype = [(name, value.dtype, value.shape[1:]) for name, value in values.items()]
    array = np.zeros(len(next(iter(values.values()))), dtype=dtype)
    for name, value in values.items():
        array[name] = value
    with open(path, "wb") as handle:
        np.save(handle, array, allow_pickle=False)
    return path


def read(tmp_path: Path, settings: CryosparcSettings | None = None, **changes: Any) -> ParticleSet:
    return cryosparc_particles(write_cs(tmp_path / "p.cs", fields(**changes)), (), settings)


def test_each_field_becomes_relions(tmp_path: Path) -> None:
    given = fields()
    particles = read(tmp_path)
    table = particles.particles
    assert table["rlnImageName"].tolist()[:2] == ["000001@J3/extract/mic_a.mrc", "000005@J3/extract/mic_a.mrc"]
    assert table["rlnImageName"].iloc[3] == "000002@J3/extract/mic_b.mrc"
    np.testing.assert_allclose(table["rlnDefocusU"], given["ctf/df1_A"])
    np.testing.assert_allclose(table["rlnDefocusAngle"], np.rad2deg(given["ctf/df_angle_rad"].astype(float)))
    assert table["rlnRandomSubset"].tolist() == [1, 2, 2, 1, 1, 2]
    assert [(g.name, g.voltage_kv, g.cs_mm, g.pixel_size, g.image_size) for g in particles.optics] == [
        ("exposures_0", 300.0, 2.7, 1.31, 64),
        ("exposures_1", 300.0, 2.7, 1.31, 64),
    ]
    assert table["rlnOpticsGroup"].tolist() == [1, 1, 1, 2, 2, 2]
    assert any("protein is dark" in note for note in particles.notes)


def test_a_pose_is_the_transposed_rotation_of_its_vector(tmp_path: Path) -> None:
    given = fields()["alignments3D/pose"]
    table = read(tmp_path).particles
    matrices = euler_matrix(table["rlnAngleRot"], table["rlnAngleTilt"], table["rlnAnglePsi"])
    np.testing.assert_allclose(matrices, np.swapaxes(rotation_vector_to_matrix(given), -1, -2), atol=1e-6)
    # about z by +90 degrees: RELION's rot + psi = 90 turns the coordinate axes by +90, a point (1, 0, 0) to (0, -1, 0)
    rot, tilt, psi = pose_angles(np.array([[0.0, 0.0, np.pi / 2]]))
    assert tilt[0] == pytest.approx(0) and rot[0] + psi[0] == pytest.approx(90)
    np.testing.assert_allclose(euler_matrix(rot, tilt, psi)[0] @ [1, 0, 0], [0, -1, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "settings", "pixel", "note"),
    [
        ({}, CryosparcSettings(), 1.31, "taken as pixels of the images"),
        (
            {"alignments3D/psize_A": np.full(N, 2.62, dtype="<f4")},
            CryosparcSettings(),
            2.62,
            "pixels of alignments3D/psize_A",
        ),
        ({}, CryosparcSettings(alignment_box=32), 2.62, "pixels of a box of 32 px"),
    ],
)
def test_both_ways_of_stating_shifts(
    tmp_path: Path, changes: dict[str, Any], settings: CryosparcSettings, pixel: float, note: str
) -> None:
    particles = read(tmp_path, settings, **changes)
    origins = particles.particles[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy()
    np.testing.assert_allclose(origins, pixel * fields()["alignments3D/shift"].astype(float), rtol=1e-6)
    assert any(note in text for text in particles.notes)


def test_two_dimensional_alignments(tmp_path: Path) -> None:
    changes = {name: None for name in fields() if name.startswith("alignments3D")}
    changes |= {
        "alignments2D/pose": np.linspace(-3, 3, N).astype("<f4"),
        "alignments2D/shift": np.ones((N, 2), dtype="<f4"),
    }
    changes |= {"alignments2D/class": np.arange(N, dtype="<u4"), "alignments2D/psize_A": np.full(N, 2.0, dtype="<f4")}
    table = read(tmp_path, **changes).particles
    np.testing.assert_allclose(table["rlnAnglePsi"], np.rad2deg(np.linspace(-3, 3, N)), rtol=1e-6)
    assert (table["rlnAngleTilt"] == 0).all() and (table["rlnOriginXAngst"] == 2.0).all()
    assert table["rlnClassNumber"].tolist() == list(range(1, N + 1))


def test_passthrough_files_are_matched_by_uid(tmp_path: Path) -> None:
    paths = write_cs(tmp_path / "p.cs", fields()), write_cs(tmp_path / "pass.cs", locations())
    table = cryosparc_particles(paths[0], [paths[1]]).particles
    np.testing.assert_allclose(table["rlnCoordinateX"], UID / 100 * 600, atol=0.01)
    np.testing.assert_allclose(table["rlnCoordinateY"], UID / 200 * 400, atol=0.01)
    assert table["rlnMicrographName"].tolist() == [f"J2/motioncorrected/m{u // 40}.mrc" for u in UID]
    flipped = cryosparc_particles(paths[0], [paths[1]], CryosparcSettings(flip_y=True)).particles
    np.testing.assert_allclose(flipped["rlnCoordinateY"] + table["rlnCoordinateY"], 400, atol=0.02)
    short = {name: value[1:] for name, value in locations().items()}
    with pytest.raises(InputError, match=r"1 particles are not in the passthrough file \(uid 10\)"):
        cryosparc_particles(paths[0], [write_cs(tmp_path / "short.cs", short)])


def test_beam_tilt_and_what_is_left_out(tmp_path: Path) -> None:
    tilt = np.zeros((N, 2), dtype="<f4")
    tilt[3:] = 2.7e7 * np.sin(0.4e-3), 0.0
    particles = read(tmp_path, **{"ctf/tilt_A": tilt, "ctf/trefoil_A": np.ones((N, 2), dtype="<f4")})
    assert particles.optics[0].beam_tilt == (0.0, 0.0)
    assert particles.optics[1].beam_tilt == pytest.approx((0.4, 0.0), rel=1e-4)
    assert any("ctf/trefoil_A is not 0 and is left out" in note for note in particles.notes)


def test_groups_split_where_their_values_differ(tmp_path: Path) -> None:
    voltage = np.array([300, 300, 200, 300, 300, 300], dtype="<f4")
    particles = read(tmp_path, **{"ctf/accel_kv": voltage})
    assert particles.names == ["exposures_0", "exposures_0_2", "exposures_1"]
    assert particles.particles["rlnOpticsGroup"].tolist() == [1, 1, 2, 3, 3, 3]


def test_without_ctf(tmp_path: Path) -> None:
    none = {name: None for name in fields() if name.startswith("ctf/")}
    with pytest.raises(InputError, match=r"p\.cs: no CTF \(ctf/accel_kv, .*--without-ctf"):
        read(tmp_path, **none)
    with pytest.raises(InputError, match="give voltage"):
        read(tmp_path, CryosparcSettings(without_ctf=True), **none)
    particles = read(tmp_path, CryosparcSettings(without_ctf=True, optics=(200.0, 2.0, 0.07)), **none)
    assert particles.optics[0].voltage_kv == 200.0 and "rlnDefocusU" not in particles.particles


def bad(tmp_path: Path, kind: str) -> Path:
    path = write_cs(tmp_path / "bad.cs", fields())
    raw = path.read_bytes()
    if kind == "cut":
        path.write_bytes(raw[:-20])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "stream":
        path.write_bytes(b"\x94CSDAT" + raw)
    elif kind == "text":
        path.write_text("data_\n")
    elif kind == "plain":
        with open(path, "wb") as handle:
            np.save(handle, np.zeros((3, 3)))
    elif kind == "no rows":
        write_cs(path, {name: value[:0] for name, value in fields().items()})
    elif kind == "objects":
        with open(path, "wb") as handle:
            np.save(handle, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", "not a complete"),
        ("empty", "0 bytes"),
        ("stream", "stream form"),
        ("text", "not a cryoSPARC"),
        ("plain", "a plain numpy array"),
        ("no rows", "no rows"),
        ("objects", "not a complete"),
    ],
)
def test_files_that_are_none_are_named(tmp_path: Path, kind: str, message: str) -> None:
    path = bad(tmp_path, kind)
    with pytest.raises(InputError, match=message) as error:
        read_cs(path)
    assert str(path) in str(error.value)


def test_values_and_fields_that_make_no_sense_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="_rlnImagePixelSize is 0"):
        read(tmp_path, **{"blob/psize_A": np.zeros(N, dtype="<f4")})
    with pytest.raises(InputError, match="field blob/path is missing"):
        read(tmp_path, **{"blob/path": None})


def test_the_command_writes_a_table_that_the_workflow_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_cs(tmp_path / "p.cs", fields())
    write_cs(tmp_path / "pass.cs", locations())
    for name in "ab":
        write_stack(
            tmp_path / "cs" / "J3" / "extract" / f"mic_{name}.mrc",
            np.random.default_rng(1).normal(size=(5, 64, 64)),
            1.31,
        )
    arguments = ["import", "cryosparc", "p.cs", "pass.cs", "-o", "given.star", "--root", "cs", "--link", "stacks"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    assert "6 particles in 2 optics groups" in result.output and Path("given.png").stat().st_size > 5000
    table = read_given_particles("given.star")
    assert table["rlnImageName"].iloc[0] == "000001@stacks/mic_a.mrcs" and Path("stacks/mic_b.mrcs").exists()
    assert table["rlnImagePixelSize"].eq(1.31).all()
    result = CliRunner().invoke(main, [*arguments[:6], "--link", "stacks"])
    assert result.exit_code == 2 and "give the folder of the cryoSPARC project" in result.stderr


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ctf/df1_A", np.nan, "particle 3: ctf/df1_A nan is not a finite number"),
        ("ctf/df2_A", -900.0, "particle 3: ctf/df2_A -900.0 is overfocus"),
        ("ctf/df_angle_rad", np.inf, "particle 3: ctf/df_angle_rad inf is not"),
    ],
)
def test_defoci_that_make_no_sense_are_refused(tmp_path: Path, field: str, value: float, message: str) -> None:
    changed = fields()[field].copy()
    changed[2] = value
    with pytest.raises(InputError, match=message):
        read(tmp_path, **{field: changed})
    if value == -900.0:
        found = read(tmp_path, CryosparcSettings(allow_overfocus=True), **{field: changed})
        assert found.particles["rlnDefocusV"].iloc[2] == -900.0


def test_optics_beside_a_ctf_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave --optics away"):
        read(tmp_path, CryosparcSettings(optics=(200.0, 2.0, 0.07)))


def test_picks_are_drawn_where_the_micrographs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_cs(tmp_path / "p.cs", fields())
    write_cs(tmp_path / "pass.cs", locations())
    command = ["import", "cryosparc", "p.cs", "pass.cs", "-o", "given.star", "--root", "project"]
    (tmp_path / "project").mkdir()
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0 and "no picture of picks" in result.output and not Path("given_picks.png").exists()
    image = np.random.default_rng(1).normal(size=(400, 600)).astype(np.float32)
    write_image(tmp_path / "project" / "J2" / "motioncorrected" / "m1.mrc", image, 0.655)
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "m1.mrc; look whether they sit" in result.output and Path("given_picks.png").stat().st_size > 5000
