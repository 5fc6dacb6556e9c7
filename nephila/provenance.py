"""Which code a stage rests on: a hash over the package modules that a script imports, so that a change of one reruns its stages.

Comments, docstrings and layout do not count: the hash is taken over the syntax tree.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
NOT_RESULTS = frozenset(
    {"nephila", "nephila.job", "nephila.provenance", "nephila.config.render", "nephila.plan", "nephila.io.atomic"}
)
"""Modules that bring results to disk but do not shape them."""


@cache
def _parse(path: Path) -> tuple[str, frozenset[str]]:
    """Hash of a file's syntax tree, and the names of the package's modules that it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "nephila":
            imported.add(node.module)
            imported |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            imported |= {name.name for name in node.names if name.name.split(".")[0] == "nephila"}
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            # a docstring says nothing about results
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), frozenset(imported)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _module_file(name: str) -> Path | None:
    base = PACKAGE.joinpath(*name.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def modules_behind(script: str) -> tuple[str, ...]:
    """Names of the package's modules that a script needs, directly or through others, sorted."""
    waiting = set(_parse(Path(script))[1])
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        path = _module_file(name)
        if path is None or name in found or name in NOT_RESULTS:
            continue
        found.add(name)
        waiting |= _parse(path)[1]
        parent = name.rpartition(".")[0]
        if parent:
            waiting.add(parent)
    return tuple(sorted(found))


def source_hash(script: str | Path) -> str:
    """12 hexadecimal digits that change when the code behind a script changes."""
    digest = hashlib.sha256()
    for name in modules_behind(str(script)):
        path = _module_file(name)
        if path is not None:
            digest.update(f"{name} {_parse(path)[0]}\n".encode())
    return digest.hexdigest()[:12]
