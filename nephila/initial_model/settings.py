"""What the search for an initial model is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from nephila.errors import InputError

BOX = 32
"""Side to which particles are cropped in Fourier space, px."""
LEAST_BAND, LARGEST_BAND = 8, 14
"""Finest shell of a model: at least the first, or it would hold no poses, at most the second, or it would not fit."""
DETAILS = 10.0
"""Without a resolution given, the model resolves this share of the diameter."""


@dataclass(frozen=True)
class InitialModelSettings:
    """Settings of the search.

    diameter : of the particle, A; symmetry : point group
    tries : independent searches; rounds : batches of particles that each sees; particles : most that are used
    resolution : A, of the model; None: a tenth of the diameter
    shift_range : largest distance of particles from their windows' centres along x and y, A
    """

    diameter: float
    symmetry: str = "C1"
    tries: int = 4
    rounds: int = 60
    particles: int = 1000
    resolution: float | None = None
    shift_range: float = 25.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("diameter", "tries", "rounds", "particles", "shift_range"):
            if not getattr(self, name) > 0:
                raise InputError(f"initial model: {name} is {getattr(self, name)}; it has to be positive")

    def band(self, field: float) -> int:
        """Finest shell for windows `field` A wide."""
        wanted = round(field / (self.resolution or self.diameter / DETAILS))
        return int(min(max(wanted, LEAST_BAND), LARGEST_BAND))
