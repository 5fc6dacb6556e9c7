"""Which aligned particles do not look like the others of their view: class averages within views, and principal components.

The images are looked at coarsely: low-passed, turned to their view, and cut to the particle's disk, some hundred numbers each.
A particle is compared with the average of the other particles of its view. Where a view has few, the reference's projection counts
as some more (empirical Bayes: as many as its own disagreement with the averages is worth). What the average does not explain goes
into a principal component analysis over the group, where edges of contamination, neighbours and other objects stand apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.averaging import ImageSource, align_images
from nephila.ctf import Optics, ctf_2d
from nephila.errors import InputError
from nephila.fourier import centred_irfft2, centred_rfft2, fourier_resize_image, frequency_radius_2d
from nephila.particle_selection import robust_z

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

COLUMNS = ("nphViewAgreement", "nphComponentDistance", "nphUnexplained")
"""What the evidence consists of."""

_DETAILS = 8.0  # finest detail looked at: this part of the diameter, or
_FINEST = 25.0  # A
_OVERSAMPLING = 1.5
_STRONGEST = 1.5  # median lengths; stronger images are scaled down before they enter sums that others are judged by
_BATCH = 256
_FEWEST = 30
_AT_LIMIT = 1.0

COMPONENTS = 8
"""Principal components looked at."""


class CoarseViews:
    """Brings images [n, n] to their view, low-passed and on a coarse grid, as vectors over the particle's disk."""

    def __init__(self, n: int, pixel_size: float, diameter: float) -> None:
        resolution = max(_FINEST, diameter / _DETAILS, 2.2 * pixel_size)
        side = n * pixel_size
        self.n = min(2 * int(np.ceil(_OVERSAMPLING * side / resolution)), n - n % 2)
        self.pixel_size = side / self.n
        cutoff = side / resolution
        radius = frequency_radius_2d(self.n)
        self._band = (0.5 + 0.5 * np.cos(np.pi * np.clip((radius - cutoff + 1) / 2, 0, 1))).astype(np.float32)
        axis = (np.arange(self.n) - self.n // 2) * self.pixel_size
        self.disk = axis[:, None] ** 2 + axis[None, :] ** 2 <= (0.5 * diameter) ** 2

    def coarse(self, images: Float32, modulation: Float32 | None = None) -> Float32:
        """Images [m, n, n] low-passed on the coarse grid; `modulation`: a half transform on it to multiply with."""
        band = self._band if modulation is None else self._band * modulation
        return centred_irfft2(centred_rfft2(fourier_resize_image(images, self.n)) * band, self.n)

    def vectors(self, images: Float32, psi: Float64, shifts: Float64, mirrored: npt.NDArray[np.bool_]) -> Float32:
        """Vectors [m, d] of particles; psi in degrees, shifts [m, 2] in A."""
        x, y = shifts.T / self.pixel_size
        return align_images(self.coarse(images), psi, x, y, mirrored)[:, self.disk]


def view_evidence(
    images: ImageSource,
    alignment: pd.DataFrame,
    assignments: pd.DataFrame,
    references: ImageSource,
    *,
    pixel_size: float,
    diameter: float,
    optics: Optics,
    components: int = COMPONENTS,
) -> pd.DataFrame:
    """Evidence against each particle of a defocus group, row by row.

    Parameters
    ----------
    images : [m, n, n], protein bright, read in batches of 256
    alignment : rlnOriginXAngst, rlnOriginYAngst, rlnDefocusU, rlnDefocusV (A)
    assignments : table of `averaging.select_by_view`, same rows
    references : [views, n, n], the reference's projections without CTF
    components : principal components looked at

    Returns
    -------
    nphViewAgreement : how much more or less of the average of its view's other particles is in it than expected, deviations of the
    noise (0 is usual); nphComponentDistance : from the group's centre in the principal components of what that average leaves,
    robust deviations per component (1 is usual); nphUnexplained : power outside these components over the group's median. NaN in
    all rows of a group of fewer than 30 particles.
    """
    if len(alignment) != len(assignments):
        raise InputError(
            f"{len(alignment)} aligned particles but {len(assignments)} assigned to views; use the same table"
        )
    if len(alignment) < _FEWEST:
        return pd.DataFrame(np.full((len(alignment), len(COLUMNS)), np.nan), columns=list(COLUMNS))
    views = assignments["nphView"].to_numpy(dtype=np.int64) - 1
    if views.min() < 0 or views.max() >= references.shape[0]:
        raise InputError(
            f"nphView runs from {views.min() + 1} to {views.max() + 1}, but there are {references.shape[0]} views"
        )
    grid = CoarseViews(images.shape[1], pixel_size, diameter)
    vectors = _all_vectors(grid, images, alignment, assignments)
    occupied, slot = np.unique(views, return_inverse=True)
    defocus = 0.5 * float(alignment[["rlnDefocusU", "rlnDefocusV"]].to_numpy(np.float64).sum(axis=1).mean())
    ctf = np.asarray(ctf_2d((grid.n, grid.n), grid.pixel_size, defocus, defocus, 0.0, optics), dtype=np.float32)
    expected = np.stack([np.asarray(references[int(v)], dtype=np.float32) for v in occupied])
    expected = grid.coarse(expected, ctf)[:, grid.disk]
    agreement, rest = compare_with_views(vectors, slot.astype(np.int64), expected)
    distance, unexplained = component_distances(rest, components)
    return pd.DataFrame(dict(zip(COLUMNS, (agreement, distance, unexplained), strict=True)))


def _all_vectors(grid: CoarseViews, images: ImageSource, alignment: pd.DataFrame, assignments: pd.DataFrame) -> Float32:
    """Vectors [m, d] of all particles: a kilobyte each; the images themselves are held by the batch."""
    psi = assignments["nphViewPsi"].to_numpy(dtype=np.float64)
    mirrored = assignments["nphMirrored"].to_numpy() != 0
    shifts = alignment[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(dtype=np.float64)
    out = np.empty((len(alignment), int(grid.disk.sum())), dtype=np.float32)
    for first in range(0, len(out), _BATCH):
        rows = slice(first, min(first + _BATCH, len(out)))
        read = np.stack([np.asarray(images[i], dtype=np.float32) for i in range(rows.start, rows.stop)])
        out[rows] = grid.vectors(read, psi[rows], shifts[rows], mirrored[rows])
    return out


def _blocks(number: int) -> Iterator[slice]:
    return (slice(first, min(first + _BATCH, number)) for first in range(0, number, _BATCH))


def _scales(vectors: Float32) -> Float64:
    """Factors [m] that bring the longest vectors down to 1.5 times the median length."""
    length = np.concatenate([np.linalg.norm(vectors[b].astype(np.float64), axis=1) for b in _blocks(len(vectors))])
    return np.asarray(np.minimum(1.0, _STRONGEST * float(np.median(length)) / np.maximum(length, 1e-30)))


def compare_with_views(vectors: Float32, view: Int, expected: Float32) -> tuple[Float64, Float32]:
    """How much more of its view's average than that holds itself is in each vector [m], in deviations of the noise along it, and
    what the average leaves [m, d]. Minus the average's length over the noise: nothing of it; 0: as expected.

    Parameters
    ----------
    vectors : [m, d]; view : [m], row of `expected` that each belongs to
    expected : [views, d], what the reference says, on any scale
    """
    scale = _scales(vectors)
    number = np.bincount(view, minlength=len(expected)).astype(np.float64)
    prior = expected.astype(np.float64)
    total, squares, along = np.zeros(prior.shape), 0.0, np.empty(len(vectors))
    for block in _blocks(len(vectors)):
        tame = vectors[block] * scale[block, None]
        np.add.at(total, view[block], tame)
        squares += float((tame**2).sum())
        along[block] = (tame * prior[view[block]]).sum(axis=1)
    along /= np.maximum((prior**2).sum(axis=1)[view], 1e-30)
    prior *= max(float(np.median(along)), 0.0)
    worth = _worth_of_prior(squares, total, number, prior)
    rest, agreement = np.empty_like(vectors), np.empty(len(vectors))
    for block in _blocks(len(vectors)):
        data, here = vectors[block].astype(np.float64), view[block]
        others = total[here] - data * scale[block, None] + worth * prior[here]
        others /= (number[here] - 1 + worth)[:, None]
        length = np.maximum(np.linalg.norm(others, axis=1), 1e-30)
        share = (data * others).sum(axis=1) / length
        agreement[block] = share - length
        rest[block] = data - (share / length)[:, None] * others
    noise = np.sqrt(float(np.median(_powers(rest))) / rest.shape[1])
    return agreement / max(noise, 1e-30), rest


def _powers(vectors: Float32) -> Float64:
    return np.concatenate([(vectors[b].astype(np.float64) ** 2).sum(axis=1) for b in _blocks(len(vectors))])


def _worth_of_prior(squares: float, total: Float64, number: Float64, prior: Float64) -> float:
    """Particles that the reference's projection is worth: the noise's variance over that of its own errors.

    squares : sum of all squares; total [views, d] : sums by view; number [views] : particles in them
    """
    mean = total / np.maximum(number, 1)[:, None]
    free = float((number - 1)[number > 1].sum())
    if free < 1:
        return 1.0
    within = squares - float((total**2).sum(axis=1) @ (1 / np.maximum(number, 1)))
    noise = max(within, 0.0) / free
    apart = ((mean - prior) ** 2).sum(axis=1)
    error = float((number * apart).sum() - noise * (number > 0).sum()) / float(number.sum())
    return float(np.clip(noise / max(error, 1e-30), 0.5, 100.0))


def component_distances(rest: Float32, components: int) -> tuple[Float64, Float64]:
    """Distance of each row [m, d] from the robust centre in its first principal components (root mean square of robust
    deviations), and the power outside them over its median."""
    scale = _scales(rest)
    scatter = np.zeros((rest.shape[1],) * 2)
    for block in _blocks(len(rest)):
        tame = rest[block] * scale[block, None]
        scatter += tame.T @ tame
    axes = np.linalg.eigh(scatter)[1][:, ::-1][:, : min(components, rest.shape[1] - 1, len(rest) // 4)]
    place = np.concatenate([rest[block] @ axes for block in _blocks(len(rest))])
    scores = np.stack([robust_z(column) for column in place.T], axis=1)
    left = np.maximum(_powers(rest) - (place**2).sum(axis=1), 0)
    return np.sqrt((scores**2).mean(axis=1)), left / max(float(np.median(left)), 1e-30)


_REASONS = {
    "nphViewAgreement": "too little of its view in it ({value:+.1f} deviations of the noise, {z:.1f} beyond the usual)",
    "nphComponentDistance": "unlike the others in principal components ({value:.1f}, {z:.1f} deviations beyond the usual)",
    "nphUnexplained": "holds more than its view and noise ({value:.1f} times the usual power, {z:.1f} deviations beyond it)",
}


def propose_by_views(evidence: pd.DataFrame, sigma: float, at_limit: npt.ArrayLike | None = None) -> pd.DataFrame:
    """Proposal for the particles of a group: nphDoubt (largest deviation, robust standard deviations), nphKeep, nphReason.

    evidence : table of `view_evidence`; sigma : deviation from which a particle is doubted, 0: none is
    at_limit : [m], whether the alignment would have shifted the particle further than it may: one that is off centre agrees with
        its view in half of its area, so that its disagreement counts one deviation more
    """
    doubt, reason = np.zeros(len(evidence)), np.full(len(evidence), "none", dtype=object)
    if len(evidence) and np.isfinite(evidence.to_numpy(dtype=np.float64)).all():
        deviations = _deviations(evidence)
        if at_limit is not None:
            deviations[0] = deviations[0] + _AT_LIMIT * np.asarray(at_limit, dtype=bool)
        for name, z in zip(COLUMNS, deviations, strict=True):
            worse = z > (np.maximum(doubt, sigma) if sigma > 0 else np.inf)
            values = evidence[name].to_numpy(dtype=np.float64)
            reason[worse] = [_REASONS[name].format(value=v, z=d) for v, d in zip(values[worse], z[worse], strict=True)]
            doubt = np.maximum(doubt, z)
    keep = (reason == "none").astype(np.int64)
    return pd.DataFrame({"nphDoubt": doubt, "nphKeep": keep, "nphReason": reason}, index=evidence.index)


def shifted_to_the_limit(aligned: pd.DataFrame, shift_range: float) -> npt.NDArray[np.bool_]:
    """Particles [m] whose origin (rlnOriginXAngst, Y) lies at or beyond the searched range (A) in x or y."""
    origins = np.abs(aligned[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(dtype=np.float64))
    return np.asarray(origins.max(axis=1) >= 0.98 * shift_range)


def _deviations(evidence: pd.DataFrame) -> list[Float64]:
    """How far each kind of evidence is on its bad side, robust standard deviations."""
    agreement, distance, rest = (evidence[name].to_numpy(dtype=np.float64) for name in COLUMNS)
    return [
        -robust_z(agreement),
        robust_z(np.log(np.maximum(distance, 1e-9))),
        robust_z(np.log(np.maximum(rest, 1e-9))),
    ]


def drop_doubted(
    aligned: pd.DataFrame, doubts: pd.DataFrame, by_hand: Collection[tuple[str, int]] = ()
) -> pd.DataFrame:
    """The aligned particles without those that the proposal `doubts` (same group) drops; `by_hand`: names and numbers of
    particles that the user keeps all the same.

    Raises
    ------
    InputError
        The two tables are not of the same particles.
    """
    keys = ["rlnMicrographName", "nphParticleNumber"]
    if len(doubts) != len(aligned) or not (aligned[keys].to_numpy() == doubts[keys].to_numpy()).all():
        raise InputError(
            "the proposal of bad particles does not belong to this alignment: make it again (rule average)"
        )
    wanted = {(str(name), int(number)) for name, number in by_hand}
    rescued = [(str(n), int(i)) in wanted for n, i in zip(*(aligned[k] for k in keys), strict=True)]
    return aligned[(doubts["nphKeep"].to_numpy() == 1) | np.array(rescued, dtype=bool)]
