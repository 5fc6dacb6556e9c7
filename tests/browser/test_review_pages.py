"""Each decision on each page: the bytes of the edit, the jobs that follow, and undo, by keyboard and by mouse."""

from __future__ import annotations

import json
import time

import pytest
from review_browser import WAITS, center, plan, saved, show, star, undo, until

pytestmark = pytest.mark.e2e

OF_GROUP = ("win2stk", "apshgrp", "average", "dftotals", "recon")
UNNAMED = """() => [...document.querySelectorAll('button, input, select, a[href], canvas, [tabindex="0"]')].filter((e) => {
  const label = e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.[0]?.textContent.trim() || e.title;
  return !label && e.offsetParent; }).map((e) => e.outerHTML.slice(0, 120))"""


def test_micrographs_are_dropped_by_key_and_by_click(page):
    show(page, "micrographs")
    page.select_option("[aria-label='Sort by']", "resolution")
    first = page.wait_for_selector(".cell.at[aria-label^='mic_0005']")  # rings end at 12 A: the worst
    until(page, "getComputedStyle(document.querySelector('.cell .thumb')).backgroundImage.includes('/sheet/')")
    page.focus("[role=listbox]")
    page.keyboard.press("d")
    saved(
        page,
        "sel_micrograph",
        star("sel_micrograph", ["rlnMicrographName", "nphKeep"], ["micrographs/mic_0005.mrc\t0"]),
    )
    assert "off" in first.get_attribute("class") and "5 of 6 kept" in page.inner_text(".bar .badge")
    jobs = plan(page)
    # group 2 has lost one of its two micrographs; no other group is touched
    assert {name: jobs.get(name, 0) for name in OF_GROUP} == dict.fromkeys(OF_GROUP, 1)
    assert jobs["sel_micrograph"] == jobs["defsort"] == jobs["endrefine"] == 1 and "ctffind" not in jobs
    page.click(".cell[aria-label^='mic_0002']")
    page.click("aside button:has-text('Drop')")
    rows = ["micrographs/mic_0002.mrc\t0", "micrographs/mic_0005.mrc\t0"]
    saved(page, "sel_micrograph", star("sel_micrograph", ["rlnMicrographName", "nphKeep"], rows))
    page.keyboard.press("Control+z")
    saved(page, "sel_micrograph", star("sel_micrograph", ["rlnMicrographName", "nphKeep"], rows[1:]))
    undo(page, "sel_micrograph")
    page.keyboard.press("Control+Shift+z")
    saved(page, "sel_micrograph", star("sel_micrograph", ["rlnMicrographName", "nphKeep"], rows[1:]))
    undo(page, "sel_micrograph")
    entries = [json.loads(line) for line in (page.served.folder / "edits/history.jsonl").read_text().splitlines()]
    assert [entry["what"] for entry in entries[:3]] == [
        "Dropped mic_0005.mrc",
        "Dropped mic_0002.mrc",
        "Undo: Dropped mic_0002.mrc",
    ]
    assert plan(page) == {}


def test_what_the_workflow_would_refuse_is_said_and_not_written(page):
    page.context.expected.append("status of 422")
    show(page, "micrographs")
    page.focus("[role=listbox]")
    page.keyboard.press("Control+a")
    page.keyboard.press("d")
    page.wait_for_selector("#says.bad:has-text('no micrograph is kept')")
    assert page.served.edit("sel_micrograph") is None
    until(page, "document.querySelector('.bar .badge').innerText.includes('6 of 6 kept')")


def test_a_micrograph_is_looked_at_closely(page):
    page.context.expected.append("status of 404")
    show(page, "micrographs")
    page.focus("[role=listbox]")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] canvas")
    page.wait_for_selector("dialog p:has-text('There is no figure')")
    page.keyboard.press("Escape")


