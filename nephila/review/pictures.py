"""Sheets of thumbnails: many small pictures in one image, made once and kept under .nephila/review/, which `nephila clean` empties.

A sheet is named by its album, a key within it (a group, a view) and its page. Its file also carries a stamp of what it was made
from, so that a changed source makes a new one.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.io.atomic import atomic_path
from nephila.io.mrc import Stack, open_stack
from nephila.micrograph_input import read_input
from nephila.review.project import NotYet, Project

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

CACHE = ".nephila/review"
WORKERS = 2
"""Sheets that are made at the same time: a run may need the cores."""
GREY = 128


@dataclass(frozen=True)
class Album:
    """Layout of a sheet: side of a tile in px, columns, rows."""

    tile: int
    columns: int
    rows: int

    @property
    def tiles(self) -> int:
        """Pictures on a sheet."""
        return self.columns * self.rows


ALBUMS = {
    "micrographs": Album(176, 3, 2),
    "spectra": Album(176, 4, 3),
    "particles": Album(72, 10, 10),
    "views": Album(72, 10, 10),
    "groups": Album(72, 10, 10),
    "averages": Album(72, 10, 10),
    "slices": Album(144, 5, 4),
}


class Pictures:
    """Makes and keeps the sheets of a project."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._making = threading.Semaphore(WORKERS)
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def sheet(self, album: str, key: int, page: int, items: Sequence[Any], stamp: Any) -> bytes:
        """A sheet as JPEG. `items`: what all tiles of the album and key show, in order; `stamp`: what they are made from.

        InputError for an album or a page that does not exist.
        """
        layout = ALBUMS.get(album)
        if layout is None or page < 0 or page * layout.tiles >= len(items):
            raise InputError(f"no sheet {album} {key} {page}")
        name = f"{album}-{key}-{page}"
        digest = hashlib.sha256(repr((stamp, layout)).encode()).hexdigest()[:16]
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            path = self.project.path(f"{CACHE}/{name}-{digest}.jpg")
            try:
                return path.read_bytes()
            except FileNotFoundError:
                pass
            with self._making:
                shown = items[page * layout.tiles : (page + 1) * layout.tiles]
                content = _jpeg(_arrange(TILES[album](self.project, shown, layout.tile), layout))
            try:
                with atomic_path(path) as temporary:
                    temporary.write_bytes(content)
                for old in path.parent.glob(f"{name}-*.jpg"):
                    if old != path:
                        old.unlink(missing_ok=True)
            except OSError:
                pass  # a full or read-only disk: shown all the same, made again next time
            return content


def version_of(stamp: Any) -> str:
    """Short text for the address of a sheet: another one for another stamp."""
    return hashlib.sha256(repr(stamp).encode()).hexdigest()[:12]


def _jpeg(picture: UInt8, quality: int = 82) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def large_picture(image: Float32, side: int) -> bytes:
    """One image as JPEG, its longer side at most `side` px."""
    return _jpeg(_grey(_fit(image, side), 3.0), 88)


def measured_spectrum(project: Project, item: SpectrumTile, side: int) -> bytes:
    """A spectrum without its fit, as JPEG. NotYet where it is not there."""
    project.stamp(item.stack)
    stack = open_stack(project.path(item.stack))
    optics = Optics(**project.config().optics.model_dump())
    bare = replace(item, defocus_u=0.0)
    return _jpeg(spectrum_tile(stack[item.index], stack.pixel_size or 1.0, bare, optics, side), 88)


