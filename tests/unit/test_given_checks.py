"""Pixel sizes of given particles against their stacks and micrographs, and defoci that make no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from nephila.cli import main
from nephila.errors import InputError
from nephila.given_checks import check_defoci, check_grid, check_original_sizes, check_stacks
from nephila.import_particles import micrograph_defoci, read_given_particles, read_given_tables
from nephila.io.mrc import write_stack
from nephila.io.tables import read_blocks, write_blocks

BOX = 24


def write_given(folder: Path, name: str = "given", header: float = 1.0, stated: float = 1.0, **columns: Any) -> Path:
    """A table of four particles that states one pixel size, and its stack whose header has another."""
    write_stack(folder / f"{name}.mrcs", np.zeros((4, BOX, BOX), np.float32), header)
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1], "rlnOpticsGroupName": [name], "rlnVoltage": [300.0], "rlnSphericalAberration": [2.7],
            "rlnAmplitudeContrast": [0.1], "rlnImagePixelSize": [stated], "rlnImageSize": [BOX],
        }
    )  # fmt: skip
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{i}@{folder / name}.mrcs" for i in (1, 2, 3, 4)],
            "rlnMicrographName": [f"{name}_{i}.mrc" for i in (1, 1, 2, 2)],
            "rlnOpticsGroup": 1, "rlnDefocusU": 12000.0, "rlnDefocusV": 11000.0, "rlnDefocusAngle": 10.0,
        }
    ).assign(**columns)  # fmt: skip
    write_blocks(folder / f"{name}.star", {"optics": optics, "particles": particles})
    return folder / f"{name}.star"


@pytest.mark.parametrize(
    ("header", "stated", "refused"),
    [
        (1.0, 0.98, True),  # the seed's case
        (0.98, 1.0, True),
        (0.54, 0.51, True),
        (1.0, 0.998, True),
        (1.35, 1.352, True),
        (1.35, 1.3505, False),  # rounded
        (1.0, 1.0, False),
        (1.0, 1.35, False),  # 1 where 1 cannot be: not stated
        (0.0, 1.35, False),
    ],
)
def test_table_against_stack(tmp_path: Path, header: float, stated: float, refused: bool) -> None:
    table = read_given_tables([write_given(tmp_path, header=header, stated=stated)], stacks=True)
    if not refused:
        return check_stacks(table, stated, "given.star")
    with pytest.raises(InputError, match="given.star: _rlnImagePixelSize is .* never edit the pixel size"):
        check_stacks(table, stated, "given.star")
    with pytest.raises(InputError, match="input.pixel_size is"):
        check_stacks(table.drop(columns="rlnImagePixelSize"), stated, "given.star")


@pytest.mark.parametrize(
    ("image", "micrograph", "box", "refused"),
    [
        (0.98, 1.0, 140, True),  # the seed's: edited, the micrographs' size was not
        (1.0, 0.98, 140, True),
        (0.54, 0.51, 256, True),
        (1.0, 1.0, 140, False),
        (2.0, 0.5, 140, False),
        (140 / 128, 1.0, 128, False),  # windows of 140 px scaled to 128
        (1.09375, 1.0, 100, True),
    ],
)
def test_table_against_micrographs(image: float, micrograph: float, box: int, refused: bool) -> None:
    table = pd.DataFrame(
        {"rlnImagePixelSize": [image], "rlnMicrographOriginalPixelSize": micrograph, "rlnImageSize": box}
    )
    if not refused:
        return check_original_sizes(table, "a.star")
    with pytest.raises(InputError, match="one of them was edited"):
        check_original_sizes(table, "a.star")


def test_a_map_on_a_grid_that_is_nearly_the_particles() -> None:
    check_grid([2.0, 2.3], 2.0, "a.star")
    check_grid([2.0, 1.96], 2.0, "a.star")
    check_grid([2.0, 2.3], 3.0, "a.star")
    with pytest.raises(InputError, match=r"would have 0\.9604 A.*input\.pixel_size: 1"):
        check_grid([1.0, 1.1], 0.98, "a.star")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("rlnDefocusU", -500.0, "is overfocus.*input.overfocus"),
        ("rlnDefocusV", -1.0, "is overfocus"),
        ("rlnDefocusV", "nan", "is not a finite number"),
        ("rlnDefocusU", "inf", "is not a finite number"),
        ("rlnDefocusAngle", "nan", "is not a finite number"),
        ("rlnDefocusU", 1.2e8, "is beyond 200000 A"),
    ],
)
def test_defoci_that_make_no_sense(tmp_path: Path, column: str, value: Any, message: str) -> None:
    values = read_blocks(write_given(tmp_path))["particles"].get(column).astype(object)
    values.iloc[2] = value
    path = write_given(tmp_path, **{column: values})
    with pytest.raises(InputError, match=f"block data_particles, row 3: _{column} .*{message}"):
        read_given_particles(path)
    other = write_given(tmp_path, "other")
    result = CliRunner().invoke(main, ["join", str(other), str(path), "-o", str(tmp_path / "all.star")])
    assert result.exit_code == 2 and "row 3" in result.output and not (tmp_path / "all.star").exists()


def test_overfocus_with_the_switch(tmp_path: Path) -> None:
    path = write_given(tmp_path, rlnDefocusU=-11000.0, rlnDefocusV=-12000.0)
    table = read_given_particles(path, overfocus=True)
    check_defoci(table, "given.star", overfocus=True)
    found = micrograph_defoci(table, {"given_1.mrc": 1, "given_2.mrc": 1}, "given.star", overfocus=True)
    assert found["nphKeep"].eq(1).all() and found["rlnDefocusV"].eq(-12000.0).all()
    assert micrograph_defoci(table, {"given_1.mrc": 1}, "given.star")["nphKeep"].eq(0).all()
    command = ["join", str(path), str(write_given(tmp_path, "b")), "-o", str(tmp_path / "all.star")]
    assert CliRunner().invoke(main, command).exit_code == 2
    assert CliRunner().invoke(main, [*command, "--allow-overfocus"]).exit_code == 0
    assert len(read_blocks(tmp_path / "all.star")["particles"]) == 8


def test_overfocus_micrographs_are_kept_and_failed_fits_are_not() -> None:
    from nephila.plan import resolve_micrographs

    table = pd.DataFrame(
        {"rlnMicrographName": ["a", "b"], "rlnDefocusU": [-9000.0, 9000.0], "nphKeep": 1, "nphReason": "none"}
    )
    assert len(resolve_micrographs(table, None)) == 2
    for none in (0.0, np.nan):
        with pytest.raises(InputError, match="a is kept but has no defocus"):
            resolve_micrographs(table.assign(rlnDefocusU=[none, 9000.0]), None)
