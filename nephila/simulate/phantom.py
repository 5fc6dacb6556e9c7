"""A built-in molecule: bundles of helices packed into an irregular shape, in any point group.

The phantom has what matters for tests of reconstruction: an asymmetric outline with lobes (low resolution), domains
of helices 9.5 A apart (10 A), the helical pitch of 5.4 A, and single atoms down to 3 A. It is made from a seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.simulate.density import Atoms, symmetrise

Float64 = npt.NDArray[np.float64]

DOMAIN_SPACING = 42.0
EMPTY_DOMAINS = 0.06
HELIX_SPACING = 9.5
RESIDUES = int(2.4 * DOMAIN_SPACING / 1.5)  # of a helix before it is cut
MARKER = np.array([0.36, 0.48, 0.80])  # a direction in general position: it picks the fundamental domain
NOTHING = Atoms(np.zeros((0, 3)), np.zeros(0))
SHORTEST_HELIX = 6
SMALLEST_DOMAIN = 45  # residues; stray helices without a domain are left out
CELL_GAP = 3.0  # A from a domain's wall to the axis of a helix; walls are met at any angle
COPY_GAP = 5.0  # the same to the wall of the fundamental domain
RISE, TWIST_DEG = 1.5, 100.0
# Backbone of an alpha helix: radius (A), angle (deg) and height (A) from the C-alpha, electron scattering factor (A).
_BACKBONE = (
    (1.55, -27.0, -0.87, 2.21),  # N
    (2.29, 0.0, 0.00, 2.51),  # C-alpha
    (1.68, 26.0, 1.15, 2.51),  # C
    (2.03, 23.0, 2.36, 1.98),  # O
    (3.30, -19.0, -0.20, 2.51),  # C-beta
)
_SIDE_CHAIN_WEIGHT = 2.4


def build_phantom(diameter: float = 180.0, seed: int = 0, symmetry: str = "C1") -> Atoms:
    """Make a molecule of helix bundles.

    Parameters
    ----------
    diameter : A, of the sphere about the centre that just holds it; 80 or more
    seed : another seed is another molecule
    symmetry : point group with RELION's axes; the fundamental domain is filled and copied

    Returns
    -------
    Atoms, centred on the centre of mass (for a point group: on the axes)

    Raises
    ------
    InputError
        A diameter below 80 A, an unknown point group, or one with too many copies for the diameter.
    """
    from nephila.symmetry import point_group_matrices

    if not 80 <= diameter <= 1000:
        raise InputError(f"phantom diameter {diameter} A: it must lie in 80 to 1000 A")
    group = point_group_matrices(symmetry)
    bundles: dict[tuple[int, ...], tuple[Float64, Float64]] = {}
    scale, best = 1.0, NOTHING
    for trial in range(7):  # the diameter follows from what fits into the outline, in steps of a domain
        atoms = _fill(scale * diameter / 2, group, seed, bundles)
        if len(atoms) == 0:
            raise InputError(f"phantom of {diameter} A: too small for point group {symmetry}; give a larger diameter")
        if len(best) == 0 or abs(atoms.diameter - diameter) < abs(best.diameter - diameter):
            best = atoms
        ratio = diameter / atoms.diameter
        if abs(ratio - 1) < 0.015:
            break
        scale *= ratio**0.7 * (1.0 + 0.01 * (trial % 3))
    return best


def _fill(radius: float, group: Float64, seed: int, bundles: dict[tuple[int, ...], tuple[Float64, Float64]]) -> Atoms:
    """Fill the outline (within the fundamental domain of `group`) with domains of parallel helices."""
    lobes = _outline(radius, group, np.random.default_rng([seed, 7001]))
    half = int(np.ceil(radius / DOMAIN_SPACING)) + 2
    # Each site draws for itself, so that the packing is one endless pattern of which the outline cuts a piece.
    sites = [
        _Site.draw(seed, (i, j, k))
        for i in range(-half, half + 1)
        for j in range(-half, half + 1)
        for k in range(-half, half + 1)
    ]
    centres = np.array([site.centre for site in sites])
    touched = _inside(centres, lobes + np.array([0, 0, 0, 0.5 * DOMAIN_SPACING]))
    if len(group) > 1:
        touched &= ((centres @ (MARKER - group[1:] @ MARKER).T) > -DOMAIN_SPACING).all(axis=1)
    smallest = SMALLEST_DOMAIN if len(group) == 1 and radius > 60 else SHORTEST_HELIX
    points, weights = [], []
    for number in np.flatnonzero(touched):
        site = sites[number]
        if site.empty:
            continue
        if site.seed not in bundles:
            bundles[site.seed] = _bundle(site)
        local, weight = bundles[site.seed]
        near = centres[np.linalg.norm(centres - site.centre, axis=1) < 2.5 * DOMAIN_SPACING]
        kept = _kept(local[:, :5].mean(axis=1), site.centre, near, lobes, group)
        if np.count_nonzero(kept) < smallest:
            continue
        points.append(local[kept].reshape(-1, 3))
        weights.append(weight[kept].reshape(-1))
    if not any(map(len, points)):
        return NOTHING
    atoms = symmetrise(Atoms(np.concatenate(points), np.concatenate(weights)), group)
    mass_centre = np.average(atoms.positions, axis=0, weights=atoms.weights)
    return Atoms(atoms.positions - group.mean(axis=0) @ mass_centre, atoms.weights)


@dataclass(frozen=True)
class _Site:
    """A domain's place in the packing: centre (A), direction of its helices, whether it stays empty, its own seed."""

    centre: Float64
    axis: Float64
    empty: bool
    seed: tuple[int, ...]

    @classmethod
    def draw(cls, seed: int, index: tuple[int, int, int]) -> _Site:
        key = (seed, 7002, *(i + 1000 for i in index))
        rng = np.random.default_rng(key)
        centre = (np.array(index) + rng.uniform(-0.45, 0.45, size=3)) * DOMAIN_SPACING
        axis = rng.normal(size=3)
        return cls(centre, axis / np.linalg.norm(axis), bool(rng.random() < EMPTY_DOMAINS), (*key, 1))


