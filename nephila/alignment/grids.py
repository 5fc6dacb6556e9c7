"""The grids of an exhaustive search: views, in-plane rotations, shifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.geometry import euler_matrix, quasi_even_directions, rotation_vector_to_matrix, view_direction

Float = npt.NDArray[np.float64]

# What a variant does to a pose, by left multiplication: nothing, a half turn, the mirror image, both
VARIANT_MATRICES = np.array([np.diag(d) for d in ([1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1])], dtype=np.float64)


@dataclass(frozen=True)
class OrientationGrid:
    """Views over half the sphere (mirror images stand for the rest) and in-plane rotations over half a turn.

    views : float64 [v, 2], rot and tilt in degrees
    psi : float64 [p], degrees; a half turn of each is tried too
    """

    views: Float
    psi: Float

    @classmethod
    def build(cls, angular_step_deg: float, in_plane_step_deg: float, symmetry: Float | None = None) -> OrientationGrid:
        """Quasi-even views (as `VO EA`: 83 at 15 degrees), those of one asymmetric unit where a symmetry is given."""
        views = quasi_even_directions(angular_step_deg)
        if symmetry is not None and len(symmetry) > 1:
            views = views[asymmetric_unit(view_direction(views[:, 0], views[:, 1]), symmetry, angular_step_deg)]
        number = max(1, round(180.0 / in_plane_step_deg))
        return cls(views, np.arange(number, dtype=np.float64) * (180.0 / number))

    def matrices(self) -> Float:
        """Rotations [v * p, 3, 3], view after view."""
        rot, tilt = (np.repeat(self.views[:, i], len(self.psi)) for i in (0, 1))
        return euler_matrix(rot, tilt, np.tile(self.psi, len(self.views)))

    def matrices_of(self, views: npt.NDArray[np.int64]) -> Float:
        """Rotations [k, p, 3, 3] of some views."""
        rot, tilt = (np.repeat(self.views[views, i], len(self.psi)) for i in (0, 1))
        return euler_matrix(rot, tilt, np.tile(self.psi, len(views))).reshape(len(views), len(self.psi), 3, 3)

    def directions(self) -> Float:
        """Unit vectors of view [v, 3]."""
        return view_direction(self.views[:, 0], self.views[:, 1])

    def nearest_view(
        self, matrices: Float, symmetry: Float | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Index of the view nearest to each pose [m, 3, 3], and whether it is seen from behind (mirrored)."""
        operators = np.eye(3)[None] if symmetry is None else np.asarray(symmetry)
        directions = self.directions()
        best = np.full(len(matrices), -2.0)
        reference = np.zeros(len(matrices), dtype=np.int64)
        mirrored = np.zeros(len(matrices), dtype=bool)
        for operator in operators:
            cosines = (matrices[:, 2] @ operator) @ directions.T
            index = np.argmax(np.abs(cosines), axis=1)
            value = np.take_along_axis(cosines, index[:, None], axis=1)[:, 0]
            better = np.abs(value) > best + 1e-9
            reference[better], mirrored[better], best[better] = index[better], value[better] < 0, np.abs(value[better])
        return reference, mirrored


def starts_around(step_deg: float | None, range_deg: float | None) -> Float:
    """Rotations [k, 3, 3] to turn a pose by: none, then a cubic lattice of rotation vectors `step_deg` apart within `range_deg`.

    The identity alone without a step or a range, or where the range is the smaller.
    """
    number = int(range_deg / step_deg + 1e-6) if step_deg and range_deg and range_deg < 180 else 0
    axis = np.arange(-number, number + 1, dtype=np.float64)
    vectors = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    size = (vectors**2).sum(axis=1)
    order = np.argsort(size, kind="stable")
    kept = vectors[order][size[order] <= (number + 1e-6) ** 2]
    return rotation_vector_to_matrix(np.deg2rad(kept * (step_deg or 0.0)))


def asymmetric_unit(directions: Float, symmetry: Float, step_deg: float) -> npt.NDArray[np.bool_]:
    """Which directions [v, 3] stand for all under a point group and mirroring.

    Of each set of equivalents (under the group, and opposite views) the one nearest to a fixed general direction stays;
    those within half a step of a tie stay too, so that no gap opens along the border.
    """
    centre = np.array([0.2711, 0.1342, 0.9531])
    centre /= np.linalg.norm(centre)
    equivalents = np.abs(np.einsum("sij,j->si", np.asarray(symmetry), centre) @ directions.T)
    own = np.abs(directions @ centre)
    return np.arccos(np.minimum(own, 1)) <= np.arccos(np.minimum(equivalents.max(axis=0), 1)) + np.deg2rad(step_deg) / 2


@dataclass(frozen=True)
class ShiftGrid:
    """Shifts [s, 2] in pixels, x fastest."""

    shifts: Float

    @classmethod
    def centred(cls, limit: float, step: float) -> ShiftGrid:
        """Multiples of `step` up to +-limit along x and y: SPIDER's grid, which holds zero."""
        number = int(limit / step + 1e-6)
        return cls(_square(np.arange(-number, number + 1, dtype=np.float64) * step))

    @classmethod
    def covering(cls, limit: float, step: float) -> ShiftGrid:
        """The fewest points whose cells of at most `step` cover +-limit; right where a continuous search follows."""
        number = max(1, int(np.ceil(2 * limit / step - 1e-6)))
        return cls(_square((np.arange(number, dtype=np.float64) + 0.5) * (2 * limit / number) - limit))


def _square(values: Float) -> Float:
    y, x = np.meshgrid(values, values, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def rotation_quaternions(matrices: Float) -> npt.NDArray[np.float32]:
    """Unit quaternions [m, 4] of rotation matrices [m, 3, 3]; their sign is arbitrary."""
    m = np.asarray(matrices, dtype=np.float64)
    # the eigenvector form is stable for every rotation: take the largest column of 4 q q^T
    xx, yy, zz = m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]
    outer = np.empty((len(m), 4, 4))
    for i, value in enumerate((1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz)):
        outer[:, i, i] = value
    for i, j, value in (
        (0, 1, m[:, 2, 1] - m[:, 1, 2]),
        (0, 2, m[:, 0, 2] - m[:, 2, 0]),
        (0, 3, m[:, 1, 0] - m[:, 0, 1]),
        (1, 2, m[:, 0, 1] + m[:, 1, 0]),
        (1, 3, m[:, 0, 2] + m[:, 2, 0]),
        (2, 3, m[:, 1, 2] + m[:, 2, 1]),
    ):
        outer[:, i, j] = outer[:, j, i] = value
    column = np.argmax(np.diagonal(outer, axis1=1, axis2=2), axis=1)
    chosen = outer[np.arange(len(m)), :, column]
    return (chosen / np.linalg.norm(chosen, axis=1, keepdims=True)).astype(np.float32)
