"""The user's edits: files under edits/ that only a person (or the review page) writes, and the resolved tables made of them."""

from __future__ import annotations

from collections.abc import Sequence

FOLDER = "edits"
NAMES = ("defocus", "sel_micrograph", "def_sort", "good", "thresh", "best_per_view")
"""Tables that can be edited: edits/NAME.star takes the place of results/…/NAME.proposed.star, of the fitted defoci (defocus), or of
`thresholds.best_per_view`."""
PROPOSALS = {"defocus": "micrographs.star"}
"""Files of the proposals that are not called NAME.proposed.star."""


def resolved_comment(name: str, edit: str | Sequence[str]) -> str:
    """First lines of a resolved table: where to edit, and what this one was made of."""
    source = f"edits/{name}.star" if edit else f"the proposal ({PROPOSALS.get(name, f'{name}.proposed.star')})"
    return f"Do not edit: put your changes into edits/{name}.star. This table was made from {source}."
