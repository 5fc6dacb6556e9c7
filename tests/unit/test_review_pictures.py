"""What the review page shows: tables as its pages get them, sheets of thumbnails, volumes; made once, anew when they change."""

from __future__ import annotations

import io
import os
import struct

import numpy as np
import pandas as pd
import pytest
import review_finished as finished
from PIL import Image

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.io.mrc import open_stack, read_volume, write_stack, write_volume
from nephila.io.tables import read_blocks, read_table, write_table
from nephila.maintenance.cleaning import removable, remove
from nephila.review.pages import groups, micrographs, particles, thresholds, views, volumes
from nephila.review.pictures import ALBUMS, Pictures, SpectrumTile, spectrum_tile
from nephila.review.project import NotYet, Project
from nephila.review.quick import read_plain


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished.make(tmp_path_factory.mktemp("review") / "made")


@pytest.fixture
def project(folder):
    return Project(folder)


def picture(content):
    return np.asarray(Image.open(io.BytesIO(content)), dtype=float)


def tile_of(sheet, album, i):
    side, columns = ALBUMS[album].tile, ALBUMS[album].columns
    y, x = i // columns * side, i % columns * side
    return sheet[y : y + side, x : x + side]


def correlation(a, b):
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def enlarged(image, side):
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR), dtype=float)


def test_micrographs_come_with_what_is_known_of_them(project):
    found = micrographs.micrographs(project)
    assert found["names"] == [finished.name_of(i) for i in range(1, 7)]
    assert found["defocusU"][1] == 20700 and found["proposed"] == [1] * 6 and found["picked"] == [20] * 6
    assert found["resolution"][4] == 12.04


def test_particles_of_a_micrograph_stand_together_and_know_their_view(project):
    found = particles.particles(project)
    assert found["counts"] == [20] * 6 and found["numbers"][:21] == [*range(1, 21), 1]
    assert found["dropped"] == {str(i): "dust" for i in (7, 47, 87)}
    assert found["views"][:3] == [1, 2, 3] and found["views"][7] == 0  # a dropped one has none
    rows = particles.view_rows(project, 3)
    values = [found["correlations"][i] for i in rows]
    assert values == sorted(values, reverse=True) and {found["views"][i] for i in rows} == {3}
    assert sorted(rows) == [i for i, view in enumerate(found["views"]) if view == 3]


def test_correlations_fall_and_agree_with_the_sheets(project, folder):
    found = thresholds.thresholds(project)["groups"]
    table = read_table(folder / "results/alignment/group_001/align.star", kind="poses")
    assert found[0]["correlations"] == sorted(table["nphCorrelation"], reverse=True)
    items, _ = thresholds.group_items(project, 1)
    assert items[0] == table.loc[table["nphCorrelation"].idxmax(), "rlnImageName"]
    with pytest.raises(InputError, match="group 9"):
        thresholds.group_items(project, 9)


