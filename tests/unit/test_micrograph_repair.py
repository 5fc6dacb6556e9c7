"""Dead lines, hot pixels and stripes of gain are mended before rings, picks and windows; a sound micrograph is left alone."""

from __future__ import annotations

import mrcfile
import numpy as np
import pandas as pd
import pytest
from test_picking import DEFOCUS, DIAMETER, OPTICS, PIXEL, QUICK, matched, micrograph, phantom

from nephila.errors import InputError
from nephila.extraction import ExtractionSettings
from nephila.micrograph_repair import CONSTANT, MOSTLY_DEAD, repair_micrograph
from nephila.picking import TemplateSet, candidates_table, choose_picks, pick_blobs, pick_by_templates
from nephila.windows import extract_batch

SIZE = (600, 700)


def white(shape=SIZE, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def smooth(shape=SIZE):
    """Gradient, and an oblique edge of carbon 4 deviations high."""
    y, x = np.indices(shape)
    return (0.004 * x - 0.002 * y + 4 * (x + 0.3 * y > 420)).astype(np.float32)


def with_stripes(image, gain=0.03, mean=10.0, seed=5, axis=1):
    """Each column (axis 1) or row read with a gain of its own, the mean being `mean` deviations of the pixels."""
    line = np.random.default_rng(seed).normal(1, gain, image.shape[axis]).astype(np.float32)
    raised = image + np.float32(mean * image.std())
    return raised * (line[None, :] if axis == 1 else line[:, None])


def with_dead_columns(image, seed=6):
    out = image + np.float32(10 * image.std())
    out[:, np.random.default_rng(seed).integers(0, image.shape[1], 6)] = 0
    return out


def with_hot_pixels(image, seed=7):
    out = image.copy()
    y, x = np.random.default_rng(seed).integers(0, min(image.shape), (2, 300))
    out[y, x] += np.float32(3000 * image.std())
    return out


FAULTS = [
    pytest.param(with_stripes, id="stripes of columns"),
    pytest.param(lambda image: with_stripes(image, axis=0), id="stripes of rows"),
    pytest.param(lambda image: with_stripes(with_stripes(image), axis=0), id="stripes of both"),
    pytest.param(with_dead_columns, id="dead columns"),
    pytest.param(with_hot_pixels, id="hot pixels"),
]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [SIZE, (96, 110), (1024, 500)])
def test_a_sound_micrograph_is_returned_as_it_is(shape, seed):
    image = white(shape, seed) + smooth(shape)
    mended = repair_micrograph(image)
    assert mended.image is image
    assert (mended.replaced, mended.striped, mended.problem) == (0.0, 0, None)


def test_noise_that_neighbours_share_is_no_stripe():
    """A micrograph binned or filtered: neighbouring pixels are correlated."""
    fine = white((1200, 1400), 3)
    image = fine[1:] + fine[:-1]
    image = image[:, 1:] + image[:, :-1] + image[:, :1].mean()
    assert repair_micrograph(image).image is image


@pytest.mark.parametrize("axis", [0, 1])
def test_stripes_go_and_what_lies_under_them_stays(axis):
    image = white() + smooth()
    bad = with_stripes(image, axis=axis)
    mended = repair_micrograph(bad)
    assert mended.striped > 500 and mended.replaced < 1e-4
    before, after = (np.std((x - image).mean(axis=1 - axis)) for x in (bad, mended.image))
    assert after < 0.25 * before
    step = [part.mean() for part in (mended.image[:, :100], mended.image[:, 550:])]
    assert step[1] - step[0] == pytest.approx(image[:, 550:].mean() - image[:, :100].mean(), abs=0.3)


def test_a_single_striped_column_is_mended_alone():
    image = white()
    image[:, 200] += 1
    mended = repair_micrograph(image)
    assert mended.striped == 1
    np.testing.assert_array_equal(np.delete(mended.image, 200, axis=1), np.delete(image, 200, axis=1))
    assert abs(mended.image[:, 200].mean()) < 0.2


