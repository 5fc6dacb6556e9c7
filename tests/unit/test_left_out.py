"""What is not taken has a row and a reason: candidates near the edge, overlapping, unlikely; picks without a window, duplicates."""

from __future__ import annotations

import mrcfile
import numpy as np
import pandas as pd
import pytest
from test_picking import DEFOCUS, DIAMETER, OPTICS, PIXEL, QUICK, micrograph, phantom

from nephila.config import parse_config
from nephila.errors import InputError
from nephila.extraction import TOO_CLOSE, ExtractionSettings
from nephila.particle_selection import reasons_left_out
from nephila.picking import (
    BlobSettings,
    ChoiceSettings,
    PeakSettings,
    TemplateSet,
    candidates_table,
    choose_picks,
    pick_blobs,
    pick_by_templates,
)
from nephila.picking.peaks import edge_maxima, local_maxima
from nephila.picking.tables import blob_picker, choice_settings
from nephila.windows import extract_batch

AT_EDGE = "too close to the edge of the micrograph"


@pytest.fixture(scope="module")
def cut():
    """A micrograph cut so that its left edge runs 30 A beside the centres of a column of particles."""
    volume = phantom()
    image, truth = micrograph(volume, 11, shape=(560, 700), count=40)
    left = int(truth[np.abs(truth[:, 0] - 136).argmin(), 0]) - 8
    inside = truth[truth[:, 0] >= left] - [left, 0]
    return np.ascontiguousarray(image[:, left:]), inside, TemplateSet.from_volume(volume, PIXEL, DIAMETER, QUICK)


def picks_of(method, image, templates):
    if method == "pick":
        return pick_blobs(image, PIXEL, DIAMETER, None, DEFOCUS, OPTICS)
    return pick_by_templates(image, PIXEL, templates, DEFOCUS, OPTICS)


@pytest.mark.parametrize("method", ["pick", "lfc_pick"])
def test_candidates_near_the_edge_are_rows_with_that_reason(cut, method):
    image, truth, templates = cut
    picks = picks_of(method, image, templates)
    margin = PeakSettings().edge * DIAMETER / PIXEL
    distance = np.minimum.reduce([picks.x, picks.y, image.shape[1] - 1 - picks.x, image.shape[0] - 1 - picks.y])
    edge = picks.at_edge == 1
    assert edge.any() and (distance[edge] < margin + 1).all() and (distance[~edge] > margin - 8).all()
    assert not edge[: np.flatnonzero(edge)[0]].any() and edge[np.flatnonzero(edge)[0] :].all()
    table, _ = choose_picks(candidates_table({"a": picks}), ChoiceSettings(threshold=float(np.median(picks.score))))
    rows = table[table["nphReason"] == AT_EDGE]
    assert len(rows) and (rows["nphKeep"] == 0).all()
    near = truth[(truth[:, 0] < margin - 3) & (truth[:, 1] > margin + 5) & (truth[:, 1] < image.shape[0] - margin - 5)]
    assert len(near)
    off = np.hypot(rows["rlnCoordinateX"].to_numpy()[:, None] - near[:, 0],
                   rows["rlnCoordinateY"].to_numpy()[:, None] - near[:, 1])  # fmt: skip
    assert (off.min(axis=0) < 0.25 * DIAMETER / PIXEL).any()


@pytest.mark.parametrize("method", ["pick", "lfc_pick"])
def test_rows_near_the_edge_change_nothing_for_the_others(cut, method):
    image, _, templates = cut
    table = candidates_table({"a": picks_of(method, image, templates)})
    inner = table[table["nphAtEdge"] == 0]
    assert inner["rlnAutopickFigureOfMerit"].is_monotonic_decreasing
    with_edge, model = choose_picks(table)
    alone, other = choose_picks(inner)
    assert model.threshold == other.threshold
    pd.testing.assert_frame_equal(with_edge[with_edge["nphAtEdge"] == 0], alone)


def test_edge_maxima_are_those_that_the_edge_excludes():
    score = np.random.default_rng(4).normal(size=(60, 80)).astype(np.float32)
    everything = set(zip(*local_maxima(score, 4.0, (1, 1), score.size), strict=True))
    outer = set(zip(*edge_maxima(score, 4.0, (9.0, 12.0)), strict=True))
    assert outer == {(r, c) for r, c in everything if not (9 <= r < 51 and 12 <= c < 68)}


