"""Figures: every type is drawn, nothing is cut off or covered, equal data give equal bytes, bad data are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from nephila.averaging import how_many, select_by_view
from nephila.errors import InputError
from nephila.figures import curves, particles, spectra, style, surface, views, volumes
from nephila.geometry import quasi_even_directions
from nephila.thresholds import correlation_histograms, propose_thresholds
from nephila.views import angular_distribution

BOX, PIXEL = 64, 2.0
RNG = np.random.default_rng(3)
IMAGES = RNG.normal(size=(30, 16, 16))
VOLUME = RNG.normal(size=(12, 12, 12))


def fsc(half):
    """A smooth FSC that falls through 0.5 at shell `half`."""
    return 1 / (1 + np.exp((np.arange(BOX // 2 + 1) - half) / 2.0))


def directions(number):
    rng = np.random.default_rng(number)
    return rng.uniform(-180, 180, number), np.rad2deg(np.arccos(rng.uniform(-1, 1, number)))


def counts_by_view(groups, number=800):
    grid = quasi_even_directions(15)
    rot, tilt = directions(number)
    table = pd.DataFrame({"rlnAngleRot": rot, "rlnAngleTilt": tilt, "rlnAnglePsi": 0.0})
    return how_many(select_by_view(table, grid), np.arange(number) % groups + 1, grid)


def changes(scale):
    rng = np.random.default_rng(0)
    turn = rng.lognormal(0, 1, 200) * scale
    return pd.DataFrame({"nphRotationChange": turn, "nphDirectionChange": turn, "nphShiftChange": turn})


def correlations(path, groups):
    rng = np.random.default_rng(groups)
    group = np.arange(80 * groups) % groups + 1
    values = rng.normal(0.2, 0.03, len(group))
    table = propose_thresholds(values, group)
    curves.plot_correlation_histograms(correlation_histograms(values, group), path, thresholds=table)


def group_profiles(path):
    s = np.linspace(0.005, 0.2, 200)
    defocus = np.array([15000.0, 15400.0, 15900.0])
    profiles = {f"mic_{d:.0f}": np.sin(np.pi * 0.02 * d * s**2) ** 2 for d in defocus}
    spectra.plot_group_profiles(
        s, profiles, path, defocus=defocus, group_defocus=15400.0, wavelength=0.02, group_ctf2=s, group=2
    )


def picks(path, **options):
    x, y = RNG.uniform(20, 180, 12), RNG.uniform(20, 130, 12)
    particles.plot_micrograph_picks(RNG.normal(size=(150, 200)), x, y, path, pixel_size=3, diameter=60, **options)


FSC = {"pixel_size": PIXEL, "box": BOX}
DRAWINGS = {
    "view counts": lambda p: views.plot_view_counts(counts_by_view(3), p),
    "view counts of a group": lambda p: views.plot_view_counts(counts_by_view(3, 60), p, group=2),
    "views of 1 group": lambda p: views.plot_view_counts_by_group(counts_by_view(1), p),
    "views of 31 groups": lambda p: views.plot_view_counts_by_group(counts_by_view(31), p),
    "one distribution": lambda p: views.plot_angular_distributions({"all": angular_distribution(*directions(300))}, p),
    "distributions": lambda p: views.plot_angular_distributions(
        {i: angular_distribution(*directions(100 * i)) for i in range(1, 9)}, p
    ),
    "changes": lambda p: views.plot_direction_changes({i: changes(20 / i) for i in (1, 2, 3)}, p, moved_by=3.0),
    "standing still": lambda p: views.plot_direction_changes({4: changes(0.0)}, p, moved_by=3.0),
    "fsc": lambda p: curves.plot_fsc(
        {"unmasked": fsc(15), "masked": fsc(18), "randomised": fsc(9), "corrected": fsc(17), "truth": fsc(16)},
        p,
        title="map",
        **FSC,
    ),
    "fsc of 60 groups": lambda p: curves.plot_fsc(
        {"overall": fsc(20)}, p, group_curves={g: fsc(5 + g / 10) for g in range(1, 61)}, **FSC
    ),
    "fsc of 1 group": lambda p: curves.plot_fsc({}, p, group_curves={4: fsc(8)}, **FSC),
    "fsc by iteration": lambda p: curves.plot_fsc_by_iteration({i: fsc(5 + i) for i in range(1, 9)}, p, **FSC),
    "resolution": lambda p: curves.plot_resolution_by_iteration(
        pd.DataFrame({"iteration": [1, 2, 3], "half maps at 0.143": [9.0, 8, 7], "truth at 0.5": [np.nan, 9, 8]}), p
    ),
    "correlations of 1 group": lambda p: correlations(p, 1),
    "correlations of 15 groups": lambda p: correlations(p, 15),
    "group profiles": group_profiles,
    "defocus groups": lambda p: spectra.plot_defocus_groups(np.linspace(8e3, 3e4, 40), np.arange(40) // 5 + 1, p),
    "one micrograph": lambda p: spectra.plot_defocus_groups([15000.0], [1], p),
    "spectrum": lambda p: spectra.plot_spectrum_halves(IMAGES[0] ** 2, IMAGES[1] ** 2, p, pixel_size=1.5),
    "fsc of runs": lambda p: curves.plot_fsc_of_runs(
        {"first": (np.arange(33) / 128, fsc(12)), "second": (np.arange(41) / 200, np.linspace(1, 0, 41))}, p
    ),
    "map views": lambda p: volumes.plot_map_views(VOLUME, p, pixel_size=PIXEL, diameter=16),
    "slices": lambda p: volumes.plot_central_slices({"map": VOLUME, "half 1": VOLUME}, p, pixel_size=PIXEL),
    "projections": lambda p: volumes.plot_projections({"map": VOLUME}, p, pixel_size=PIXEL),
    "slices of groups": lambda p: volumes.plot_group_slices({g: VOLUME for g in range(1, 8)}, p, pixel_size=PIXEL),
    "one slice": lambda p: volumes.plot_group_slices({3: VOLUME[0]}, p, pixel_size=PIXEL),
    "montage": lambda p: particles.plot_particle_montage(IMAGES, p, pixel_size=PIXEL, title="mic_0001"),
    "one particle": lambda p: particles.plot_particle_montage(IMAGES[:1], p, pixel_size=PIXEL, labels=["1"]),
    "averages": lambda p: particles.plot_view_averages(IMAGES, np.arange(30), p, pixel_size=PIXEL),
    "picks": picks,
    "picks with scores": lambda p: picks(p, score=np.linspace(0, 1, 12), title="mic_0001.mrc"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", DRAWINGS)
def test_drawn_with_all_text_inside(name, tmp_path, monkeypatch):
    drawn = []
    original = Figure.savefig

    def keep(figure, *arguments, **options):
        drawn.append(figure)
        original(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    path = tmp_path / "figure.png"
    DRAWINGS[name](path)
    assert path.read_bytes().startswith(b"\x89PNG") and list(tmp_path.iterdir()) == [path]
    (figure,) = drawn
    width, height = figure.canvas.get_width_height()
    renderer = figure.canvas.get_renderer()
    undrawn = {id(label) for axes in figure.axes for t in undrawn_ticks(axes) for label in (t.label1, t.label2)}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in undrawn:
            box = text.get_window_extent(renderer)
            inside = box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2
            assert inside, f"{text.get_text()!r} is cut off: {box}"
    for legend in figure.legends:
        box = legend.get_window_extent(renderer)
        assert not any(box.overlaps(axes.get_window_extent(renderer)) for axes in figure.axes), "legend covers data"


def undrawn_ticks(axes):
    """Ticks outside the limits of their axis, which exist but are not drawn."""
    ticks = []
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        if not axes.axison:
            low, high = 1, 0
        ticks += [t for t in (*axis.get_major_ticks(), *axis.get_minor_ticks()) if not low <= t.get_loc() <= high]
    return ticks


@pytest.mark.parametrize("suffix", [".png", ".svg"])
@pytest.mark.parametrize("name", ["fsc", "view counts", "correlations of 1 group", "averages"])
def test_equal_data_give_equal_bytes(name, suffix, tmp_path):
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    DRAWINGS[name](first)
    DRAWINGS[name](second)
    assert first.read_bytes() == second.read_bytes()
    assert b"matplotlib" not in first.read_bytes().lower() or suffix == ".svg"


def test_other_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"figure\.jpg.*\.png or \.svg"):
        DRAWINGS["fsc"](tmp_path / "figure.jpg")


@pytest.mark.parametrize(
    ("half", "thresholds", "text"),
    [
        (10.5, (0.5,), "12.8 Å at 0.5"),
        (10.5, (0.143, 0.5), "9.14 Å at 0.143, 12.8 Å at 0.5"),
        (80, (0.5,), "above 0.5 up to 4 Å"),
        (-20, (0.143,), "below 0.143 from the first shell on"),
    ],
)
def test_resolution_in_the_legend(half, thresholds, text):
    """The last shell before the curve falls below the threshold: 10 of 64 px at 2 A is 12.8 A."""
    frequency = np.arange(BOX // 2 + 1) / (BOX * PIXEL)
    assert curves._readings(fsc(half), frequency, thresholds) == text


@pytest.mark.parametrize(("length", "nice"), [(1, 1), (4.9, 2), (5, 5), (99, 50), (0.03, 0.02), (1000, 1000)])
def test_nice_length(length, nice):
    assert style.nice_length(length) == pytest.approx(nice)


@pytest.mark.parametrize("highest", [0.05, 0.1, 0.25, 0.5, 0.83, 1.0])
def test_resolution_ticks_do_not_meet(highest):
    ticks = style._resolution_ticks(highest)
    places = 1 / np.array(ticks) / highest
    assert len(ticks) >= 5 and places.max() <= 1 + 1e-6 and (-np.diff(places) > 0.08).all()


@pytest.mark.parametrize(
    ("number", "most", "grid"), [(1, 6, (1, 1)), (7, 4, (2, 4)), (60, 10, (6, 10)), (13, 6, (3, 5))]
)
def test_panel_grid(number, most, grid):
    assert style.panel_grid(number, most) == grid


def test_montage_keeps_order_and_grey_levels(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(style, "frame_image", lambda axes: seen.append(axes.images[0].get_array()))
    stack = np.arange(5.0)[:, None, None] * np.ones((5, 24, 24))
    particles.plot_particle_montage(stack, tmp_path / "m.png", pixel_size=1.0, columns=3)
    canvas = np.ma.filled(seen[0], np.nan)
    assert canvas.shape == (2 * 25, 3 * 25 - 1)
    values = [canvas[25 * (i // 3) + 12, 25 * (i % 3) + 12] for i in range(5)]
    assert values == [0, 1, 2, 3, 4] and np.isnan(canvas[37, 62])


@pytest.mark.parametrize(
    ("draw", "word"),
    [
        (lambda p: curves.plot_fsc({}, p, **FSC), "no FSC curve"),
        (lambda p: curves.plot_fsc({"overall": fsc(9)[:-1]}, p, **FSC), "33 values are needed"),
        (lambda p: curves.plot_fsc({"overall": fsc(9)}, p, box=BOX, pixel_size=0.0), "pixel size 0.0"),
        (lambda p: views.plot_view_counts(counts_by_view(2), p, group=7), "no rows of group 7"),
        (lambda p: views.plot_angular_distributions({}, p), "no angular distribution"),
        (lambda p: volumes.plot_central_slices({"map": IMAGES[0]}, p, pixel_size=1), "map: a volume"),
        (lambda p: particles.plot_view_averages(IMAGES, [1, 2], p, pixel_size=1), "30 averages and 2 counts"),
        (lambda p: particles.plot_particle_montage(IMAGES[:0], p, pixel_size=1), "at least one"),
    ],
)
def test_bad_data_are_refused_and_nothing_is_written(draw, word, tmp_path):
    with pytest.raises(InputError, match=word):
        draw(tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == []


def ball(n=48, centre=(24, 24, 24), radius=12.0):
    """A ball whose density falls linearly through 0 at its surface."""
    place = np.indices((n, n, n), dtype=np.float32) - np.array(centre, dtype=np.float32).reshape(3, 1, 1, 1)
    return radius - np.sqrt((place**2).sum(axis=0))


def test_the_surface_of_a_ball_is_round_and_lit_from_the_upper_left():
    seen = surface.render_surface(ball(), 0.0, side=96)
    assert seen.cover.sum() == pytest.approx(np.pi * 24**2, rel=0.02)  # 12 px are 24 px of the picture
    middle = 49  # the centre of the box is half a voxel to the right and below the picture's middle
    assert seen.shade[middle - 12, middle - 12] > seen.shade[middle, middle] > seen.shade[middle + 14, middle + 14] > 0
    assert surface.render_surface(ball(), 20.0, side=40).cover.sum() == 0
    assert np.array_equal(seen.picture(), surface.render_surface(ball(), 0.0, side=96).picture())


@pytest.mark.parametrize("view", ["xy", "xz", "yz"])
def test_surface_and_projection_show_an_object_in_the_same_place_and_its_near_side(view):
    """Two balls, one behind the other but for a step: the nearer is whole, and no view is mirrored."""
    volume = ball(48, (12, 30, 34), 6.0)
    axis = {"xy": 0, "xz": 1, "yz": 2}[view]
    seen = surface.render_surface(volume, 0.0, view, side=48)
    shadow = (volume > 0).any(axis=axis)
    assert np.mean((seen.cover > 0.5) != shadow) < 0.01
    right, down, away = {
        "xy": ((2, 1), (1, 1), (0, 1)),
        "xz": ((2, 1), (0, 1), (1, -1)),
        "yz": ((1, 1), (0, 1), (2, 1)),
    }[view]
    frame = np.zeros((3, 3))
    for row, (index, sign) in enumerate((right, down, away)):
        frame[row, 2 - index] = sign  # columns x, y, z
    assert np.linalg.det(frame) == pytest.approx(1)
    near = surface.toward_viewer(volume, view)
    first = np.flatnonzero(near.reshape(48, -1).max(axis=1) > 0)[0]
    centre = {"xy": 12, "xz": 47 - 30, "yz": 34}[view]
    assert first == pytest.approx(centre - 6, abs=1)


def test_specks_are_not_seen():
    volume = np.maximum(ball(), ball(48, (6, 6, 6), 2.5))
    assert surface.render_surface(volume, 0.5, side=48).cover[:12, :12].sum() > 5
    assert surface.render_surface(surface.main_pieces(volume, 0.5), 0.5, side=48).cover[:12, :12].sum() == 0


@pytest.mark.parametrize(("shape", "view"), [((8, 8, 9), "xy"), ((8, 8), "xy"), ((8, 8, 8), "zx")])
def test_surfaces_of_bad_input_are_refused(shape, view):
    with pytest.raises(InputError):
        surface.render_surface(np.zeros(shape), 0.5, view)
