"""SPIDER files: round trips, both byte orders, real files written by SPIDER itself, document files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nephila.errors import InputError
from nephila.io.spider import (
    read_document,
    read_spider,
    read_spider_header,
    read_stack_numbers,
    write_document,
    write_spider,
)

DATA = Path(__file__).parents[3] / "shared" / "data" / "spider"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="SPIDER's own files (shared/data/spider) are not here")


def swap_bytes(path: Path, target: Path) -> None:
    """The same file as a big-endian machine would have written it (the date text is spoilt; readers do not use it)."""
    target.write_bytes(np.fromfile(path, "<f4").astype(">f4").tobytes())


VOLUMES = [(3, 4, 5), (33, 33, 33), (4, 128, 128)]


@pytest.mark.parametrize(
    ("shape", "stack"),
    [*((s, False) for s in [(5, 7), (64, 32), (300, 513), *VOLUMES]), *((s, True) for s in VOLUMES)],
)
@pytest.mark.parametrize("order", ["little", "big"])
def test_round_trip(tmp_path: Path, shape: tuple[int, ...], stack: bool, order: str) -> None:
    array = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    path = tmp_path / "x.spi"
    write_spider(path, array, 2.8, stack=stack)
    if order == "big":
        swap_bytes(path, tmp_path / "big.spi")
        path = tmp_path / "big.spi"
    back, pixel_size = read_spider(path)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, array)
    assert pixel_size == pytest.approx(2.8)
    header = read_spider_header(path)
    assert header.byte_order == ("<" if order == "little" else ">")
    assert header.kind == ("stack" if stack else {2: "image", 3: "volume"}[len(shape)])
    assert header.file_bytes == path.stat().st_size
    assert header.header_bytes % (4 * shape[-1]) == 0 and header.header_bytes >= 1024


def test_equal_arrays_give_equal_bytes(tmp_path: Path) -> None:
    array = np.ones((8, 8))
    write_spider(tmp_path / "a.spi", array)
    write_spider(tmp_path / "b.spi", array)
    assert (tmp_path / "a.spi").read_bytes() == (tmp_path / "b.spi").read_bytes()
    assert read_spider(tmp_path / "a.spi")[1] is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: raw[:-100], "cut short"),
        (lambda raw: raw[:500], "not a SPIDER"),
        (lambda raw: bytes(len(raw)), "not a SPIDER"),
        (lambda raw: raw[:16] + np.float32(-22).tobytes() + raw[20:], "Fourier"),
        (lambda raw: raw[:92] + np.float32(5).tobytes() + raw[96:], "stack of volumes"),
    ],
)
def test_spoilt_files(tmp_path: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "v.spi"
    write_spider(path, np.zeros((16, 16, 16)))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InputError, match=message) as caught:
        read_spider(path)
    assert "v.spi" in str(caught.value)


def test_write_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shape"):
        write_spider(tmp_path / "x.spi", np.zeros(5))
    with pytest.raises(InputError, match="no such|cannot be read"):
        read_spider(tmp_path / "missing.spi")


@needs_data
def test_real_files_of_both_byte_orders() -> None:
    volume, pixel_size = read_spider(DATA / "big_endian_volume.spi")
    assert volume.shape == (81, 81, 81) and pixel_size is None
    assert (volume.min(), volume.max()) == (0.0, 1.0)
    assert volume.mean() == pytest.approx(0.3419410288, rel=1e-5)  # the header's own average and standard deviation
    assert volume.std() == pytest.approx(0.0998310745, rel=1e-4)
    reference, _ = read_spider(DATA / "project/reference_volume.dat")
    assert reference.shape == (128, 128, 128)
    assert reference[54:74, 54:74, 54:74].mean() > 3 * abs(reference[:20].mean())
    noise, _ = read_spider(DATA / "project/Particles/noise.dat")
    assert noise.shape == (128, 128)


@needs_data
def test_real_stack_and_its_numbers() -> None:
    folder = DATA / "project/Alignment"
    stack, _ = read_spider(folder / "data009.dat")
    assert stack.shape == (39, 128, 128)
    assert np.all(stack.std(axis=(1, 2)) > 0)
    micrograph, particle = read_stack_numbers(folder / "data009.dat")
    table = read_document(folder / "sel_particles_009.dat", ["number", "particle", "group", "micrograph"])
    np.testing.assert_array_equal(micrograph, table["micrograph"])
    np.testing.assert_array_equal(particle, table["particle"])


@needs_data
def test_every_real_document_is_read() -> None:
    tables = [p for p in DATA.rglob("*.dat") if p.read_bytes()[:2] == b" ;"]
    assert len(tables) > 15
    for path in tables:
        table = read_document(path)
        assert len(table) > 0 and table["c1"].notna().all(), path
    params = read_document(DATA / "project/params.dat")["c1"]
    assert params[5] == pytest.approx(2.8017) and params[14] == pytest.approx(1.968681e-2) and params[17] == 128
    align = read_document(DATA / "project/Alignment/align_01_009.dat")
    assert align.shape == (39, 15)
    assert align.loc[1, "c2"] == 225.0 and align.loc[39].notna().all()


def test_document_round_trip(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"micrograph": [3.0, 21.0, 14.0], "defocus": [11800.5, 12155.0, -1.25e-6]},
        index=pd.Index([3, 21, 14], name="key"),
    )
    write_document(tmp_path / "d.spi", table)
    back = read_document(tmp_path / "d.spi", ["micrograph", "defocus"])
    pd.testing.assert_frame_equal(back, table, rtol=1e-6)
    write_document(tmp_path / "e.spi", {"a": [1, 2]})
    assert list(read_document(tmp_path / "e.spi").index) == [1, 2]


def test_document_lines_as_spider_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "doc.dat"
    path.write_text(
        " ;dat/spi 01-JAN-2000\n"
        "    1 3  1.0000    -2.50000E-01-3.0D+00\n"  # columns without a space between
        "    2 1  7.0 ; remark\n"
        "\n"
        "    1 3  9.0 8.0 7.0\n"  # the later line of a key counts
        "-1 2 .5 1\n"
    )
    table = read_document(path)
    assert list(table.index) == [2, 1, -1]
    assert list(table.loc[1]) == [9.0, 8.0, 7.0]
    assert table.loc[2, "c1"] == 7.0 and np.isnan(table.loc[2, "c2"])
    path.write_text("    1 3  1.0000    -2.50000E-01-3.0D+00\n")
    assert list(read_document(path).loc[1]) == [1.0, -0.25, -3.0]


@pytest.mark.parametrize("text", ["1 3 1.0 2.0\n", "hello\n", "1.5 1 2.0\n", "1 2 3.0 x 4.0 5.0\n"])
def test_bad_document_line_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "doc.dat"
    path.write_text("    1 1  1.0\n" + text)
    with pytest.raises(InputError, match=r"doc\.dat, line 2"):
        read_document(path)


def test_document_with_too_few_columns(tmp_path: Path) -> None:
    path = tmp_path / "doc.dat"
    path.write_text("    1 1  1.0\n")
    with pytest.raises(InputError, match="1 columns where 2"):
        read_document(path, ["a", "b"])
    path.write_text(" ; nothing yet\n")
    assert read_document(path, ["a", "b"]).shape == (0, 2)