def _outline(radius: float, group: Float64, rng: np.random.Generator) -> Float64:
    """Spheres (x, y, z, radius) [m, 4] whose union is the outline, within `radius` of the origin.

    C1: a body, a head on a neck and two arms of different size, all in general positions, so that no axis of pseudo-
    symmetry arises. Higher groups: a thick shell with bumps.
    """
    if len(group) > 1:
        shell = rng.normal(size=(60, 3))
        shell *= (radius * rng.uniform(0.55, 0.8, size=60) / np.linalg.norm(shell, axis=1))[:, None]
        return np.column_stack([shell, radius * rng.uniform(0.17, 0.24, size=60)])
    steps = rng.normal(size=(4, 3))
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    body = [np.zeros(3), 0.30 * steps[0]]
    side = np.cross(steps[0], steps[1])
    side /= np.linalg.norm(side)
    up = np.cross(side, steps[0])
    spheres = [
        (body[0], 0.52),
        (body[1], 0.46),
        (0.78 * steps[0] + 0.10 * side, 0.34),  # head
        (-0.15 * steps[0] + 0.55 * side + 0.12 * up, 0.33),  # long arm, two spheres
        (-0.30 * steps[0] + 0.78 * side + 0.28 * up, 0.30),
        (0.05 * steps[0] - 0.25 * side + 0.55 * up, 0.33),  # short arm
        (-0.45 * steps[0] - 0.30 * side - 0.35 * up, 0.29),  # foot
    ]
    table = np.array([[*position, size] for position, size in spheres])
    middle = np.average(table[:, :3], axis=0, weights=table[:, 3] ** 3)
    table[:, :3] -= middle
    return table * radius / (np.linalg.norm(table[:, :3], axis=1) + table[:, 3]).max()


def _inside(points: Float64, lobes: Float64) -> npt.NDArray[np.bool_]:
    distance = np.linalg.norm(points[:, None, :] - lobes[None, :, :3], axis=2)
    return np.asarray((distance < lobes[None, :, 3]).any(axis=1))


def _frame(axis: Float64) -> Float64:
    """A right-handed frame [3, 3] whose last row is `axis`."""
    helper = np.eye(3)[np.argmin(np.abs(axis))]
    first = np.cross(axis, helper)
    first /= np.linalg.norm(first)
    return np.asarray(np.stack([first, np.cross(axis, first), axis]), dtype=np.float64)


