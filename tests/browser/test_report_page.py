"""The report of a run in a browser: nothing is asked for elsewhere, everything is there, and no text leaves its box."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

OVERFLOWING = """() => { const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    if (!node.textContent.trim() || node.parentElement.closest('.scroll, style')) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = node.parentElement.closest('.tile, figure, .findings > li, details, .methods, .short, nav, section, main, body');
    const outer = box.getBoundingClientRect();
    for (const text of range.getClientRects()) {
      if (text.width && (text.right > outer.right + 0.5 || text.left < outer.left - 0.5 || text.bottom > outer.bottom + 0.5)) {
        found.push(`${box.className || box.tagName}: ${node.textContent.trim().slice(0, 60)}`);
        break;
      }
    }
  }
  return found; }"""


@pytest.fixture
def report(browser, finished_project: Path):
    """The report at 1280 px, all its folds open; everything that it asks for and complains of."""
    window = browser.new_context(viewport={"width": 1280, "height": 800})
    asked, said = [], []
    window.on("request", lambda request: asked.append(request.url))
    window.on("console", lambda message: said.append(message.text))
    window.on("weberror", lambda error: said.append(str(error.error)))
    page = window.new_page()
    path = finished_project / "results" / "report.html"
    page.goto(path.as_uri())
    page.address, page.asked, page.said, page.size = path.as_uri(), asked, said, path.stat().st_size
    yield page
    window.close()


def test_the_report_in_a_browser(report):
    assert report.size < 15e6
    assert report.evaluate(OVERFLOWING) == []
    first = report.query_selector_all(".tile, .answer figure")
    assert len(first) == 7 and all(item.bounding_box()["y"] < 800 for item in first)  # the answer is the first screen
    report.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    report.wait_for_timeout(300)
    assert report.evaluate(OVERFLOWING) == []
    assert report.evaluate("document.documentElement.scrollWidth") <= 1280
    broken = "[...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.alt)"
    assert report.evaluate("document.images.length") > 20
    for _ in range(100):
        if not report.evaluate(broken):
            break
        report.wait_for_timeout(50)
    assert report.evaluate(broken) == []
    assert [address for address in report.asked if address != report.address and not address.startswith("data:")] == []
    assert report.said == []


def test_overflowing_text_would_be_seen(report):
    """The check itself: what does not break runs out of a tile."""
    report.evaluate("document.querySelector('.tile span').textContent = 'A'.repeat(80)")
    assert any("AAAA" in words for words in report.evaluate(OVERFLOWING))


def test_a_spectrum_opens_large_and_closes_by_click_and_by_key(report):
    box = report.query_selector("#micrographs .zoom input")
    large = report.query_selector("#micrographs .zoom .large")
    assert not large.is_visible()
    report.click("#micrographs .zoom")
    assert large.is_visible() and large.bounding_box()["width"] > 990
    inside = large.bounding_box()
    assert (
        inside["x"] >= 0
        and inside["x"] + inside["width"] <= 1280
        and inside["y"] >= 0
        and inside["y"] + inside["height"] <= 800
    )
    large.click()
    assert not large.is_visible()
    box.focus()
    report.keyboard.press("Space")
    assert large.is_visible()
    report.keyboard.press("Space")
    assert not large.is_visible()
