"""Micrographs as the configuration's section `input` describes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.io.micrographs import Micrograph, MicrographSet, RawLayout, check_uniform, read_micrograph


def raw_layout(settings: dict[str, Any]) -> RawLayout | None:
    """Layout of raw scanner files, None for formats that describe themselves."""
    raw = settings["raw"]
    if raw is None:
        return None
    dtype = "int16" if raw["bits"] == 16 and raw["negatives"] == "signed" else f"uint{raw['bits']}"
    return RawLayout((raw["height"], raw["width"]), raw["header_bytes"], dtype, raw["byte_order"])


def read_input(path: str | Path, settings: dict[str, Any]) -> Micrograph:
    """A micrograph, protein bright, decimated, with the pixel size of the configuration."""
    return read_micrograph(
        path,
        settings["pixel_size"],
        settings["contrast"],
        settings["decimate"],
        film=settings["film"],
        raw=raw_layout(settings),
    )


def check_inputs(paths: Sequence[str], settings: dict[str, Any], box: int) -> MicrographSet:
    """Check from the headers that all micrographs are complete, of one size and pixel size, and larger than the box (px).

    A header's pixel size that differs from the configuration's by more than 5 % is an error: one of them is wrong. Headers
    that state 1 A are taken as not stating any.

    Raises
    ------
    InputError
        Names the file and what differs.
    """
    found = check_uniform(paths, settings["pixel_size"], raw_layout(settings))
    header, given = found.header_pixel_size, settings["pixel_size"]
    if header and header != 1.0 and abs(header / given - 1) > 0.05:
        raise InputError(
            f"{paths[0]}: the header's pixel size is {header:.4g} A, input.pixel_size is {given:g} A; correct the one that is wrong"
        )
    side = min(found.shape) // settings["decimate"]
    if box > side:
        decimated = f" after decimation by {settings['decimate']}" if settings["decimate"] > 1 else ""
        raise InputError(
            f"particle.box: {box} px do not fit into micrographs of {side} px{decimated}; give a smaller box"
        )
    return found


def micrograph_list(batches: dict[str, int]) -> pd.DataFrame:
    """Table of micrographs with their batch and SPIDER's running number."""
    return pd.DataFrame(
        {
            "rlnMicrographName": list(batches),
            "nphBatch": list(batches.values()),
            "nphNumber": range(1, len(batches) + 1),
        }
    )


def file_coordinates(coordinates: npt.ArrayLike, settings: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Pixels of a file (0 at the centre of the first) from pixels of its decimated image."""
    factor = settings["decimate"]
    return np.asarray(coordinates, dtype=np.float64) * factor + (factor - 1) / 2


def image_coordinates(coordinates: npt.ArrayLike, settings: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Pixels of the decimated image from pixels of the file."""
    factor = settings["decimate"]
    return (np.asarray(coordinates, dtype=np.float64) - (factor - 1) / 2) / factor
