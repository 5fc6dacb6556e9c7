"""Micrographs of every format come in the same, and every bad file gives one line that names it."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile

from nephila.errors import InputError
from nephila.io.micrographs import (
    RawLayout,
    check_uniform,
    decimate_image,
    list_micrographs,
    log_transmission,
    micrograph_header,
    read_micrograph,
)
from nephila.io.spider import write_spider

MRC_TYPES = ["int8", "int16", "float32", "uint16", "float16"]
TIFF_TYPES = ["uint8", "uint16", "int16", "float32"]


def pattern(dtype: str, shape: tuple[int, int] = (40, 56)) -> np.ndarray:
    """Whole numbers that each type holds exactly, all rows and columns different."""
    return (np.random.default_rng(0).integers(1, 120, size=shape)).astype(dtype)


def write_mrc(path: Path, array: np.ndarray, pixel_size: float = 1.5) -> Path:
    with warnings.catch_warnings(action="ignore"), mrcfile.new(path, overwrite=True) as handle:
        handle.set_data(array)
        handle.voxel_size = pixel_size
    return path


def compress(path: Path) -> Path:
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("kind", "dtype"), [*(("mrc", t) for t in MRC_TYPES), *(("tif", t) for t in TIFF_TYPES), ("spi", "float32")]
)
def test_formats_agree(tmp_path: Path, kind: str, dtype: str, packed: bool) -> None:
    array = pattern(dtype)
    path = tmp_path / f"m.{kind}"
    if kind == "mrc":
        write_mrc(path, array)
    elif kind == "tif":
        tifffile.imwrite(path, array[::-1], resolution=(1e8 / 1.5, 1e8 / 1.5), resolutionunit="CENTIMETER")
    else:
        write_spider(path, array, 1.5)
    if packed:
        path = compress(path)
    header = micrograph_header(path)
    assert (header.ny, header.nx) == array.shape and header.pixel_size == pytest.approx(1.5)
    assert header.dtype.newbyteorder("=") == np.dtype(dtype)
    micrograph = read_micrograph(path, contrast="bright")
    assert micrograph.image.dtype == np.float32 and micrograph.image.flags.c_contiguous
    np.testing.assert_array_equal(micrograph.image, array.astype(np.float32))
    assert micrograph.pixel_size == pytest.approx(1.5) and micrograph.warnings == ()
    np.testing.assert_array_equal(read_micrograph(path, contrast="dark").image, -array.astype(np.float32))


def test_big_endian_and_extended_header(tmp_path: Path) -> None:
    array = pattern("int16")
    path = write_mrc(tmp_path / "m.mrc", array)
    raw = path.read_bytes()
    words = np.frombuffer(raw[:1024], "<i4").astype(">i4")
    head = bytearray(words.tobytes())
    head[208:216] = b"MAP \x11\x11\0\0"
    head[92:96] = np.array(512, ">i4").tobytes()
    path.write_bytes(bytes(head) + b"x" * 512 + array.astype(">i2").tobytes())
    micrograph = read_micrograph(path, contrast="bright")
    np.testing.assert_array_equal(micrograph.image, array)
    assert micrograph.header_pixel_size == pytest.approx(1.5)


def test_bytes_of_imod_are_unsigned_where_it_says_so(tmp_path: Path) -> None:
    array = np.array([[200, 100], [50, 7]], dtype=np.uint8)
    path = write_mrc(tmp_path / "m.mrc", array.view(np.int8))
    raw = bytearray(path.read_bytes())
    raw[152:160] = np.array([1146047817, 0], "<i4").tobytes()
    path.write_bytes(bytes(raw))
    np.testing.assert_array_equal(read_micrograph(path, contrast="bright").image, array)
    raw[156] = 1
    path.write_bytes(bytes(raw))
    np.testing.assert_array_equal(read_micrograph(path, contrast="bright").image, array.view(np.int8))


@pytest.mark.parametrize("order", ["little", "big"])
def test_raw_scanner_file(tmp_path: Path, order: str) -> None:
    array = pattern("uint16")
    path = tmp_path / "scan.raw"
    path.write_bytes(b"h" * 342 + array.astype("<u2" if order == "little" else ">u2").tobytes())
    layout = RawLayout(array.shape, byte_order=order)
    np.testing.assert_array_equal(read_micrograph(path, 4.78, "bright", raw=layout).image, array)
    assert micrograph_header(path, layout)[:3] == (*array.shape, None)
    with pytest.raises(InputError, match="cut short"):
        read_micrograph(path, 4.78, raw=RawLayout((41, 56)))
    with pytest.raises(InputError, match="raw pixel type"):
        read_micrograph(path, 4.78, raw=RawLayout((40, 56), dtype="uint3"))


@pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="RELION is not installed")
def test_tiff_rows_as_relion_reads_them(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", pattern("float32"))
    shutil.copy(tmp_path / "m.tif", tmp_path / "m.dat")
    command = ["relion_image_handler", "--i", f"{tmp_path}/m.dat:tif", "--o", f"{tmp_path}/out:mrc"]
    subprocess.run(command, check=True, capture_output=True)
    with mrcfile.open(tmp_path / "out", permissive=True) as handle:
        np.testing.assert_array_equal(read_micrograph(tmp_path / "m.tif", contrast="bright").image, handle.data)


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_decimation(tmp_path: Path, factor: int) -> None:
    array = pattern("float32", (41, 58))
    micrograph = read_micrograph(write_mrc(tmp_path / "m.mrc", array), 1.5, "bright", factor)
    ny, nx = 41 // factor, 58 // factor
    naive = np.array(
        [
            [np.mean(array[i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]) for j in range(nx)]
            for i in range(ny)
        ]
    )
    np.testing.assert_allclose(micrograph.image, naive, rtol=1e-6)
    assert micrograph.pixel_size == pytest.approx(1.5 * factor) and micrograph.file_shape == (41, 58)


@pytest.mark.parametrize("factor", [0, -1, 100])
def test_decimation_refuses(factor: int) -> None:
    with pytest.raises(InputError, match="decimation"):
        decimate_image(np.zeros((20, 20), dtype=np.float32), factor)


def test_film(tmp_path: Path) -> None:
    dose = np.random.default_rng(0).uniform(0.2, 1.5, size=(32, 32))
    light = (60000 * 10**-dose).astype(np.float32)
    path = write_mrc(tmp_path / "m.mrc", light)
    image = read_micrograph(path, contrast="bright", film="transmission").image
    np.testing.assert_allclose(image - image.mean(), dose.mean() - dose, atol=1e-5)
    assert image.max() == 0
    path = write_mrc(tmp_path / "d.mrc", dose.astype(np.float32))
    density = read_micrograph(path, contrast="dark", film="density").image
    np.testing.assert_allclose(density - density.mean(), image - image.mean(), atol=1e-5)
    with pytest.raises(InputError, match="no light value"):
        log_transmission(-light)


def test_pixel_size_of_header_and_configuration(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "m.mrc", pattern("int16"), 1.5)
    assert read_micrograph(path, 1.51).warnings == ()
    micrograph = read_micrograph(path, 1.53, decimate=2)
    assert micrograph.pixel_size == pytest.approx(3.06)
    assert len(micrograph.warnings) == 1 and "1.5 A" in micrograph.warnings[0] and "m.mrc" in micrograph.warnings[0]
    unstated = write_mrc(tmp_path / "n.mrc", pattern("int16"), 0)
    assert read_micrograph(unstated).pixel_size == 0 and micrograph_header(unstated).pixel_size is None


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    good = write_mrc(folder / "good.mrc", pattern("int16")).read_bytes()
    nan = pattern("float32")
    nan[3, 4] = np.nan
    inf = pattern("float32")
    inf[0, 0] = np.inf
    tifffile.imwrite(folder / "pages.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    tifffile.imwrite(folder / "rgb.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(folder / "good.tif", pattern("uint16"))
    write_spider(folder / "stack.spi", np.zeros((3, 8, 8)), stack=True)
    mode4 = bytearray(good)
    mode4[12] = 4
    sizes = bytearray(good)
    sizes[0:4] = np.array(-5, "<i4").tobytes()
    content = {
        "empty.mrc": b"",
        "short.mrc": good[:-7],
        "stub.mrc": good[:300],
        "text.mrc": b"<html>" * 500,
        "mode4.mrc": bytes(mode4),
        "sizes.mrc": bytes(sizes),
        "cut.tif": (folder / "good.tif").read_bytes()[:-500],
        "stub.tif": (folder / "good.tif").read_bytes()[:20],
        "cut.mrc.gz": gzip.compress(good)[:-50],
    }
    for name, raw in content.items():
        (folder / name).write_bytes(raw)
    return {
        "missing": (folder / "missing.mrc", "no such file"),
        "empty": (folder / "empty.mrc", "0 bytes"),
        "short": (folder / "short.mrc", "cut short"),
        "stub": (folder / "stub.mrc", "too few"),
        "text": (folder / "text.mrc", "not an MRC, TIFF or SPIDER"),
        "mode4": (folder / "mode4.mrc", "mode 4"),
        "sizes": (folder / "sizes.mrc", "impossible"),
        "nan": (write_mrc(folder / "nan.mrc", nan), "1 of 2240 pixels are NaN"),
        "inf": (write_mrc(folder / "inf.mrc", inf), "infinite"),
        "flat": (write_mrc(folder / "flat.mrc", np.zeros((8, 8), np.float32)), "every pixel is 0"),
        "movie": (write_mrc(folder / "movie.mrc", np.zeros((5, 8, 8), np.float32)), "5 frames"),
        "pages": (folder / "pages.tif", "3 pages"),
        "rgb": (folder / "rgb.tif", "3 colour"),
        "cut_tiff": (folder / "cut.tif", "cut short|not a readable TIFF"),
        "stub_tiff": (folder / "stub.tif", "not a readable TIFF|no image"),
        "stack": (folder / "stack.spi", "3 images"),
        "gzip": (folder / "cut.mrc.gz", "gzip"),
    }


@pytest.mark.parametrize(
    "case",
    [
        *("missing", "empty", "short", "stub", "text", "mode4", "sizes", "nan", "inf", "flat", "movie"),
        *("pages", "rgb", "cut_tiff", "stub_tiff", "stack", "gzip"),
    ],
)
def test_bad_files(tmp_path: Path, case: str) -> None:
    path, message = bad_files(tmp_path)[case]
    with pytest.raises(InputError, match=message) as caught:
        read_micrograph(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)
    if case in ("missing", "empty", "short", "stub", "text", "mode4", "movie", "pages", "stack"):
        with pytest.raises(InputError, match=message):
            micrograph_header(path)


def test_tiff_compressions(tmp_path: Path) -> None:
    """Deflate is always read; LZW needs a decoder that may not be installed, and then says so."""
    array = pattern("uint16")
    tifffile.imwrite(tmp_path / "z.tif", array, compression="zlib", predictor=True)
    np.testing.assert_array_equal(read_micrograph(tmp_path / "z.tif", contrast="bright").image, array[::-1])
    path = tmp_path / "lzw.tif"
    tifffile.imwrite(path, array)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["Compression"].overwrite(5)
    with pytest.raises(InputError, match=r"lzw\.tif: the TIFF data cannot be decoded"):
        read_micrograph(path)


@pytest.mark.parametrize(
    ("key", "value"), [("contrast", "inverted"), ("film", "x"), ("pixel_size", -1.0), ("pixel_size", 0.0)]
)
def test_bad_arguments(tmp_path: Path, key: str, value: object) -> None:
    path = write_mrc(tmp_path / "m.mrc", pattern("int16"))
    with pytest.raises(InputError):
        read_micrograph(path, **{key: value})  # type: ignore[arg-type]


def test_list_is_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    for name in ("mic_10.mrc", "mic_2.mrc", "mic_1.mrc.gz", "b_3.tif", "notes.txt", ".mic_4.mrc"):
        (tmp_path / name).touch()
    assert [p.name for p in list_micrographs(tmp_path)] == ["b_3.tif", "mic_1.mrc.gz", "mic_2.mrc", "mic_10.mrc"]
    assert [p.name for p in list_micrographs(tmp_path, "mic_*.mrc")] == ["mic_2.mrc", "mic_10.mrc"]
    with pytest.raises(InputError, match="none of its 6 files"):
        list_micrographs(tmp_path, "*.spi")
    with pytest.raises(InputError, match="no such folder"):
        list_micrographs(tmp_path / "nowhere")


def test_uniform_set(tmp_path: Path) -> None:
    paths = [write_mrc(tmp_path / f"m{i}.mrc", pattern("int16")) for i in range(4)]
    found = check_uniform(paths, 1.5)
    assert found.shape == (40, 56) and found.header_pixel_size == pytest.approx(1.5) and found.warnings == ()
    assert len(check_uniform(paths, 1.6).warnings) == 1
    with pytest.raises(InputError, match=r"m2\.mrc: 40 x 56 px where most micrographs have 56 x 40"):
        check_uniform([*paths[:2], write_mrc(paths[2], pattern("int16", (56, 40))), paths[3]])
    with pytest.raises(InputError, match=r"m2\.mrc: pixel size 1\.7 A where most have 1\.5 A"):
        check_uniform([*paths[:2], write_mrc(paths[2], pattern("int16"), 1.7), paths[3]])
    with pytest.raises(InputError, match="no micrographs"):
        check_uniform([])
