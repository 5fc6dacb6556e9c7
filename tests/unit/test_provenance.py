"""The hash of the code behind a script."""

from __future__ import annotations

from pathlib import Path

import pytest

from nephila import provenance


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package of the same name, and a script that uses half of it."""
    folder = tmp_path / "nephila"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "deep.py").write_text("def value():\n    return 1\n")
    (folder / "used.py").write_text("from nephila.deep import value\n\nRESULT = value()\n")
    (folder / "unused.py").write_text("OTHER = 1\n")
    (tmp_path / "script.py").write_text("from nephila.used import RESULT\n")
    monkeypatch.setattr(provenance, "PACKAGE", folder)
    return folder


def fresh_hash(script: Path) -> str:
    provenance._parse.cache_clear()
    provenance.modules_behind.cache_clear()
    return provenance.source_hash(script)


def test_only_code_that_the_script_rests_on_counts(package: Path) -> None:
    script = package.parent / "script.py"
    before = fresh_hash(script)
    (package / "unused.py").write_text("OTHER = 2\n")
    assert fresh_hash(script) == before
    (package / "deep.py").write_text("def value():\n    return 2\n")
    assert fresh_hash(script) != before


def test_comments_docstrings_and_layout_do_not_count(package: Path) -> None:
    script = package.parent / "script.py"
    before = fresh_hash(script)
    (package / "deep.py").write_text('"""Words."""\n# more\n\n\ndef value():\n    """Say one."""\n    return (1)\n')
    assert fresh_hash(script) == before


def test_every_script_of_the_workflow_names_real_modules(repository: Path) -> None:
    for script in sorted((repository / "scripts").glob("*.py")):
        assert provenance.modules_behind(str(script)), script.name
