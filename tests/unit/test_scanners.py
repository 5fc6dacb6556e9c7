"""Film scanners: layouts as SPIDER's procedures read them, density and transmission."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from nephila.config import parse_config
from nephila.errors import InputError
from nephila.io.micrographs import read_micrograph
from nephila.io.scanners import SCANNERS, scanner_layout, scanner_of, scanner_settings
from nephila.micrograph_input import raw_layout, read_input

SHAPE = (12, 20)


def counts() -> np.ndarray:
    return np.random.default_rng(4).integers(40, 65500, size=SHAPE).astype(np.uint16)


def test_hiscan_is_read_as_spider_reads_it(tmp_path: Path) -> None:
    """CP FROM RAW: 16 bits, 342 bytes of header, most significant byte first, negatives folded; then log10(value + 1)."""
    path = tmp_path / "raw0001.tif"
    path.write_bytes(b"II*\0" + b"h" * 338 + counts().astype(">u2").tobytes())
    settings = parse_config({"input": scanner_settings("hiscan", SHAPE[1], SHAPE[0]) | {"contrast": "bright"}})
    micrograph = read_input(path, settings.input.model_dump())
    spider = np.log10(counts().astype(float) + 1)
    difference = micrograph.image - spider
    # the same up to a constant, apart from the 1 added to each count
    assert np.abs(difference - np.median(difference)).max() < 0.02
    assert micrograph.image.max() == 0.0


def test_numbers_with_the_highest_bit_are_large_or_negative(tmp_path: Path) -> None:
    path = tmp_path / "scan.raw"
    path.write_bytes(counts().astype("<u2").tobytes())
    layout = {"width": SHAPE[1], "height": SHAPE[0], "bits": 16, "header_bytes": 0, "byte_order": "little"}
    for negatives, dtype in (("folded", "<u2"), ("signed", "<i2")):
        given = parse_config({"input": {"raw": layout | {"negatives": negatives}}}).input.model_dump()
        image = read_micrograph(path, 1.0, "bright", raw=raw_layout(given)).image
        np.testing.assert_array_equal(image, counts().view(dtype).astype(np.float32))


def test_density_and_transmission_of_one_film_agree(tmp_path: Path) -> None:
    density = np.random.default_rng(2).uniform(0.2, 2.0, size=SHAPE)
    light = (6e4 * 10**-density).astype(np.float32)
    for name, data in (("d.tif", density.astype(np.float32)), ("t.tif", light)):
        tifffile.imwrite(tmp_path / name, data)
    # electrons blacken the film: protein is where the density is low and the light is bright
    dense = read_micrograph(tmp_path / "d.tif", 1.0, "dark", film="density").image
    bright = read_micrograph(tmp_path / "t.tif", 1.0, "bright", film="transmission").image
    np.testing.assert_allclose(dense - dense.mean(), bright - bright.mean(), atol=1e-5)


@pytest.mark.parametrize("order", ["<", ">"])
def test_zi_tiles_overviews_and_its_byte_order(tmp_path: Path, order: str) -> None:
    """Tiles, overviews as further pages, 12 bits; little-endian numbers even under a big-endian header."""
    image = np.random.default_rng(3).integers(300, 4095, size=(64, 96)).astype(np.uint16)
    stored = image if order == "<" else image.byteswap()
    with tifffile.TiffWriter(tmp_path / "zi.tif", byteorder=order) as writer:
        writer.write(stored, tile=(32, 32))
        writer.write(stored[::2, ::2].copy(), tile=(32, 32))
        writer.write(stored[::4, ::4].copy(), tile=(32, 32))
    given = parse_config({"input": scanner_settings("zi") | {"contrast": "bright"}}).input.model_dump()
    expected = np.log10(image[::-1] / image.max())
    np.testing.assert_allclose(read_input(tmp_path / "zi.tif", given).image, expected, atol=1e-5)


def test_big_endian_tiffs_of_16_bits_stay_as_they_are(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "nikon.tif", counts(), byteorder=">")
    given = parse_config({"input": scanner_settings("nikon") | {"contrast": "bright"}}).input.model_dump()
    np.testing.assert_array_equal(read_input(tmp_path / "nikon.tif", given).image, counts()[::-1].astype(np.float32))


def test_a_movie_is_still_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "movie.tif", np.zeros((4, 8, 8), dtype=np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match="4 pages, a movie"):
        read_micrograph(tmp_path / "movie.tif", 1.0)


def test_scanners_by_name_and_by_spiders_number() -> None:
    assert [scanner_of(n) for n in range(5)] == [None, *SCANNERS]
    assert scanner_layout("perkinelmer", 5, 4) is not None and scanner_layout("nikon") is None
    for wrong, message in ((lambda: scanner_of(7), "format 7"), (lambda: scanner_settings("hiscan"), "give width"),
                           (lambda: scanner_settings("flatbed"), "'flatbed' is not known")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            wrong()
