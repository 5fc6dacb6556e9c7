"""Types of numbers on the command line: finite, and within limits."""

from __future__ import annotations

import math
from typing import Any

import click


class Finite(click.FloatRange):
    """A number within limits; click's own range takes nan, which is in none."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; a usage error for what is none, not finite or out of range."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


NUMBER = Finite()
POSITIVE = Finite(min=0, min_open=True)
NOT_NEGATIVE = Finite(min=0)
PIXEL_SIZE = Finite(0.01, 1000)
VOLTAGE = Finite(10, 3000)
CS = Finite(-1, 20)
AMPLITUDE_CONTRAST = Finite(0, 0.999)
B_FACTOR = Finite(-10_000, 10_000)
DEFOCUS = Finite(-200_000, 200_000)