def _bundle(site: _Site) -> tuple[Float64, Float64]:
    """Helices of one domain, parallel within a few degrees: atoms [residues, 7, 3] in A and their weights [residues,
    7].

    Residues come helix after helix, `RESIDUES` each, before anything is cut away.
    """
    rng = np.random.default_rng(site.seed)
    reach = 1.2 * DOMAIN_SPACING
    rows = int(reach / HELIX_SPACING) + 2
    i, j = (a.ravel() for a in np.meshgrid(np.arange(-rows, rows + 1), np.arange(-rows, rows + 1), indexing="ij"))
    across = HELIX_SPACING * np.stack([i + 0.5 * j, np.sqrt(0.75) * j], axis=1)
    across = across[np.linalg.norm(across, axis=1) < reach]
    n = len(across)
    atoms, weights = _helices(n, rng)
    atoms[..., :2] += (across + rng.uniform(-0.8, 0.8, size=(n, 2)))[:, None, None]
    atoms[..., :2] += rng.normal(scale=0.07, size=(n, 2))[:, None, None] * atoms[..., 2:3]
    atoms = atoms @ _frame(site.axis) + site.centre
    return atoms.reshape(n * RESIDUES, -1, 3), weights.reshape(n * RESIDUES, -1)


def _helices(n: int, rng: np.random.Generator) -> tuple[Float64, Float64]:
    """Atoms [n, residues, 7, 3] of right-handed alpha helices along z, half of them downwards, and weights [n,
    residues, 7].

    Backbone, C-beta and two side-chain groups.
    """
    residue = np.arange(RESIDUES)
    radii, angles, rises, kinds = (np.array(column) for column in zip(*_BACKBONE, strict=True))
    size = rng.uniform(0.0, 1.0, size=(n, RESIDUES))
    fixed = (n, RESIDUES, len(radii))
    pair = (n, RESIDUES, 2)
    far = np.stack([3.9 + 0.8 * size, 4.4 + 1.8 * size], axis=-1)
    far_weights = _SIDE_CHAIN_WEIGHT * np.stack([size + 0.2, size], axis=-1)
    radius = np.concatenate([np.broadcast_to(radii, fixed), far], axis=-1)
    angle = np.concatenate([np.broadcast_to(angles, fixed), rng.normal(-30, 18, size=pair)], axis=-1)
    rise = np.concatenate([np.broadcast_to(rises, fixed), rng.normal(-0.8, 1.0, size=pair)], axis=-1)
    weights = np.concatenate([np.broadcast_to(kinds, fixed), far_weights], axis=-1)
    turn = rng.uniform(0, 360, size=(n, 1, 1)) + TWIST_DEG * residue[None, :, None]
    angle = np.deg2rad(angle + turn)
    height = (residue - RESIDUES / 2)[None, :, None] * RISE + rng.uniform(0, RISE, size=(n, 1, 1)) + rise
    atoms = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=-1)
    down = rng.random(n) < 0.5
    atoms[down] *= np.array([1.0, -1.0, -1.0])  # a rotation by 180 degrees about x keeps the hand of the helix
    return atoms, weights


def _kept(middle: Float64, centre: Float64, rivals: Float64, lobes: Float64, group: Float64) -> npt.NDArray[np.bool_]:
    """Which residues (their points on the helix axis, [residues, 3]) stay.

    They lie in the domain's own cell, the outline and the fundamental domain, in runs of `SHORTEST_HELIX` or more.
    """
    good = np.linalg.norm(middle - centre, axis=1) < 1.2 * DOMAIN_SPACING
    if len(group) > 1:
        others = group[1:] @ MARKER
        walls = (MARKER - others) / np.linalg.norm(MARKER - others, axis=1)[:, None]
        good[good] = (middle[good] @ walls.T > COPY_GAP).all(axis=1)
    good[good] = _inside(middle[good], lobes)
    rivals = rivals[np.linalg.norm(rivals - centre, axis=1) > 1e-6]
    points = middle[good]
    own = ((points - centre) ** 2).sum(axis=1)
    other = ((points[:, None] - rivals[None]) ** 2).sum(axis=2)
    # distance from the cell's wall: (d_other^2 - d_own^2) / (2 |rival - centre|)
    wall = (other - own[:, None]) / (2 * np.linalg.norm(rivals - centre, axis=1))
    good[good] = (wall > CELL_GAP).all(axis=1)
    runs = np.pad(good.reshape(-1, RESIDUES), ((0, 0), (1, 1))).ravel().astype(np.int8)
    edges = np.flatnonzero(np.diff(runs))
    starts, ends = edges[::2], edges[1::2]
    long_runs = np.zeros(len(runs) + 1, dtype=np.int64)
    long = ends - starts >= SHORTEST_HELIX
    np.add.at(long_runs, starts[long] + 1, 1)
    np.add.at(long_runs, ends[long] + 1, -1)
    kept = np.cumsum(long_runs)[: len(runs)].reshape(-1, RESIDUES + 2)[:, 1:-1]
    return np.asarray(kept.ravel() > 0)
