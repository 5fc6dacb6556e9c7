"""Transforms against numpy's, centres and shifts for odd and even sides, filters."""

from __future__ import annotations

import numpy as np
import pytest

from nephila import fourier
from nephila.errors import InputError

SIDES = [15, 16]
RNG = np.random.default_rng(5)


def images(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(12, 17), (15, 16), (3, 16, 15), (2, 3, 8, 8)])
def test_images_as_numpy_and_back(shape):
    data = images(*shape)
    transforms = fourier.rfft2(data)
    assert transforms.dtype == np.complex64
    np.testing.assert_allclose(transforms, np.fft.rfft2(data), atol=1e-4)
    back = fourier.irfft2(transforms, shape[-1])
    assert back.dtype == np.float32 and back.shape == shape
    np.testing.assert_allclose(back, data, atol=1e-5)


@pytest.mark.parametrize("n", SIDES)
def test_volumes_as_numpy_and_back(n):
    data = images(n, n, n)
    np.testing.assert_allclose(fourier.rfftn(data), np.fft.rfftn(data), atol=1e-3)
    np.testing.assert_allclose(fourier.irfftn(fourier.rfftn(data), n), data, atol=1e-5)
    np.testing.assert_allclose(fourier.centred_irfftn(fourier.centred_rfftn(data), n), data, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 9, 10), (11, 8, 7)])
def test_volumes_of_unequal_sides_are_the_same_bytes_for_any_number_of_threads(shape):
    data = images(*shape)
    transform = fourier.rfftn(data)
    np.testing.assert_allclose(transform, np.fft.rfftn(data), atol=1e-4)
    back = fourier.irfftn(transform, shape[-1])
    for threads in (2, 3, 32):
        assert (fourier.rfftn(data, threads) == transform).all()
        assert (fourier.irfftn(transform, shape[-1], threads) == back).all()


