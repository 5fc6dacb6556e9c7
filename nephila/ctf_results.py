"""Files of CTF results that another program made (`ctf.import_from`): which one belongs to which micrograph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nephila.errors import InputError


def is_table(source: str) -> bool:
    """Whether the source is one STAR table for all micrographs; otherwise it is a pattern of text files, one for each."""
    return source.endswith(".star")


def result_file(source: str, micrograph: str) -> str:
    """The file that should hold a micrograph's result: the table, or the pattern with the micrograph's name in place of *."""
    if is_table(source):
        return source
    name = Path(micrograph).name.removesuffix(".gz")
    return source.replace("*", Path(name).stem)


def result_files(source: str, micrographs: Sequence[str]) -> list[str]:
    """The files with results of these micrographs that exist, each once."""
    return [path for path in dict.fromkeys(result_file(source, m) for m in micrographs) if Path(path).is_file()]


def check_results(source: str, micrographs: Sequence[str]) -> None:
    """InputError where there are no results at all: no such table, or no text file for any of the micrographs."""
    if result_files(source, micrographs):
        return
    if is_table(source):
        raise InputError(f"ctf.import_from: no such file: {source} (paths are relative to the project folder)")
    raise InputError(
        f"ctf.import_from: none of the {len(micrographs)} micrographs has a result; the first one's should be "
        f"{result_file(source, micrographs[0])}"
    )