def test_a_micrograph_is_dragged_to_another_group(page):
    show(page, "groups")
    limit = page.inner_text(".group[data-group='2'] .limit")
    chip, target = (
        page.query_selector("[data-name='micrographs/mic_0004.mrc']"),
        page.query_selector(".group[data-group='2']"),
    )
    page.mouse.move(*center(page, chip))
    page.mouse.down()
    page.mouse.move(*center(page, target), steps=5)
    page.mouse.up()
    rows = [f"micrographs/mic_{i:04d}.mrc\t{g}" for i, g in ((3, 1), (4, 2), (1, 1), (6, 2), (5, 2), (2, 3))]
    saved(page, "def_sort", star("def_sort", ["rlnMicrographName", "nphDefocusGroup"], rows))
    page.wait_for_selector(".group[data-group='2'] [data-name='micrographs/mic_0004.mrc'].moved")
    until(page, f"document.querySelector(\".group[data-group='2'] .limit\").innerText !== {limit!r}")
    jobs = plan(page)
    assert {name: jobs.get(name, 0) for name in OF_GROUP} == dict.fromkeys(OF_GROUP, 2)
    assert jobs["def_sort"] == jobs["defavg"] == 1 and "sel_micrograph" not in jobs
    undo(page, "def_sort")
    # by keyboard: a step to the next group, then to a new one
    page.focus("[data-name='micrographs/mic_0004.mrc']")
    page.keyboard.press("]")
    saved(page, "def_sort", star("def_sort", ["rlnMicrographName", "nphDefocusGroup"], rows))
    until(page, "document.activeElement.dataset.name === 'micrographs/mic_0004.mrc'")
    page.keyboard.press("n")
    rows[1] = "micrographs/mic_0004.mrc\t4"
    saved(page, "def_sort", star("def_sort", ["rlnMicrographName", "nphDefocusGroup"], rows))
    page.wait_for_selector(".group[data-group='4'] [data-name='micrographs/mic_0004.mrc']")
    page.keyboard.press("m")
    page.select_option("dialog select", "1")
    page.click("dialog button:has-text('Move')")
    saved(page, "def_sort", None)  # as proposed: no file


def test_particles_are_marked_bad_by_click_and_by_box(page):
    show(page, "particles")
    columns = ["rlnMicrographName", "nphParticleNumber", "nphKeep"]
    page.wait_for_selector(".cell[aria-label='mic_0001.mrc particle 8, bad']")  # proposed: dust
    page.click(".cell[aria-label='mic_0001.mrc particle 3, good']")
    saved(page, "good", star("good", columns, ["micrographs/mic_0001.mrc\t3\t0"]))
    jobs = plan(page)
    assert jobs["good"] == jobs["renumber"] == 1 and jobs["recon"] == 3 and "extract_windows" not in jobs
    page.click(".cell[aria-label='mic_0001.mrc particle 8, bad']")
    saved(page, "good", star("good", columns, ["micrographs/mic_0001.mrc\t3\t0", "micrographs/mic_0001.mrc\t8\t1"]))
    page.keyboard.press("Control+z")
    undo(page, "good")
    page.select_option("[aria-label='Micrograph']", "1")
    one, two = (page.wait_for_selector(f".cell[aria-label^='mic_0002.mrc particle {i},']") for i in (1, 13))
    (x1, y1), (x2, y2) = center(page, one), center(page, two)
    page.mouse.move(x1 - 36, y1 - 37)
    page.mouse.down()
    page.mouse.move(x2, y2, steps=4)
    page.mouse.up()
    chosen = page.eval_on_selector_all(
        ".cell.chosen", "(cells) => cells.map((c) => Number(c.getAttribute('aria-posinset')))"
    )
    assert len(chosen) == 4 and {1, 2} < set(chosen)
    page.keyboard.press("b")
    rows = [f"micrographs/mic_0002.mrc\t{i}\t0" for i in sorted(chosen)]
    saved(page, "good", star("good", columns, rows))
    undo(page, "good")


def test_particles_by_class_average(page):
    show(page, "particles")
    page.keyboard.press("v")
    page.wait_for_selector("[aria-label='Class averages'] .cell")
    page.click("[aria-label='Class averages'] .cell[aria-label^='View 3,']")
    page.wait_for_selector("[aria-label='Particles: view 3']")
    page.click("button:has-text('All shown bad')")
    until(page, "document.querySelector('.bar .badge').innerText.includes('13 bad')")
    for _ in range(WAITS):
        if len(page.served.rows("good")) == 10:
            break
        page.wait_for_timeout(25)
    rows = page.served.rows("good")
    assert len(rows) == 10 and "micrographs/mic_0001.mrc\t3\t0" in rows and "micrographs/mic_0001.mrc\t15\t0" in rows
    undo(page, "good")


