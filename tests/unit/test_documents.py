"""The documents name what there is: columns, rules, functions, files."""

from __future__ import annotations

import importlib
import re

import pytest

from nephila.config import Config

COLUMN = re.compile(r"[\"'](nph[A-Z]\w*)[\"']")
RULE = re.compile(r"^\s*(?:rule|checkpoint) (\w+):", re.MULTILINE)


def sources(repository):
    return [*(repository / "nephila").rglob("*.py"), *(repository / "scripts").glob("*.py")]


def test_every_column_of_ours_is_described(repository):
    described = set(re.findall(r"`(nph\w+)`", (repository / "docs" / "files.md").read_text()))
    used = {name for path in sources(repository) for name in COLUMN.findall(path.read_text())}
    assert sorted(used - described) == [], "describe these columns in docs/files.md"


def test_every_rule_is_in_the_method_and_has_its_script(repository):
    text = "".join(path.read_text() for path in (repository / "rules").glob("*.smk"))
    rules = set(RULE.findall(text))
    named = set(re.findall(r"`(\w+)`", (repository / "docs" / "method.md").read_text()))
    assert sorted(rules - named) == [], "name these rules in docs/method.md"
    scripts = set(re.findall(r"\.\./scripts/(\w+)\.py", text))
    assert sorted(scripts - {path.stem for path in (repository / "scripts").glob("*.py")}) == []


def test_every_function_named_in_the_method_exists(repository):
    missing = []
    for name in re.findall(r"^\|.*\| ([^|]*) \|$", (repository / "docs" / "method.md").read_text(), re.MULTILINE):
        module = None
        for path in re.findall(r"`([a-z_]\w*(?:\.\w+)*)`", name):
            parts = path.split(".")
            if len(parts) > 1:
                module = parts[:-1]
            if not exists(module, parts[-1]):
                missing.append(path)
    assert missing == []


def test_every_key_named_in_the_method_exists(repository):
    sections = "|".join(Config.model_fields)
    wrong = []
    for document in ("method.md", "spider-users.md"):
        text = (repository / "docs" / document).read_text()
        for key in re.findall(rf"`((?:{sections})(?:\.[a-z_0-9]+)+)(?:`|: )", text):
            *module, name = key.split(".")
            if name != "tar" and not (is_key(key) or exists(module, name)):
                wrong.append(key)
    assert wrong == []


def is_key(path):
    section = Config()
    for part in path.split("."):
        if not hasattr(section, part):
            return False
        section = getattr(section, part)
    return True


def exists(module, name):
    try:
        if hasattr(importlib.import_module(".".join(["nephila", *(module or ())])), name):
            return True
        importlib.import_module(".".join(["nephila", *(module or ()), name]))
    except ImportError:
        return False
    return True


def commands_in(text):
    """Command lines of nephila in code: blocks, and words between backticks."""
    blocks = re.findall(r"^(?:    |\$ )(nephila .*)$", text, re.MULTILINE)
    inline = re.findall(r"`(nephila [^`]*)`", text)
    return [re.sub(r"\s+#.*", "", line) for line in (*blocks, *inline)]


def test_commands_in_documents_exist(repository):
    from nephila.cli import main

    wrong, seen = [], 0
    for path in (repository / "README.md", *sorted((repository / "docs").glob("*.md"))):
        for line in commands_in(path.read_text()):
            words = line.replace("…", "").split()[1:]
            command, seen = main, seen + 1
            while words and hasattr(command, "commands") and words[0] in command.commands:
                command = command.commands[words.pop(0)]
            options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            given = {word.split("=")[0] for word in words if word.startswith("-")}
            if command is main and words and not words[0].startswith("-"):
                wrong.append(f"{path.name}: {line}: no such command")
            elif command.name != "run" and not given <= options | {"-h", "--help", "--version"}:
                wrong.append(f"{path.name}: {line}: no such option")
    assert seen > 30 and wrong == []


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        *(f"docs/{name}.md" for name in ("method", "files", "conventions", "tutorial", "judging")),
    ],
)
def test_links_lead_somewhere(repository, document):
    path = repository / document
    targets = [link for link in re.findall(r"\]\(([^)#]+)", path.read_text()) if not link.startswith("http")]
    assert [link for link in targets if not (path.parent / link).exists()] == []
    scripts = re.findall(r"`(scripts/\w+\.py)`", path.read_text())
    assert [name for name in scripts if not (repository / name).exists()] == []
