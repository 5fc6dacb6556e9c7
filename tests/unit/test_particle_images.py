"""Images of a table from their stacks, defocus groups of particles, and stacks by group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.io.mrc import open_stack, write_stack
from nephila.particle_groups import count_by_group, optics_table, particles_of_group, sort_by_group, stack_particles
from nephila.particle_images import ParticleImages, image_name, split_image_name
from nephila.plan import Group


@pytest.fixture
def stacks(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Two stacks of numbered images."""
    images = np.arange(7, dtype=np.float32)[:, None, None] * np.ones((1, 8, 8), dtype=np.float32)
    write_stack(tmp_path / "a.mrcs", images[:4], 2.0)
    write_stack(tmp_path / "b.mrcs", images[4:], 2.0)
    return tmp_path, images


def names(*pairs: tuple[int, str]) -> pd.DataFrame:
    return pd.DataFrame({"rlnImageName": [image_name(index, path) for index, path in pairs]})


def test_rows_come_in_the_tables_order(stacks: tuple[Path, np.ndarray]) -> None:
    folder, _ = stacks
    images = ParticleImages(names((2, "a.mrcs"), (1, "b.mrcs"), (0, "a.mrcs"), (1, "b.mrcs")), folder)
    assert images.shape == (4, 8, 8) and images.pixel_size == 2.0
    assert images[0:4][:, 0, 0].tolist() == [2, 5, 0, 5]
    assert images[1:3][:, 0, 0].tolist() == [5, 0]
    assert images[2].shape == (8, 8)


def test_names_count_from_one() -> None:
    assert image_name(0, "x.mrcs") == "000001@x.mrcs"
    assert split_image_name("000012@folder/x.mrcs") == (11, "folder/x.mrcs")
    for wrong in ("x.mrcs", "0@x.mrcs", "a@x.mrcs"):
        with pytest.raises(InputError, match="expected number@stack"):
            split_image_name(wrong)


def test_errors_name_the_stack(stacks: tuple[Path, np.ndarray]) -> None:
    folder, _ = stacks
    with pytest.raises(InputError, match=r"a\.mrcs: image 9 is asked for, the stack holds 4"):
        ParticleImages(names((8, "a.mrcs")), folder)
    write_stack(folder / "nan.mrcs", np.full((1, 8, 8), np.nan), 2.0)
    with pytest.raises(InputError, match=r"nan\.mrcs: image 1 holds NaN"):
        ParticleImages(names((0, "nan.mrcs")), folder)[0:1]
    write_stack(folder / "small.mrcs", np.zeros((1, 6, 6)), 2.0)
    with pytest.raises(InputError, match="different or uneven sizes"):
        ParticleImages(names((0, "a.mrcs"), (0, "small.mrcs")), folder)


def particles() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rlnMicrographName": ["m2", "m1", "m1", "m3"],
            "nphParticleNumber": [1, 2, 1, 1],
            "rlnImageName": [image_name(i, "a.mrcs") for i in range(4)],
            "rlnOpticsGroup": 1,
        }
    )


DEF_AVG = pd.DataFrame(
    {
        "rlnMicrographName": ["m1", "m2"],
        "nphDefocusGroup": [2, 1],
        "nphGroupDefocus": [2e4, 1e4],
        "nphGroupDefocusU": [2.1e4, 1.1e4],
        "nphGroupDefocusV": [1.9e4, 0.9e4],
        "nphGroupDefocusAngle": [10.0, 20.0],
    }
)


def test_particles_take_their_groups_ctf_and_dropped_micrographs_are_left_out() -> None:
    table = sort_by_group(particles(), DEF_AVG)
    assert table["rlnMicrographName"].tolist() == ["m2", "m1", "m1"]
    assert table["nphParticleNumber"].tolist() == [1, 1, 2]
    assert table["nphGroupDefocusU"].tolist() == [1.1e4, 2.1e4, 2.1e4]
    counts = count_by_group(table[table["nphDefocusGroup"] == 1], DEF_AVG)
    assert counts[["nphParticles", "nphCumulative"]].to_numpy().tolist() == [[1, 1], [0, 1]]


def test_no_particle_left_is_an_error() -> None:
    with pytest.raises(InputError, match="none of the 1 particles lies on a kept micrograph"):
        sort_by_group(particles().iloc[3:], DEF_AVG)


def test_a_groups_stack_holds_its_images_in_order(
    stacks: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = stacks
    monkeypatch.chdir(folder)
    mine = particles_of_group(particles(), Group(2, ("m1",), 2.1e4, 1.9e4, 10.0))
    table = stack_particles(mine, "data.mrcs", 2.0, 8, "float32")
    assert open_stack("data.mrcs")[:][:, 0, 0].tolist() == [2, 1]
    assert table["rlnImageName"].tolist() == ["000001@data.mrcs", "000002@data.mrcs"]
    empty = particles_of_group(particles(), Group(3, ("m9",), 1e4, 1e4, 0.0))
    assert len(stack_particles(empty, "none.mrcs", 2.0, 8, "float32")) == 0
    assert open_stack("none.mrcs").shape == (0, 8, 8)


def test_optics_block_has_what_relion_reads() -> None:
    table = optics_table("set", Optics(300, 2.7, 0.1), 1.5, 128, 0.75)
    assert table.iloc[0].to_dict()["rlnImagePixelSize"] == 1.5
    assert table.iloc[0].to_dict()["rlnMicrographOriginalPixelSize"] == 0.75
