"""The configuration: typed sections, the checks between them, and what is generated from them (schema, commented default)."""

from nephila.config.load import load_config, parse_config
from nephila.config.sections import Config

__all__ = ["Config", "load_config", "parse_config"]
