"""The report of a run, results/report.html: what it found, how, and what to look at again; and the comparison of runs.

`collect` reads what a run left behind, `checks` holds it against limits, `methods` puts it into words, `sections` sorts it into
stages, `page` makes HTML of it.
"""

from __future__ import annotations

from pathlib import Path

from nephila.errors import stable_hash

TEMPLATES = Path(__file__).parent / "templates"


def template_hash() -> str:
    """Changes with the templates: a param of the rule, so that a change of the page makes it anew."""
    return "".join(f"{stable_hash(path.read_text(encoding='utf-8')):08x}" for path in sorted(TEMPLATES.iterdir()))