def test_a_threshold_is_moved_with_counts_and_pictures(page):
    show(page, "thresholds")
    counts = page.inner_text("p[role=status]")
    assert counts.startswith("Group 1: ")
    handle = page.query_selector(".handle")
    x, y = center(page, handle)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 80, y, steps=3)
    assert page.inner_text("p[role=status]") != counts and page.served.edit("thresh") is None  # live, not yet saved
    page.mouse.up()
    until(page, "document.querySelector('tbody td').innerText.includes('•')")
    proposed = json.loads(page.evaluate("fetch('/api/edits/thresh').then((r) => r.text())"))["proposal"]
    page.fill("[aria-label='Threshold as a number']", "0.4321")
    page.keyboard.press("Tab")
    saved(page, "thresh", star("thresh", ["nphDefocusGroup", "nphThreshold"], ["1\t0.4321"]))
    data = page.evaluate("fetch('/api/thresholds').then((r) => r.json())")["groups"][0]["correlations"]
    above = sum(value >= 0.4321 for value in data)
    assert page.inner_text("p[role=status]").startswith(f"Group 1: {above} above, {len(data) - above} below")
    for label, number in (("Kept, lowest", above), ("Dropped, highest", len(data) - above)):
        cell = page.wait_for_selector(f"[aria-label^='{label}'] .cell")
        assert int(cell.get_attribute("aria-setsize")) == number
    jobs = plan(page)
    assert {name: jobs.get(name, 0) for name in OF_GROUP} == {
        "win2stk": 0,
        "apshgrp": 0,
        "average": 0,
        "dftotals": 1,
        "recon": 1,
    }
    assert jobs["thresh"] == 1 and "select" not in jobs
    page.keyboard.press("p")
    saved(page, "thresh", None)
    page.keyboard.press("j")
    page.keyboard.press("+")
    saved(page, "thresh", star("thresh", ["nphDefocusGroup", "nphThreshold"],
        [f"2\t{round(proposed['2'] + 0.001, 4):.9g}"]))  # fmt: skip
    undo(page, "thresh")


def test_volumes_are_drawn_and_a_group_is_left_out(page):
    show(page, "volumes")
    page.select_option("[aria-label='Second volume']", label="Group 3, half 2")
    until(page, "document.querySelectorAll('.panel:not(.hide) .surface').length === 2")
    shades = """(canvas) => { const copy = document.createElement('canvas'); copy.width = copy.height = 32;
      const pen = copy.getContext('2d'); pen.drawImage(canvas, 0, 0, 32, 32);
      return new Set(pen.getImageData(0, 0, 32, 32).data).size; }"""
    page.wait_for_timeout(300)
    for canvas in page.query_selector_all(".volume canvas"):
        assert canvas.evaluate(shades) > 8, canvas.get_attribute("aria-label")
    page.click("[aria-label='Leave out group 3']")
    for _ in range(WAITS):
        if page.served.rows("thresh"):
            break
        page.wait_for_timeout(25)
    assert page.served.rows("thresh") == ["3\t2"]
    page.wait_for_selector("[aria-label='Leave out group 3'][aria-pressed=true]")
    page.click("[aria-label='Leave out group 3']")
    saved(page, "thresh", None)


def test_a_cap_per_view_is_set_for_all_groups_and_for_one(page):
    columns = ["nphDefocusGroup", "nphAtMost"]
    show(page, "views")
    data = page.evaluate("fetch('/api/views').then((r) => r.json())")
    page.focus("[aria-label='Cap per view and group']")
    page.keyboard.press("Home")
    saved(page, "best_per_view", star("best_per_view", columns, ["1\t1", "2\t1", "3\t1"]))
    expected = sum(min(n, 1) for group in data["groups"].values() for n in group["above"])
    until(page, "document.querySelector('h2[role=status]').innerText === 'All groups: at most 1 per view'")
    assert page.inner_text("#capped") == str(expected)
    jobs = plan(page)
    assert jobs["bestim"] == jobs["recon"] == 3 and jobs["prepare"] == 1 and "dftotals" not in jobs
    undo(page, "best_per_view")
    page.select_option("[aria-label='Group']", "2")
    page.fill("[aria-label='Cap as a number']", "2")
    page.keyboard.press("Tab")
    saved(page, "best_per_view", star("best_per_view", columns, ["2\t2"]))
    jobs = plan(page)
    assert jobs["bestim"] == jobs["recon"] == 1 and "win2stk" not in jobs
    page.keyboard.press("+")
    saved(page, "best_per_view", star("best_per_view", columns, ["2\t3"]))
    page.click("button:has-text('No cap')")
    saved(page, "best_per_view", None)  # as in the settings: no file
    assert page.inner_text("h2[role=status]") == "Group 2: no cap"
    assert len(page.query_selector_all(".map circle")) == 12 + 3