def _arrange(tiles: list[UInt8], layout: Album) -> UInt8:
    rows = -(-len(tiles) // layout.columns)
    sheet = np.full((rows * layout.tile, layout.columns * layout.tile), GREY, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // layout.columns * layout.tile, i % layout.columns * layout.tile
        y += (layout.tile - tile.shape[0]) // 2
        x += (layout.tile - tile.shape[1]) // 2
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return sheet


def _fit(image: Float32, side: int) -> Float32:
    """The image resized so that its longer side is `side` px, averaging where it shrinks."""
    from PIL import Image

    ny, nx = image.shape
    factor = max(ny, nx) // (2 * side)
    if factor > 1:
        cut = image[: ny // factor * factor, : nx // factor * factor]
        image = cut.reshape(ny // factor, factor, nx // factor, factor).mean(axis=(1, 3), dtype=np.float32)
        ny, nx = image.shape
    size = (max(1, round(nx * side / max(ny, nx))), max(1, round(ny * side / max(ny, nx))))
    resized = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _grey(image: Float32, sigmas: float, mean: float | None = None, deviation: float | None = None) -> UInt8:
    """Values from mean - sigmas to mean + sigmas as 0 to 255; what is not finite is grey."""
    finite = image[np.isfinite(image)]
    middle = float(finite.mean()) if mean is None and finite.size else mean or 0.0
    spread = float(finite.std()) if deviation is None and finite.size else deviation or 0.0
    scaled = (image - middle) * (127.5 / (sigmas * spread)) + 127.5 if spread > 0 else np.full_like(image, GREY)
    return np.clip(np.nan_to_num(scaled, nan=GREY), 0, 255).astype(np.uint8)


def _micrograph_tiles(project: Project, items: Sequence[str], side: int) -> list[UInt8]:
    """Micrographs by their names in the project; one that cannot be read is an even grey."""
    settings = project.config().input.model_dump()
    tiles = []
    for name in items:
        try:
            image = _fit(read_input(project.folder / name, settings).image, side - 4)
            low, middle, high = np.percentile(image, [16, 50, 84])
            tiles.append(_grey(image, 3.0, float(middle), float(high - low) / 2))
        except (InputError, OSError):
            tiles.append(np.full((side - 4, side - 4), 60, dtype=np.uint8))
    return tiles


@dataclass(frozen=True)
class SpectrumTile:
    """What a spectrum's tile needs: stack and place in it, defocus (0: no fit), finest resolution shown (A)."""

    stack: str
    index: int
    defocus_u: float
    defocus_v: float
    angle_deg: float
    resolution: float


def _spectrum_tiles(project: Project, items: Sequence[SpectrumTile], side: int) -> list[UInt8]:
    optics = Optics(**project.config().optics.model_dump())
    tiles = []
    for item in items:
        try:
            stack = open_stack(project.path(item.stack))
            if not stack.pixel_size:
                raise InputError(f"{item.stack}: the header states no pixel size")
            tiles.append(spectrum_tile(stack[item.index], stack.pixel_size, item, optics, side - 4))
        except (InputError, OSError, IndexError):
            tiles.append(np.full((side - 4, side - 4), 60, dtype=np.uint8))
    return tiles


def spectrum_tile(power: Float32, pixel_size: float, item: SpectrumTile, optics: Optics, side: int) -> UInt8:
    """Left half the measured spectrum, averaged along arcs, freed of its background and scaled at each radius; right half CTF^2
    of the fit. Low frequencies are blank."""
    from PIL import Image

    from nephila.spectrum_rings import halves_of_power

    fit = (item.defocus_u, item.defocus_v, item.angle_deg) if item.defocus_u > 0 else None
    picture = halves_of_power(power, pixel_size, item.resolution, fit, optics, side)
    return np.asarray(Image.fromarray(_grey(picture, 2.2, 0.0, 1.0)))


def _stack_tiles(project: Project, items: Sequence[str], side: int) -> list[UInt8]:
    """Images by number@stack, on one grey scale."""
    from scipy.ndimage import gaussian_filter

    stacks: dict[str, Stack] = {}
    fitted = []
    for item in items:
        number, _, name = item.partition("@")
        if name not in stacks:
            if not project.path(name).is_file():
                raise NotYet(f"{name} is not there (yet, or it was cleaned away)")
            stacks[name] = open_stack(project.path(name))
        image = stacks[name][int(number) - 1]
        # smoothed a little: single particles are mostly noise
        fitted.append(_fit(gaussian_filter(image, max(image.shape) / 80), side - 2))
    pooled = np.concatenate([image.ravel() for image in fitted]) if fitted else np.zeros(1, dtype=np.float32)
    low, middle, high = np.percentile(pooled, [16, 50, 84])
    return [_grey(image, 3.2, float(middle), float(high - low) / 2) for image in fitted]


def _average_tiles(project: Project, items: Sequence[str], side: int) -> list[UInt8]:
    """Like particles, each on its own grey scale."""
    tiles = []
    for item in items:
        number, _, name = item.partition("@")
        tiles.append(_grey(_fit(open_stack(project.path(name))[int(number) - 1], side - 2), 2.8))
    return tiles


TILES: dict[str, Callable[[Project, Any, int], list[UInt8]]] = {
    "micrographs": _micrograph_tiles,
    "spectra": _spectrum_tiles,
    "particles": _stack_tiles,
    "views": _stack_tiles,
    "groups": _stack_tiles,
    "averages": _average_tiles,
    "slices": _average_tiles,
}
