"""The user's edits: files under edits/ that only a person (or the review page) writes, and the resolved tables made of them."""

from __future__ import annotations

from collections.abc import Sequence

FOLDER = "edits"
NAMES = ("sel_micrograph", "def_sort", "good", "thresh")
"""Tables that can be edited: edits/NAME.star takes the place of results/…/NAME.proposed.star."""


def resolved_comment(name: str, edit: str | Sequence[str]) -> str:
    """First lines of a resolved table: where to edit, and what this one was made of."""
    source = f"edits/{name}.star" if edit else f"the proposal ({name}.proposed.star)"
    return f"Do not edit: put your changes into edits/{name}.star. This table was made from {source}."
