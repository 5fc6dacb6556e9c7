"""What the page is made of: sections with figures, sheets of thumbnails, tables; the template knows these and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nephila.report.checks import Finding
from nephila.report.pictures import Picture

LONG = 14
"""A tile's value of more characters than this is set smaller."""


@dataclass(frozen=True)
class Shown:
    """A picture with its title and a caption; out: it shows something left out; large: what a click on it in a sheet shows (None:
    the picture itself)."""

    picture: Picture
    title: str
    caption: str = ""
    out: bool = False
    large: Picture | None = None


@dataclass(frozen=True)
class Column:
    """Heading of a column; numbers stand on the right."""

    name: str
    number: bool = False


@dataclass(frozen=True)
class Row:
    """Cells as text; mark: a class of the style sheet."""

    cells: Sequence[str]
    mark: str = ""


@dataclass(frozen=True)
class Block:
    """A part of a section. kind: figures, sheet, table, funnel or text; folded: behind a click, in print only where `printed`."""

    kind: str
    title: str = ""
    items: Sequence[Any] = ()
    columns: Sequence[Column] = ()
    rows: Sequence[Row] = ()
    steps: Sequence[tuple[str, str, float]] = ()
    text: str = ""
    cell: int = 290
    folded: bool = False
    printed: bool = False


@dataclass(frozen=True)
class Section:
    """A stage of the run."""

    id: str
    title: str
    text: str
    blocks: Sequence[Block] = ()
    findings: Sequence[Finding] = field(default=())


@dataclass(frozen=True)
class Tile:
    """One of the numbers at the top."""

    name: str
    value: str
    lines: Sequence[str] = ()
    link: str = ""
    warning: bool = False

    @property
    def marks(self) -> str:
        """Classes of the style sheet."""
        return "tile" + (" warning" if self.warning else "") + (" long" if len(self.value) > LONG else "")


def columns(text: str) -> list[Column]:
    """Headings from words parted by `|`; those that end in `#` are numbers."""
    return [Column(name.strip().removesuffix("#"), name.strip().endswith("#")) for name in text.split("|")]


def seconds(value: float) -> str:
    """A duration in words."""
    if value < 60:
        return f"{value:.0f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60)} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"


def angst(value: float | None, digits: int = 2) -> str:
    """A length in Å; a dash where there is none."""
    return "–" if value is None or value <= 0 else f"{value:.{digits}f}\u00a0Å"
