"""Settings of picking; every length that is not in A is in particle diameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nephila.errors import InputError


@dataclass(frozen=True)
class PeakSettings:
    """Which maxima of a score map become candidates.

    min_distance: least distance between two candidates; edge: least distance of a centre from the micrograph's edge;
    max_filling: at most this many candidates, as a multiple of (area / diameter^2); outlier_sigma: pixels further
    from the median than this many standard deviations are clipped (hot pixels, dead columns); contaminant_sigma:
    local standard deviation or mean beyond this many times that of the rest of the micrograph marks a contaminant.
    """

    min_distance: float = 0.65
    edge: float = 0.46
    max_filling: float = 1.5
    outlier_sigma: float = 7.0
    contaminant_sigma: float = 8.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.min_distance <= 3:
            raise InputError(
                f"least distance between picks {self.min_distance}: must lie in 0.1 to 3 diameters; 0.65 is usual"
            )
        if not 0 <= self.edge <= 5:
            raise InputError(f"distance of picks from the edge {self.edge}: must lie in 0 to 5 diameters; 0.5 is usual")
        if self.max_filling <= 0:
            raise InputError(f"max_filling {self.max_filling}: must be positive; 1.5 is usual")


@dataclass(frozen=True)
class BlobSettings:
    """Picking by a blob of the particle's size.

    method: "dog" (difference of Gaussians, the default), "disk" (disk minus ring) or "log" (Laplacian of Gaussian);
    scales: diameters tried in one pass, as multiples of the given one; pixels_per_diameter: sampling of the search;
    ring: outer radius of the ring over the disk's radius; highpass: structures larger than this many diameters are
    removed. texture: weight of the power of details against the blob's (0: the blob alone); its band reaches from
    `coarsest` diameters to `finest` A.
    """

    method: Literal["disk", "dog", "log"] = "dog"
    scales: tuple[float, ...] = (1.0,)
    pixels_per_diameter: float = 14.0
    ring: float = 2.0
    highpass: float = 12.0
    texture: float = 1.0
    coarsest: float = 0.6
    finest: float = 18.0
    peaks: PeakSettings = PeakSettings()

    def __post_init__(self) -> None:
        if self.texture < 0:
            raise InputError(f"texture {self.texture}: must not be negative; 1 is usual, 0 searches for the blob alone")
        if self.method not in ("disk", "dog", "log"):
            raise InputError(f"blob method {self.method!r}: must be disk, dog or log")
        if not self.scales or min(self.scales) <= 0:
            raise InputError(f"blob scales {self.scales}: at least one positive multiple of the diameter is needed")
        if self.pixels_per_diameter < 6:
            raise InputError(f"{self.pixels_per_diameter} pixels per diameter: at least 6 are needed; 14 is usual")
        if self.ring <= 1:
            raise InputError(f"ring radius {self.ring}: must exceed 1 (times the disk's radius); 2 is usual")


@dataclass(frozen=True)
class TemplateSettings:
    """Picking by projections of a reference.

    A coarse search (views x in-plane rotations over the micrograph) finds likely pixels; a fine one (more views, finer
    sampling) scores each of them again. views, in_plane_deg, pixels_per_diameter: number of views over the sphere,
    in-plane step and sampling of either. searched: share of the pixels that the coarse search looks at, those of most
    power in the templates' components (for 100 components; more where there are fewer); rescored: share that the fine one
    looks at. mask: radius of the correlation mask over the particle's radius (beyond 1, since the CTF spreads density);
    mask_edge: its soft edge, same unit; resolution_limit: A, nothing finer is used; energy: share of the templates' power
    kept in their common basis; refine: whether the fine search is made. texture: weight of the power of details down to
    texture_finest (A) that the reference does not hold (0: none).
    """

    views: int = 100
    in_plane_deg: float = 12.0
    pixels_per_diameter: float = 18.0
    searched: float = 0.12
    rescored: float = 0.015
    fine_views: int = 360
    fine_in_plane_deg: float = 8.0
    fine_pixels_per_diameter: float = 25.0
    mask: float = 1.4
    mask_edge: float = 0.3
    resolution_limit: float = 14.0
    energy: float = 0.97
    refine: bool = True
    texture: float = 0.75
    texture_finest: float = 18.0
    peaks: PeakSettings = PeakSettings()

    def __post_init__(self) -> None:
        for name, views, step in (
            ("views", self.views, self.in_plane_deg),
            ("fine_views", self.fine_views, self.fine_in_plane_deg),
        ):
            if not 1 <= views <= 5000:
                raise InputError(f"{name} {views}: must lie in 1 to 5000")
            if not 1 <= step <= 360:
                raise InputError(f"in-plane step {step} degrees: must lie in 1 to 360")
        if not 0.5 <= self.mask <= 3:
            raise InputError(f"mask radius {self.mask}: must lie in 0.5 to 3 particle radii; 1.4 is usual")
        for name, value in (("searched", self.searched), ("rescored", self.rescored)):
            if not 0 < value <= 1:
                raise InputError(f"{name} {value}: must lie in (0, 1]")
        if self.texture < 0 or self.texture_finest <= 0:
            raise InputError(
                f"texture {self.texture}, texture_finest {self.texture_finest} A: must not be negative, the latter positive"
            )
        if not 0.5 < self.energy <= 1:
            raise InputError(f"energy {self.energy}: must lie in 0.5 to 1; 0.97 is usual")
        if min(self.pixels_per_diameter, self.fine_pixels_per_diameter) < 6:
            raise InputError(
                "fewer than 6 pixels per diameter: picking needs at least 6; 16 (coarse) and 24 (fine) are usual"
            )


@dataclass(frozen=True)
class ChoiceSettings:
    """Which candidates of all micrographs are kept.

    threshold: least score; None: from the distribution of all scores. at_most: most picks per micrograph, the best;
    None: no limit. min_probability: candidates less likely a particle than this are dropped too, where the scores tell.
    dirt_factor: picks whose local standard deviation exceeds this many times the upper end (92nd percentile) of the good
    ones' are dropped as dirt. overlap: picks nearer than this many diameters to a better one are dropped (0: only the
    pickers' own distance counts).
    """

    threshold: float | None = None
    at_most: int | None = None
    min_probability: float = 0.0
    dirt_factor: float = 1.8
    overlap: float = 0.0

    def __post_init__(self) -> None:
        if self.at_most is not None and self.at_most < 0:
            raise InputError(f"at_most {self.at_most}: must not be negative")
        if not 0 <= self.min_probability < 1:
            raise InputError(f"min_probability {self.min_probability}: must lie in [0, 1)")
        if self.dirt_factor <= 1:
            raise InputError(f"dirt_factor {self.dirt_factor}: must exceed 1; 1.6 to 2 is usual")
