"""Records of jobs: what they hold, and what they say made a job run again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nephila.run_records import SMALL, changes, describe_file, plain, read_record, record_of, same_file, seed_of


def test_small_files_are_known_by_content(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_text("one")
    first = describe_file(path)
    os.utime(path, (1, 1))
    assert same_file(first, describe_file(path))
    path.write_text("two")
    os.utime(path, (first["modified"], first["modified"]))
    assert not same_file(first, describe_file(path))


def test_large_files_are_known_by_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "stack.mrcs"
    path.write_bytes(bytes(SMALL + 1))
    first = describe_file(path)
    assert "sha256" not in first and same_file(first, describe_file(path))
    os.utime(path, (1, 1))
    assert not same_file(first, describe_file(path))


def test_folders_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert describe_file(tmp_path) | {"modified": 0} == {"files": 1, "bytes": 5, "modified": 0}
    missing = describe_file(tmp_path / "b")
    assert (
        missing == {"missing": True} and same_file(missing, missing) and not same_file(missing, describe_file(tmp_path))
    )


def test_settings_become_plain(tmp_path: Path) -> None:
    assert plain({"a": (1, {2: None}), "p": tmp_path}) == {"a": [1, {"2": None}], "p": str(tmp_path)}
    assert seed_of({"a": {"seed": 7}}) == 7 and seed_of({"a": [1]}) is None


def record(**changed):  # type: ignore[no-untyped-def]
    return {
        "rule": "recon", "version": "1", "code": "aaa", "settings": {"snr": 3.0, "particle": {"symmetry": "C1"}},
        "inputs": {"x.star": {"bytes": 3, "modified": 1.0}}, "outputs": {"out/v.mrc": {}},
    } | changed  # fmt: skip


@pytest.mark.parametrize(
    ("now", "line"),
    [
        ({}, None),
        ({"version": "2"}, "nephila 1 became 2"),
        ({"code": "bbb"}, "code behind the step changed (aaa became bbb)"),
        ({"settings": {"snr": 3.0, "particle": {"symmetry": "D2"}}}, 'setting particle.symmetry: "C1" became "D2"'),
        ({"settings": {"snr": 3.0}}, 'setting particle: {"symmetry": "C1"} became null'),
        ({"inputs": {"x.star": {"bytes": 4, "modified": 1.0}}}, "input x.star changed"),
        ({"inputs": {}}, "input x.star is no longer used"),
    ],
)
def test_what_made_a_job_run_again(now, line) -> None:  # type: ignore[no-untyped-def]
    assert changes(record(), record(**now)) == ([line] if line else [])


def test_the_first_run_and_records_of_earlier_versions() -> None:
    assert changes(None, record()) == ["first run"]
    assert changes({"rule": "recon"}, record()) == ["first run"]


def test_records_are_found_by_output(tmp_path: Path) -> None:
    import json

    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "broken.json").write_text("{")
    (tmp_path / "logs" / "a.json").write_text(json.dumps(record()))
    assert read_record(tmp_path / "logs" / "broken.json") is None
    found = record_of(tmp_path, "out/v.mrc")
    assert found is not None and found[0].name == "a.json"
    assert record_of(tmp_path, "out/w.mrc") is None


class Named(dict):  # type: ignore[type-arg]
    """Snakemake's params and wildcards answer items(); its inputs and outputs are lists."""


def test_a_job_records_what_it_was_made_from_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging
    from types import SimpleNamespace

    from nephila.job import logger, start_job

    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.star").write_text("one")

    def run(snr: float) -> dict[str, object]:
        params = Named(reconstruction={"snr": snr}, seed=4, code="abc")
        with start_job(
            SimpleNamespace(
                input=["in.star"],
                output=["out.mrc"],
                params=params,
                wildcards=Named(group="001"),
                threads=1,
                rule="recon",
                log=["logs/recon/001.log"],
            )  # fmt: skip
        ):
            (tmp_path / "out.mrc").write_text("volume")
        record = read_record("logs/recon/001.json")
        assert record is not None
        return record

    try:
        first = run(3.0)
        assert first["why"] == ["first run"] and first["seed"] == 4 and first["code"] == "abc"
        assert first["inputs"]["in.star"]["bytes"] == 3 and "sha256" in first["outputs"]["out.mrc"]  # type: ignore[index]
        assert first["settings"] == {"reconstruction": {"snr": 3.0}, "seed": 4}
        assert run(3.0)["why"] == []
        (tmp_path / "in.star").write_text("two")
        assert run(5.0)["why"] == ["setting reconstruction.snr: 3.0 became 5.0", "input in.star changed"]
    finally:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logging.captureWarnings(False)
