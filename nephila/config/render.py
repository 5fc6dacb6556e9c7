"""What is generated from the sections: the JSON schema, the commented config.yaml, and the table of keys in the docs.

`python -m nephila.config.render` rewrites config.yaml, docs/config.schema.json and docs/config.md; a test fails when they differ.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from nephila.config.sections import Config

WIDTH = 118


def schema() -> str:
    """The JSON schema of config.yaml, as text."""
    return json.dumps(Config.model_json_schema(), indent=2) + "\n"


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def default_yaml(values: dict[str, Any] | None = None, title: str = "Configuration of a Nephila project.") -> str:
    """config.yaml with every key and its comment; `values` (nested) replace defaults.

    An optional key without a value is written empty, which means "not given".
    """
    lines = [
        f"# {title}",
        "# Threads, memory and time of jobs stand in the profile, not here. Paths are relative to the project folder.",
        "",
    ]
    chosen = Config.model_validate(values or {})
    for name, field in Config.model_fields.items():
        section = getattr(chosen, name)
        doc = (type(section).__doc__ or "").strip().splitlines()[0]
        lines += [f"{name}:  # {doc}", *_section_lines(section, indent=2), ""]
        del field
    return "\n".join(lines).rstrip() + "\n"


def _section_lines(section: BaseModel, indent: int) -> list[str]:
    pad = " " * indent
    lines = []
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        comment = textwrap.wrap(field.description or "", WIDTH - indent - 2)
        lines += [f"{pad}# {text}" for text in comment]
        if isinstance(value, BaseModel):
            lines += [f"{pad}{key}:", *_section_lines(value, indent + 2)]
        else:
            lines.append(f"{pad}{key}: {_scalar(value)}".rstrip())
    return lines


def reference_markdown() -> str:
    """The reference of keys for the docs."""
    lines = ["# Keys of config.yaml", "", "Generated from `nephila/config/sections.py`.", ""]

    def describe(model: BaseModel, prefix: str) -> None:
        for key, field in type(model).model_fields.items():
            value = getattr(model, key)
            if isinstance(value, BaseModel):
                describe(value, f"{prefix}{key}.")
            else:
                shown = _scalar(value).replace("|", "\\|") or "(empty)"
                lines.append(
                    f"| `{prefix}{key}` | `{shown}` | {(field.description or '').replace('|', chr(92) + '|')} |"
                )

    default = Config()
    for name in Config.model_fields:
        section = getattr(default, name)
        lines += [
            f"## {name}",
            "",
            (type(section).__doc__ or "").strip(),
            "",
            "| key | default | meaning |",
            "|---|---|---|",
        ]
        describe(section, f"{name}.")
        lines.append("")
    return "\n".join(lines)


GENERATED = {"config.yaml": default_yaml, "docs/config.schema.json": schema, "docs/config.md": reference_markdown}
"""Generated files by their path in the repository."""


def main() -> None:
    """Write the generated files into the repository that this module stands in."""
    root = Path(__file__).parents[2]
    for name, make in GENERATED.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
