"""The test cluster starts only where no real one is configured, and touches nothing that is not its own."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

REAL = "ClusterName=institute\nSlurmctldHost=head\n"


@pytest.fixture
def cluster(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, as root and with all programs, its private folder and the system's configuration below tmp_path."""
    loader = SourceFileLoader("nephila_test_cluster", str(repository / "tests" / "slurm" / "cluster"))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setenv("NEPHILA_TEST_CLUSTER", str(tmp_path / "private"))
    monkeypatch.setattr(module, "PROGRAMS", ())
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "SYSTEM_CONFIGURATION", tmp_path / "slurm.conf")
    monkeypatch.setattr(module.subprocess, "run", lambda *a, **k: pytest.fail("a program was started"))
    monkeypatch.setattr(module.subprocess, "Popen", lambda *a, **k: pytest.fail("a program was started"))
    return module


@pytest.mark.parametrize("linked", [False, True])
def test_a_real_configuration_is_refused_and_left_alone(
    cluster: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    linked: bool,
) -> None:
    target = tmp_path / ("shared.conf" if linked else "slurm.conf")
    target.write_text(REAL)
    if linked:
        cluster.SYSTEM_CONFIGURATION.symlink_to(target)
    assert "belongs to a real cluster" in cluster.why_not()
    monkeypatch.setattr(sys, "argv", ["cluster", "up"])
    assert cluster.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("cluster: ") and str(cluster.SYSTEM_CONFIGURATION) in said
    cluster.down()
    assert target.read_text() == REAL and cluster.SYSTEM_CONFIGURATION.exists()
    assert cluster.SYSTEM_CONFIGURATION.is_symlink() == linked
    assert not (tmp_path / "private").exists()


def test_its_own_configuration_and_none_are_no_obstacle(cluster: ModuleType, tmp_path: Path) -> None:
    assert cluster.why_not() is None
    cluster.SYSTEM_CONFIGURATION.write_text(f"{cluster.MARKER}\nClusterName=test\n")
    assert cluster.why_not() is None


def test_a_link_of_another_cluster_into_nowhere_is_not_ours(cluster: ModuleType, tmp_path: Path) -> None:
    """A shared disk that is not mounted just now."""
    cluster.SYSTEM_CONFIGURATION.symlink_to("/nowhere/shared/slurm.conf")
    assert "belongs to a real cluster" in cluster.why_not()
    cluster.SYSTEM_CONFIGURATION.unlink()
    cluster.SYSTEM_CONFIGURATION.symlink_to(tmp_path / "private" / "slurm.conf")
    assert cluster.why_not() is None
