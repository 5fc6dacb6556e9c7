"""Sphinx: the documentation as a site. `make docs` builds it; every warning is an error."""

from __future__ import annotations

from nephila import __version__

project = "Nephila"
author = "Nephila developers"
copyright = author
version = release = __version__

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"Nephila {version}"
html_static_path: list[str] = []
html_copy_source = False
html_show_sourcelink = False
# nothing is loaded from elsewhere
html_theme_options = {"top_of_page_buttons": []}
