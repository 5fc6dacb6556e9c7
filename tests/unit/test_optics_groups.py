"""Optics groups: read, checked, written back without loss; joined by name; and what is not corrected is never silent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nephila.aberrations import even_term, odd_term, zernike
from nephila.cli import main
from nephila.config import parse_config
from nephila.errors import InputError
from nephila.ignored_aberrations import ignored_aberrations, ignored_mtf
from nephila.import_particles import (
    check_aberrations,
    check_against_config,
    read_given_particles,
    read_given_tables,
)
from nephila.io.mrc import write_stack
from nephila.io.tables import read_blocks, write_blocks
from nephila.joining import join_particle_sets
from nephila.optics_groups import (
    MAGNIFICATION,
    OpticsGroup,
    ParticleSet,
    optics_frame,
    read_particle_set,
    with_image_sizes,
    write_particle_set,
)
from nephila.project import open_project

few = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Z40 = (0.0,) * 6 + (0.5,)


def group(number: int = 1, name: str = "one", **changes: Any) -> OpticsGroup:
    values: dict[str, Any] = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}
    values |= {"pixel_size": 1.25, "image_size": 64, "original_pixel_size": 0.625}
    return OpticsGroup(number, name, **(values | changes))


def particles(groups: list[int], stack: str = "s.mrcs", **more: Any) -> pd.DataFrame:
    table = {
        "rlnImageName": [f"{i:06d}@{stack}" for i in range(1, len(groups) + 1)],
        "rlnMicrographName": [f"{stack[0]}{i % 2}.mrc" for i in range(len(groups))],
        "rlnOpticsGroup": groups,
        "rlnDefocusU": 12000.0,
        "rlnDefocusV": 11000.0,
        "rlnDefocusAngle": 30.0,
    }
    return pd.DataFrame(table | more)


def write_set(path: Path, groups: list[OpticsGroup], table: pd.DataFrame | None = None) -> Path:
    table = particles([g.number for g in groups], f"{path.stem}.mrcs") if table is None else table
    write_particle_set(path, ParticleSet(tuple(groups), table))
    return path


COEFFICIENT = st.floats(-50, 50, allow_subnormal=False).map(lambda x: float(f"{x:.6g}") + 0.0)  # no -0.0
GROUPS = st.builds(
    group,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,11}", fullmatch=True),
    voltage_kv=st.sampled_from([120.0, 200.0, 300.0]),
    cs_mm=st.floats(-1, 20, allow_subnormal=False).map(lambda x: round(x, 5) + 0.0),
    pixel_size=st.none() | st.floats(0.1, 20).map(lambda x: round(x, 5)),
    image_size=st.none() | st.integers(2, 2048),
    original_pixel_size=st.none() | st.floats(0.1, 20).map(lambda x: round(x, 5)),
    mtf_file=st.none() | st.just("mtf/k3.star"),
    even_zernike=st.just(()) | st.lists(COEFFICIENT, min_size=9, max_size=9).map(tuple),
    odd_zernike=st.just(()) | st.lists(COEFFICIENT, min_size=6, max_size=6).map(tuple),
    magnification=st.just((1.0, 0.0, 0.0, 1.0)) | st.tuples(*[st.floats(-0.01, 0.01)] * 4).map(
        lambda t: tuple(round(a + b, 7) + 0.0 for a, b in zip(t, (1, 0, 0, 1), strict=True))
    ),
    beam_tilt=st.tuples(COEFFICIENT, COEFFICIENT),
    other=st.just({}) | st.just({"rlnImageDimensionality": 2, "rlnMadeUp": 3.5, "rlnSomeName": "left_alone"}),
)  # fmt: skip


@few
@given(one=GROUPS)
def test_groups_come_back_as_they_were_written(tmp_path: Path, one: OpticsGroup) -> None:
    write_set(tmp_path / "a.star", [one])
    back = read_particle_set(tmp_path / "a.star")
    assert back.optics[0].same_optics(one) == []
    assert back.optics[0].other == one.other
    write_particle_set(tmp_path / "b.star", back)
    assert (tmp_path / "a.star").read_bytes() == (tmp_path / "b.star").read_bytes()


def test_unknown_columns_and_blocks_stay(tmp_path: Path) -> None:
    path = write_set(tmp_path / "a.star", [group()], particles([1, 1], rlnMadeUpColumn=[1.5, 2.5]))
    blocks = read_blocks(path)
    write_blocks(path, blocks | {"extra": pd.DataFrame({"rlnX": [1, 2]})})
    write_particle_set(tmp_path / "b.star", read_particle_set(path))
    again = read_blocks(tmp_path / "b.star")
    assert again["particles"]["rlnMadeUpColumn"].tolist() == [1.5, 2.5] and again["extra"]["rlnX"].tolist() == [1, 2]


def test_columns_for_aberrations_are_written_only_where_there_are_some() -> None:
    plain, bent = group(), group(2, "two", even_zernike=Z40, beam_tilt=(0.1, 0.0), magnification=(1.01, 0.0, 0.0, 1.0))
    assert not {"rlnEvenZernike", "rlnBeamTiltX", *MAGNIFICATION} & set(optics_frame([plain]))
    frame = optics_frame([plain, bent])
    assert frame["rlnEvenZernike"].tolist() == ["[0,0,0,0,0,0,0,0,0]", "[0,0,0,0,0,0,0.5,0,0]"]
    assert frame["rlnBeamTiltX"].tolist() == [0.0, 0.1] and frame["rlnMagMat11"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("rlnImagePixelSize", 0.0, "_rlnImagePixelSize is 0"),
        ("rlnImagePixelSize", -1.0, "_rlnImagePixelSize is -1"),
        ("rlnImagePixelSize", "nan", "'nan' is not a finite number"),
        ("rlnSphericalAberration", 2.7e7, "is it in A or um"),
        ("rlnVoltage", 300000.0, "is it in V"),
        ("rlnAmplitudeContrast", 7.0, "is it in percent"),
        ("rlnVoltage", "high", "'high' is not a finite number"),
        ("rlnImageSize", 0, "_rlnImageSize is 0"),
        ("rlnEvenZernike", "0.5", "not a vector"),
        ("rlnEvenZernike", "[0,nan]", "not a finite number"),
        ("rlnBeamTiltX", 0.1, "give all of the matrix or tilt"),
        ("rlnMagMat00", 1.0, "give all of the matrix or tilt"),
    ],
)
def test_values_that_make_no_sense_are_named(tmp_path: Path, column: str, value: Any, message: str) -> None:
    path = write_set(tmp_path / "a.star", [group(), group(2, "two")])
    blocks = read_blocks(path)
    optics = blocks["optics"].astype(object)
    optics[column] = [
        value if column.startswith(("rlnBeam", "rlnMag")) else optics.get(column, pd.Series([0, 0]))[0],
        value,
    ]
    if column == "rlnEvenZernike":
        optics[column] = ["[0,0]", value]
    write_blocks(path, blocks | {"optics": optics})
    with pytest.raises(InputError, match=message) as error:
        read_particle_set(path)
    assert str(path) in str(error.value) and "data_optics, row " in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b | {"optics": b["optics"].assign(rlnOpticsGroup=1)}, "_rlnOpticsGroup 1 occurs twice"),
        (lambda b: b | {"optics": b["optics"].assign(rlnOpticsGroupName="x")}, "_rlnOpticsGroupName x occurs twice"),
        (lambda b: b | {"optics": b["optics"].drop(columns="rlnVoltage")}, "column _rlnVoltage is missing"),
        (lambda b: {"optics": b["optics"]}, "no block 'data_particles'; the file has data_optics"),
        (lambda b: {"optics": b["optics"], "micrographs": b["particles"]}, "holds micrographs"),
        (lambda b: b | {"particles": b["particles"].drop(columns="rlnOpticsGroup")}, "no column _rlnOpticsGroup"),
        (lambda b: b | {"particles": b["particles"].assign(rlnOpticsGroup=[1, 3])}, "row 2: optics group 3 is not in"),
    ],
)
def test_blocks_that_contradict_each_other_are_named(tmp_path: Path, change: Any, message: str) -> None:
    path = write_set(tmp_path / "a.star", [group(), group(2, "two")])
    write_blocks(path, change(read_blocks(path)))
    with pytest.raises(InputError, match=message) as error:
        read_particle_set(path)
    assert str(path) in str(error.value)


def test_ragged_rows_and_empty_files_are_named(tmp_path: Path) -> None:
    path = write_set(tmp_path / "a.star", [group()])
    text = path.read_text()
    path.write_text(text.replace("000001@a.mrcs\t", "", 1))
    with pytest.raises(InputError, match=r"a\.star.*line \d+|a\.star.*row"):
        read_particle_set(path)
    path.write_text("")
    with pytest.raises(InputError, match="empty"):
        read_particle_set(path)


def old_table() -> pd.DataFrame:
    """RELION 3.0: optics in each row, origins in px; two voltages."""
    return particles([1, 1, 1]).drop(columns="rlnOpticsGroup").assign(
        rlnVoltage=[300.0, 300.0, 200.0],
        rlnSphericalAberration=2.7,
        rlnAmplitudeContrast=0.1,
        rlnDetectorPixelSize=5.0,
        rlnMagnification=40000.0,
        rlnOriginX=[1.0, -2.0, 0.5],
        rlnOriginY=[0.0, 4.0, 0.0],
    )  # fmt: skip


def test_tables_of_relion_3_0_become_3_1(tmp_path: Path) -> None:
    write_stack(tmp_path / "s.mrcs", np.zeros((3, 24, 24)), 1.25)
    write_blocks(tmp_path / "old.star", {"": old_table()})
    new = with_image_sizes(read_particle_set(tmp_path / "old.star"))
    assert [g.voltage_kv for g in new.optics] == [300.0, 200.0]
    assert {(g.pixel_size, g.image_size) for g in new.optics} == {(1.25, 24)}
    assert new.particles["rlnOpticsGroup"].tolist() == [1, 1, 2]
    assert new.particles["rlnOriginXAngst"].tolist() == [1.25, -2.5, 0.625]
    assert not {"rlnOriginX", "rlnMagnification", "rlnVoltage"} & set(new.particles)
    assert "RELION 3.0" in new.notes[0]
    result = CliRunner().invoke(main, ["convert", str(tmp_path / "old.star"), str(tmp_path / "new.star")])
    assert "3 particles in 2 optics groups (RELION 3.1)" in result.output
    assert read_particle_set(tmp_path / "new.star").optics[1].same_optics(new.optics[1]) == []
    write_blocks(tmp_path / "old.star", {"": old_table().assign(rlnMagnification=[4e4, 0.0, 4e4])})
    with pytest.raises(InputError, match="row 2: _rlnMagnification is 0"):
        read_particle_set(tmp_path / "old.star")


def test_joining_renumbers_and_fills(tmp_path: Path) -> None:
    first = ParticleSet((group(), group(4, "two", voltage_kv=200.0)), particles([1, 4], "a.mrcs"), source="a.star")
    bent = group(1, "three", pixel_size=1.4, even_zernike=Z40, other={"rlnImageDimensionality": 2})
    second = ParticleSet((bent, group(2, "one")), particles([2, 1, 1], "b.mrcs", rlnAnglePsi=3.0), source="b.star")
    joined = join_particle_sets([first, second])
    assert [(g.number, g.name) for g in joined.particles.optics] == [(1, "one"), (2, "two"), (3, "three")]
    assert joined.particles.particles["rlnOpticsGroup"].tolist() == [1, 2, 1, 3, 3]
    assert joined.rows == (2, 3)
    frame = optics_frame(joined.particles.optics)
    assert frame["rlnEvenZernike"].tolist()[0] == "[0,0,0,0,0,0,0,0,0]" and "rlnImageDimensionality" not in frame
    notes = " ".join(joined.notes)
    assert "_rlnAnglePsi" in notes and "_rlnImageDimensionality" in notes and "1.25, 1.4 A" in notes


def test_joining_stops_at_one_name_with_different_values(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a.star", [group()])
    b = write_set(tmp_path / "b.star", [group(pixel_size=1.3)])
    out = tmp_path / "out.star"
    result = CliRunner().invoke(main, ["join", str(a), str(b), "-o", str(out)])
    assert result.exit_code == 2 and not out.exists()
    for part in (str(a), str(b), "'one'", "_rlnImagePixelSize", "--rename"):
        assert part in result.stderr
    result = CliRunner().invoke(main, ["join", str(a), str(b), "-o", str(out), "--rename"])
    assert result.exit_code == 0 and read_particle_set(out).names == ["one", "one_b"]
    # joined with itself: the same particles twice
    result = CliRunner().invoke(main, ["join", str(a), str(a), "-o", str(out)])
    assert result.exit_code == 2 and "000001@a.mrcs" in result.stderr
    result = CliRunner().invoke(main, ["join", str(a), str(b), "-o", str(a)])
    assert result.exit_code == 2 and "one of the tables" in result.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mtf_file": "k2.star"}, "has the MTF k2.star"),
        ({"pixel_size": None}, "has no _rlnImagePixelSize"),
        ({"image_size": None}, "has no _rlnImageSize"),
    ],
)
def test_joining_refuses_what_cannot_be_filled(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    sets = [
        ParticleSet((group(),), particles([1], "a.mrcs"), source="a.star"),
        ParticleSet((group(1, "two", **changes),), particles([1], "b.mrcs"), source="b.star"),
    ]
    with pytest.raises(InputError, match=message):
        write_particle_set(tmp_path / "out.star", join_particle_sets(sets).particles)
    with pytest.raises(InputError, match="at least two"):
        join_particle_sets(sets[:1])


def test_zernike_terms_are_those_of_relion() -> None:
    assert [even_term(i) for i in (0, 1, 2, 3, 4, 6, 8)] == [(0, 0), (-2, 2), (0, 2), (2, 2), (-4, 4), (0, 4), (4, 4)]
    assert [odd_term(i) for i in range(6)] == [(-1, 1), (1, 1), (-3, 3), (-1, 3), (1, 3), (3, 3)]
    rho, phi = np.array([0.3, 0.7, 1.2]), 0.4
    np.testing.assert_allclose(zernike(0, 4, rho, phi), 6 * rho**4 - 6 * rho**2 + 1)
    np.testing.assert_allclose(zernike(-1, 3, rho, phi), (3 * rho**3 - 2 * rho) * np.sin(phi))


def test_phase_errors_of_what_is_ignored() -> None:
    assert ignored_aberrations([group()], 1.25, 200.0) == []
    found = {e.what.split()[0]: e for e in ignored_aberrations(
        [group(beam_tilt=(0.3, 0.4), magnification=(1.005, 0.0, 0.0, 1.005), odd_zernike=(0.0, 0.01))], 1.25, 200.0
    )}  # fmt: skip
    # 2 pi k 0.005 x 100 A = pi / 2 at k = 0.5 / A: beyond Nyquist; at Nyquist (0.4 / A) 72 degrees
    assert found["magnification"].resolution is None
    assert found["magnification"].phase_deg == pytest.approx(72, rel=0.01)
    # 2 pi Cs lambda^2 k^3 tilt = pi / 2
    limit = (2.7e7 * group().wavelength ** 2 * 0.5e-3 * 4) ** (1 / 3)
    assert found["beam"].resolution == pytest.approx(limit, rel=0.02)
    assert found["odd"].phase_deg == pytest.approx(np.degrees(0.01 * 0.4), rel=0.01)


def test_particles_with_aberrations_are_refused_or_warned_about(tmp_path: Path) -> None:
    table = read_given_particles(write_set(tmp_path / "a.star", [group(), group(2, "two", beam_tilt=(2.0, 0.0))]))
    with pytest.raises(InputError, match=r"group two: beam tilt.*90 degrees at .* A.*input\.ignore_aberrations"):
        check_aberrations(table, 1.25, 200.0, False, "a.star")
    assert len(check_aberrations(table, 1.25, 200.0, True, "a.star")) == 1
    small = group(beam_tilt=(0.001, 0.0), mtf_file="mtf.star")
    lines = check_aberrations(
        read_given_particles(write_set(tmp_path / "b.star", [small])), 1.25, 200.0, False, "b.star"
    )
    assert (
        "beam tilt" in lines[0]
        and "at Nyquist, is ignored" in lines[0]
        and lines[1].startswith("_rlnMtfFileName is not used")
    )
    two_sizes = read_given_particles(write_set(tmp_path / "d.star", [group(), group(2, "two", pixel_size=1.4)]))
    optics = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1, "phase_shift_deg": 0.0}
    with pytest.raises(InputError, match="_rlnImagePixelSize is 1.4 in row 2.*input.optics_groups: several"):
        check_against_config(two_sizes, 1.25, 64, optics, "d.star")
    plain = read_given_particles(write_set(tmp_path / "c.star", [group()]))
    assert check_aberrations(plain, 1.25, 200.0, False, "c.star") == []


def test_several_tables_in_one_configuration_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each table's stacks are looked for beside it; names that clash stop it, as in `nephila join`."""
    monkeypatch.chdir(tmp_path)
    for folder, name in (("day1", "a"), ("day2", "b")):
        Path(folder).mkdir()
        write_stack(Path(folder) / f"{name}.mrcs", np.zeros((2, 64, 64)), 1.25)
        write_set(Path(folder) / f"{name}.star", [group(1, f"set_{name}")])
    config = parse_config({"input": {"particles": ["day1/a.star", "day2/b.star"]}})
    assert config.input.particle_tables == ["day1/a.star", "day2/b.star"]
    assert parse_config({"input": {"particles": "day1/a.star"}}).input.particle_tables == ["day1/a.star"]
    table = read_given_tables(config.input.particle_tables, stacks=True)
    assert table["rlnImageName"].tolist() == ["000001@day1/a.mrcs", "000001@day2/b.mrcs"]
    assert table["rlnOpticsGroup"].tolist() == [1, 2] and table["rlnImagePixelSize"].eq(1.25).all()
    Path("reference.mrc").write_bytes(b"")
    plan = open_project(config)
    assert list(plan.batches) == ["a0.mrc", "b0.mrc"] and plan.sources == ("day1/a.star", "day2/b.star")
    write_set(Path("day2/b.star"), [group(1, "set_a", voltage_kv=200.0)])
    with pytest.raises(InputError, match="'set_a' is in day1/a.star and in day2/b.star with different _rlnVoltage"):
        read_given_tables(config.input.particle_tables)
    with pytest.raises(InputError, match=r"input\.particles: no such file: none\.star"):
        open_project(parse_config({"input": {"particles": ["day1/a.star", "none.star"]}}))


