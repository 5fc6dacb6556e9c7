"""The data set of the Nature Protocols paper (Shaikh et al. 2008): single image files and `order_select`, into stack and table."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.io.mrc import open_stack, stack_writer
from nephila.io.spider import read_document, read_spider
from nephila.particle_groups import OPTICS_GROUP, optics_table
from nephila.particle_images import image_name

COLUMNS = ("group", "particle", "cumulative", "defocus")


def read_order(path: str | os.PathLike[str]) -> pd.DataFrame:
    """`order_select` as one row per particle: group, particle (number in its group), cumulative (number of its image), defocus (A).

    The data set has a line for each group, as SPIDER's nat2stk reads it: group, number of particles, number of the last image,
    defocus; its images follow those of the line before. A document with a line for each particle (group, particle, image,
    defocus) is read too: groups then occur more than once.

    Raises
    ------
    InputError
        Fewer than four columns, no rows, a defocus that is not positive, or groups whose numbers do not follow each other.
    """
    document = read_document(path)
    if document.shape[1] < len(COLUMNS):
        raise InputError(
            f"{path}: {document.shape[1]} columns; order_select has four: group, particles, last image, defocus"
        )
    table = document.iloc[:, : len(COLUMNS)].set_axis(list(COLUMNS), axis=1)
    if not len(table):
        raise InputError(f"{path}: no particles are listed")
    bad = table.index[~(table["defocus"] > 0)]
    if len(bad):
        raise InputError(
            f"{path}: key {bad[0]}: defocus {table.loc[bad[0], 'defocus']} A: must be positive (underfocus)"
        )
    return table if table["group"].duplicated().any() else _by_particle(table, path)


def _by_particle(groups: pd.DataFrame, path: str | os.PathLike[str]) -> pd.DataFrame:
    """A row for each particle from a row for each group."""
    counts, last = (groups[name].to_numpy(dtype=np.float64) for name in ("particle", "cumulative"))
    wrong = np.flatnonzero((np.cumsum(counts) != last) | (counts < 1))
    if len(wrong):
        row = wrong[0]
        before = last[row - 1] if row else 0.0
        raise InputError(
            f"{path}: key {groups.index[row]}: group {groups['group'].iloc[row]:g} has {counts[row]:g} particles and ends at image "
            f"{last[row]:g}, the one before at {before:g}; correct the numbers"
        )
    rows = np.repeat(np.arange(len(groups)), counts.astype(int))
    return pd.DataFrame(
        {
            "group": groups["group"].to_numpy()[rows],
            "particle": np.concatenate([np.arange(1, int(count) + 1) for count in counts]),
            "cumulative": np.arange(1, len(rows) + 1),
            "defocus": groups["defocus"].to_numpy()[rows],
        }
    )


def group_name(group: int) -> str:
    """What stands for the micrograph of a group's particles: the data set keeps no micrographs."""
    return f"group_{group:03d}"


def find_windows(folder: str | os.PathLike[str]) -> dict[int, Path]:
    """Single image files win/ser*.* of a data set by their number. InputError where there are none."""
    found = {}
    for path in sorted(Path(folder, "win").glob("ser*")):
        match = re.fullmatch(r"ser_?(\d+)", path.stem)
        if match and path.is_file():
            found[int(match.group(1))] = path
    if not found:
        raise InputError(
            f"{Path(folder, 'win')}: no image files ser*; this folder has not the layout of the Nature Protocols data set"
        )
    return found


def stack_windows(
    order: pd.DataFrame, windows: dict[int, Path], stack: str | os.PathLike[str], pixel_size: float, source: str
) -> pd.DataFrame:
    """Write the listed images to one stack, sorted by group and number; returns their particle table.

    Each group stands for one micrograph (group_001 …).
    """
    order = order.sort_values(["group", "cumulative"], kind="stable")
    numbers = order["cumulative"].astype(int).tolist()
    missing = [number for number in numbers if number not in windows]
    if missing:
        raise InputError(f"{source}: particle {missing[0]} has no image file win/ser* ({len(missing)} such)")
    first = _image(windows[numbers[0]])
    with stack_writer(stack, (len(numbers), *first.shape), pixel_size) as memory:
        for row, number in enumerate(numbers):
            image = _image(windows[number])
            if image.shape != first.shape:
                raise InputError(f"{windows[number]}: {image.shape} px where the others have {first.shape}")
            memory[row] = image
    groups = order["group"].astype(int)
    return pd.DataFrame(
        {
            "rlnMicrographName": [group_name(group) for group in groups],
            "nphParticleNumber": groups.groupby(groups.to_numpy()).cumcount().to_numpy() + 1,
            "rlnImageName": [image_name(row, stack) for row in range(len(numbers))],
            "rlnOpticsGroup": OPTICS_GROUP,
            "rlnDefocusU": order["defocus"].to_numpy(),
            "rlnDefocusV": order["defocus"].to_numpy(),
            "rlnDefocusAngle": 0.0,
        }
    )


def _image(path: Path) -> npt.NDArray[np.float32]:
    image, _ = read_spider(path)
    if image.ndim != 2:
        raise InputError(f"{path}: a single image is needed, this file has the shape {image.shape}")
    return image


def import_data_set(
    folder: str | os.PathLike[str], stack: str | os.PathLike[str], optics: Optics, pixel_size: float
) -> dict[str, pd.DataFrame]:
    """Blocks `optics` and `particles` of a data set's folder; the images go to `stack`."""
    source = Path(folder, "order_select.dat")
    particles = stack_windows(read_order(source), find_windows(folder), stack, pixel_size, str(source))
    box = open_stack(stack).shape[1]
    return {"optics": optics_table("nature_protocols", optics, pixel_size, box), "particles": particles}
