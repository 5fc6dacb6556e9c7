"""Small parts of the report: times, references, names of runs, the template's hash."""

from __future__ import annotations

import re

import pytest

from nephila.errors import InputError
from nephila.io.atomic import write_text
from nephila.report import TEMPLATES, template_hash
from nephila.report.collect import run_times
from nephila.report.comparison import run_names
from nephila.report.methods import REFERENCES


def test_times_leave_pauses_out():
    spans = [(0, 10), (5, 10), (100, 20)]
    records = {
        i: {"rule": "pick", "started": began, "wall_seconds": lasted, "cpu_seconds": 2.0}
        for i, (began, lasted) in enumerate(spans)
    }
    found = run_times(records)
    assert (found.first, found.last, found.busy, found.cpu, found.jobs) == (0, 120, 35, 6.0, 3)
    assert run_times({}) is None


def test_references_have_an_identifier_each():
    identifiers = [reference.doi for reference in REFERENCES.values()]
    assert len(set(identifiers)) == len(identifiers)
    assert all(re.fullmatch(r"10\.\d{4,}/\S+", doi) for doi in identifiers)


def test_run_names_are_as_long_as_they_must_be(tmp_path):
    assert run_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert run_names([tmp_path / "x" / "a", tmp_path / "y" / "a"]) == ["x/a", "y/a"]
    with pytest.raises(InputError, match="twice"):
        run_names([tmp_path, tmp_path])


def test_a_change_of_the_template_is_a_change_of_the_page(tmp_path, monkeypatch):
    before = template_hash()
    for path in TEMPLATES.iterdir():
        write_text(tmp_path / path.name, path.read_text())
    monkeypatch.setattr("nephila.report.TEMPLATES", tmp_path)
    assert template_hash() == before
    (tmp_path / "style.css").write_text("body { color: red }")
    assert template_hash() != before
