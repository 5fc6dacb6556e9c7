"""The final map beside the starting volume as it was given: in both hands, and in size.

Particles cannot tell a map from its mirror image, and a start at 40 A hardly shows its hand. Where the given volume resolves more
than was used of it, it can tell: both hands of the map are fitted to it. A start of the wrong pixel size is fitted better by a map
that is stretched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.fsc import fourier_shell_correlation
from nephila.geometry import euler_matrix, quasi_even_directions
from nephila.rigid_fit import crop_transform, fit_volume, transform_volume

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

SIDE = 40
SEARCH_SIDE = 24
STEP_DEG = 20.0
STARTS = 2
SCALES = np.linspace(0.88, 1.12, 13)
HAND_LEAD = 0.02
"""By how much the mirror image must fit better before a warning is due."""
LARGEST_SCALE = 0.03
SCALE_LEAD = 0.02
"""By how much the stretched map must fit better: maps of few particles fit equally well over a range of sizes."""


@dataclass(frozen=True)
class ReferenceCheck:
    """correlation, mirrored: mean FSC of the map and of its mirror image with the given volume, fitted; scale: the better of the
    two has to be stretched by this factor to fit best; scale_gain: how much better it then fits than as it is."""

    correlation: float
    mirrored: float
    scale: float
    scale_gain: float

    @property
    def wrong_hand(self) -> bool:
        """Whether the mirror image fits the given volume better."""
        return self.mirrored > self.correlation + HAND_LEAD

    @property
    def wrong_scale(self) -> bool:
        """Whether the map and the given volume differ in size."""
        return abs(self.scale - 1) > LARGEST_SCALE and self.scale_gain > SCALE_LEAD


def check_reference(
    volume: Float32, reference: Float32, mask: Float32, pixel_size: float, resolution: float
) -> ReferenceCheck:
    """Compare a map [n, n, n] with the given volume, of the same sampling, to the map's resolution (A)."""
    n = len(volume)
    side = min(n, SIDE)
    small, target, window = (crop_transform(item, side) for item in (volume, reference, mask))
    window = np.clip(window, 0, 1)
    last = int(np.clip(n * pixel_size / max(resolution, 2 * pixel_size), 4, side // 2 - 2))
    rotation, shift, _ = fit_volume(small, target, window)
    fitted = transform_volume(small, rotation, shift)
    own = _agreement(fitted, target, window, last)
    other = mirror(small)
    best, better = -1.0, fitted
    for start in _best_rotations(other, target, window):
        turned = transform_volume(other, start, np.zeros(3))
        rotation, shift, _ = fit_volume(turned, target, window, max_angle_deg=30.0)
        turned = transform_volume(turned, rotation, shift)
        agreement = _agreement(turned, target, window, last)
        if agreement > best:
            best, better = agreement, turned
    sized = better if best > own else fitted
    values = np.array([_agreement(stretch(sized, scale), target, window, last) for scale in SCALES])
    gain = float(values.max() - values[len(SCALES) // 2])
    return ReferenceCheck(round(own, 4), round(best, 4), round(_peak(SCALES, values), 4), round(gain, 4))


def mirror(volume: Float32) -> Float32:
    """Mirror image through the plane z = 0; the centre voxel stays."""
    turned = volume[::-1]
    return np.ascontiguousarray(turned if len(volume) % 2 else np.roll(turned, 1, axis=0))


def stretch(volume: Float32, scale: float) -> Float32:
    """Density at r goes to scale r, about the centre voxel."""
    from scipy.ndimage import affine_transform

    centre = np.full(3, len(volume) // 2, dtype=np.float64)
    out: Float32 = affine_transform(
        volume, np.eye(3) / scale, offset=centre * (1 - 1 / scale), order=3, mode="constant"
    )
    return out.astype(np.float32)


def _agreement(a: Float32, b: Float32, window: Float32, last: int) -> float:
    return float(fourier_shell_correlation(a * window, b * window)[2 : last + 1].mean())


def _best_rotations(moving: Float32, target: Float32, window: Float32) -> list[Float64]:
    """The few rotations of a grid over all orientations at which the volumes correlate best at low resolution."""
    side = min(len(moving), SEARCH_SIDE)
    small, goal, weight = (crop_transform(item, side) for item in (moving, target, window))
    goal = (goal - goal.mean()) * np.clip(weight, 0, 1)
    directions = quasi_even_directions(STEP_DEG, 180.0)
    turns = np.arange(0.0, 360.0, STEP_DEG)
    rotations = np.concatenate([euler_matrix(rot, tilt, turns) for rot, tilt in directions[:, :2]])
    scores = np.array(
        [float((transform_volume(small, rotation, np.zeros(3), order=1) * goal).sum()) for rotation in rotations]
    )
    chosen: list[int] = []
    for index in np.argsort(-scores):
        cosines = [(np.trace(rotations[index].T @ rotations[i]) - 1) / 2 for i in chosen]
        if all(cosine < np.cos(np.deg2rad(1.5 * STEP_DEG)) for cosine in cosines):
            chosen.append(int(index))
        if len(chosen) == STARTS:
            break
    return [rotations[index] for index in chosen]


def _peak(places: Float64, values: Float64) -> float:
    """Place of the highest value, by a parabola through it and its neighbours."""
    i = int(np.argmax(values))
    if i in (0, len(values) - 1):
        return float(places[i])
    a, b, c = values[i - 1 : i + 2]
    bend = a - 2 * b + c
    return float(places[i] + (places[1] - places[0]) * 0.5 * (a - c) / bend) if bend < 0 else float(places[i])