def test_dead_lines_and_hot_pixels_are_replaced_and_dirt_stays():
    image = white() + 10
    image[:, 50], image[300], image[:, 99] = 0, 40000, np.float32(10)
    image[20, 30] = 9000
    image[400:440, 400:440] -= 30
    given = image.copy()
    mended = repair_micrograph(image)
    np.testing.assert_array_equal(image, given)
    np.testing.assert_array_equal(mended.image[:, 50], mended.image[:, 51])
    np.testing.assert_array_equal(mended.image[300], mended.image[301])
    assert abs(mended.image[20, 30] - 10) < 3
    np.testing.assert_array_equal(mended.image[400:440, 400:440], given[400:440, 400:440])
    assert mended.replaced == pytest.approx(2 / 700 + 1 / 600, rel=1e-2)


@pytest.mark.parametrize(
    ("image", "problem"),
    [(np.full(SIZE, 7, np.float32), CONSTANT), (np.where(np.arange(700) % 5 < 2, white(), 0), MOSTLY_DEAD)],
)
def test_what_cannot_be_mended_has_a_reason(image, problem):
    assert repair_micrograph(image.astype(np.float32)).problem == problem
    with pytest.raises(InputError, match=problem):
        pick_blobs(image, PIXEL, DIAMETER)


@pytest.fixture(scope="module")
def picked():
    volume = phantom()
    image, truth = micrograph(volume, 11, shape=(560, 700), count=24)
    templates = TemplateSet.from_volume(volume, PIXEL, DIAMETER, QUICK)
    return image, truth, {
        "pick": lambda data: pick_blobs(data, PIXEL, DIAMETER, None, DEFOCUS, OPTICS),
        "lfc_pick": lambda data: pick_by_templates(data, PIXEL, templates, DEFOCUS, OPTICS),
    }  # fmt: skip


def best(found, number):
    order = np.argsort(-found.score)[:number]
    return found.x[order], found.y[order]


@pytest.mark.parametrize("method", ["pick", "lfc_pick"])
@pytest.mark.parametrize("fault", FAULTS)
def test_both_pickers_find_the_particles_through_the_fault(picked, fault, method):
    image, truth, pickers = picked
    sound, bad = (matched(*best(pickers[method](data), len(truth)), truth)[1].sum() for data in (image, fault(image)))
    assert sound >= 0.85 * len(truth)
    assert bad >= sound - 3


def test_picks_of_a_striped_micrograph_pass_the_choice(picked):
    image, truth, pickers = picked
    table = candidates_table({"a": pickers["lfc_pick"](with_stripes(image))})
    kept = choose_picks(table)[0].query("nphKeep == 1")
    assert matched(kept["rlnCoordinateX"], kept["rlnCoordinateY"], truth)[1].sum() >= 0.8 * len(truth)


@pytest.mark.parametrize("fault", FAULTS)
def test_windows_are_cut_from_the_mended_micrograph(tmp_path, fault):
    image = white((300, 320), 2) * 50 + 500
    settings = {"pixel_size": 4.0, "contrast": "bright", "decimate": 1, "film": "none", "raw": None}
    table = pd.DataFrame(
        {
            "rlnMicrographName": [str(tmp_path / "m.mrc")] * 3,
            "nphParticleNumber": [1, 2, 3],
            "rlnCoordinateX": [60.0, 150.0, 250.0],
            "rlnCoordinateY": [60.0, 200.0, 100.0],
            "rlnAutopickFigureOfMerit": 1.0,
        }
    )
    stacks = []
    for name, data in (("sound", image), ("bad", fault(image))):
        mrcfile.write(tmp_path / "m.mrc", data.astype(np.float32), overwrite=True, voxel_size=4.0)
        stack = tmp_path / f"{name}.mrcs"
        names = [str(tmp_path / "m.mrc")]
        kept, _ = extract_batch(
            table, names, 64, settings, ExtractionSettings(radius=20, dust_sigma=0), None, stack, 160.0
        )
        assert len(kept) == 3
        stacks.append(mrcfile.read(stack).astype(np.float64))
    for sound, bad in zip(*stacks, strict=True):
        assert np.corrcoef(sound.ravel(), bad.ravel())[0, 1] > 0.93
