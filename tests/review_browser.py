"""Driving the review page: its server on a project, and what a person does and sees there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

COMMENT = "# Written by `nephila review`; who decided what and when: edits/history.jsonl."
WAITS = 1200
"""Looks, 25 ms apart."""


class Served:
    """A project that is being served."""

    def __init__(self, folder: Path, code: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "nephila", "review", str(folder), "--no-browser"]
        environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=code)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.base = self.address.split("?")[0]

    def stop(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()

    def edit(self, name: str) -> str | None:
        """Content of an edit, without the empty lines at its end; None where there is none."""
        path = self.folder / "edits" / f"{name}.star"
        return path.read_text().rstrip("\n") if path.exists() else None

    def rows(self, name: str) -> list[str]:
        """Rows of an edit."""
        text = self.edit(name)
        return [] if text is None else [line for line in text.splitlines() if "\t" in line]


def enter(context, served):
    found = context.new_page()
    found.goto(served.address)
    found.wait_for_selector("nav a[aria-current]")
    found.served = served
    found.on("dialog", lambda dialog: dialog.accept())
    return found


def star(name: str, columns: list[str], rows: list[str]) -> str:
    """An edit as the page writes it."""
    return "\n".join(
        [COMMENT, "", f"data_{name}", "", "loop_", *(f"_{c} #{i}" for i, c in enumerate(columns, 1)), *rows]
    )


def show(page, name: str):
    page.goto(f"{page.served.base}#/{name}")
    page.wait_for_selector(f"nav a[href='#/{name}'][aria-current]")
    page.wait_for_selector("h1")


def until(page, expression: str) -> None:
    """Wait until an expression is true; the page's policy forbids Playwright's own way, which compiles it in the page."""
    for _ in range(WAITS):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never true: {expression}")


def saved(page, name: str, expected: str | None) -> None:
    """Wait until the edit says this."""
    for _ in range(WAITS):
        if page.served.edit(name) == expected:
            return
        page.wait_for_timeout(25)
    assert page.served.edit(name) == expected


def plan(page) -> dict[str, int]:
    """Jobs by rule that the page says will run."""
    page.click("#reruns")
    page.wait_for_selector("#plan-rules, dialog .badge.bad, dialog p:has-text('Nothing')")
    rules = page.query_selector("#plan-rules")
    found = {}
    for word in rules.inner_text().split(", ") if rules else []:
        name, _, count = word.partition(" × ")
        found[name] = int(count or 1)
    page.keyboard.press("Escape")
    return found


def undo(page, name: str) -> None:
    page.keyboard.press("Control+z")
    saved(page, name, None)
    until(page, "document.querySelector('#says').innerText.startsWith('Undo')")


def center(page, element) -> tuple[float, float]:
    box = element.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