def test_a_ctf_is_fitted_by_hand(page):
    columns = ["rlnMicrographName", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
    show(page, "ctf")
    page.wait_for_selector("#agreement")
    best = float(page.inner_text("#agreement"))
    assert best > 0.95  # the profile was made with this defocus
    for _ in range(6):
        page.keyboard.press("+")
    assert float(page.inner_text("#agreement")) < best - 0.05
    assert page.inner_text(".bar [role=status]") == "moved, not saved" and page.served.edit("defocus") is None
    page.keyboard.press("j")
    until(page, "document.querySelector('select').selectedIndex === 1")
    assert page.inner_text(".bar [role=status]") == "as fitted"
    page.keyboard.press("i")  # what was moved is still there
    page.keyboard.press("s")
    rows = ["micrographs/mic_0001.mrc\t11500\t11300\t30"]
    saved(page, "defocus", star("defocus", columns, rows))
    until(page, "document.querySelector('.bar [role=status]').innerText === 'by hand'")
    jobs = plan(page)
    # micrograph 1 is of group 1, whose average moves; no other group is touched, and no fit or pick
    assert {name: jobs.get(name, 0) for name in OF_GROUP} == dict.fromkeys(OF_GROUP, 1)
    assert jobs["defocus"] == jobs["defavg"] == 1
    assert not {"ctffind", "merge_ctf", "lfc_pick", "renumber", "extract_windows"} & set(jobs)
    page.focus("[aria-label=Astigmatism]")
    page.keyboard.press("Home")
    page.click("button:has-text('Save this fit')")
    saved(page, "defocus", star("defocus", columns, ["micrographs/mic_0001.mrc\t11400\t11400\t30"]))
    page.keyboard.press("Control+z")
    saved(page, "defocus", star("defocus", columns, rows))
    until(page, "document.querySelector('#says').innerText.startsWith('Undo')")
    page.keyboard.press("p")
    saved(page, "defocus", None)
    until(page, f"document.querySelector('#agreement').innerText === '{best:.3f}'")
    entries = [json.loads(line) for line in (page.served.folder / "edits/history.jsonl").read_text().splitlines()]
    assert entries[0]["what"] == "mic_0001.mrc by hand: 11500 / 11300 Å at 30°"
    assert plan(page) == {}


def test_a_fit_by_hand_in_a_stale_tab_is_merged(page):
    page.context.expected.append("status of 409")
    show(page, "ctf")
    page.wait_for_selector("#agreement")
    path = page.served.folder / "edits" / "defocus.star"
    path.parent.mkdir(exist_ok=True)
    columns = ["rlnMicrographName", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
    other = "micrographs/mic_0002.mrc\t20800\t20600\t10"
    path.write_text(star("defocus", columns, [other]) + "\n")
    page.keyboard.press("+")
    page.keyboard.press("s")
    saved(page, "defocus", star("defocus", columns, ["micrographs/mic_0001.mrc\t11250\t11050\t30", other]))
    page.wait_for_selector("#says:has-text('merged')")


def test_the_run_and_its_logs(page):
    folder = page.served.folder
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "logs" / "filt.log").write_text("filtered at <b>20 A</b>\n")
    record = {"rule": "filt", "wildcards": {}, "started": time.time(), "wall_seconds": 1.5, "cpu_seconds": 1.0}
    (folder / "logs" / "filt.json").write_text(json.dumps(record))
    show(page, "runs")
    page.wait_for_selector("[role=progressbar][aria-valuenow='100']")
    page.click("[aria-label='Log logs/filt.log']")
    assert page.inner_text("dialog pre") == "filtered at <b>20 A</b>"
    page.keyboard.press("Escape")


@pytest.mark.parametrize(
    "name", ["micrographs", "ctf", "groups", "particles", "thresholds", "views", "volumes", "runs"]
)
def test_every_control_has_a_name_and_nothing_is_cut_off(page, name):
    show(page, name)
    page.wait_for_timeout(200)
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    page.keyboard.press("?")
    assert "Undo" in page.inner_text("dialog") or "undo" in page.inner_text("dialog")
    page.keyboard.press("Escape")
