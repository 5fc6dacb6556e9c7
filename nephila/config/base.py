"""What every section of config.yaml rests on: unknown keys are refused, and numbers have their ranges."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Band = Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)]
"""A frequency in units of sampling: 0.5 is Nyquist."""
T = TypeVar("T")
Listed = Annotated[list[T], Field(min_length=1)]
"""One entry per iteration, the last of which repeats."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
