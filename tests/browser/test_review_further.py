"""More of what a person does on the pages: groups left out and taken back, keeping by key, one share for all groups, a whole view
at once, the surface, a micrograph whose fit failed, and leaving before it is known what will rerun."""

from __future__ import annotations

import json

import numpy as np
import pytest
import review_finished as finished
from review_browser import Served, enter, plan, saved, show, star, undo, until

from nephila.ctf import Optics, ctf_2d
from nephila.io.mrc import open_stack, write_stack
from nephila.io.tables import read_table, write_table

pytestmark = pytest.mark.e2e

THRESH = ["nphDefocusGroup", "nphThreshold"]
SUM = """(canvas) => { const copy = document.createElement('canvas'); copy.width = copy.height = 64;
  const pen = copy.getContext('2d'); pen.drawImage(canvas, 0, 0, 64, 64);
  return [...pen.getImageData(0, 0, 64, 64).data].filter((_, i) => i % 4 === 2); }"""
"""Blue of a canvas in 64 x 64 pixels."""


def test_a_group_left_out_comes_back_as_it_was(page):
    """A threshold set by hand is no less the user's for having been out."""
    show(page, "thresholds")
    page.keyboard.press("j")
    page.fill("[aria-label='Threshold as a number']", "0.4321")
    page.keyboard.press("Tab")
    saved(page, "thresh", star("thresh", THRESH, ["2\t0.4321"]))
    show(page, "volumes")
    button = "[aria-label='Leave out group {}'][aria-pressed={}]"
    page.click(button.format(2, "false"))
    saved(page, "thresh", star("thresh", THRESH, ["2\t2"]))
    page.wait_for_selector(button.format(2, "true"))
    jobs = plan(page)
    # the group's particles are counted anew, and none of them reconstructed; no other group is touched, nor any alignment
    assert jobs["thresh"] == jobs["dftotals"] == jobs["recon"] == jobs["merge_recon"] == jobs["endrefine"] == 1
    assert not {"win2stk", "apshgrp", "average", "select", "ctffind", "pick"} & set(jobs)
    page.click(button.format(2, "true"))
    saved(page, "thresh", star("thresh", THRESH, ["2\t0.4321"]))
    page.wait_for_selector(button.format(2, "false"))
    page.click(button.format(1, "false"))
    saved(page, "thresh", star("thresh", THRESH, ["1\t2", "2\t0.4321"]))
    page.keyboard.press("Control+z")  # undo belongs to this page too
    saved(page, "thresh", star("thresh", THRESH, ["2\t0.4321"]))
    page.wait_for_selector(button.format(1, "false"))
    page.reload()
    show(page, "volumes")
    page.click(button.format(2, "false"))
    saved(page, "thresh", star("thresh", THRESH, ["2\t2"]))
    page.reload()  # what it was is known from the history, not from the page
    show(page, "volumes")
    page.click(button.format(2, "true"))
    saved(page, "thresh", star("thresh", THRESH, ["2\t0.4321"]))


def test_micrographs_are_kept_by_key(page):
    columns = ["rlnMicrographName", "nphKeep"]
    show(page, "micrographs")
    page.focus("[role=listbox]")
    page.keyboard.press("Home")
    name = page.get_attribute(".cell.at", "aria-label").split(",")[0]
    page.keyboard.press("k")  # it is kept already
    page.keyboard.press("Home")
    page.keyboard.press("d")
    saved(page, "sel_micrograph", star("sel_micrograph", columns, [f"micrographs/{name}\t0"]))
    page.keyboard.press("Home")
    page.keyboard.press("k")
    saved(page, "sel_micrograph", None)
    entries = [json.loads(line) for line in (page.served.folder / "edits/history.jsonl").read_text().splitlines()]
    assert [entry["what"] for entry in entries] == [f"Dropped {name}", f"Kept {name}"]


