"""Pictures inside the page: figures as data URIs, made smaller where that helps, within a budget of bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

KEPT_AS_IT_IS = 200_000
"""A PNG of at most so many bytes goes in as it is."""
WEBP_QUALITY = 80
SPECTRUM_PART = (0.02, 0.019, 0.39, 0.9)
"""Where the spectrum stands in the picture of a fit: shares of width and height (left, top, right, bottom)."""
SHOWN = 0.64
"""Pixels of the page for one of a figure: figures are drawn finer than the page shows them."""


@dataclass(frozen=True)
class Picture:
    """uri: data URI; width, height: px; name: the file's path from the project."""

    uri: str
    width: int
    height: int
    name: str

    @property
    def shown_width(self) -> int:
        """Width in the page."""
        return round(self.width * SHOWN)

    @property
    def wide(self) -> bool:
        """Whether no second figure fits beside it."""
        return self.shown_width > 640

    @property
    def shown_height(self) -> int:
        """Height in the page."""
        return round(self.height * SHOWN)


class Pictures:
    """Pictures of a project, counted against `budget` bytes of page."""

    def __init__(self, folder: Path, budget: int) -> None:
        self.folder, self.left = folder, budget

    def figure(self, name: str, widest: int = 1400) -> Picture | None:
        """A figure by its path from the project; None where it does not exist or does not fit any more."""
        path = self.folder / name
        if not path.is_file():
            return None
        if path.stat().st_size <= KEPT_AS_IT_IS:
            from PIL import Image

            with Image.open(path) as image:
                size = image.size
            if size[0] <= widest:
                return self._take(path.read_bytes(), "png", size, name)
        return self.smaller(name, widest, WEBP_QUALITY)

    def smaller(
        self, name: str, width: int, quality: int = 60, part: tuple[float, float, float, float] | None = None
    ) -> Picture | None:
        """A picture at most `width` px wide, with losses that show little; part: of it only this, as shares of width and height
        (left, top, right, bottom)."""
        from PIL import Image

        path = self.folder / name
        if not path.is_file():
            return None
        with Image.open(path) as image:
            flat = image.convert("RGB")
            if part is not None:
                left, top, right, bottom = part
                across, down = flat.size
                flat = flat.crop((round(left * across), round(top * down), round(right * across), round(bottom * down)))
            if flat.width > width:
                height = max(1, round(flat.height * width / flat.width))
                flat = flat.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
        stream = io.BytesIO()
        flat.save(stream, "WEBP", quality=quality, method=2)
        return self._take(stream.getvalue(), "webp", flat.size, name)

    def _take(self, content: bytes, kind: str, size: tuple[int, int], name: str) -> Picture | None:
        uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        if len(uri) > self.left:
            return None
        self.left -= len(uri)
        return Picture(uri, size[0], size[1], name)
