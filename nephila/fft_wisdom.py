"""FFTW's wisdom: measured plans for images of chosen sides, made once, outside jobs, and read by all of them.

    python -m nephila.fft_wisdom fft.wisdom 96 256
    NEPHILA_FFT_WISDOM=fft.wisdom nephila run project

Without the variable plans are estimated, which costs up to half of a transform's speed at some sides (docs/benchmarks.md).
Results are the same bytes as long as all jobs use the same file (or none) on machines of one kind; that is why jobs never
measure for themselves.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nephila.errors import InputError
from nephila.io.atomic import atomic_path
from nephila.light_imports import import_without

pyfftw = import_without("pyfftw", left_out="scipy.fftpack")

VARIABLE = "NEPHILA_FFT_WISDOM"


def load() -> bool:
    """Read the file that the environment names into FFTW; whether there is one. Raises InputError where it is missing."""
    name = os.environ.get(VARIABLE)
    if not name:
        return False
    try:
        wisdom = Path(name).read_bytes()
    except OSError as error:
        raise InputError(
            f"{VARIABLE}={name}: cannot be read ({error.strerror}); make it with python -m nephila.fft_wisdom"
        ) from error
    pyfftw.import_wisdom((b"", wisdom, b""))
    return True


def write(path: str | os.PathLike[str], sides: Sequence[int]) -> None:
    """Measure plans, forward and backward, for square images of these sides; about 0.2 s each."""
    if not sides or min(sides) < 2:
        raise InputError(f"sides {list(sides)}: give one or more sides of images in pixels")
    for side in sides:
        for forward in (True, False):
            image_plan(side, side, forward, ("FFTW_MEASURE",))
    with atomic_path(path) as temporary:
        temporary.write_bytes(pyfftw.export_wisdom()[1])
    # plans that this process makes from now on must not differ from those it has made
    pyfftw.forget_wisdom()
    load()


def image_plan(ny: int, nx: int, forward: bool, flags: tuple[str, ...]) -> Any:
    """A plan for one float32 image and its half transform, with buffers of its own; backward ones spoil their input."""
    real = pyfftw.empty_aligned((ny, nx), dtype="float32")
    half = pyfftw.empty_aligned((ny, nx // 2 + 1), dtype="complex64")
    if forward:
        return pyfftw.FFTW(real, half, axes=(0, 1), direction="FFTW_FORWARD", flags=flags)
    return pyfftw.FFTW(half, real, axes=(0, 1), direction="FFTW_BACKWARD", flags=(*flags, "FFTW_DESTROY_INPUT"))


def column_plan(nz: int, width: int, forward: bool) -> Any:
    """An estimated plan for the columns of a complex64 array [nz, width], in place; backward without a factor."""
    columns = pyfftw.empty_aligned((nz, width), dtype="complex64")
    direction = "FFTW_FORWARD" if forward else "FFTW_BACKWARD"
    return pyfftw.FFTW(columns, columns, axes=(0,), direction=direction, flags=("FFTW_ESTIMATE",))


if __name__ == "__main__":
    write(sys.argv[1], [int(side) for side in sys.argv[2:]])