def test_a_view_is_marked_bad_as_a_whole(page):
    """The class average's particles that were good, in the order of the table, and the jobs that follow."""
    columns = ["rlnMicrographName", "nphParticleNumber", "nphKeep"]
    show(page, "particles")
    page.keyboard.press("v")
    page.click("[aria-label='Class averages'] .cell[aria-label^='View 3,']")
    page.wait_for_selector("[aria-label='Particles: view 3']")
    page.click("button:has-text('All shown bad')")
    # particle k of 120 falls on view k % 12 + 1, 20 to a micrograph; every 40th from the 8th on is dust
    mine = [k for k in range(120) if k % 12 == 2 and k % 40 != 7]
    rows = [f"{finished.name_of(k // 20 + 1)}\t{k % 20 + 1}\t0" for k in mine]
    saved(page, "good", star("good", columns, rows))
    jobs = plan(page)
    assert jobs["good"] == jobs["renumber"] == 1 and jobs["recon"] == 3 and "extract_windows" not in jobs
    undo(page, "good")


def test_one_share_for_all_groups(page):
    show(page, "thresholds")
    page.fill("[aria-label='Threshold as a number']", "0.4")
    page.keyboard.press("Tab")
    saved(page, "thresh", star("thresh", THRESH, ["1\t0.4"]))
    page.click("button:has-text('Same share in all groups')")
    until(page, "document.querySelector('#says').innerText.startsWith('All groups')")
    rows = dict(row.split("\t") for row in page.served.rows("thresh"))
    data = page.evaluate("fetch('/api/thresholds').then((r) => r.json())")["groups"]
    assert set(rows) == {"1", "2", "3"} and rows["1"] == "0.4"
    wanted = sum(value < 0.4 for value in data[0]["correlations"]) / len(data[0]["correlations"])
    for group in data:
        below = sum(value < float(rows[str(group["group"])]) for value in group["correlations"])
        assert abs(below - wanted * len(group["correlations"])) <= 1
    jobs = plan(page)
    assert jobs["dftotals"] == jobs["recon"] == 3 and "apshgrp" not in jobs
    undo(page, "thresh") if len(rows) == 0 else page.keyboard.press("Control+z")
    saved(page, "thresh", star("thresh", THRESH, ["1\t0.4"]))


def test_leaving_waits_for_what_will_rerun(page):
    """The browser asks before the page is left with a decision whose jobs have not been said; afterwards it does not."""
    asked = []
    page.on("dialog", lambda dialog: asked.append(dialog.type))
    show(page, "micrographs")
    page.click(".cell[aria-label^='mic_0001']")
    page.keyboard.press("d")
    until(page, "document.querySelector('#says').innerText.startsWith('Dropped')")
    page.reload()
    assert asked == ["beforeunload"]
    page.wait_for_selector("nav a[aria-current]")
    show(page, "micrographs")
    page.click(".cell[aria-label^='mic_0002']")
    page.keyboard.press("d")
    until(page, "/^\\d+ jobs will rerun$/.test(document.querySelector('#reruns').innerText)")
    page.reload()
    assert asked == ["beforeunload"]
    page.wait_for_selector("nav a[aria-current]")


def test_the_surface_follows_level_turn_and_zoom(page):
    show(page, "volumes")
    screen = page.wait_for_selector(".panel:not(.hide) .surface")
    until(page, "!document.querySelector('.panel:not(.hide) h2').innerText.includes('…')")
    page.wait_for_timeout(500)

    def picture():
        # a key that was pressed asks for a frame: it has been drawn when the one after the next comes
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
        return screen.evaluate(SUM)

    def lit(values):
        return sum(value > 40 for value in values)

    def differ(a, b):
        return sum(abs(x - y) > 20 for x, y in zip(a, b, strict=True))

    first = picture()
    assert 20 < lit(first) < 64 * 64
    page.focus("[aria-label=Level]")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    higher = picture()
    assert lit(higher) < 0.95 * lit(first)  # a higher level is a smaller body
    page.keyboard.press("Home")
    assert lit(picture()) > lit(first)
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    before = picture()
    assert differ(before, first) < 30  # back at 4: drawn as before
    screen.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    turned = picture()
    assert differ(turned, before) > 60
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    assert differ(picture(), before) < 30
    box = screen.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 80, y + 60, steps=4)
    page.mouse.up()
    assert differ(picture(), before) > 60
    page.mouse.wheel(0, -300)
    zoomed = picture()
    page.keyboard.press("-")
    assert lit(zoomed) > lit(picture())


