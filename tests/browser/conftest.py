"""A made-up finished project, the review page's server on a copy of it, and Chromium without a screen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import review_finished as finished
from review_browser import Served, enter

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"]


@pytest.fixture(scope="session")
def made_project(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.finish(code, finished.make(tmp_path_factory.mktemp("finished") / "made"))


@pytest.fixture(scope="module")
def served(code: Path, made_project: Path, tmp_path_factory: pytest.TempPathFactory):
    """The page of a copy of the project; tests leave it without edits."""
    folder = tmp_path_factory.mktemp("served") / "made"
    shutil.copytree(made_project, folder, symlinks=True)
    found = Served(folder, code)
    yield found
    found.stop()


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser):
    """A window of its own, in which nothing may be asked for elsewhere, and no error may come up."""
    found = browser.new_context(viewport={"width": 1280, "height": 800})
    found.set_default_timeout(60_000)
    trouble: list[str] = []
    found.on("request", lambda request: "//127.0.0.1:" in request.url or trouble.append(f"asked for {request.url}"))
    found.on("weberror", lambda error: trouble.append(str(error.error)))
    found.on(
        "console", lambda message: message.type == "error" and trouble.append(f"{message.text} {message.location}")
    )
    found.expected = []  # words of errors that a test provokes
    yield found
    found.close()
    assert [text for text in trouble if not any(word in text for word in found.expected)] == []


@pytest.fixture
def page(context, served):
    """The page, let in; edits that a test leaves are removed."""
    yield enter(context, served)
    for path in served.folder.glob("edits/*"):
        path.unlink()
