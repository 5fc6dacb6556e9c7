"""TIFF images as micrographs: 8 and 16 bit, 32-bit float, one page, one channel.

TIFF counts rows from the top of the picture, MRC from the bottom. Rows are therefore read in reverse, as RELION 3.1
(checked against relion_image_handler) and IMOD's tif2mrc do, so that coordinates and hand agree with theirs.
"""

from __future__ import annotations

import io
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")


def tiff_header(content: bytes | IO[bytes], name: str) -> tuple[int, int, float | None, np.dtype[Any]]:
    """Height, width, pixel size (A; None where the file states none that is plausible) and type of a TIFF image.

    Parameters
    ----------
    content : the file's bytes, or the file opened for reading
    name : what to call it in messages

    Raises
    ------
    InputError
        Not a readable TIFF, several pages (a movie), colour, or a pixel type other than integer or float.
    """
    import tifffile

    with _Opened(content, name) as file:
        page = file.pages[0]
        if not isinstance(page, tifffile.TiffPage):
            raise InputError(f"{name}: the first page of the TIFF cannot be read; convert it to MRC (tif2mrc)")
        _check(page, list(file.pages), name)
        dtype = np.dtype(page.dtype) if page.dtype is not None else np.dtype("uint8")
        return int(page.imagelength), int(page.imagewidth), _pixel_size(page), dtype


def read_tiff(content: bytes, name: str, *, flip_rows: bool = True) -> tuple[npt.NDArray[Any], float | None]:
    """Read a TIFF image from its bytes: array [ny, nx] of the file's type and pixel size; InputError as `tiff_header`.

    A file cut short, and a compression for which no decoder is installed, are InputErrors too.
    """
    tiff_header(content, name)
    with _Opened(content, name) as file:
        page: Any = file.pages[0]
        if any(o + n > len(content) for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)):
            raise InputError(f"{name}: the TIFF file is cut short; copy it again or leave it out")
        try:
            image = np.asarray(page.asarray())
        except ValueError as error:
            hint = "pip install imagecodecs, or convert it (tif2mrc, relion_convert_to_tiff)"
            raise InputError(f"{name}: the TIFF data cannot be decoded ({error}); {hint}") from error
        pixel_size = _pixel_size(page)
        if file.byteorder == ">" and image.dtype == np.uint16:
            image = _scanner_order(image)
    image = image.reshape(image.shape[-2:]) if image.ndim > 2 else image
    return (image[::-1] if flip_rows else image), pixel_size


def _scanner_order(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """12-bit scans of Intergraph's scanners (ZI) are little-endian even where the TIFF header is big-endian."""
    swapped = image.byteswap()
    return swapped if image.max(initial=0) > 4095 >= swapped.max(initial=0) else image


class _Opened:
    """tifffile's file object, closed after use; what goes wrong on opening becomes an InputError."""

    def __init__(self, content: bytes | IO[bytes], name: str) -> None:
        import tifffile

        try:
            self._file = tifffile.TiffFile(io.BytesIO(content) if isinstance(content, bytes) else content)
            count = len(self._file.pages)
        except Exception as error:  # a damaged tag can raise nearly anything inside tifffile
            raise InputError(f"{name}: not a readable TIFF file ({error}); copy it again or leave it out") from error
        if count == 0:
            raise InputError(f"{name}: the TIFF file holds no image")

    def __enter__(self) -> Any:
        return self._file

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _check(page: Any, pages: list[Any], name: str) -> None:
    # film scanners put smaller overviews behind the image
    overviews = all(p.imagelength < page.imagelength and p.imagewidth < page.imagewidth for p in pages[1:])
    if len(pages) > 1 and not overviews:
        raise InputError(
            f"{name}: {len(pages)} pages, a movie; align and sum the frames first (MotionCor2, relion_run_motioncorr)"
        )
    if page.samplesperpixel != 1:
        raise InputError(f"{name}: {page.samplesperpixel} colour channels; a micrograph has one: save it as grey scale")
    if page.dtype is None or page.dtype.name not in _TYPES or page.bitspersample < 8:
        raise InputError(f"{name}: {page.bitspersample}-bit {page.dtype} pixels; save it with 8 or 16 bit, or as float")


def _pixel_size(page: Any) -> float | None:
    """From the resolution tags; None for the 72 dpi and the like that programs put there without meaning it."""
    tags = page.tags
    unit = tags.get("ResolutionUnit")
    resolution = tags.get("XResolution")
    if unit is None or resolution is None or int(unit.value) not in (2, 3):
        return None
    numerator, denominator = resolution.value
    if numerator == 0 or denominator == 0:
        return None
    angstrom = (1e8 if int(unit.value) == 3 else 2.54e8) * denominator / numerator
    return float(angstrom) if 0.05 < angstrom < 50 else None