def test_the_average_of_a_side_is_centred_and_turned(project, folder, monkeypatch):
    table = project.aligned().copy()
    stack = open_stack(folder / "results/alignment/group_001/data.mrcs")
    mine = table[table["nphDefocusGroup"] == 1].reset_index(drop=True)
    cut = float(mine["nphCorrelation"].median())
    below = [stack[i] for i in np.flatnonzero(mine["nphCorrelation"] < cut)]
    assert np.allclose(thresholds.side_average(project, 1, cut, kept=False), np.mean(below, axis=0), atol=1e-5)
    table["rlnOriginXAngst"], table["rlnOriginYAngst"] = 2 * finished.PIXEL, -finished.PIXEL
    monkeypatch.setattr(project, "aligned", lambda: table)
    # image(x) = P(x + o): the centred image has at x what the image has at x - o
    centred = np.roll(np.mean(below, axis=0), (-1, 2), axis=(0, 1))
    assert np.allclose(thresholds.side_average(project, 1, cut, kept=False), centred, atol=1e-5)
    # A(psi = 90) takes (x, y) to (y, -x): what the image has there comes to (x, y)
    table["rlnOriginXAngst"] = table["rlnOriginYAngst"] = 0.0
    table["rlnAnglePsi"] = 90.0
    n = stack.shape[1]
    along = np.arange(n) - n // 2
    turned = np.mean(below, axis=0)[(n // 2 - along[None, :]) % n, (n // 2 + along[:, None]) % n]
    assert np.allclose(thresholds.side_average(project, 1, cut, kept=False), turned, atol=1e-5)
    with pytest.raises(InputError, match="no particles above 2"):
        thresholds.side_average(project, 1, 2.0, kept=True)


def test_groups_follow_the_edit_with_their_phase_error(project):
    as_proposed = groups.groups(project, {})
    assert [row["micrographs"] for row in as_proposed["groups"]] == [3, 2, 1]
    moved = groups.groups(project, {finished.name_of(4): 2})
    assert [row["micrographs"] for row in moved["groups"]] == [2, 3, 1]
    assert moved["groups"][1]["spread"] == pytest.approx(16300 - 10840)
    assert moved["groups"][1]["limit"] > 2 * as_proposed["groups"][1]["limit"]


def test_profiles_end_where_the_rings_do(project):
    found = groups.profiles(project)
    ring = found["rings"][finished.name_of(1)]
    last = found["frequency"][ring["first"] + len(ring["heights"]) - 1]
    assert found["frequency"][ring["first"]] > 0.02 and last <= groups.MARGIN / 8.0
    k = np.array(found["frequency"][ring["first"] :][: len(ring["heights"])])
    assert np.allclose(ring["heights"], np.sin(np.pi * 0.0197 * 11100 * k**2) ** 2, atol=0.01)


def without_fit(folder, i):
    """The project with micrograph i (from 1) as a failed fit leaves it: no defocus, and a profile of power alone."""
    path = folder / "results/ctf/micrographs.star"
    table = read_table(path, kind="defocus")
    columns = ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnCtfMaxResolution"]
    table.loc[i - 1, columns] = 0.0
    table.loc[i - 1, ["nphKeep", "nphReason"]] = [0, "no rings"]
    write_table(path, table, kind="defocus")
    path = folder / "results/ctf/power/roo_0001.star"
    profiles = read_table(path, block="profiles")
    mine = profiles["rlnMicrographName"] == finished.name_of(i)
    profiles.loc[mine, ["nphBackground", "nphSubtracted", "nphEnvelope"]] = 0.0
    write_table(path, profiles, block="profiles")


def test_a_failed_fit_has_a_profile_to_fit_by_hand(tmp_path):
    folder = finished.make(tmp_path / "made", 2, 5)
    without_fit(folder, 2)
    found = groups.profiles(Project(folder))
    ring = found["rings"][finished.name_of(2)]
    assert not ring["fitted"] and found["rings"][finished.name_of(1)]["fitted"]
    k = np.array(found["frequency"][ring["first"] :][: len(ring["heights"])])
    assert k[0] >= 1 / groups.COARSEST and len(k) == len(ring["weights"]) > 40
    right, wrong = (np.sin(np.pi * 0.0197 * defocus * k**2) ** 2 for defocus in (20600, 19000))
    assert np.corrcoef(ring["heights"], right)[0, 1] > 0.9 > 0.5 > np.corrcoef(ring["heights"], wrong)[0, 1]
    assert groups.bare_rings(k, np.zeros(len(k)), 8.8) is None  # a micrograph without contrast


def test_looking_closer_shows_the_fit_in_use(tmp_path):
    """The workflow's figure (the pooled fit's before the first one's); of a defocus by hand one with that defocus."""
    folder = finished.make(tmp_path / "made", 2, 5)
    project = Project(folder)
    with pytest.raises(NotYet):
        micrographs.fit_picture(project, 0)
    for name in ("figures", "figures_pooled"):
        path = folder / "results/ctf" / name / "0001/mic_0001.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(name.encode())
        assert micrographs.fit_picture(project, 0) == name.encode()
    edit = pd.DataFrame({"rlnMicrographName": [finished.name_of(1)], "rlnDefocusU": 11500.0, "rlnDefocusV": 11300.0})
    (folder / "edits").mkdir()
    drawn = []
    for angle in (30.0, 60.0):
        write_table(folder / "edits/defocus.star", edit.assign(rlnDefocusAngle=angle), kind="hand_defocus")
        drawn.append(micrographs.fit_picture(project, 0))
        assert Image.open(io.BytesIO(drawn[-1])).size == (1000, 420)
    assert drawn[0] != drawn[1]
    (folder / "edits/defocus.star").unlink()
    assert micrographs.fit_picture(project, 0) == b"figures_pooled"


def test_views_count_those_above_the_thresholds(project):
    found = views.views(project)
    counts, above = (sum(sum(group[name]) for group in found["groups"].values()) for name in ("counts", "above"))
    assert counts == 117 and 0.8 * counts < above < 0.9 * counts and found["cap"] == 0


def test_tables_are_read_quickly_and_as_always(project, folder, tmp_path):
    """The quick way gives the same frame, types too, for every table of a run, or leaves it to the other one."""
    quick = 0
    for path in sorted((folder / "results").rglob("*.star")):
        found, blocks = read_plain(path), read_blocks(path)
        if found is None:
            assert len(blocks) > 1 or len(next(iter(blocks.values()))) < 2, path
            continue
        (frame,) = blocks.values()
        pd.testing.assert_frame_equal(found, frame)
        quick += 1
    assert quick > 20
    head = "\ndata_a\n\nloop_\n_rlnMicrographName #1\n_nphKeep #2\n"
    path = tmp_path / "t.star"
    for text, plain in (
        (f"{head}nan\t1\n7\tnan\n", True), (f"{head}a\t1\nb\n", False), (f"{head}a 1\nb 0\n", False), (f"{head}'a b'\t1\n", False),
        (f"{head}a\t1\nb\t0\t3\n", False), (f"{head}a\t1 # sure\n", False), (head, False), (f"{head}a\t1\n{head}", False),
        ("\ndata_a\n_nphKeep 1\n", False),
    ):  # fmt: skip
        path.write_text(text)
        assert (read_plain(path) is not None) == plain, text
    path.write_text(f"{head}nan\t1\n7\tnan\n")
    assert read_plain(path)["rlnMicrographName"].tolist() == ["nan", "7"]  # names are texts


def test_a_sheet_holds_its_particles_in_order(project, folder):
    items, stamp = particles.particle_items(project)
    assert len(items) == 120
    pages = [picture(Pictures(project).sheet("particles", 0, page, items, stamp)) for page in (0, 1)]
    assert pages[0].shape == (720, 720) and pages[1].shape == (144, 720)
    stack = open_stack(folder / "results/particles/win/winser_0001.mrcs")
    for i in (0, 13, 59, 119):
        shown = tile_of(pages[i // 100], "particles", i % 100)
        # the 64 images come again and again
        likeness = [correlation(shown, enlarged(stack[k], 72)) for k in range(64)]
        assert int(np.argmax(likeness)) == i % 64 and max(likeness) > 0.8
    with pytest.raises(InputError, match="no sheet"):
        Pictures(project).sheet("particles", 0, 2, items, stamp)


def test_sheets_are_made_once_and_anew_when_the_images_change(tmp_path):
    folder = finished.make(tmp_path / "made", 2, 5)
    project, album = Project(folder), "particles"
    items, stamp = particles.particle_items(project)
    first = Pictures(project).sheet(album, 0, 0, items, stamp)
    (kept,) = (folder / ".nephila/review").iterdir()
    assert kept.read_bytes() == first
    kept.write_bytes(b"from the cache")
    assert Pictures(project).sheet(album, 0, 0, items, stamp) == b"from the cache"
    path = folder / "results/particles/win/winser_0001.mrcs"
    write_stack(path, np.zeros((10, finished.BOX, finished.BOX)), finished.PIXEL)
    os.utime(path, ns=(1, 1))
    items, stamp = particles.particle_items(project)
    assert Pictures(project).sheet(album, 0, 0, items, stamp) not in (first, b"from the cache")
    assert len(list((folder / ".nephila/review").iterdir())) == 1
    chosen = [kind for kind in removable(folder, "scratch") if "review" in kind.what]
    assert len(chosen) == 1 and remove(folder, chosen) > 0 and not (folder / ".nephila").exists()


def test_the_spectrum_shows_measured_and_fitted_rings_alike(project, folder):
    stack = open_stack(folder / "results/ctf/power/pw_avg_0001.mrcs")
    item = SpectrumTile("", 0, 11200.0, 11000.0, 30.0, 12.0)
    tile = spectrum_tile(stack[0], finished.PIXEL, item, Optics(300.0, 2.7, 0.1), 171).astype(float)
    left, right = tile[:, :85][:, ::-1], tile[:, 86:]
    middle = slice(60, 110)  # near the x axis, where the left half mirrors the right one of this spectrum
    assert correlation(left[middle, 15:80], right[middle, 15:80]) > 0.7
    wrong = SpectrumTile("", 0, 16200.0, 16000.0, 30.0, 12.0)
    other = spectrum_tile(stack[0], finished.PIXEL, wrong, Optics(300.0, 2.7, 0.1), 171).astype(float)
    assert correlation(left[middle, 15:80], other[:, 86:][middle, 15:80]) < 0.4


def test_a_micrograph_that_cannot_be_read_is_an_even_tile(tmp_path):
    folder = finished.make(tmp_path / "made", 2, 5)
    (folder / finished.name_of(2)).write_bytes(b"nothing")
    project = Project(folder)
    sheet = picture(Pictures(project).sheet("micrographs", 0, 0, *micrographs.micrograph_items(project)))
    assert (
        tile_of(sheet, "micrographs", 0)[10:-10, 10:-10].std()
        > 20
        > tile_of(sheet, "micrographs", 1)[10:-10, 10:-10].std()
    )


def test_a_volume_is_packed_for_the_page(project, folder, monkeypatch):
    index = next(i for i, entry in enumerate(volumes.listed(project)) if entry.path.endswith("/vol01.mrc"))
    content = volumes.packed(project, index)
    side, pixel_size, low, high, mean, deviation = struct.unpack("<Ifffff", content[:24])
    volume, _ = read_volume(folder / "results/reconstruction/vol01.mrc")
    values = np.frombuffer(content[24:], dtype=np.uint8).reshape(volume.shape) / 255 * (high - low) + low
    assert side == finished.BOX and pixel_size == finished.PIXEL and mean == pytest.approx(volume.mean(), rel=1e-4)
    assert deviation == pytest.approx(volume.std(), rel=1e-4) and np.abs(values - volume).max() < 0.01 * (high - low)
    monkeypatch.setattr(volumes, "LARGEST", 10)
    project._kept.clear()
    side, pixel_size = struct.unpack("<If", volumes.packed(project, index)[:8])
    assert (side, pixel_size) == (finished.BOX // 3, 3 * finished.PIXEL)
    with pytest.raises(InputError, match="no volume"):
        volumes.packed(project, 99)


def test_volumes_are_listed_as_they_appear(tmp_path):
    folder = finished.make(tmp_path / "made", 2, 5)
    project = Project(folder)
    before = len(volumes.listed(project))
    write_volume(folder / "results/refinement/iter_01/vol.mrc", np.zeros((4, 4, 4), dtype=np.float32), 1.0)
    labels = [entry.label for entry in volumes.listed(project)]
    assert len(labels) == before + 1 and labels[-1] == "Iteration 1" and "Group 1, half 2" in labels
    with pytest.raises(NotYet):
        project.stamp("results/none")
