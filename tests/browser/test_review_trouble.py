"""What can go wrong while someone decides: two tabs, an editor beside the page, a server that dies; and many particles."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
import review_finished as finished
from review_browser import WAITS, Served, enter, plan, saved, show, star, undo, until

pytestmark = pytest.mark.e2e

COLUMNS = ["rlnMicrographName", "nphKeep"]
PICTURES = """(() => { const found = [...document.querySelectorAll('.cell .thumb')].map((e) => getComputedStyle(e).backgroundImage);
  const sheets = new Set(found.map((text) => /url\\("(.*)"\\)/.exec(text)?.[1]).filter(Boolean));
  const loaded = new Set(performance.getEntriesByType('resource').filter((e) => e.responseEnd).map((e) => e.name));
  return found.length > 4 && sheets.size > 0 && [...sheets].every((sheet) => loaded.has(sheet)); })()"""
"""Whether all sheets in sight have come."""
DROPPED = "micrographs/mic_{:04d}.mrc\t0"


def drop(page, number: int) -> None:
    page.click(f".cell[aria-label^='mic_{number:04d}']")
    page.keyboard.press("d")


def test_two_tabs_are_merged(context, page):
    context.expected.append("status of 409")
    other = enter(context, page.served)
    show(page, "micrographs")
    show(other, "micrographs")
    drop(page, 1)
    saved(page, "sel_micrograph", star("sel_micrograph", COLUMNS, [DROPPED.format(1)]))
    drop(other, 3)  # based on the file before
    saved(other, "sel_micrograph", star("sel_micrograph", COLUMNS, [DROPPED.format(i) for i in (1, 3)]))
    other.wait_for_selector("#says:has-text('merged')")
    assert "4 of 6 kept" in other.inner_text(".bar .badge")


@pytest.mark.parametrize("mine", [True, False])
def test_two_decisions_about_one_row_are_asked_about(page, mine):
    page.context.expected.append("status of 409")
    show(page, "thresholds")
    path = page.served.folder / "edits" / "thresh.star"
    path.parent.mkdir(exist_ok=True)
    text = "# by hand\n\ndata_thresh\n\nloop_\n_nphDefocusGroup #1\n_nphThreshold #2\n1\t0.35\n2\t0.33\n3\t0.36"
    path.write_text(text + "\n")
    page.fill("[aria-label='Threshold as a number']", "0.4")
    page.keyboard.press("Tab")
    page.wait_for_selector("dialog:has-text('changed in the meantime') td:has-text('0.35')")
    assert page.served.edit("thresh") == text  # nothing is lost while the question is open
    page.click(f"dialog button:has-text('{'Write mine' if mine else 'Leave the file'}')")
    page.wait_for_selector("#says:has-text('had changed')")
    saved(page, "thresh", text.replace("1\t0.35", "1\t0.4") if mine else text)
    shown = page.input_value("[aria-label='Threshold as a number']")
    assert float(shown) == (0.4 if mine else 0.35)


def test_undo_does_not_take_back_what_an_editor_wrote(page):
    page.context.expected.append("status of 409")
    show(page, "micrographs")
    drop(page, 1)
    saved(page, "sel_micrograph", star("sel_micrograph", COLUMNS, [DROPPED.format(1)]))
    until(page, "!document.querySelector('.bar button').disabled")
    path = page.served.folder / "edits" / "sel_micrograph.star"
    path.write_text(path.read_text().replace("mic_0001.mrc\t0", "mic_0001.mrc\t1"))
    page.keyboard.press("Control+z")
    page.wait_for_selector("#says.bad:has-text('changed in the meantime')")
    assert page.served.rows("sel_micrograph") == ["micrographs/mic_0001.mrc\t1"]


def test_a_file_that_no_longer_fits_is_mended(page):
    path = page.served.folder / "edits" / "thresh.star"
    path.parent.mkdir(exist_ok=True)
    path.write_text("data_thresh\n\nloop_\n_nphDefocusGroup #1\n_nphThreshold #2\n1\t0.35\n9\t0.33\n")
    page.context.expected.append("status of 422")
    show(page, "thresholds")
    page.wait_for_selector(".notice:has-text('group 9 does not exist')")
    page.click(".notice button")
    until(page, "document.querySelector('.notice').classList.contains('hide')")
    assert page.served.rows("thresh") == ["1\t0.35"]


def test_a_dead_server_is_noticed_and_nothing_is_half_written(context, code, made_project, tmp_path):
    folder = finished.copy(made_project, tmp_path / "made")
    served = Served(folder, code)
    page = enter(context, served)
    show(page, "micrographs")
    drop(page, 1)
    saved(page, "sel_micrograph", star("sel_micrograph", COLUMNS, [DROPPED.format(1)]))
    os.kill(served.process.pid, signal.SIGKILL)
    served.process.wait()
    # the last two of an answer on its way
    context.expected += ["ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "ERR_CONTENT_LENGTH_MISMATCH"]
    drop(page, 2)
    page.wait_for_selector("#says.bad:has-text('does not answer')")
    assert served.rows("sel_micrograph") == [DROPPED.format(1)]
    again = Served(folder, code)
    page = enter(context, again)
    show(page, "micrographs")
    assert "5 of 6 kept" in page.inner_text(".bar .badge")
    undo(page, "sel_micrograph")
    again.stop()


def test_a_link_without_the_token_shows_nothing(context, served):
    context.expected.append("status of 401")
    page = context.new_page()
    page.goto(served.base)
    assert "holds the token" in page.content() and page.query_selector("nav") is None
    page.goto(f"{served.base}?token=wrong")
    assert "token is wrong" in page.content()


def test_another_page_can_neither_read_nor_write(context, page):
    """A page of another origin (here: of no origin) in the same browser, which has the cookie."""
    context.expected += ["status of 403", "CORS", "ERR_FAILED", "blocked"]
    stranger = context.new_page()
    stranger.goto("data:text/html,<title>stranger</title>")
    code = """async ([base, options]) => { try { const r = await fetch(base + 'api/edits/sel_micrograph', options);
      return r.type === 'opaque' ? 'opaque' : r.status; } catch { return 'refused'; } }"""
    body = '{"base":"","changes":[["micrographs/mic_0001.mrc",null,0]],"what":""}'
    plain = {"method": "POST", "mode": "no-cors", "credentials": "include", "body": body}
    assert stranger.evaluate(code, [page.served.base, {"credentials": "include"}]) == "refused"
    assert (
        stranger.evaluate(code, [page.served.base, {**plain, "mode": "cors", "headers": {"x-nephila": "review"}}])
        == "refused"
    )
    assert stranger.evaluate(code, [page.served.base, plain]) in ("opaque", "refused")
    assert page.served.edit("sel_micrograph") is None


def test_two_hundred_micrographs_and_fifty_thousand_particles(context, code, tmp_path):
    folder = finished.make(tmp_path / "many", 200, 250)
    served = Served(folder, code)
    page = enter(context, served)
    process = psutil.Process(served.process.pid)

    def first_view(name: str) -> float:
        """CPU seconds that the server spends until the page's pictures are there, none of them made before."""
        before = sum(process.cpu_times()[:2])
        show(page, name)
        until(page, PICTURES)
        return sum(process.cpu_times()[:2]) - before

    try:
        # what the server computes, not the time that passes, which other work on the machine makes long
        spent = {name: first_view(name) for name in ("micrographs", "particles")}
        print(f"CPU seconds of the first views: {spent}")
        assert max(spent.values()) < 2.0, spent
        show(page, "micrographs")
        page.wait_for_selector(".cell")
        assert len(page.query_selector_all(".cell")) < 60
        show(page, "particles")
        page.wait_for_selector(".cell")
        assert "of 50000" in page.inner_text(".bar .badge")
        assert len(page.query_selector_all(".cell")) < 400
        page.keyboard.press("End")
        page.wait_for_selector(".cell.at[aria-label^='mic_0200.mrc particle 250,']")
        page.keyboard.press("b")
        for _ in range(WAITS):
            if served.rows("good"):
                break
            page.wait_for_timeout(25)
        assert served.rows("good") == ["micrographs/mic_0200.mrc\t250\t0"]
        assert len(page.query_selector_all(".cell")) < 400
        for _ in range(WAITS):
            if list((folder / ".nephila/review").glob("particles-0-499-*.jpg")):
                break
            page.wait_for_timeout(25)
        sheets = {path: path.stat().st_mtime_ns for path in (folder / ".nephila/review").glob("particles-*.jpg")}
        assert 2 <= len(sheets) < 20  # of 500: those in sight
        show(page, "micrographs")
        show(page, "particles")
        page.wait_for_selector(".cell")
        page.keyboard.press("End")
        page.wait_for_timeout(200)
        assert {path: path.stat().st_mtime_ns for path in sheets} == sheets  # made once
    finally:
        page.close()
        served.stop()