def test_a_failed_fit_is_fitted_by_hand(context, code, made_project, tmp_path):
    """No defocus, a profile of power alone: there are rings to fit, the angle counts, and the closer look follows."""
    folder = finished.copy(made_project, tmp_path / "made")
    for name in ("micrographs", "defocus"):
        table = read_table(folder / f"results/ctf/{name}.star", kind="defocus")
        table.loc[1, ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnCtfMaxResolution"]] = 0.0
        table.loc[1, ["nphKeep", "nphReason"]] = [0, "no rings"]
        write_table(folder / f"results/ctf/{name}.star", table, kind="defocus")
    path = folder / "results/ctf/power/roo_0001.star"
    profiles = read_table(path, block="profiles")
    mine = profiles["rlnMicrographName"] == finished.name_of(2)
    profiles.loc[mine, ["nphBackground", "nphSubtracted", "nphEnvelope"]] = 0.0
    write_table(path, profiles, block="profiles")
    path = folder / "results/ctf/power/pw_avg_0001.mrcs"
    spectra = np.array(open_stack(path)[:])
    half = np.fft.fftshift(
        ctf_2d(finished.TILE, finished.PIXEL, 21100, 20100, 30, Optics(300.0, 2.7, 0.1)) ** 2, axes=0
    )
    spectra[1] = 0.5 + np.concatenate([np.roll(half[::-1, :0:-1], 1, axis=0), half[:, :-1]], axis=1)
    write_stack(path, spectra, finished.PIXEL)
    served = Served(folder, code)
    page = enter(context, served)
    try:
        show(page, "ctf")
        page.wait_for_selector("#agreement")
        page.keyboard.press("j")
        until(page, "document.querySelector('.bar [role=status]').innerText === 'no fit'")
        page.wait_for_selector("#agreement-2d")
        assert "There is no profile" not in page.inner_text(".panel.fill.stack")
        assert page.query_selector_all("svg.plot polyline")

        def slide(label, value):
            page.evaluate(
                """([label, value]) => { const input = document.querySelector(`[aria-label="${label}"]`);
                   input.value = value; input.dispatchEvent(new Event('input')); }""",
                [label, value],
            )
            return float(page.inner_text("#agreement")), float(page.inner_text("#agreement-2d"))

        slide("Astigmatism", 1000)
        slide("Angle", 30)
        wrong, right = slide("Defocus", 19000), slide("Defocus", 20600)
        assert right[0] > 0.85 > wrong[0] and right[1] > wrong[1] + 0.2 and right[1] > 0.5
        angles = [slide("Angle", angle)[1] for angle in (30, 75, -60)]
        assert angles[0] > angles[1] + 0.02 > angles[2] + 0.04, angles
        slide("Angle", 30)
        slide("Astigmatism", 200)
        page.keyboard.press("s")
        columns = ["rlnMicrographName", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
        saved(page, "defocus", star("defocus", columns, ["micrographs/mic_0002.mrc\t20700\t20500\t30"]))
        jobs = plan(page)
        assert jobs["powchk"] == jobs["defocus"] == 1 and "ctffind" not in jobs
        show(page, "micrographs")
        page.click(".cell[aria-label^='mic_0002']")
        page.keyboard.press("Enter")
        figure = page.wait_for_selector("dialog[open] img[alt^='Spectrum']")
        until(page, "document.querySelector('dialog[open] img').naturalWidth === 1000")
        assert figure.evaluate("(image) => image.complete")
    finally:
        page.close()
        served.stop()