def test_mtfs_that_are_not_used_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, last in (("a", 0.6), ("b", 0.3)):
        rows = f"0.0 1.0\n0.5 {last}\n"
        Path(f"{name}.star").write_text(f"data_\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n{rows}")
    one = group(mtf_file="a.star", original_pixel_size=1.25)
    assert ignored_mtf([group()], 64, 1.25) == []
    assert len(ignored_mtf([one, replace(one, number=2, name="two")], 64, 1.25)) == 1
    other = replace(one, number=2, name="two", mtf_file="b.star")
    lines = ignored_mtf([one, other], 64, 1.25)
    assert len(lines) == 2 and "one and two differ by a factor of up to 2.00 (2.5 A)" in lines[1]
    # one detector binned on the chip: its pixels are larger, so its MTF falls sooner
    finer = replace(one, number=2, name="two", original_pixel_size=0.625)
    assert "two and one differ by a factor of up to 1.33" in ignored_mtf([one, finer], 64, 1.25)[1]
    assert "not in the project folder" in ignored_mtf([one, replace(other, mtf_file="c.star")], 64, 1.25)[1]
    table = read_given_particles(write_set(tmp_path / "g.star", [one, other]))
    assert any(
        "factor of up to 2.00" in line for line in check_aberrations(table, 1.25, 200.0, False, "g.star", several=True)
    )
