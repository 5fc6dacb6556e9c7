"""Reading and checking a project's config.yaml."""

from __future__ import annotations

import difflib
import os
from typing import Any

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
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)
