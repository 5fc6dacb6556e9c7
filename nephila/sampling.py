"""Images of several pixel sizes and boxes against one reference: each kind on its own Fourier grid, none resampled.

The Fourier pixel of an image with n px of p A is 1 / (n p); that of the reference 1 / (N P). Images are compared with, and
added to, the reference's transform at `k_reference = scale A^T k_image` with `scale = N P / (n p)` (RELION scales its Euler
matrices alike). Shifts stay in A, defoci and CTFs on each image's own grid.

An optics group may state aberrations too (`ABERRATION_COLUMNS`). With a magnification matrix M the reference and the CTF are
taken at M k, even Zernike terms are added to the CTF's phase, odd ones and a beam tilt are taken off the images as they are read.

Where particles are of several kinds, their tables state the sampling and optics in each row (columns of `SAMPLING_COLUMNS`);
tables without these columns are of the project's kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.aberrations import has_odd, is_aberrated, largest_stretch, odd_correction
from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.optics_groups import (
    BEAM_TILT,
    IDENTITY,
    MAGNIFICATION,
    Matrix2,
    OpticsGroup,
    optics_frame,
    read_optics,
)
from nephila.particle_images import CorrectedImages, ParticleImages

Float64 = npt.NDArray[np.float64]

SAMPLING_COLUMNS = (
    "rlnImagePixelSize", "rlnImageSize", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
)  # fmt: skip
GROUP_COLUMNS = ("rlnOpticsGroupName", "rlnMicrographOriginalPixelSize")
"""What else of the optics groups travels with the rows, for the optics block at the end."""
ABERRATION_COLUMNS = ("rlnEvenZernike", "rlnOddZernike", *MAGNIFICATION, *BEAM_TILT)
"""Of the optics groups, where one of them has aberrations that the stages are to correct."""
AMPLITUDE = "nphAmplitude"


@dataclass(frozen=True)
class ImageSampling:
    """Grid and optics of the images of one optics group.

    Attributes
    ----------
    number : rlnOpticsGroup
    box, pixel_size : of the images, px and A
    reference_box, reference_pixel_size : of reference and map
    optics : for the CTF
    group : the optics group where it states aberrations or a magnification, else None
    """

    number: int
    box: int
    pixel_size: float
    reference_box: int
    reference_pixel_size: float
    optics: Optics
    group: OpticsGroup | None = None

    @property
    def magnification(self) -> Matrix2 | None:
        """M00, M01, M10, M11: the reference is taken at M k; None for 1."""
        return None if self.group is None or self.group.magnification == IDENTITY else self.group.magnification

    @property
    def scale(self) -> float:
        """Fourier pixels of the reference in one of the images."""
        if self.box == self.reference_box and self.pixel_size == self.reference_pixel_size:
            return 1.0
        return self.reference_box * self.reference_pixel_size / (self.box * self.pixel_size)

    @property
    def _mean_scale(self) -> float:
        """`scale` times the magnification, the mean over directions."""
        m = self.magnification
        return self.scale if m is None else self.scale * float(np.sqrt(abs(m[0] * m[3] - m[1] * m[2])))

    def band(self, shell: int) -> int:
        """A band limit in Fourier pixels of the reference as one of the images, below their Nyquist frequency."""
        reach = self.scale if self.magnification is None else self.scale * largest_stretch(self.magnification)
        return int(np.clip(np.floor(shell / reach + 1e-9), 1, (self.box - 1) // 2))

    @property
    def expected_amplitude(self) -> float:
        """Scale of projections in images of unit noise, before it is measured: 1 for the reference's own sampling.

        A pixel collects electrons as its area, so that its signal-to-noise ratio rises as its side, while the same density
        makes 1 / p^2 of the transform.
        """
        return self.reference_pixel_size / self.pixel_size

    def noise_weights(self, noise: npt.ArrayLike) -> Float64:
        """Weights by shell of the images for sums on the reference's grid, from the noise power per pixel (1: white, unit).

        An unnormalised transform of n x n pixels has n^2 times that power; common factors are left out.
        """
        return (self.reference_box / self.box) ** 2 / np.asarray(noise, dtype=np.float64)

    def from_reference_shells(self, curve: npt.ArrayLike) -> Float64:
        """A curve by shells of the reference as one by shells of the images (interpolated; the last value beyond)."""
        values = np.asarray(curve, dtype=np.float64)
        if self._mean_scale == 1.0 and self.box == self.reference_box:
            return values
        return np.interp(np.arange(self.box // 2 + 1) * self._mean_scale, np.arange(len(values)), values)

    def to_reference_shells(self, curve: npt.ArrayLike) -> Float64:
        """The inverse of `from_reference_shells`."""
        values = np.asarray(curve, dtype=np.float64)
        if self._mean_scale == 1.0 and self.box == self.reference_box:
            return values
        return np.interp(np.arange(self.reference_box // 2 + 1) / self._mean_scale, np.arange(len(values)), values)

    def images_of(self, table: pd.DataFrame) -> ParticleImages:
        """The images of a table of this sampling, without the odd aberrations of the optics group."""
        if self.group is None or not has_odd(self.group):
            return ParticleImages(table)
        return CorrectedImages(table, odd_correction(self.group, self.box, self.pixel_size))


@dataclass(frozen=True)
class ImageKind:
    """Rows (positions in a table) of one sampling."""

    rows: npt.NDArray[np.int64]
    sampling: ImageSampling

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """These rows of the table; the table itself where they are all of them."""
        return table if len(self.rows) == len(table) else table.iloc[self.rows].reset_index(drop=True)


def image_kinds(
    table: pd.DataFrame, reference_box: int, reference_pixel_size: float, optics: Optics
) -> list[ImageKind]:
    """The samplings of a table's particles, by rlnOpticsGroup; one, the project's, where the table states none.

    Raises
    ------
    InputError
        Rows of one optics group differ, or some columns of the sampling are missing, or aberrations make no sense.
    """
    stated = [name for name in SAMPLING_COLUMNS if name in table]
    if not stated:
        whole = ImageSampling(1, reference_box, reference_pixel_size, reference_box, reference_pixel_size, optics)
        return [ImageKind(np.arange(len(table)), whole)]
    if len(stated) < len(SAMPLING_COLUMNS):
        missing = ", ".join(f"_{name}" for name in SAMPLING_COLUMNS if name not in table)
        raise InputError(f"particle table: states _{stated[0]} by row but not {missing}")
    numbers = table["rlnOpticsGroup"].to_numpy(dtype=np.int64)
    values = table[list(SAMPLING_COLUMNS)].to_numpy(dtype=np.float64)
    groups = _aberrated_groups(table)
    kinds = []
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers == number)
        pixel_size, box, voltage, cs, contrast = values[rows[0]]
        if (values[rows] != values[rows[0]]).any():
            raise InputError(f"particle table: rows of optics group {number} differ in pixel size, box or optics")
        own = Optics(voltage, cs, contrast, optics.phase_shift_deg)
        sampling = ImageSampling(
            int(number), int(box), float(pixel_size), reference_box, reference_pixel_size, own, groups.get(int(number))
        )
        kinds.append(ImageKind(rows, sampling))
    return kinds


def _aberrated_groups(table: pd.DataFrame) -> dict[int, OpticsGroup]:
    """The optics groups of a table that state aberrations, by number."""
    stated = [name for name in ABERRATION_COLUMNS if name in table]
    if not stated:
        return {}
    rows = table[["rlnOpticsGroup", *SAMPLING_COLUMNS, *stated]].drop_duplicates()
    double = rows["rlnOpticsGroup"].duplicated()
    if double.any():
        number = rows.loc[double, "rlnOpticsGroup"].iloc[0]
        raise InputError(f"particle table: rows of optics group {number} differ in aberrations or magnification")
    return {group.number: group for group in read_optics(rows, "particle table") if is_aberrated(group)}


def one_sampling(table: pd.DataFrame, box: int, pixel_size: float, optics: Optics, what: str) -> ImageSampling:
    """The sampling of a table that must have one alone (the project's where the table is empty). InputError names `what`."""
    kinds = image_kinds(table, box, pixel_size, optics)
    if not kinds:
        return ImageSampling(1, box, pixel_size, box, pixel_size, optics)
    grids = {(kind.sampling.box, kind.sampling.pixel_size) for kind in kinds}
    if len(grids) > 1:
        sizes = ", ".join(f"{n} px of {p:g} A" for n, p in sorted(grids))
        raise InputError(f"{what} takes particles of one pixel size and box, these have {sizes}")
    return kinds[0].sampling


def refuse_own_sampling(table: pd.DataFrame, what: str) -> None:
    """InputError where particles have samplings of their own; `what` names what takes none."""
    if not is_uniform(table):
        raise InputError(
            f"{what} takes particles of the project's pixel size and box alone; set input.optics_groups: one"
        )


def is_uniform(table: pd.DataFrame) -> bool:
    """Whether a table states no sampling of its own: all particles are of the project's kind."""
    return not any(name in table for name in SAMPLING_COLUMNS)


def without_sampling(table: pd.DataFrame) -> pd.DataFrame:
    """A table without the columns that state each row's sampling and optics."""
    stated = (*SAMPLING_COLUMNS, *GROUP_COLUMNS, *ABERRATION_COLUMNS)
    return table.drop(columns=[name for name in stated if name in table])


def without_aberrations(table: pd.DataFrame) -> pd.DataFrame:
    """A table without the columns of aberrations, which are then ignored."""
    return table.drop(columns=[name for name in ABERRATION_COLUMNS if name in table])


def with_sampling(table: pd.DataFrame, optics: pd.DataFrame, box: int, pixel_size: float) -> pd.DataFrame:
    """The reverse: columns from a block optics, where that has several groups, another sampling than the map's, or aberrations."""
    if not set(SAMPLING_COLUMNS) <= set(optics.columns) or not is_uniform(table):
        return table
    own = optics.iloc[0]
    same = int(own["rlnImageSize"]) == box and abs(float(own["rlnImagePixelSize"]) / pixel_size - 1) < 1e-3
    stated = any(name in optics for name in ABERRATION_COLUMNS)
    groups = read_optics(optics, "block data_optics") if stated else ()
    aberrated = any(is_aberrated(group) for group in groups)
    if len(optics) == 1 and same and not aberrated:
        return table
    columns = ["rlnOpticsGroup", *SAMPLING_COLUMNS]
    if aberrated:
        table, optics = without_aberrations(table), optics_frame(groups)
        columns += [name for name in ABERRATION_COLUMNS if name in optics]
    return table.merge(optics[columns], on="rlnOpticsGroup", how="left", validate="many_to_one")


def measured_amplitudes(table: pd.DataFrame, pixel_size: float) -> dict[int, float]:
    """Amplitude of each optics group relative to what `expected_amplitude` says, from the particles' fitted ones.

    The better half of a group's particles, by correlation, speaks for it (wrong poses fit too small an amplitude). The scale
    common to all groups belongs to the map: the mean over all particles is that of `expected_amplitude`.
    """
    if AMPLITUDE not in table or is_uniform(table):
        return {}
    numbers = table["rlnOpticsGroup"].to_numpy(dtype=np.int64)
    fitted, quality = (table[name].to_numpy(dtype=np.float64) for name in (AMPLITUDE, "nphCorrelation"))
    pixels = table["rlnImagePixelSize"].to_numpy(dtype=np.float64)
    found: dict[int, float] = {}
    counts: dict[int, int] = {}
    for number in np.unique(numbers):
        mine = numbers == number
        good = mine & (quality >= np.median(quality[mine]))
        ratio = float(np.median(fitted[good])) * float(pixels[mine][0]) / pixel_size
        found[int(number)], counts[int(number)] = max(ratio, 0.0), int(mine.sum())
    mean = sum(found[k] * counts[k] for k in found) / max(sum(counts.values()), 1)
    if not mean > 0:
        return {}
    return {number: float(np.clip(ratio / mean, 0.1, 10.0)) for number, ratio in found.items()}


@dataclass(frozen=True)
class OpticsState:
    """What a refinement measured of an optics group: noise power by the images' shells, amplitude over the expected one."""

    noise: Float64
    amplitude: float = 1.0


def noise_and_amplitude(
    sampling: ImageSampling, noise: npt.ArrayLike, states: Mapping[int, OpticsState]
) -> tuple[Float64, float]:
    """Noise power by the images' shells and amplitude of projections for a kind of images.

    noise : by the reference's shells, for groups of which nothing was measured yet
    """
    state = states.get(sampling.number)
    if state is None or len(state.noise) != sampling.box // 2 + 1:
        return sampling.from_reference_shells(noise), sampling.expected_amplitude
    return state.noise, state.amplitude * sampling.expected_amplitude
