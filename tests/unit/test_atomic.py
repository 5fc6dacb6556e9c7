"""Outputs appear whole or not at all."""

from __future__ import annotations

import stat

import pytest

from nephila.errors import InputError, NephilaError, stable_hash
from nephila.io.atomic import atomic_path, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_at_the_end(tmp_path):
    target = tmp_path / "deeper" / "map.mrc"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".mrc" and temporary.parent == target.parent
        temporary.write_bytes(b"12")
        assert not target.exists()
    assert target.read_bytes() == b"12"
    assert names(target.parent) == ["map.mrc"]


@pytest.mark.parametrize("before", [None, "old"])
def test_an_error_leaves_what_was_there(tmp_path, before):
    target = tmp_path / "table.star"
    if before:
        target.write_text(before)
    with pytest.raises(RuntimeError, match="half-way"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half-way")
    assert names(tmp_path) == (["table.star"] if before else [])
    assert not before or target.read_text() == before


def test_read_only_files_are_replaced(tmp_path):
    target = tmp_path / "def_sort.star"
    write_text(target, "one\n", read_only=True)
    assert not stat.S_IMODE(target.stat().st_mode) & 0o222
    write_text(target, "two\n", read_only=True)
    assert target.read_text() == "two\n"
    assert names(tmp_path) == ["def_sort.star"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass


def test_hash_is_the_same_everywhere():
    assert stable_hash("123456789") == 0xCBF43926  # the check value of CRC-32
    assert stable_hash("ä") != stable_hash("a")


def test_input_errors_are_errors_for_users():
    assert issubclass(InputError, NephilaError)