def scored(count=400, seed=1, mean=10.0):
    """Candidates of two populations, in pairs 50 px apart."""
    random = np.random.default_rng(seed)
    score = np.where(np.arange(count) % 4 < 2, random.normal(mean, 1, count), random.normal(0, 1, count))
    return pd.DataFrame(
        {
            "rlnMicrographName": "a",
            "rlnCoordinateX": 500.0 * (np.arange(count) // 2) + 50 * (np.arange(count) % 2),
            "rlnCoordinateY": 0.0,
            "rlnAutopickFigureOfMerit": score,
        }
    )


def test_the_key_overlap_leaves_out_the_worse_of_two():
    section = parse_config({"picking": {"overlap": 0.9}}).picking.model_dump()
    table, _ = choose_picks(scored(), choice_settings(section), 2.0, 160.0)
    plain, _ = choose_picks(scored(), ChoiceSettings(), 2.0, 160.0)
    reasons = table["nphReason"].value_counts()
    assert reasons["overlaps a better pick"] == plain["nphKeep"].sum() - table["nphKeep"].sum() > 80
    dropped = table[table["nphReason"] == "overlaps a better pick"].index
    partner = dropped ^ 1
    score = table["rlnAutopickFigureOfMerit"]
    assert (score[partner].to_numpy() > score[dropped].to_numpy()).all() and (table["nphKeep"][partner] == 1).all()
    assert (
        choose_picks(scored(), choice_settings(section), 2.0, 100.0)[0]["nphReason"] != "overlaps a better pick"
    ).all()


def test_the_key_min_probability_leaves_out_what_is_unlikely():
    section = parse_config({"picking": {"min_probability": 0.99}}).picking.model_dump()
    candidates = scored(mean=4.0)
    plain, model = choose_picks(candidates)
    table, _ = choose_picks(candidates, choice_settings(section))
    assert model.reason == "none"
    unlikely = (plain["nphKeep"] == 1) & (plain["nphProbability"] < 0.99)
    assert unlikely.any()
    assert (table.loc[unlikely, "nphReason"] == "too unlikely to be a particle").all()
    with pytest.raises(InputError, match="picking.min_probability"):
        parse_config({"picking": {"min_probability": 1.5}})


@pytest.mark.parametrize("blob", ["dog", "disk", "log"])
def test_the_key_blob_chooses_the_blob(cut, blob):
    image, _, _ = cut
    section = parse_config({"picking": {"blob": blob, "border": 0.5}}).picking.model_dump()
    found = blob_picker(section, DIAMETER, 0.92 * DIAMETER, OPTICS)(image, PIXEL, DEFOCUS)
    settings = BlobSettings(method=blob, peaks=PeakSettings(min_distance=0.7, edge=0.46))
    np.testing.assert_array_equal(found.score, pick_blobs(image, PIXEL, DIAMETER, settings, DEFOCUS, OPTICS).score)


def test_picks_without_a_window_are_listed(tmp_path):
    mrcfile.write(tmp_path / "m.mrc", np.random.default_rng(0).normal(size=(200, 220)).astype(np.float32))
    names = [str(tmp_path / "m.mrc"), str(tmp_path / "lost.mrc")]
    rows = pd.DataFrame(
        {
            "rlnMicrographName": [names[0], names[0], names[1]],
            "nphParticleNumber": [1, 2, 1],
            "rlnCoordinateX": [100.0, 10.0, 50.0],
            "rlnCoordinateY": [90.0, 90.0, 50.0],
            "rlnAutopickFigureOfMerit": 1.0,
        }
    )
    settings = {"pixel_size": 4.0, "contrast": "bright", "decimate": 1, "film": "none", "raw": None}
    kept, left_out = extract_batch(
        rows, names, 64, settings, ExtractionSettings(radius=20), None, tmp_path / "w.mrcs", 160.0
    )
    assert kept["nphParticleNumber"].tolist() == [1]
    assert left_out["nphParticleNumber"].tolist() == [2, 1]
    assert left_out["nphReason"].iloc[0] == TOO_CLOSE
    assert "cannot be read" in left_out["nphReason"].iloc[1] and "lost.mrc" in left_out["nphReason"].iloc[1]


def test_every_pick_that_does_not_go_on_has_its_reason():
    picked = pd.DataFrame(
        {"rlnMicrographName": list("aaaab"), "nphParticleNumber": [1, 2, 3, 4, 1], "rlnCoordinateX": 1.0}
    )
    uncut = picked.iloc[[1]].assign(nphReason=TOO_CLOSE)
    good = picked.iloc[[0, 2, 3, 4]].assign(nphKeep=[1, 0, 1, 0], nphReason=["none", "nphMinimum off", "none", "none"])
    out = reasons_left_out(picked, picked.iloc[[0]], uncut, good, 64.0)
    assert list(zip(out["rlnMicrographName"], out["nphParticleNumber"], strict=True)) == [
        ("a", 2),
        ("a", 3),
        ("a", 4),
        ("b", 1),
    ]
    assert out["nphReason"].tolist() == [
        TOO_CLOSE,
        "nphMinimum off",
        "nearer than 64 A to a better one",
        "dropped by the user",
    ]
    nothing = reasons_left_out(picked.iloc[:1], picked.iloc[[0]], uncut.iloc[:0], good.iloc[:1], 64.0)
    assert not len(nothing)
