"""One set of versions: pyproject.toml, requirements.lock and the conda environment agree."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib

import pytest
import yaml

import nephila

CONDA_NAMES = {"matplotlib-base": "matplotlib", "snakemake-minimal": "snakemake"}
"""Packages that conda calls otherwise than pip."""


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins(repository):
    """Version by package in requirements.lock."""
    found = {}
    for line in (repository / "requirements.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            assert canonical(name) not in found, f"{name} is pinned twice"
            found[canonical(name)] = version
    return found


def names(requirements):
    return {canonical(re.match(r"[\w.-]+", text)[0]) for text in requirements}


def test_every_dependency_is_pinned(project, pins):
    wanted = names(project["dependencies"]).union(
        *(names(extra) for extra in project["optional-dependencies"].values())
    )
    assert wanted <= pins.keys()


def test_what_the_dependencies_need_is_pinned(project, pins):
    todo, seen = names(project["dependencies"]), set()
    while todo:
        name = todo.pop()
        seen.add(name)
        for text in importlib.metadata.requires(name) or []:
            needed = canonical(re.match(r"[\w.-]+", text)[0])
            if "extra ==" in text or needed in seen or not installed(needed):
                continue  # for another system or Python than this one
            todo.add(needed)
    assert seen <= pins.keys()


def installed(name):
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def test_the_conda_environment_has_the_same_versions(repository, project, pins):
    environment = yaml.safe_load((repository / "envs" / "nephila.yaml").read_text())
    found = dict(re.fullmatch(r"(\S+) =(\S+)", text).groups() for text in environment["dependencies"][1:])
    found = {CONDA_NAMES.get(name, name): version for name, version in found.items()}
    assert found == {name: pins[name] for name in names(project["dependencies"])}
    assert environment["dependencies"][0].startswith("python >=3.11")
    assert project["requires-python"] == ">=3.11"


def test_one_version_of_nephila(repository, project):
    assert project["version"] == nephila.__version__
    assert yaml.safe_load((repository / "CITATION.cff").read_text())["version"] == nephila.__version__
    assert f"## {nephila.__version__}" in (repository / "CHANGELOG.md").read_text()


def test_every_package_is_installed_with_the_distribution(repository):
    folders = {path.parent for path in (repository / "nephila").rglob("*.py")}
    missing = [str(folder.relative_to(repository)) for folder in folders if not (folder / "__init__.py").is_file()]
    assert not missing, "folders without __init__.py are left out of an installation"
