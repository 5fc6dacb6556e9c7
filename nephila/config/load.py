"""Reading and checking a project's config.yaml."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from nephila.config.sections import Config
from nephila.errors import InputError


def load_config(path: str | os.PathLike[str]) -> Config:
    """Read and check a YAML file. InputError names the file and the key."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = yaml.safe_load(stream)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file; `nephila init FOLDER` makes a project with a commented config.yaml"
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not readable YAML: {' '.join(str(error).split())}") from error
    return parse_config(content or {}, source=str(path))


def parse_config(content: dict[str, Any], source: str = "config.yaml") -> Config:
    """Check a nested dict of keys. Every problem is in the message, each with its key, value and what would be right."""
    if not isinstance(content, dict):
        raise InputError(f"{source}: sections with keys are expected, not {type(content).__name__}")
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{source}: " + "; ".join(_explain(item) for item in error.errors())) from None


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"][:-1])
        close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"keys here: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    message = item["msg"].removeprefix("Value error, ")
    if not key:
        return str(message)
    return f"{key}: {message[0].lower()}{message[1:]} (given: {item['input']!r})"


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in location:
        if isinstance(part, str):  # numbers are places in a list of sections
            model = next(section for section in _sections_in(model.model_fields[part].annotation))
    return list(model.model_fields)


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Sections that a type is, or is made of: `Mask | None`, `list[RefinementChange]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_in(part)
