"""What surrounds a job: log, record, one-line errors, progress."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from nephila.errors import InputError
from nephila.job import Progress, logger, start_job
from nephila.summary import cost_by_stage


class Wildcards(dict):
    """Snakemake's wildcards answer items()."""


@pytest.fixture
def snakemake(tmp_path: Path) -> SimpleNamespace:
    return SimpleNamespace(
        input=[], output=[], params=SimpleNamespace(), wildcards=Wildcards(group="001"), threads=1, rule="recon",
        log=[str(tmp_path / "logs" / "recon" / "001.log")],
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_handlers_left():  # type: ignore[no-untyped-def]
    """Each test starts without handlers of an earlier one."""
    yield
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logging.captureWarnings(False)


def test_a_job_leaves_a_log_and_a_record(snakemake: SimpleNamespace, tmp_path: Path) -> None:
    with start_job(snakemake) as job:
        assert job.rule == "recon" and job.threads == 1
        logger.info("half way")
    text = Path(snakemake.log[0]).read_text()
    assert "half way" in text and "done in" in text
    record = json.loads(Path(snakemake.log[0]).with_suffix(".json").read_text())
    assert record["wildcards"] == {"group": "001"}
    assert record["cpu_seconds"] >= record["startup_cpu_seconds"] > 0
    costs = cost_by_stage(tmp_path / "logs")
    assert costs["total"]["jobs"] == 1 and costs["reconstruction"]["peak_memory_mb"] > 10


def test_a_users_error_is_one_line(snakemake: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, start_job(snakemake):
        raise InputError("file.mrc: cut\n  short")
    assert stop.value.code == 1
    assert capsys.readouterr().err == "nephila: recon: file.mrc: cut short\n"
    assert "Traceback" not in Path(snakemake.log[0]).read_text()
    assert not Path(snakemake.log[0]).with_suffix(".json").exists()


def test_an_unexpected_error_is_explained_in_the_log(
    snakemake: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit), start_job(snakemake):
        raise ZeroDivisionError
    assert "Traceback" in Path(snakemake.log[0]).read_text()
    assert "unexpected error, see" in capsys.readouterr().err


def test_progress_states_count_rate_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="nephila"):
        progress = Progress(4, "aligned", every=0.0)
        for _ in range(4):
            progress.step()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4 and lines[-1].startswith("aligned: 4 of 4, ") and lines[-1].endswith("0 s left")
