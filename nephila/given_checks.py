"""Whether particles of other programs are what their table says: pixel sizes against stacks and micrographs, and defoci."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nephila.errors import InputError
from nephila.io.mrc import open_stack
from nephila.particle_images import split_image_name
from nephila.relabelling import NEARLY, SAME, states_pixel_size

DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
LARGEST_DEFOCUS = 200_000.0
"""A; more is no defocus of a particle that can be seen."""
NEAR_ONE = 0.1
"""Images whose pixel size is this near to their micrographs', but not equal, were scaled by next to nothing, or edited."""


def check_defoci(
    table: pd.DataFrame, source: str, *, overfocus: bool = False, fields: Mapping[str, str] | None = None
) -> None:
    """InputError where a defocus or its angle is no number, absurd, or negative; names file, block, row, value.

    overfocus : take negative defoci (`input.overfocus`, `--allow-overfocus`)
    fields : what the columns are called in a source that is no STAR file
    """
    for column in DEFOCUS:
        if column not in table:
            continue
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
        rules = [(~np.isfinite(values), "is not a finite number; leave such particles out, or fit their CTF again")]
        if column != "rlnDefocusAngle":
            with np.errstate(invalid="ignore"):
                rules += [
                    (np.abs(values) > LARGEST_DEFOCUS, f"is beyond {LARGEST_DEFOCUS:g} A; give A"),
                    (
                        (values < 0) & (not overfocus),
                        "is overfocus; underfocus is positive. Turn the sign, leave such particles out, or take overfocus with "
                        "input.overfocus: true (commands: --allow-overfocus)",
                    ),
                ]
        for wrong, text in rules:
            rows = np.flatnonzero(wrong)
            if len(rows):
                place = f"block data_particles, row {rows[0] + 1}: _{column}"
                if fields is not None:
                    place = f"particle {rows[0] + 1}: {fields[column]}"
                raise InputError(f"{source}: {place} {table[column].iloc[rows[0]]} {text} ({len(rows)} such rows)")


def check_stack_size(stack: str, header: float, stated: float, source: str, where: str = "_rlnImagePixelSize") -> bool:
    """Whether a stack's header states a pixel size. InputError where it is another than that of the table (`stated`), A.

    Programs write the table's pixel size into the header, so they agree but for rounding unless one was edited afterwards.
    """
    if not states_pixel_size(header, stated):
        return False
    if abs(header / stated - 1) > SAME:
        raise InputError(
            f"{source}: {where} is {stated:g} A/px, the stack {stack} has {header:.6g} in its header: never edit the pixel size "
            "of a table. Defoci, Cs and coordinates were measured with the old one and hold only with it; put "
            f"{header:.6g} back, and give the true pixel size at the end to nephila postprocess --angpix. Where the header is the "
            f"one that is wrong, write it anew: nephila convert {stack} NEW.mrcs --pixel-size {stated:g}"
        )
    return True


def check_stacks(table: pd.DataFrame, pixel_size: float, source: str) -> None:
    """InputError where a stack's header and the table's pixel size (or `pixel_size`, A, where the table has none) differ.

    table : of particles, with stacks that exist in rlnImageName
    """
    sizes = table.get("rlnImagePixelSize", pd.Series(pixel_size, index=table.index)).to_numpy(dtype=np.float64)
    where = "_rlnImagePixelSize" if "rlnImagePixelSize" in table else "input.pixel_size"
    stacks = [split_image_name(str(name))[1] for name in table["rlnImageName"]]
    for stack, stated in dict.fromkeys(zip(stacks, sizes.tolist(), strict=True)):
        check_stack_size(stack, open_stack(stack).pixel_size, stated, source, where)


def check_original_sizes(table: pd.DataFrame, source: str) -> None:
    """InputError where _rlnImagePixelSize cannot have come of _rlnMicrographOriginalPixelSize by scaling: one was edited.

    Extraction scales windows of an even side to images of the side in _rlnImageSize, never to finer pixels. Only ratios near 1
    are judged: an edited pixel size is.
    """
    needed = ["rlnImagePixelSize", "rlnMicrographOriginalPixelSize"]
    if not set(needed) <= set(table.columns):
        return
    rows = table[[*needed, *(["rlnImageSize"] if "rlnImageSize" in table else [])]].drop_duplicates()
    for values in rows.astype(float).itertuples(index=False):
        image, micrograph = values[:2]
        ratio = image / micrograph
        if abs(ratio - 1) <= SAME or abs(ratio - 1) > NEAR_ONE:
            continue
        half = 0.5 * ratio * values[2] if len(values) > 2 else 0.0
        if ratio > 1 and half and abs(half - round(half)) <= max(0.005, 1e-4 * half):
            continue
        raise InputError(
            f"{source}: _rlnImagePixelSize is {image:g}, _rlnMicrographOriginalPixelSize {micrograph:g} A: no scaling of windows "
            "makes the one of the other, so one of them was edited. CTFs and coordinates belong to the pixel size with which "
            "they were measured: put the old one back, and give the true pixel size at the end to nephila postprocess --angpix"
        )


def check_grid(sizes: Sequence[float], pixel_size: float, source: str) -> None:
    """InputError where the map's pixel size (A) is nearly, but not quite, that of one of the groups (`sizes`), and no group's.

    It would be the calibrated one: particles are stretched from their nominal pixel size to it, and off by the same ratio again.
    """
    nearest = min(sizes, key=lambda size: abs(size / pixel_size - 1))
    off = abs(pixel_size / nearest - 1)
    if SAME < off <= NEARLY:
        raise InputError(
            f"{source}: input.pixel_size (that of reference and map) is {pixel_size:g} A, no optics group has it, but one has "
            f"{nearest:g}: with a calibrated or relabelled pixel size the particles would be stretched once more, and the map, "
            f"labelled {pixel_size:g}, would have {pixel_size * pixel_size / nearest:.4f} A. Set input.pixel_size: {nearest:g}, or "
            "reference.sampling: resample if the reference really was resampled"
        )