@pytest.mark.parametrize(("n", "side"), [(16, 36), (17, 36), (9, 10), (8, 30)])
def test_padded_transforms_leave_out_what_is_zero_or_cut_off(n, side):
    data = images(n, n, n)
    index = (np.arange(n) - n // 2) % side
    padded = np.zeros((side, side, side), dtype=np.float32)
    padded[np.ix_(index, index, index)] = data
    transform = fourier.padded_rfftn(data, side)
    np.testing.assert_allclose(transform, np.fft.rfftn(padded), atol=1e-3)
    np.testing.assert_allclose(fourier.cropped_irfftn(transform, n), data, atol=1e-5)
    other = fourier.rfftn(images(side, side, side))
    whole = fourier.irfftn(other, side)
    np.testing.assert_allclose(fourier.cropped_irfftn(other, n), whole[np.ix_(index, index, index)], atol=1e-5)
    for threads in (2, 5):
        assert (fourier.padded_rfftn(data, side, threads) == transform).all()
        assert (fourier.cropped_irfftn(other, n, threads) == fourier.cropped_irfftn(other, n)).all()


def test_padding_to_less_is_refused():
    with pytest.raises(InputError, match="cannot be padded to 8"):
        fourier.padded_rfftn(np.zeros((8, 8, 8)), 8)
    with pytest.raises(InputError, match="cannot be cropped to 9"):
        fourier.cropped_irfftn(np.zeros((8, 8, 5)), 9)


def test_no_images_is_no_error():
    assert fourier.rfft2(np.zeros((0, 8, 8))).shape == (0, 8, 5)
    assert fourier.irfft2(np.zeros((0, 8, 5)), 8).shape == (0, 8, 8)


def test_the_input_is_left_alone():
    data = images(4, 16, 16)
    transforms = fourier.rfft2(data)
    before = data.copy(), transforms.copy()
    fourier.irfft2(transforms, 16)
    np.testing.assert_array_equal(data, before[0])
    np.testing.assert_array_equal(transforms, before[1])


def test_threads_do_not_change_a_bit():
    volume = images(20, 20, 20)
    np.testing.assert_array_equal(fourier.rfftn(volume, threads=2), fourier.rfftn(volume, threads=1))


def test_an_image_does_not_depend_on_its_stack():
    stack = images(5, 18, 18)
    np.testing.assert_array_equal(fourier.rfft2(stack)[3], fourier.rfft2(stack[3]))


@pytest.mark.parametrize("n", SIDES)
def test_a_point_at_the_centre_has_no_phases(n):
    image = np.zeros((n, n), dtype=np.float32)
    image[n // 2, n // 2] = 1
    np.testing.assert_allclose(fourier.centred_rfft2(image), np.ones((n, n // 2 + 1)), atol=1e-6)
    np.testing.assert_allclose(fourier.centred_irfft2(np.ones((n, n // 2 + 1)), n), image, atol=1e-6)
    volume = np.zeros((n, n, n), dtype=np.float32)
    volume[n // 2, n // 2, n // 2] = 1
    np.testing.assert_allclose(fourier.centred_rfftn(volume), np.ones((n, n, n // 2 + 1)), atol=1e-6)


@pytest.mark.parametrize("n", SIDES)
def test_shift_phases_move_towards_larger_indices(n):
    image = images(n, n)
    moved = fourier.irfft2(fourier.rfft2(image) * fourier.shift_phases(n, 3, -2), n)
    np.testing.assert_allclose(moved, np.roll(image, (-2, 3), axis=(0, 1)), atol=1e-5)


def test_many_shifts_broadcast():
    phases = fourier.shift_phases(8, [0, 1, 2], 0.5)
    assert phases.shape == (3, 8, 5) and phases.dtype == np.complex64
    np.testing.assert_allclose(phases[2], fourier.shift_phases(8, 2, 0.5))


@pytest.mark.parametrize("n", SIDES)
def test_shells_against_loops(n):
    radius = fourier.frequency_radius_3d(n)
    values = images(n, n, n // 2 + 1)
    total, count = np.zeros(n // 2 + 1), np.zeros(n // 2 + 1)
    for z in range(n):
        for y in range(n):
            for x in range(n // 2 + 1):
                k = [i if i <= (n - 1) // 2 else i - n for i in (z, y)]
                r = np.sqrt(k[0] ** 2 + k[1] ** 2 + x**2)
                assert radius[z, y, x] == pytest.approx(r, rel=1e-6)
                shell = int(np.rint(r))
                weight = 1 if x == 0 or 2 * x == n else 2
                if shell <= n // 2:
                    total[shell] += weight * values[z, y, x]
                    count[shell] += weight
    np.testing.assert_array_equal(fourier.shell_index_3d(n)[0, 0], np.arange(n // 2 + 1))
    np.testing.assert_allclose(fourier.radial_average(values, n), total / count, atol=1e-5)


@pytest.mark.parametrize("n", SIDES)
def test_radial_average_of_the_radius_is_the_shell(n):
    average = fourier.radial_average(fourier.shell_index_2d(n), n)
    np.testing.assert_allclose(average, np.arange(n // 2 + 1))


def test_half_weights_count_the_whole_transform():
    for n in SIDES:
        assert fourier.half_weights(n).sum() * n == n * n


def gaussian(n, pixel_size, width):
    x = (np.arange(n) - n // 2) * pixel_size
    return np.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * width**2)).astype(np.float32)


@pytest.mark.parametrize(("n", "new_n"), [(64, 32), (64, 33), (63, 40), (63, 31), (32, 64), (33, 64), (33, 51)])
def test_resizing_keeps_centre_and_scale(n, new_n):
    resized = fourier.fourier_resize_image(gaussian(n, 1.0, 4.0), new_n)
    np.testing.assert_allclose(resized, gaussian(new_n, n / new_n, 4.0), atol=2e-3)


def test_resizing_to_the_same_side_is_a_copy():
    image = images(2, 9, 9)
    same = fourier.fourier_resize_image(image, 9)
    np.testing.assert_array_equal(same, image)
    assert same is not image


@pytest.mark.parametrize("shape", [(33, 33), (32, 32), (17, 17, 17), (16, 16, 16)])
def test_lowpass_passes_and_stops(shape):
    n, pixel_size = shape[-1], 2.0
    centre = (n // 2,) * len(shape)
    point = np.zeros(shape, dtype=np.float32)
    point[centre] = 1
    filtered = fourier.lowpass(point, pixel_size, resolution=n * pixel_size / 5, width_shells=2)
    radius = fourier.frequency_radius_2d(n) if len(shape) == 2 else fourier.frequency_radius_3d(n)
    transform = np.abs(fourier.rfft2(filtered) if len(shape) == 2 else fourier.rfftn(filtered))
    np.testing.assert_allclose(transform[radius <= 4], 1, atol=1e-5)
    np.testing.assert_allclose(transform[radius >= 6], 0, atol=1e-5)
    np.testing.assert_allclose(transform[radius == 5], 0.5, atol=1e-5)


def test_butterworth_at_its_bands():
    n = 200
    point = np.zeros((n, n), dtype=np.float32)
    point[0, 0] = 1
    weights = np.abs(fourier.rfft2(fourier.butterworth(point, 0.1, 0.2))[0])
    assert weights[0] == pytest.approx(1, abs=1e-5)
    assert weights[round(0.1 * n)] == pytest.approx(1 / np.sqrt(1 + 0.882**2), abs=1e-3)
    assert weights[round(0.2 * n)] == pytest.approx(1 / 10.624, abs=1e-3)
    assert (np.diff(weights) <= 1e-6).all()


def test_weights_go_on_beyond_their_last_shell():
    image = images(16, 16)
    np.testing.assert_allclose(fourier.filter_shells(image, [2.0]), 2 * image, atol=1e-5)


def test_shared_grids_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        fourier.frequency_radius_2d(12)[0, 0] = 1


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: fourier.irfft2(np.zeros((8, 5)), 12), "12 columns"),
        (lambda: fourier.fourier_resize_image(np.zeros((8, 9)), 4), "square"),
        (lambda: fourier.lowpass(np.zeros((8, 9)), 1, 4), "square image or cubic volume"),
        (lambda: fourier.lowpass(np.zeros((8, 9, 9)), 1, 4), "square image or cubic volume"),
        (lambda: fourier.lowpass(np.zeros(8), 1, 4), "square image or cubic volume"),
        (lambda: fourier.lowpass(np.zeros((8, 8)), 1, 0), "resolution 0"),
        (lambda: fourier.lowpass(np.zeros((8, 8)), 0, 4), "pixel size 0"),
        (lambda: fourier.radial_average(np.zeros((8, 8)), 8), "half transform of side 8"),
        (lambda: fourier.butterworth(np.zeros((8, 8)), 0.3, 0.2), "0.3 and 0.2"),
    ],
)
def test_unusable_input(call, named):
    with pytest.raises(InputError, match=named):
        call()
