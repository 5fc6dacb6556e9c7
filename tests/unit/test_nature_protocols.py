"""The Nature Protocols layout: order_select as the data set has it, a line for each group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.io.mrc import open_stack
from nephila.io.spider import write_document, write_spider
from nephila.nature_protocols import import_data_set, read_order

GROUPS = {"group": [2, 1, 5], "particles": [3, 2, 4], "last": [3, 5, 9], "defocus": [18000.0, 12000.0, 25000.0]}


def test_a_line_for_each_group(tmp_path: Path) -> None:
    images = np.random.default_rng(1).normal(size=(9, 12, 12)).astype(np.float32)
    for number, image in enumerate(images, 1):
        (tmp_path / "win").mkdir(exist_ok=True)
        write_spider(tmp_path / "win" / f"ser{number:05d}.dat", image)
    write_document(tmp_path / "order_select.dat", GROUPS)
    blocks = import_data_set(tmp_path, tmp_path / "out.mrcs", Optics(200.0, 2.0, 0.1), 2.82)
    table = blocks["particles"]
    assert table["rlnMicrographName"].tolist() == ["group_001"] * 2 + ["group_002"] * 3 + ["group_005"] * 4
    assert table["nphParticleNumber"].tolist() == [1, 2, 1, 2, 3, 1, 2, 3, 4]
    assert table["rlnDefocusU"].tolist() == [12000.0] * 2 + [18000.0] * 3 + [25000.0] * 4
    np.testing.assert_array_equal(open_stack(tmp_path / "out.mrcs")[:], images[[3, 4, 0, 1, 2, 5, 6, 7, 8]])
    (tmp_path / "win" / "ser00007.dat").unlink()
    with pytest.raises(InputError, match="particle 7 has no image file"):
        import_data_set(tmp_path, tmp_path / "out.mrcs", Optics(200.0, 2.0, 0.1), 2.82)


def test_a_line_for_each_particle(tmp_path: Path) -> None:
    given = {"group": [1, 1, 2], "particle": [1, 2, 1], "image": [4, 6, 9], "defocus": [1e4, 1e4, 2e4]}
    write_document(tmp_path / "order_select.dat", given)
    table = read_order(tmp_path / "order_select.dat")
    assert table["cumulative"].tolist() == [4, 6, 9] and table["group"].tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"last": [3, 6, 10]}, "key 2: group 1 has 2 particles and ends at image 6, the one before at 3"),
        ({"particles": [3, 0, 4]}, "group 1 has 0 particles"),
        ({"defocus": [1e4, -1.0, 1e4]}, "key 2: defocus -1.0 A"),
    ],
)
def test_numbers_that_do_not_follow_are_named(tmp_path: Path, changes: dict[str, list[float]], message: str) -> None:
    write_document(tmp_path / "order_select.dat", GROUPS | changes)
    with pytest.raises(InputError, match=message):
        read_order(tmp_path / "order_select.dat")
    write_document(tmp_path / "order_select.dat", {"group": [1.0], "n": [2.0]})
    with pytest.raises(InputError, match="2 columns; order_select has four"):
        read_order(tmp_path / "order_select.dat")
