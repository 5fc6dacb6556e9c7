"""Profiles and requests know every rule: threads stand in the profiles alone, memory and time come from a rule's own entry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from nephila import resources

RULE = re.compile(r"^ *(?:rule|checkpoint) (\w+):\n(.*?)(?=^ *(?:rule|checkpoint) \w+:|\Z)", re.MULTILINE | re.DOTALL)


def rules(repository: Path) -> dict[str, list[str]]:
    """Bodies of the rules that have a script, by name; some are written once for each start."""
    found: dict[str, list[str]] = {}
    for path in sorted((repository / "rules").glob("*.smk")):
        for name, body in RULE.findall(path.read_text()):
            if "script:" in body:
                found.setdefault(name, []).append(body)
    return found


def local_rules(repository: Path) -> set[str]:
    block = re.search(
        r"^localrules:\n((?:    \w+,\n)+)", (repository / "rules" / "common.smk").read_text(), re.MULTILINE
    )
    assert block
    return set(re.findall(r"\w+", block.group(1)))


def uses_threads(repository: Path, body: str) -> bool:
    script = re.search(r'"\.\./scripts/(\w+\.py)"', body)
    assert script
    return "job.threads" in (repository / "scripts" / script.group(1)).read_text()


def test_rules_that_use_threads_have_them_in_the_profiles_and_nowhere_else(repository: Path) -> None:
    threaded = {name for name, bodies in rules(repository).items() if any(uses_threads(repository, b) for b in bodies)}
    assert {"grploop", "initial_model", "checkrefine", "local_resolution", "class_maps"} <= threaded
    slurm, default = (
        set(yaml.safe_load((repository / "profiles" / name / "config.yaml").read_text())["set-threads"])
        for name in ("slurm", "default")
    )
    again = {"mergegroups_last"}  # mergegroups of the last iteration, with jobs.lean
    assert slurm - again == threaded
    # on one machine, groups and chunks run side by side
    assert threaded - default == {"apshgrp", "grploop", "endmerge"} and default - threaded == slurm - threaded == again
    for name, bodies in rules(repository).items():
        assert not any(re.search(r"^ *threads:", body, re.MULTILINE) for body in bodies), name


def test_every_rule_that_computes_asks_for_memory_and_time_of_its_own(repository: Path) -> None:
    local = local_rules(repository)
    assert local <= set(rules(repository))
    for name, bodies in rules(repository).items():
        for body in bodies:
            asked = re.findall(r'(?:memory|minutes)\("(\w+)"\)', body)
            assert asked == ([] if name in local else [name, name]), name
        if name not in local:
            assert name in resources._PEAK_MB and name in resources._CPU_SECONDS, name


@pytest.mark.parametrize("entries", [resources._PEAK_MB, resources._CPU_SECONDS])
def test_no_entry_is_of_a_rule_that_does_not_exist(repository: Path, entries: dict[str, object]) -> None:
    assert set(entries) <= set(rules(repository))
