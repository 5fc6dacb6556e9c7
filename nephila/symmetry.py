"""Point groups: rotation matrices in RELION's orientation of axes, and what they mean for a volume."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError

Matrices = npt.NDArray[np.float64]

_NAME = re.compile(r"(?:(?P<family>[CD])(?P<fold>[1-9]\d{0,2})|(?P<solid>T|O|I[1-4]?))")
_MAX_FOLD = 180

# Axes (x, y, z) and folds that generate each group; RELION 3.1 prints the same groups
# (relion_refine --sym ... --print_symmetry_ops).
_GOLDEN = (1.0 + np.sqrt(5.0)) / 2.0
_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_ICOSAHEDRAL_TILT = np.sqrt((5.0 + np.sqrt(5.0)) / 10.0)  # cosine of a 2-fold next to a 5-fold on z
_SOLID_GENERATORS: dict[str, list[tuple[tuple[float, float, float], int]]] = {
    "T": [(_Z, 3), ((0.0, np.sqrt(2.0 / 3.0), np.sqrt(1.0 / 3.0)), 2)],
    "O": [(_Z, 4), (_X, 4)],
    "I1": [(_Z, 2), (_X, 2), ((0.0, 1.0, _GOLDEN), 5)],
    "I2": [(_Z, 2), (_X, 2), ((1.0, 0.0, _GOLDEN), 5)],
    "I3": [(_Z, 5), ((np.sqrt(1.0 - _ICOSAHEDRAL_TILT**2), 0.0, -_ICOSAHEDRAL_TILT), 2)],
    "I4": [(_Z, 5), ((np.sqrt(1.0 - _ICOSAHEDRAL_TILT**2), 0.0, _ICOSAHEDRAL_TILT), 2)],
}


def parse_point_group(name: str) -> tuple[str, int]:
    """Split a point group's name into family and fold.

    Args:
        name: "C1", "Cn", "Dn", "T", "O", "I" (= "I2", RELION's default) or "I1" to "I4"; case does not matter.

    Returns:
        (family, n): ("C", n), ("D", n), ("T", 1), ("O", 1) or ("I", setting 1 to 4).

    Raises:
        InputError: unknown name.
    """
    match = _NAME.fullmatch(str(name).strip().upper())
    if match is None or (match["fold"] and int(match["fold"]) > _MAX_FOLD):
        raise InputError(f"unknown point group {name!r}; give C1, Cn, Dn (n up to {_MAX_FOLD}), T, O, I or I1 to I4")
    if match["family"]:
        return match["family"], int(match["fold"])
    solid = match["solid"]
    if solid[0] == "I":
        return "I", int(solid[1:] or 2)
    return solid, 1


def point_group_name(name: str) -> str:
    """Standard spelling of a point group ("i" -> "I2", "c4" -> "C4"). Raises InputError for unknown names."""
    family, fold = parse_point_group(name)
    return family if family in "TO" else f"{family}{fold}"


def point_group_matrices(name: str) -> Matrices:
    """Rotation matrices of a point group.

    Axes as in RELION: Cn and Dn have the n-fold on z, Dn a 2-fold on x; O has its 4-folds on x, y, z; T a 3-fold on z
    and a 2-fold at (0, sqrt 2, 1); I (= I2) has 2-folds on x, y, z and 5-folds in the xz plane, I1 in the yz plane;
    I3 and I4 have a 5-fold on z and a 2-fold on y.

    Args:
        name: see `parse_point_group`.

    Returns:
        float64 [n, 3, 3], acting on columns (x, y, z); the identity is first. The set is closed under products
        and inverses, so it does not matter whether it acts on the object or on the coordinates.
        A particle with matrix A sees the same projection with A @ S for every S.

    Raises:
        InputError: unknown name.
    """
    return _group(point_group_name(name)).copy()


@lru_cache(maxsize=32)
def _group(name: str) -> Matrices:
    if name[0] == "C":
        return _close([_rotation_about(_Z, int(name[1:]))])
    if name[0] == "D":
        return _close([_rotation_about(_Z, int(name[1:])), _rotation_about(_X, 2)])
    return _close([_rotation_about(axis, fold) for axis, fold in _SOLID_GENERATORS[name]])


def _rotation_about(axis: tuple[float, float, float], fold: int) -> Matrices:
    """Rotation by 360 / fold degrees about an axis (Rodrigues' formula)."""
    u = np.asarray(axis, dtype=np.float64)
    u = u / np.linalg.norm(u)
    angle = 2.0 * np.pi / fold
    cross = np.array([[0.0, -u[2], u[1]], [u[2], 0.0, -u[0]], [-u[1], u[0], 0.0]])
    return np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * np.outer(u, u)


def _close(generators: list[Matrices]) -> Matrices:
    """All products of the generators, identity first, each cleaned of rounding (0 and +-1 exact)."""
    elements = [np.eye(3)]
    frontier = [np.eye(3)]
    while frontier:
        fresh: list[Matrices] = []
        for element in frontier:
            for generator in generators:
                product = _clean(element @ generator)
                if min(float(np.abs(product - known).max()) for known in elements) > 1e-6:
                    elements.append(product)
                    fresh.append(product)
        frontier = fresh
    return np.stack(elements)


def _clean(matrix: Matrices) -> Matrices:
    nearest = np.round(matrix * 2.0) / 2.0
    cleaned: Matrices = np.where(np.abs(matrix - nearest) < 1e-12, nearest, matrix) + 0.0
    return cleaned


def centre_is_fixed(name: str) -> tuple[bool, bool, bool]:
    """Which coordinates (x, y, z) of the centre a point group fixes.

    C1 fixes none; Cn (n > 1) fixes x and y, the object may slide along z; Dn, T, O and I fix all three.
    D1 is a single 2-fold on x and fixes y and z.
    """
    family, fold = parse_point_group(name)
    if family == "C":
        return (fold > 1, fold > 1, False)
    if family == "D" and fold == 1:
        return (False, True, True)
    return (True, True, True)


def grid_cosets(matrices: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], Matrices]:
    """Split a group into the operators that map a cubic grid onto itself and representatives of the rest.

    Args:
        matrices: [n, 3, 3], a group as `point_group_matrices` returns it.

    Returns:
        (signed permutations int64 [h, 3, 3], representatives float64 [n / h, 3, 3], identity first);
        every operator is (one signed permutation) @ (one representative).
    """
    group = np.asarray(matrices, dtype=np.float64)
    on_grid = [m for m in group if np.abs(m - np.round(m)).max() < 1e-9]
    representatives: list[Matrices] = []
    covered: list[Matrices] = []
    for matrix in group:
        if covered and min(float(np.abs(matrix - c).max()) for c in covered) < 1e-6:
            continue
        representatives.append(matrix)
        covered.extend(h @ matrix for h in on_grid)
    return np.round(np.stack(on_grid)).astype(np.int64), np.stack(representatives)


def subgroup_chain(operators: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Factors of a group of signed permutations: a sum over the group is a sum over one factor after the other.

    Args:
        operators: int64 [h, 3, 3], a whole group.

    Returns:
        Factors [f, 3, 3] whose sizes multiply to h; `sum_S v(S k)` is built up as v <- sum over the factor of v(S k).
        24 operators need 9 reads per cell in this way.
    """
    target = {m.tobytes(): m for m in np.ascontiguousarray(operators)}
    subgroup = [np.eye(3, dtype=np.int64)]
    factors: list[npt.NDArray[np.int64]] = []
    while len(subgroup) < len(target):
        larger = min(
            (_generated([*subgroup, m]) for m in target.values()), key=lambda g: (len(g) <= len(subgroup), len(g))
        )
        covered: set[bytes] = set()
        representatives = []
        for matrix in larger:
            if matrix.tobytes() not in covered:
                representatives.append(matrix)
                covered |= {np.ascontiguousarray(h @ matrix).tobytes() for h in subgroup}
        factors.append(np.stack(representatives))
        subgroup = larger
    return factors


def _generated(generators: list[npt.NDArray[np.int64]]) -> list[npt.NDArray[np.int64]]:
    """The group that signed permutations generate, identity first."""
    known = {np.eye(3, dtype=np.int64).tobytes(): np.eye(3, dtype=np.int64)}
    frontier = list(known.values())
    while frontier:
        products = [np.ascontiguousarray(a @ b) for a in frontier for b in generators]
        frontier = []
        for product in products:
            if product.tobytes() not in known:
                known[product.tobytes()] = product
                frontier.append(product)
    return list(known.values())


def symmetrise_volume(
    volume: npt.ArrayLike, matrices: npt.ArrayLike, max_radius: int | None = None, threads: int = 1
) -> npt.NDArray[np.float32]:
    """Mean of a volume over rotations about its centre n // 2, `mean over S of V(S r)`.

    Computed from the transform, padded twice and read with a Kaiser-Bessel window four cells wide (relative error about
    1e-3); operators that map the grid onto itself are exact. What lies outside the sphere of radius n / 2 is not kept.

    Args:
        volume: float [n, n, n].
        matrices: [m, 3, 3]; a group as `point_group_matrices` gives it (any other set is averaged too).
        max_radius: largest |k| kept, Fourier px; (n - 1) // 2 where it is None.

    Raises:
        InputError: volume not cubic or not finite.
    """
    from nephila.fourier import centred_irfftn, centred_rfftn, rfftn
    from nephila.kernels import rotation
    from nephila.kernels.kaiser import kaiser_bessel_beta, kaiser_bessel_transform, weight_polynomials

    data = np.asarray(volume, dtype=np.float32)
    if data.ndim != 3 or len(set(data.shape)) != 1 or not np.isfinite(data).all():
        raise InputError(f"a cubic volume of finite values is needed, this one has the shape {data.shape}")
    n = data.shape[0]
    radius = (n - 1) // 2 if max_radius is None else min(int(max_radius), (n - 1) // 2)
    on_grid, rotations = grid_cosets(matrices)
    out = np.zeros((n, n, n // 2 + 1), dtype=np.complex64)
    if len(rotations) == 1:
        transform = centred_rfftn(data, threads)
    else:
        # the window reaches two cells beyond the largest |k|: an odd side needs the room
        n_pad, width = 2 * (n + n % 2), 4
        beta = 1.1 * kaiser_bessel_beta(width, 2.0)
        place = np.arange(n) - n // 2
        along = 1.0 / kaiser_bessel_transform(place / n_pad, width, beta)
        inside = (place**2)[:, None, None] + (place**2)[None, :, None] + (place**2)[None, None, :] <= (n / 2) ** 2
        padded = np.zeros((n_pad,) * 3, dtype=np.float32)
        index = np.ix_(place % n_pad, place % n_pad, place % n_pad)
        padded[index] = data * inside * along[:, None, None] * along[None, :, None] * along[None, None, :]
        taps = weight_polynomials(width, beta, 7).astype(np.float32)
        transform = out.copy()
        # (grid operator) @ (representative), inverted, is (representative's inverse) @ (grid operator)
        inverses = np.ascontiguousarray(rotations.transpose(0, 2, 1))
        rotation.average_rotated(rfftn(padded, threads), inverses, radius, n_pad / n, taps, transform)
    weight = np.ones(out.shape, dtype=np.float32)
    for step in subgroup_chain(on_grid):
        out[...] = 0
        rotation.sum_permuted(transform, weight, step, radius, out, np.empty_like(weight))
        transform, out = (out * np.float32(1 / len(step))).astype(np.complex64), transform
    return centred_irfftn(transform, n, threads)
