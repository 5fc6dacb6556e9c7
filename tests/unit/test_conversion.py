"""Files of one format into another: what goes over comes back the same, and what cannot go over is said or refused."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import tifffile
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from nephila.cli import main
from nephila.conversion import ConversionSettings, convert
from nephila.errors import InputError
from nephila.io.mrc import read_image, write_image, write_stack, write_volume
from nephila.io.spider import (
    decode,
    read_document,
    read_image_numbers,
    read_spider,
    read_stack_numbers,
    write_document,
    write_spider,
)
from nephila.io.tables import read_blocks, write_blocks

few = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**60), max_value=2.0**60)


def arrays(dimensions: int) -> st.SearchStrategy[np.ndarray]:
    shape = st.tuples(*[st.integers(1, 6)] * (dimensions - 2), st.integers(1, 20), st.integers(1, 300))
    return st_numpy.arrays(np.float32, shape, elements=FLOATS, fill=st.just(np.float32(0.5)))


def call(*arguments: object):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def write_indexed(path: Path, images: np.ndarray, slots: list[int], limit: int, order: str) -> None:
    """An indexed stack as SPIDER lays it out: header, index of `limit` integers in whole rows, then headers and images.

    slots : of image number 1, 2 …, from 1; 0 where the number is not in use
    """
    n, ny, nx = images.shape
    records = -(-1024 // (4 * nx))
    words = np.zeros(records * nx)
    words[[0, 1, 4, 11, 12, 21, 22]] = 1, ny, 1, nx, records, records * nx * 4, 4 * nx
    overall = words.copy()
    overall[[23, 25, 27]] = -limit, max(i + 1 for i, slot in enumerate(slots) if slot), n
    index = np.zeros(-(-limit // nx) * nx, dtype=f"{order}i4")
    index[: len(slots)] = slots
    parts = [overall.astype(f"{order}f4").tobytes(), index.tobytes()]
    for image in images:
        parts += [words.astype(f"{order}f4").tobytes(), image.astype(f"{order}f4").tobytes()]
    path.write_bytes(b"".join(parts))


@few
@given(array=arrays(3), stack=st.booleans(), order=st.sampled_from("<>"), pixel=st.sampled_from([None, 0.51, 2.8017]))
def test_spider_and_mrc_hold_the_same(
    tmp_path: Path, array: np.ndarray, stack: bool, order: str, pixel: float | None
) -> None:
    source, between, back = tmp_path / "a.spi", tmp_path / "b.mrc", tmp_path / "c.spi"
    write_spider(source, array, pixel, stack=stack, byte_order=order)
    notes = convert(source, between)
    assert any("no pixel size is known" in note for note in notes) == (pixel is None)
    convert(between, back, ConversionSettings(byte_order=order, kind="stack" if stack else "volume"))
    assert back.read_bytes() == source.read_bytes()
    data, size = read_image(between)
    np.testing.assert_array_equal(data.reshape(array.shape), array)  # a stack of one image is read as an image
    assert size == pytest.approx(pixel or 0.0)


@few
@given(array=arrays(2), order=st.sampled_from("<>"))
def test_images_of_any_size_come_back(tmp_path: Path, array: np.ndarray, order: str) -> None:
    write_image(tmp_path / "a.mrc", array, 1.25)
    convert(tmp_path / "a.mrc", tmp_path / "b.dat", ConversionSettings(byte_order=order))
    convert(tmp_path / "b.dat", tmp_path / "c.mrc")
    data, pixel_size = read_image(tmp_path / "c.mrc")
    np.testing.assert_array_equal(data, array)
    assert pixel_size == pytest.approx(1.25)


NUMBERS = st.floats(-1e12, 1e12, allow_nan=False, allow_subnormal=False).map(lambda x: float(f"{x:.6G}"))


@few
@given(
    keys=st.lists(st.integers(1, 99999), min_size=1, max_size=12, unique=True),
    data=st.data(),
    width=st.integers(1, 9),
)
def test_documents_and_star_tables_hold_the_same(
    tmp_path: Path, keys: list[int], data: st.DataObject, width: int
) -> None:
    rows = data.draw(
        st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=len(keys), max_size=len(keys))
    )
    document = tmp_path / "doc.dat"
    write_document(document, pd.DataFrame(rows, columns=[f"c{i}" for i in range(width)]), keys)
    convert(document, tmp_path / "doc.star")
    notes = convert(tmp_path / "doc.star", tmp_path / "back.dat")
    assert not any("rounded" in note for note in notes)
    first, second = read_document(document), read_document(tmp_path / "back.dat")
    pd.testing.assert_frame_equal(first, second)
    np.testing.assert_array_equal(second.to_numpy(), np.array(rows))


@pytest.mark.parametrize("order", ["<", ">"])
def test_indexed_stacks(tmp_path: Path, order: str) -> None:
    images = np.random.default_rng(3).normal(size=(3, 5, 24)).astype(np.float32)
    path = tmp_path / "s.dat"
    write_indexed(path, images, [3, 0, 1, 0, 2], 30, order)  # numbers 1, 3 and 5, stored in another order
    notes = convert(path, tmp_path / "s.mrcs")
    data, _ = read_image(tmp_path / "s.mrcs")
    np.testing.assert_array_equal(data, images[[2, 0, 1]])
    assert read_image_numbers(path).tolist() == [1, 3, 5]
    assert any("indexed" in note and "2 unused" in note for note in notes)
    write_indexed(path, images, [3, 0, 7], 30, order)
    with pytest.raises(InputError, match="image 3 into slot 7 of 3"):
        read_spider(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="cut short"):
        read_spider(path)


def test_numbers_in_the_headers_are_kept_in_a_table_or_their_loss_is_said(tmp_path: Path) -> None:
    images = np.ones((3, 4, 8), dtype=np.float32)
    write_spider(tmp_path / "s.dat", images, stack=True, numbers=([7, 7, 9], [1, 4, 2]))
    assert [list(x) for x in read_stack_numbers(tmp_path / "s.dat")] == [[7, 7, 9], [1, 4, 2]]
    assert any("--table" in note for note in convert(tmp_path / "s.dat", tmp_path / "s.mrcs"))
    settings_ = ConversionSettings(table=tmp_path / "s.star")
    assert not any("--table" in note for note in convert(tmp_path / "s.dat", tmp_path / "s.mrcs", settings_))
    table = read_blocks(tmp_path / "s.star")["particles"]
    assert table["nphNumber"].tolist() == [7, 7, 9] and table["nphParticleNumber"].tolist() == [1, 4, 2]
    convert(tmp_path / "s.dat", tmp_path / "t.dat", ConversionSettings(byte_order=">"))
    assert [list(x) for x in read_stack_numbers(tmp_path / "t.dat")] == [[7, 7, 9], [1, 4, 2]]


def spoilt(tmp_path: Path, kind: str) -> Path:
    """A file that cannot be converted."""
    path = tmp_path / "bad.dat"
    write_spider(path, np.random.default_rng(0).normal(size=(16, 16)) + 3.0)
    raw = path.read_bytes()
    head, data = raw[:1024], raw[1024:]
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(raw[:-4])
    elif kind == "shuffled":  # bytes swapped in pairs: neither order
        path.write_bytes(np.frombuffer(raw, "<u2").byteswap().tobytes())
    elif kind == "half":
        path.write_bytes(head + np.frombuffer(data, "<f4").astype(">f4").tobytes())
    elif kind == "fourier":
        path.write_bytes(raw[:16] + np.float32(-22).tobytes() + raw[20:])
    elif kind == "text":
        path.write_text("no such thing as this\n")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "0 bytes"),
        ("cut", "cut short"),
        ("shuffled", "either byte order"),
        ("half", "header is little-endian and the numbers big-endian"),
        ("fourier", "Fourier"),
        ("text", "neither MRC"),
    ],
)
def test_bad_files_give_one_line_that_names_them(tmp_path: Path, kind: str, message: str) -> None:
    path = spoilt(tmp_path, kind)
    result = call("convert", path, tmp_path / "out.mrc")
    assert result.exit_code == 2 and not (tmp_path / "out.mrc").exists()
    (line,) = result.stderr.splitlines()
    assert line.startswith("nephila: ") and str(path) in line and message in line


def test_empty_documents_and_decoding(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 bytes"):
        decode(b"", "x.dat")
    (tmp_path / "d.dat").write_bytes(b"")
    with pytest.raises(InputError, match=r"d\.dat: the file is empty"):
        read_document(tmp_path / "d.dat")


def change_header(path: Path, **values: object) -> None:
    with mrcfile.open(path, "r+") as handle:
        for name, value in values.items():
            handle.header[name] = value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mapc": 2, "mapr": 1}, "axes in the order"),
        ({"cella": (8.0, 12.0, 8.0)}, "differ by axis"),
        ({"ispg": 401}, "stack of volumes"),
    ],
)
def test_mrc_files_that_spider_cannot_hold(tmp_path: Path, values: dict[str, object], message: str) -> None:
    write_volume(tmp_path / "v.mrc", np.ones((8, 8, 8)), 1.0)
    change_header(tmp_path / "v.mrc", **values)
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "v.mrc", tmp_path / "v.spi")


def test_what_is_lost_is_said(tmp_path: Path) -> None:
    write_volume(tmp_path / "v.mrc", np.ones((8, 8, 8)), 1.0)
    change_header(tmp_path / "v.mrc", nxstart=-4)
    assert any("origin" in note for note in convert(tmp_path / "v.mrc", tmp_path / "v.spi"))
    write_spider(tmp_path / "a.spi", np.ones((8, 8)), 2.0)
    raw = bytearray((tmp_path / "a.spi").read_bytes())
    raw[13 * 4 : 14 * 4] = np.float32(1).tobytes()
    (tmp_path / "a.spi").write_bytes(raw)
    notes = convert(tmp_path / "a.spi", tmp_path / "a.mrc", ConversionSettings(pixel_size=2.5))
    assert any("angles" in note for note in notes) and any("2.5 A instead of" in note for note in notes)
    (tmp_path / "d.star").write_text("data_x\n\nloop_\n_a #1\n_b #2\n1.23456789 1\n2 3\n")
    assert any("rounded" in note for note in convert(tmp_path / "d.star", tmp_path / "d.dat"))


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    write_volume(tmp_path / "v.mrc", np.ones((8, 8, 8)), 1.0)
    write_blocks(tmp_path / "t.star", {"x": pd.DataFrame({"a": [1.0], "rlnMicrographName": ["m.mrc"]})})
    write_document(tmp_path / "d.dat", {"a": [1.0]})
    tifffile.imwrite(tmp_path / "i.tif", np.full((8, 8), 2**30 + 1, dtype=np.uint32))
    for source, target, message in (
        ("v.mrc", "v.star", "no STAR table holds"),
        ("v.mrc", "v.mrcs", "names a stack"),
        ("v.mrc", "v.tif", "read, not written"),
        ("v.mrc", "v.mrc", "is the input"),
        ("t.star", "t.dat", "_rlnMicrographName hold text"),
        ("d.dat", "d.mrc", "document file"),
        ("i.tif", "i.mrc", "do not fit into 32-bit floats"),
        ("none.mrc", "x.spi", "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            convert(tmp_path / source, tmp_path / target)


def test_the_command_converts_raw_scans_and_names_columns(tmp_path: Path) -> None:
    scan = np.random.default_rng(1).integers(0, 65535, size=(6, 9)).astype(">u2")
    (tmp_path / "s.tif").write_bytes(b"h" * 342 + scan.tobytes())
    assert (
        call("convert", tmp_path / "s.tif", tmp_path / "s.mrc", "--scanner", "hiscan", "--size", "9x6").exit_code == 0
    )
    np.testing.assert_array_equal(read_image(tmp_path / "s.mrc")[0], scan.astype(np.float32))
    options = ("--raw", "9x6x16s", "--header-bytes", 342, "--raw-order", "big")
    assert call("convert", tmp_path / "s.tif", tmp_path / "t.mrc", *options).exit_code == 0
    np.testing.assert_array_equal(read_image(tmp_path / "t.mrc")[0], scan.view(">i2").astype(np.float32))
    for wrong in (("--raw", "9x6x12"), ("--scanner", "hiscan"), ("--raw", "0x6x8")):
        assert call("convert", tmp_path / "s.tif", tmp_path / "u.mrc", *wrong).exit_code == 2
    write_document(tmp_path / "d.dat", {"a": [1.0, 2.0], "b": [3.0, 4.0]}, [4, 9])
    assert "2 columns" in call("convert", tmp_path / "d.dat", tmp_path / "d.star", "--columns", "mic").output
    table = next(iter(read_blocks(tmp_path / "d.star").values()))
    assert list(table) == ["spiderKey", "mic", "spiderColumn2"] and table["spiderKey"].tolist() == [4, 9]


def test_stacks_named_by_suffix_and_movies_of_volumes(tmp_path: Path) -> None:
    write_stack(tmp_path / "s.mrcs", np.random.default_rng(2).normal(size=(3, 8, 8)), 2.0)
    change_header(tmp_path / "s.mrcs", ispg=1)  # as several programs write stacks
    assert "SPIDER stack" in convert(tmp_path / "s.mrcs", tmp_path / "s.spi")[-1]
    tifffile.imwrite(tmp_path / "i.tif", np.arange(64, dtype=np.uint16).reshape(8, 8))
    convert(tmp_path / "i.tif", tmp_path / "i.mrc")
    np.testing.assert_array_equal(read_image(tmp_path / "i.mrc")[0], np.arange(64).reshape(8, 8)[::-1])


def test_scans_become_densities_and_back(tmp_path: Path) -> None:
    """HiScan's numbers are light: the brightest is clear film, a tenth of it density 1."""
    values = np.array([[40000, 4000, 400], [40000, 20000, 0]], dtype=">u2")
    (tmp_path / "a.raw").write_bytes(bytes(342) + values.tobytes())
    scan = ["convert", str(tmp_path / "a.raw"), str(tmp_path / "a.mrc"), "--scanner", "hiscan", "--size", "3x2"]
    assert CliRunner().invoke(main, scan).exit_code == 0
    np.testing.assert_array_equal(read_image(tmp_path / "a.mrc")[0], values)
    result = CliRunner().invoke(main, [*scan, "--to-density"])
    assert result.exit_code == 0 and "1 pixels without light" in result.output
    density = read_image(tmp_path / "a.mrc")[0]
    np.testing.assert_allclose(density, [[0, 1, 2], [0, np.log10(2), 2]], atol=1e-6)
    back = ["convert", str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc"), "--to-transmission"]
    assert CliRunner().invoke(main, back).exit_code == 0
    np.testing.assert_allclose(read_image(tmp_path / "b.mrc")[0], [[1, 0.1, 0.01], [1, 0.5, 0.01]], rtol=1e-5)
    for options, message in (
        (["--to-density", "--to-transmission"], "exclude each other"),
        (["--to-density", "--scanner", "perkinelmer"], "gives density already"),
    ):
        refused = CliRunner().invoke(main, [*scan[:3], *options, "--size", "3x2"])
        assert refused.exit_code == 2 and message in refused.output
    write_volume(tmp_path / "v.mrc", np.ones((4, 4, 4), np.float32), 1.0)
    with pytest.raises(InputError, match="a volume; film"):
        convert(tmp_path / "v.mrc", tmp_path / "w.mrc", ConversionSettings(film="density"))
    write_image(tmp_path / "light.mrc", np.full((4, 4), 300.0), 1.0)
    with pytest.raises(InputError, match="no optical densities"):
        convert(tmp_path / "light.mrc", tmp_path / "w.mrc", ConversionSettings(film="transmission"))
