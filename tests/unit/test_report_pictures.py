"""Pictures and words of the report: one convention, spectra that open large, fits by hand."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
import test_report
from PIL import Image
from test_report import SUMMARY, selection, settings, without_markup

from nephila.io.atomic import write_text
from nephila.io.tables import read_table, write_table
from nephila.report.blocks import Tile
from nephila.report.collect import collect
from nephila.report.page import render_report

project = test_report.project


def test_one_convention_and_words_for_what_differs(project):
    """The tile's resolution against the truth is that of the shell, as in the figure's legend; the last iteration is explained."""
    summary = SUMMARY | {"truth": {"resolution_05": 7.94, "resolution_05_interpolated": 7.8}}
    write_text(project / "results" / "summary.json", json.dumps(summary))
    words = without_markup(render_report(collect(project, settings())))
    assert "7.94\u00a0Å with the true map at 0.5" in words.replace(" Å", "\u00a0Å") and "7.80" not in words
    assert "The halves of the last iteration agree to 8.00 Å, the final ones to 7.10 Å" in words.replace("\u00a0", " ")
    same = SUMMARY | {"resolution": SUMMARY["resolution"] | {"fsc_0143": 8.0}}
    write_text(project / "results" / "summary.json", json.dumps(same))
    assert "The halves of the last iteration" not in without_markup(render_report(collect(project, settings())))


def test_what_an_edit_leaves_out_says_so(project):
    write_table(project / "results/ctf/sel_micrograph.star", selection(1, "none"), block="sel_micrograph")
    page = render_report(collect(project, settings()))
    caption = re.search(r"<strong>mic_1.mrc</strong> ([^<]*)<", page)
    assert caption and caption[1].endswith("left out by your edit")
    row = re.search(r"<tr class=\"out\">.*?</tr>", page)
    assert row and "left out by your edit" in row[0] and "none" not in row[0]


def test_spectra_are_small_without_text_and_large_with_it(project, monkeypatch):
    page = render_report(collect(project, settings()))
    for name in ("mic_1.mrc", "mic_10.mrc"):
        label = re.search(rf'<label class="zoom"><input type="checkbox" aria-label="Enlarge {name}">.*?</label>', page)
        sizes = [int(size) for size in re.findall(r' width="(\d+)"', label[0])]
        assert len(sizes) == 2 and sizes[0] < 250 and sizes[1] == 1000
    monkeypatch.setattr("nephila.report.sections.MOST_ENLARGED", 3)
    page = render_report(collect(project, settings()))
    spectra = page.split('id="micrographs"')[1].split('id="groups"')[0]
    assert spectra.count('class="large"') == 3


def test_a_micrograph_fitted_by_hand_is_shown_with_that_fit(project):
    """The picture drawn by hand stands in as long as the micrograph is by hand; a pooled fit's stands before the first one's."""
    figures = project / "results" / "ctf"
    for name, shade in (
        ("figures_by_hand/mic_2", 10),
        ("figures_by_hand/mic_3", 10),
        ("figures_pooled/0001/mic_4", 90),
    ):
        (figures / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((420, 1000), shade, dtype=np.uint8)).save(figures / f"{name}.png")
    table = read_table(figures / "micrographs.star", block="micrographs")
    table.loc[1, "nphReason"] = "by hand"
    write_table(figures / "defocus.star", table, block="micrographs")
    page = render_report(collect(project, settings()))
    uris = {name: re.search(rf'src="([^"]*)"[^>]*alt="{name}.mrc"', page)[1] for name in ("mic_2", "mic_3", "mic_4")}

    def shade_of(uri):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("L")).mean()

    assert shade_of(uris["mic_2"]) == pytest.approx(10, abs=3) and shade_of(uris["mic_4"]) == pytest.approx(90, abs=3)
    assert shade_of(uris["mic_3"]) > 100  # noise: its defocus is the workflow's again


def test_a_long_value_is_set_smaller():
    assert "long" in Tile("To look at", "2 warnings, 1 note").marks and "long" not in Tile("Time", "5 min 16 s").marks
