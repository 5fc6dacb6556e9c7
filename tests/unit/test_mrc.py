"""MRC files: headers, round trips of every kind, and each way in which a file can be wrong."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest

from nephila.errors import InputError
from nephila.io import mrc

RNG = np.random.default_rng(4)


def values(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_a_volume_comes_back_with_its_header(tmp_path):
    volume = values(5, 6, 7)
    mrc.write_volume(tmp_path / "v.mrc", volume, 1.25)
    read, pixel_size = mrc.read_image(tmp_path / "v.mrc")
    np.testing.assert_array_equal(read, volume)
    assert pixel_size == pytest.approx(1.25)
    with mrcfile.open(tmp_path / "v.mrc") as handle:
        assert handle.is_volume() and handle.header.mode == 2 and handle.header.ispg == 1
        assert tuple(handle.header.origin.tolist()) == (0, 0, 0)
        assert (handle.header.nx, handle.header.ny, handle.header.nz) == (7, 6, 5)
    assert mrcfile.validate(tmp_path / "v.mrc")


def test_an_image_comes_back(tmp_path):
    image = values(6, 9)
    mrc.write_image(tmp_path / "i.mrc", image.astype(np.float64), 3)
    read, pixel_size = mrc.read_image(tmp_path / "i.mrc")
    np.testing.assert_array_equal(read, image)
    assert read.dtype == np.float32 and pixel_size == 3


@pytest.mark.parametrize(("dtype", "mode"), [("float32", 2), ("float16", 12)])
def test_a_stack_is_read_by_slices(tmp_path, dtype, mode):
    images = values(7, 8, 9).astype(dtype)
    mrc.write_stack(tmp_path / "s.mrcs", images, 1.5, dtype)
    with mrcfile.open(tmp_path / "s.mrcs") as handle:
        assert handle.is_image_stack() and handle.header.mode == mode and handle.header.ispg == 0
    stack = mrc.open_stack(tmp_path / "s.mrcs")
    assert (len(stack), stack.shape, stack.pixel_size) == (7, (7, 8, 9), 1.5)
    for rows in (3, slice(2, 5), [6, 0, 0], np.array([1, 4])):
        np.testing.assert_array_equal(stack[rows], images[rows].astype(np.float32))
        assert stack[rows].dtype == np.float32
    assert mrcfile.validate(tmp_path / "s.mrcs")


def test_a_stack_of_one_image_stays_a_stack(tmp_path):
    mrc.write_stack(tmp_path / "s.mrcs", values(1, 8, 8), 1.5)
    assert mrc.open_stack(tmp_path / "s.mrcs").shape == (1, 8, 8)
    mrc.write_image(tmp_path / "i.mrc", values(8, 8), 1.5)
    assert mrc.open_stack(tmp_path / "i.mrc").shape == (1, 8, 8)


def test_a_stack_of_no_images(tmp_path):
    mrc.write_stack(tmp_path / "s.mrcs", np.zeros((0, 8, 8)), 1.5)
    assert mrc.open_stack(tmp_path / "s.mrcs").shape[0] == 0
    assert len(mrc.open_stack(tmp_path / "s.mrcs")[0:0]) == 0


def test_a_stack_is_written_piece_by_piece(tmp_path):
    images = values(4, 6, 6)
    with mrc.stack_writer(tmp_path / "s.mrcs", (4, 6, 6), 2.0) as memory:
        for i in range(4):
            memory[i] = images[i]
        assert not (tmp_path / "s.mrcs").exists()
    np.testing.assert_array_equal(mrc.open_stack(tmp_path / "s.mrcs")[:], images)


def test_an_interrupted_stack_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), mrc.stack_writer(tmp_path / "s.mrcs", (4, 6, 6), 2.0) as memory:
        memory[0] = 1
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_two_writes_give_the_same_bytes(tmp_path):
    volume = values(6, 6, 6)
    for name in ("a.mrc", "b.mrc"):
        mrc.write_volume(tmp_path / name, volume, 1.0)
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()


@pytest.mark.parametrize("mode_dtype", ["int8", "int16", "uint16", "float16", "float32"])
def test_every_real_mode_becomes_float32(tmp_path, mode_dtype):
    data = (
        np.arange(-6, 6).reshape(3, 4).astype(mode_dtype)
        if mode_dtype != "uint16"
        else np.full((3, 4), 65535, "uint16")
    )
    with mrcfile.new(tmp_path / "m.mrc") as handle:
        handle.set_data(data)
    read, pixel_size = mrc.read_image(tmp_path / "m.mrc")
    np.testing.assert_array_equal(read, data.astype(np.float32))
    assert read.dtype == np.float32 and pixel_size == 0


def test_an_extended_header_is_skipped(tmp_path):
    images = values(3, 4, 4)
    with mrcfile.new(tmp_path / "s.mrcs") as handle:
        handle.set_data(images)
        handle.set_image_stack()
        handle.set_extended_header(np.zeros(640, dtype="V1"))
    np.testing.assert_array_equal(mrc.open_stack(tmp_path / "s.mrcs")[1:], images[1:])


def test_a_big_endian_file(tmp_path):
    images = values(3, 4, 4)
    with mrcfile.new(tmp_path / "s.mrcs") as handle:
        handle.set_data(images.astype(">f4"))
        handle.set_image_stack()
    np.testing.assert_array_equal(mrc.open_stack(tmp_path / "s.mrcs")[[2]], images[[2]])
    np.testing.assert_array_equal(mrc.read_image(tmp_path / "s.mrcs")[0], images)


def test_summary_counts_what_is_not_finite(tmp_path):
    volume = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    mrc.write_volume(tmp_path / "v.mrc", volume, 2.0)
    found = mrc.summarise(tmp_path / "v.mrc")
    assert (found.kind, found.shape, found.mode, found.pixel_size) == ("volume", (3, 3, 3), 2, 2.0)
    assert (found.minimum, found.maximum, found.mean, found.not_finite) == (0, 26, 13, 0)
    assert found.deviation == pytest.approx(volume.std())
    volume[1, 1, 1] = np.nan
    mrc.write_stack(tmp_path / "s.mrcs", volume, 2.0)
    assert mrc.summarise(tmp_path / "s.mrcs").not_finite == 1
    assert mrc.summarise(tmp_path / "s.mrcs").kind == "stack"


def written(path, array, pixel_size=1.0):
    mrc.write_volume(path, array, pixel_size) if array.ndim == 3 else mrc.write_image(path, array, pixel_size)


def make_cut(path):
    written(path, values(8, 8))
    path.write_bytes(path.read_bytes()[:-10])


def make_nan(path):
    image = values(8, 8)
    image[2, 3] = np.nan
    image[0, 0] = np.inf
    written(path, image)


@pytest.mark.parametrize("read", [mrc.read_image, mrc.open_stack, mrc.read_volume, mrc.summarise])
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "0 bytes are too few"),
        (lambda path: path.write_bytes(b"x" * 5000), "not a complete MRC file"),
        (make_cut, "not a complete MRC file"),
    ],
)
def test_a_broken_file_is_named(tmp_path, read, make, named):
    make(tmp_path / "broken.mrc")
    with pytest.raises(InputError, match=f"broken.mrc: .*{named}"):
        read(tmp_path / "broken.mrc")


def test_values_that_are_not_finite_are_counted(tmp_path):
    make_nan(tmp_path / "m.mrc")
    with pytest.raises(InputError, match=r"m\.mrc: 2 of 64 values are NaN or infinite"):
        mrc.read_image(tmp_path / "m.mrc")


@pytest.mark.parametrize(
    ("shape", "pixel_size", "named"),
    [
        ((4, 4), 1.0, "cubic volume is needed"),
        ((4, 4, 5), 1.0, r"\(4, 4, 5\)"),
        ((4, 4, 4), 0.0, "states no pixel size"),
    ],
)
def test_what_is_no_reference(tmp_path, shape, pixel_size, named):
    written(tmp_path / "v.mrc", values(*shape), pixel_size)
    with pytest.raises(InputError, match=named):
        mrc.read_volume(tmp_path / "v.mrc")


def test_an_unknown_type_of_stack(tmp_path):
    with pytest.raises(InputError, match="float64"), mrc.stack_writer(tmp_path / "s.mrcs", (1, 4, 4), 1.0, "float64"):
        pass
    assert list(tmp_path.iterdir()) == []
