"""Errors that users see, and the stable hash that seeds are derived with."""

from __future__ import annotations

import zlib


class NephilaError(Exception):
    """Any error whose message is written for the user; shown as one line, without a traceback."""


class InputError(NephilaError):
    """Input that cannot be used: the message names file, column, line or key, the value, and what to do."""


def stable_hash(text: str) -> int:
    """Hash a name to 32 bits, the same in every process and on every machine (CRC-32 of its UTF-8 bytes)."""
    return zlib.crc32(text.encode("utf-8"))
