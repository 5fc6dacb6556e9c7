"""Sums read group by group are those that are added up in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from nephila.errors import InputError
from nephila.partial_sum import GridShape, PartialSum
from nephila.refinement.noise import NoiseSum
from nephila.refinement.stored_sums import open_chunks
from nephila.refinement.sums import ChunkSums, add_chunks, whole


def chunk(path: Path, groups: range, seed: int, n: int = 24) -> Path:
    rng = np.random.default_rng(seed)
    sums = {}
    for number in groups:
        empty = PartialSum.empty(GridShape.of(n, 2.0, None))
        values = rng.integers(-(2**20), 2**20, empty.sums.shape)
        sums[number] = PartialSum(empty.grid, values, int(rng.integers(1, 9)), int(rng.integers(1, 9)))
    shells = n // 2 + 1
    spectra = {number: NoiseSum(*rng.integers(0, 999, (2, shells)), number) for number in groups}
    ChunkSums(sums, NoiseSum(rng.random(shells), rng.random(shells), 4), group_noise=spectra).save(path)
    return path


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Chunks that share groups, as where a group is larger than a chunk."""
    return [chunk(tmp_path / f"{i}.npz", groups, i) for i, groups in enumerate((range(1, 5), range(4, 9), range(8, 9)))]


def test_groups_are_the_same_as_in_memory(paths: list[Path]) -> None:
    stored, added = open_chunks(paths), add_chunks(paths)
    assert list(stored.groups) == sorted(added.groups)
    for number, part in added.groups.items():
        np.testing.assert_array_equal(stored.groups[number].sums, part.sums)
        assert (stored.groups[number].particles, stored.groups[number].weight_units) == (
            part.particles,
            part.weight_units,
        )
    total, expected = whole(stored.groups), whole(added.groups)
    assert total is not None and expected is not None
    np.testing.assert_array_equal(total.sums, expected.sums)
    assert stored.noise is not None and added.noise is not None
    np.testing.assert_array_equal(stored.noise.residual, added.noise.residual)
    assert stored.group_noise.keys() == added.group_noise.keys() == set(range(1, 9))
    for number, noise in stored.group_noise.items():
        np.testing.assert_array_equal(noise.residual, added.group_noise[number].residual)
        assert noise.particles == added.group_noise[number].particles
    assert stored.groups.get(99) is None and 99 not in stored.groups


def test_the_total_needs_few_groups_at_a_time(tmp_path: Path) -> None:
    path = chunk(tmp_path / "many.npz", range(1, 31), 7)
    one = PartialSum.empty(GridShape.of(24, 2.0, None)).sums.nbytes
    tracemalloc.start()
    whole(open_chunks([path]).groups)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * one


def test_what_is_no_file_of_sums_is_named(tmp_path: Path, paths: list[Path]) -> None:
    (tmp_path / "x.npz").write_text("no")
    with pytest.raises(InputError, match=r"x\.npz: not a file of partial sums"):
        open_chunks([tmp_path / "x.npz"])
    stored = open_chunks(paths)
    paths[0].unlink()
    with pytest.raises(InputError, match=r"0\.npz"):
        stored.groups[1]
