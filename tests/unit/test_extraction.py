"""Windows: centre, sign of the origins, normalisation, ramp, dust, edges."""

from __future__ import annotations

import numpy as np
import pytest

from nephila.errors import InputError
from nephila.extraction import (
    TOO_CLOSE,
    ExtractionSettings,
    extract_particles,
    lowpass_windows,
)
from nephila.fourier import centred_irfft2, centred_rfft2, shift_phases
from nephila.window_normalisation import Region, fit_to_noise, remove_dust, remove_ramps

PLAIN = ExtractionSettings(normalise="none", ramp=False, dust_sigma=0)


def spot(shape, x, y, width=3.0):
    rows, columns = np.indices(shape)
    return np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / width**2).astype(np.float32)


@pytest.mark.parametrize("box", [32, 33])
def test_nearest_pixel_is_the_centre(box: int) -> None:
    image = np.arange(120 * 130, dtype=np.float32).reshape(120, 130)
    out = extract_particles(image, [[60.4, 50.6]], box, 2.0, PLAIN)
    assert out.images[0, box // 2, box // 2] == image[51, 60]
    assert out.origin_x[0] == pytest.approx(-0.8) and out.origin_y[0] == pytest.approx(0.8)


@pytest.mark.parametrize("box", [48, 49])
def test_origin_brings_the_particle_to_the_centre(box: int) -> None:
    x, y = 61.3, 57.8
    image = spot((120, 120), x, y)
    out = extract_particles(image, [[x, y]], box, 1.5, PLAIN)
    centred = spot((box, box), box // 2, box // 2)
    # FT[image](k) = exp(+2 pi i k.o / N) FT[P](k): the image is the centred particle moved by -o
    moved = centred_irfft2(
        centred_rfft2(centred) * shift_phases(box, -out.origin_x[0] / 1.5, -out.origin_y[0] / 1.5), box
    )
    assert np.abs(out.images[0] - moved).max() < 2e-3
    shifted = extract_particles(
        image, [[x, y]], box, 1.5, ExtractionSettings(**{**vars(PLAIN), "shift_to_centre": True})
    )
    assert np.abs(shifted.images[0] - centred).max() < 2e-3
    assert shifted.origin_x[0] == 0


@pytest.mark.parametrize("box,new_box", [(64, 32), (65, 33), (64, 33)])
def test_binning_keeps_centre_and_states_the_pixel_size(box: int, new_box: int) -> None:
    image = spot((150, 150), 75, 75, 5.0)
    out = extract_particles(image, [[75, 75]], box, 1.0, ExtractionSettings(**{**vars(PLAIN), "new_box": new_box}))
    assert out.images.shape == (1, new_box, new_box)
    assert out.pixel_size == pytest.approx(box / new_box)
    expected = spot((new_box, new_box), new_box // 2, new_box // 2, 5.0 * new_box / box)
    assert np.abs(out.images[0] - expected).max() < 0.01


@pytest.mark.parametrize("new_box", [None, 30])
@pytest.mark.parametrize("invert", [False, True])
def test_background_has_mean_0_and_deviation_1(new_box: int | None, invert: bool) -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.indices((200, 200))
    image = 50 + 7 * rng.normal(size=(200, 200)) + 0.5 * columns - 0.2 * rows + 60 * spot((200, 200), 100, 90, 5)
    settings = ExtractionSettings(radius=18, new_box=new_box, invert=invert, dust_sigma=0)
    out = extract_particles(image, [[100, 90]], 50, 1.0, settings)
    n = new_box or 50
    background = out.images[0][Region.of(n, 18 * n / 50).background]
    assert background.mean() == pytest.approx(0, abs=1e-5) and background.std() == pytest.approx(1, abs=1e-5)
    assert np.sign(out.images[0, n // 2, n // 2]) == (-1 if invert else 1)


def test_ramp_goes_and_the_particle_does_not_tilt_it() -> None:
    rows, columns = np.indices((50, 50))
    particle = 60 * spot((50, 50), 28, 24, 4)
    flat = remove_ramps((3 + 0.5 * columns - 0.2 * rows + particle)[None], Region.of(50, 20))[0]
    assert np.abs(flat - particle).max() < 0.02


def test_histogram_fit_undoes_a_linear_change() -> None:
    rng = np.random.default_rng(1)
    region = Region.of(64)
    noise = rng.normal(12, 3, (64, 64)).astype(np.float32)
    fitted = fit_to_noise((0.2 * rng.normal(12, 3, (1, 64, 64)) + 5), region, noise)[0]
    assert fitted[region.background].mean() == pytest.approx(12, abs=0.3)
    assert fitted[region.background].std() == pytest.approx(3, rel=0.06)
    image = rng.normal(100, 20, (200, 200))
    out = extract_particles(image, [[100, 100]], 64, 1.0, ExtractionSettings(normalise="noise"), noise)
    assert out.images.mean() == pytest.approx(12, abs=0.5)
    with pytest.raises(InputError, match="noise window"):
        extract_particles(image, [[100, 100]], 64, 1.0, ExtractionSettings(normalise="noise"))
    with pytest.raises(InputError, match="shape"):
        extract_particles(image, [[100, 100]], 60, 1.0, ExtractionSettings(normalise="noise"), noise)


def test_dust_is_replaced_reproducibly() -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(0, 1, (200, 200))
    image[100, 104] = 500
    one = extract_particles(image, [[60, 60], [100, 100]], 50, 1.0)
    other = extract_particles(image, [[100, 100]], 50, 1.0)
    assert np.abs(one.images).max() < 7
    assert np.array_equal(one.images[1], other.images[0])
    third = extract_particles(image, [[100, 100]], 50, 1.0, ExtractionSettings(seed=2))
    assert (third.images[0] != other.images[0]).any()
    still = remove_dust(image[None, :50, :50], Region.of(50), 8.0, 1)
    assert np.array_equal(still[0], image[:50, :50].astype(np.float32))


def test_windows_beyond_the_micrograph_are_refused() -> None:
    image = np.random.default_rng(3).normal(5, 1, (100, 120)).astype(np.float32)
    points = [[60, 50], [10, 50], [118, 98], [-40, 50]]
    out = extract_particles(image, points, 32, 1.0)
    assert out.kept.tolist() == [True, False, False, False]
    assert out.reasons[1] == TOO_CLOSE and out.images.shape == (1, 32, 32)
    edge = extract_particles(image, [[16, 16], [15, 16], [104, 84], [105, 84]], 32, 1.0)
    assert edge.kept.tolist() == [True, False, True, False]


def test_nothing_to_extract_and_constant_windows() -> None:
    image = np.zeros((100, 100), dtype=np.float32)
    none = extract_particles(image, np.zeros((0, 2)), 32, 1.0, ExtractionSettings(new_box=16))
    assert none.images.shape == (0, 16, 16) and len(none.kept) == 0
    flat = extract_particles(image, [[50, 50]], 32, 1.0)
    assert flat.reasons.tolist() == ["constant window"] and flat.images.shape[0] == 0


@pytest.mark.parametrize(
    "change,text",
    [({"box": 200}, "box 200"), ({"pixel_size": 0.0}, "pixel size"), ({"coordinates": [[np.nan, 3]]}, "coordinate")],
)
def test_bad_input_is_refused(change: dict, text: str) -> None:
    arguments = {"coordinates": [[50, 50]], "box": 32, "pixel_size": 1.0, **change}
    with pytest.raises(InputError, match=text):
        extract_particles(np.ones((100, 100)), **arguments)
    with pytest.raises(InputError, match="background"):
        extract_particles(np.ones((100, 100)), [[50, 50]], 32, 1.0, ExtractionSettings(radius=40))


def test_float16() -> None:
    image = np.random.default_rng(0).normal(size=(100, 100))
    assert extract_particles(image, [[50, 50]], 32, 1.0, ExtractionSettings(dtype="float16")).images.dtype == np.float16


def test_lowpass_follows_the_defocus() -> None:
    stack = np.random.default_rng(0).normal(size=(2, 64, 64)).astype(np.float32)
    high, low = lowpass_windows(stack, 30000.0), lowpass_windows(stack, 10000.0)
    assert stack.std() > 2 * high.std() and high.std() > 1.5 * low.std()
    assert high.mean() == pytest.approx(stack.mean(), abs=1e-5)
    with pytest.raises(InputError, match="stack"):
        lowpass_windows(stack[0], 1.0)