def test_the_plan_says_when_the_workflow_cannot_be_planned(page):
    page.context.expected.append("status of 422")
    path = page.served.folder / "edits" / "sel_micrograph.star"
    path.parent.mkdir(exist_ok=True)
    path.write_text("data_sel_micrograph\n\nloop_\n_rlnMicrographName #1\n_nphKeep #2\nnone.mrc\t0\n")
    show(page, "runs")
    page.click("#reruns")
    page.wait_for_selector("dialog .badge.bad:has-text('none.mrc is not in this project')")
    page.keyboard.press("Escape")


def test_a_run_that_is_going_on_is_neither_minded_nor_disturbed(page):
    """Snakemake's lock, and a job that has not ended, as a run on another machine has them."""
    state = page.served.folder / ".snakemake"
    lock, job = state / "locks" / "0.output.lock", state / "incomplete" / "cmVzdWx0cy9zdW1tYXJ5Lmpzb24="
    for path in (lock, job):
        path.parent.mkdir(exist_ok=True)
        path.write_text("results/summary.json\n" if path == lock else "{}")
    logs = sorted((state / "log").iterdir())
    os.utime(logs[-1])
    try:
        show(page, "runs")
        page.wait_for_selector(".bar .badge:has-text('running')")
        text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} INFO"
        job_log = page.served.folder / "logs" / "apshgrp" / "002.log"
        job_log.parent.mkdir(parents=True, exist_ok=True)
        job_log.write_text(f"{text} rule apshgrp, nephila\n{text} aligned: 30 of 120, 2 per second, 45 s left\n")
        row = page.wait_for_selector("tr:has-text('30 of 120 aligned, 2.0 a second')")
        assert row.query_selector("[role=progressbar][aria-valuenow='25']")
        left = int(row.query_selector_all("td")[4].inner_text().removesuffix(" s"))
        assert 20 < left <= 45
        page.click("[aria-label='Log logs/apshgrp/002.log']")
        assert "30 of 120" in page.inner_text("dialog pre")
        page.keyboard.press("Escape")
        show(page, "micrographs")
        drop(page, 5)
        saved(page, "sel_micrograph", star("sel_micrograph", COLUMNS, [DROPPED.format(5)]))
        jobs = plan(page)
        assert jobs["sel_micrograph"] == jobs["summary"] == 1
        assert lock.exists() and job.exists() and sorted((state / "log").iterdir()) == logs
    finally:
        lock.unlink()
        job.unlink()
        (page.served.folder / "logs" / "apshgrp" / "002.log").unlink(missing_ok=True)
