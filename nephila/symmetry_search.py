"""Which point group a volume has, and how it must be turned so that its axes are where RELION expects them.

A volume is compared with its own copies turned about trial axes (self-rotation function), at low resolution and within a
sphere; the best axes are starting points for the orientation of a whole group, which is then refined together with the centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.fourier import lowpass
from nephila.geometry import euler_matrix, matrix_to_euler, quasi_even_directions, rotation_vector_to_matrix
from nephila.resize import resize_volume
from nephila.rigid_fit import transform_volume
from nephila.symmetry import point_group_matrices, point_group_name

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

CANDIDATES = ("C2", "C3", "C4", "C5", "C6", "C7", "C8", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "T", "O", "I")
BOX = 32
"""Side at which volumes are compared, px."""
STEP_DEG = 5.0
SPIN_STEP_DEG = 3.0
STARTS = 4
REFINED_STARTS = 2
MOST_OPERATORS = 7
"""Of larger groups only so many rotations are tried, spread evenly over the group."""


@dataclass(frozen=True)
class Orientation:
    """How a volume must be moved to have a point group's axes where RELION has them.

    Attributes:
        symmetry: name of the group.
        rotation: [3, 3], acts on (x, y, z): density at r goes to `rotation @ r + shift` (r from the centre voxel).
        shift: [3], A, x y z.
        correlation: mean correlation of the moved volume with its copies turned by the group's rotations; 1 for perfect symmetry.
    """

    symmetry: str
    rotation: Float64
    shift: Float64
    correlation: float

    @property
    def euler_deg(self) -> Float64:
        """rot, tilt, psi of the rotation."""
        return np.asarray(matrix_to_euler(self.rotation), dtype=np.float64)


class SymmetrySearch:
    """A volume prepared for comparison with turned copies of itself."""

    def __init__(self, volume: npt.ArrayLike, pixel_size: float, diameter: float, resolution: float = 20.0) -> None:
        """Low-pass and resample.

        Args:
            volume: [n, n, n]; pixel_size: A; diameter: of the sphere that holds the particle, A.
            resolution: A; details finer than this do not count.

        Raises:
            InputError: a volume that is not cubic, has no density within the sphere, or is smaller than the sphere.
        """
        data = np.asarray(volume, dtype=np.float32)
        if data.ndim != 3 or len(set(data.shape)) != 1 or not np.isfinite(data).all():
            raise InputError(f"a cubic volume of finite values is needed, this one has the shape {data.shape}")
        if not 0 < diameter <= len(data) * pixel_size:
            width = len(data) * pixel_size
            raise InputError(f"diameter {diameter:g} A: it must be positive and at most the box, {width:.0f} A")
        wanted = diameter * 1.25 / BOX
        smooth = lowpass(data, pixel_size, max(resolution, 2 * pixel_size, 2.5 * wanted))
        small, self.pixel_size = resize_volume(smooth, pixel_size, wanted, BOX)
        place = np.arange(BOX) - BOX // 2
        z, y, x = np.meshgrid(place, place, place, indexing="ij")
        inside = x**2 + y**2 + z**2 <= (0.5 * diameter / self.pixel_size) ** 2
        self.points = np.stack([x[inside], y[inside], z[inside]]).astype(np.float64)
        self.volume = small
        self.values = self._read(np.eye(3), np.zeros(3))
        if not self.values.any():
            raise InputError("the volume is constant within the sphere: it has every symmetry and none")

    def _read(self, rotation: Float64, shift: Float64) -> Float64:
        """Values of the volume at `rotation @ points + shift` (px), mean 0 and norm 1."""
        from scipy.ndimage import map_coordinates

        where = (rotation @ self.points + shift[:, None] + BOX // 2)[::-1]
        values = map_coordinates(self.volume, where, order=1, mode="nearest").astype(np.float64)
        values -= values.mean()
        norm = float(np.linalg.norm(values))
        return values / norm if norm > 0 else values

    def axis_score(self, axis: Float64, fold: int) -> float:
        """Correlation with the copy turned by 360 / fold degrees about an axis through the centre."""
        return float(self.values @ self._read(rotation_vector_to_matrix(axis * 2 * np.pi / fold), np.zeros(3)))

    def group_score(self, operators: Float64, rotation: Float64, shift: Float64) -> float:
        """Mean correlation over operators [m, 3, 3] after moving the volume by `rotation` and `shift` (px)."""
        inverse = rotation.T
        origin = -inverse @ shift
        moved = self._read(inverse, origin)
        return float(np.mean([moved @ self._read(inverse @ operator, origin) for operator in operators]))

    def axes(self, folds: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)) -> pd.DataFrame:
        """The best axis of each fold: nphFold, its direction rlnAngleRot and rlnAngleTilt, nphCorrelation, and nphTypical.

        nphTypical is the median over all directions: what the fold gives by chance.
        """
        directions, axes = _half_sphere(STEP_DEG)
        rows = []
        for fold in folds:
            scores = np.array([self.axis_score(axis, fold) for axis in axes])
            best = int(scores.argmax())
            rows.append(
                (fold, *np.round(directions[best], 2), round(scores[best], 4), round(float(np.median(scores)), 4))
            )
        return pd.DataFrame(rows, columns=["nphFold", "rlnAngleRot", "rlnAngleTilt", "nphCorrelation", "nphTypical"])

    def orient(self, symmetry: str) -> Orientation:
        """The move that gives a point group its best score.

        Raises:
            InputError: an unknown group, or C1, which has no axes.
        """
        from scipy.optimize import minimize

        group = point_group_matrices(symmetry)
        name = point_group_name(symmetry)
        if len(group) == 1:
            raise InputError("C1 has no axes to find")
        operators = _spread(group[1:])
        axis, fold = principal_axis(group)
        tilting = np.array([g for g in group if np.linalg.norm(g @ axis - axis) > 1e-6][:3])
        _, axes = _half_sphere(STEP_DEG)
        scores = np.array([self.axis_score(trial, fold) for trial in axes])
        starts = []
        for index in _apart(axes, scores, 20.0, STARTS):
            upright = _rotation_onto(axes[index], axis)
            spins = np.arange(0.0, 360.0 / fold, SPIN_STEP_DEG) if len(tilting) else np.zeros(1)
            for spin in np.deg2rad(spins):
                rotation = rotation_vector_to_matrix(axis * spin) @ upright
                score = self.group_score(tilting if len(tilting) else operators, rotation, np.zeros(3))
                starts.append((score, rotation))
        starts.sort(key=lambda start: -start[0])
        best: tuple[float, Float64, Float64] = (-2.0, np.eye(3), np.zeros(3))
        for _, start in starts[:REFINED_STARTS]:

            def loss(p: Float64, start: Float64 = start) -> float:
                return -self.group_score(operators, rotation_vector_to_matrix(p[:3]) @ start, p[3:])

            simplex = np.vstack([np.zeros(6), np.diag([0.05, 0.05, 0.05, 0.7, 0.7, 0.7])])
            found = minimize(
                loss, np.zeros(6), method="Nelder-Mead",
                options={"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-5, "maxfev": 180},
            )  # fmt: skip
            if -found.fun > best[0]:
                best = (-float(found.fun), rotation_vector_to_matrix(found.x[:3]) @ start, found.x[3:])
        return Orientation(name, best[1], best[2] * self.pixel_size, best[0])


def likely_symmetry(found: list[Orientation], tolerance: float = 0.05) -> Orientation | None:
    """The largest group that explains the volume nearly as well as the best one does; None where even that is poor (below 0.5)."""
    if not found:
        return None
    top = max(found, key=lambda orientation: orientation.correlation)
    if top.correlation < 0.5:
        return None
    good = [one for one in found if one.correlation >= top.correlation - tolerance]
    return max(good, key=lambda one: (len(point_group_matrices(one.symmetry)), one.correlation))


def apply_orientation(volume: npt.ArrayLike, pixel_size: float, orientation: Orientation) -> Float32:
    """The volume moved as found, on its own grid."""
    return transform_volume(np.asarray(volume, dtype=np.float32), orientation.rotation, orientation.shift / pixel_size)


def expand_symmetry(table: pd.DataFrame, symmetry: str) -> pd.DataFrame:
    """Every particle once for each rotation of a point group, in all poses A S that the symmetry makes equal.

    Rows of a particle follow each other; nphSymmetryCopy counts them from 1, the first has the particle's own pose. A
    reconstruction of the expanded table without symmetry is that of the table with it; a mask and classes may then tell the
    copies apart.
    """
    group = point_group_matrices(symmetry)
    poses = euler_matrix(table["rlnAngleRot"], table["rlnAngleTilt"], table["rlnAnglePsi"])
    copies = np.einsum("mij,gjk->mgik", poses, group).reshape(-1, 3, 3)
    expanded = table.loc[table.index.repeat(len(group))].reset_index(drop=True)
    angles = np.asarray(matrix_to_euler(copies), dtype=np.float64).reshape(3, -1) if len(table) else np.zeros((3, 0))
    own = np.arange(len(expanded)) % len(group) == 0
    for name, values in zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles, strict=True):
        expanded[name] = np.where(own, expanded[name], np.round(values, 6))
    expanded["nphSymmetryCopy"] = np.tile(np.arange(1, len(group) + 1), len(table))
    return expanded


def principal_axis(group: Float64) -> tuple[Float64, int]:
    """Direction [3] and fold of an axis of the highest fold of a group of rotations."""
    angles = np.arccos(np.clip((np.trace(group, axis1=1, axis2=2) - 1) / 2, -1, 1))
    least = int(np.where(angles > 1e-6, angles, 10.0).argmin())
    return _axis_of(group[least]), round(2 * np.pi / float(angles[least]))


def _axis_of(rotation: Float64) -> Float64:
    values, vectors = np.linalg.eigh((rotation + rotation.T) / 2)
    axis = vectors[:, int(np.abs(values - 1).argmin())]
    return axis * np.sign(axis[int(np.abs(axis).argmax())])


def _spread(operators: Float64) -> Float64:
    """At most MOST_OPERATORS of the rotations."""
    if len(operators) <= MOST_OPERATORS:
        return operators
    return operators[np.linspace(0, len(operators) - 1, MOST_OPERATORS).astype(int)]


def _half_sphere(step_deg: float) -> tuple[Float64, Float64]:
    """Directions (rot, tilt; degrees) [m, 2] and unit vectors [m, 3] over half the sphere."""
    directions = np.asarray(quasi_even_directions(step_deg), dtype=np.float64)[:, :2]
    rot, tilt = np.deg2rad(directions).T
    return directions, np.column_stack([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)])


def _apart(axes: Float64, scores: Float64, least_deg: float, number: int) -> list[int]:
    """Indices of the best scores, their axes at least so far apart."""
    chosen: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(abs(float(axes[index] @ axes[other])) < np.cos(np.deg2rad(least_deg)) for other in chosen):
            chosen.append(int(index))
            if len(chosen) == number:
                break
    return chosen


def _rotation_onto(start: Float64, end: Float64) -> Float64:
    """A rotation that takes one unit vector to another."""
    cross, dot = np.cross(start, end), float(np.clip(start @ end, -1, 1))
    sine = float(np.linalg.norm(cross))
    if sine < 1e-9:
        if dot > 0:
            return np.eye(3)
        other = np.cross(start, np.eye(3)[int(np.abs(start).argmin())])
        return rotation_vector_to_matrix(np.pi * other / np.linalg.norm(other))
    return rotation_vector_to_matrix(cross / sine * np.arctan2(sine, dot))
