"""Templates: projections of a reference, held as coefficients of a common basis.

Hundreds to thousands of projections at a few dozen pixels per side differ little: a basis of 100 to 300 images holds
nearly all of their power. Correlating with the basis once and combining the results by a matrix product replaces a
transform per template. The CTF acts on the basis alone, so that one set serves every micrograph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from nephila.errors import InputError
from nephila.fast_sides import fast_side
from nephila.fourier import centred_irfftn, centred_rfftn, irfft2, radial_average, rfft2
from nephila.geometry import euler_matrix
from nephila.picking.settings import TemplateSettings
from nephila.projection import FourierProjector

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]

_CHUNK = 512
_COARSER = 1.2  # pixels of the search over those that the resolution limit asks for
# Where the CTF's first rise lies on average over the usual defoci (0.5 to 4 um), A: weights of the basis
_CTF_RISE = 45.0


@dataclass(frozen=True)
class TemplateLevel:
    """Templates at one pixel size.

    pixel_size : A; box : side of the templates, px
    basis : complex64 [k, box, box // 2 + 1], half transforms about index 0 of the basis images, without CTF
    coefficients : float32 [m, k], templates in the basis
    angles : float64 [m, 3], rot, tilt, psi of the templates, deg
    """

    pixel_size: float
    box: int
    basis: Complex64
    coefficients: Float32
    angles: Float64


@dataclass(frozen=True)
class TemplateSet:
    """Projections of a reference for picking: a coarse level for the search and a fine one for scoring (or none).

    diameter : of the particle, A; settings : what the set was made with
    finest : A, the finest structure that the reference holds
    """

    diameter: float
    coarse: TemplateLevel
    fine: TemplateLevel | None
    settings: TemplateSettings
    finest: float

    @classmethod
    def from_volume(
        cls,
        volume: npt.ArrayLike,
        pixel_size: float,
        diameter: float,
        settings: TemplateSettings | None = None,
        symmetry: npt.ArrayLike | None = None,
    ) -> TemplateSet:
        """Make templates of a reference volume [n, n, n] (protein bright, about the centre n // 2).

        Parameters
        ----------
        pixel_size : of the volume, A
        diameter : of the particle, A; also sets the mask's size and the binning
        symmetry : rotation matrices [s, 3, 3] that leave the volume unchanged; views that repeat are left out

        Raises
        ------
        InputError : volume not cubic or constant, pixel size or diameter absurd
        """
        options = settings or TemplateSettings()
        data = np.asarray(volume, dtype=np.float32)
        if data.ndim != 3 or len(set(data.shape)) != 1:
            raise InputError(f"the reference must be a cubic volume, this one has the shape {data.shape}")
        if not np.isfinite(data).all() or float(np.ptp(data)) == 0:
            raise InputError("the reference is constant or holds NaN: there is nothing to pick with")
        if pixel_size <= 0 or diameter < 6 * pixel_size:
            raise InputError(f"diameter {diameter:g} A at {pixel_size:g} A/px: templates need at least 6 px across")
        if diameter > 1.5 * data.shape[0] * pixel_size:
            raise InputError(
                f"diameter {diameter:g} A, but the reference's box is only "
                f"{data.shape[0] * pixel_size:g} A: check both pixel sizes"
            )
        limit = options.resolution_limit / 2
        coarse = _make_level(
            data,
            pixel_size,
            diameter,
            max(diameter / options.pixels_per_diameter, _COARSER * limit),
            _angles(options.views, options.in_plane_deg, symmetry),
            options,
        )
        fine = None
        if options.refine:
            target = max(diameter / options.fine_pixels_per_diameter, limit)
            angles = _angles(options.fine_views, options.fine_in_plane_deg, symmetry)
            fine = _make_level(data, pixel_size, diameter, target, angles, options)
        return cls(diameter, coarse, fine, options, finest_structure(data, pixel_size, diameter))


def finest_structure(volume: Float32, pixel_size: float, diameter: float) -> float:
    """Resolution (A) beyond which a volume [n, n, n] holds nothing: its amplitude by shell falls below 3 % of the highest of
    those from a quarter of the diameter on."""
    n = volume.shape[0]
    power = radial_average(np.abs(centred_rfftn(volume)) ** 2, n)
    first = max(min(round(4 * n * pixel_size / diameter), len(power) - 2), 1)
    held = np.flatnonzero(power >= 1e-3 * power[first:].max())
    return float(n * pixel_size / max(int(held.max()), 1))


def _angles(views: int, in_plane_deg: float, symmetry: npt.ArrayLike | None) -> Float64:
    """rot, tilt, psi [m, 3] of `views` directions on a spiral over the whole sphere times the in-plane rotations."""
    z = 1 - (2 * np.arange(views) + 1) / views
    tilt = np.rad2deg(np.arccos(z))
    rot = np.mod(np.arange(views) * 180 * (3 - np.sqrt(5)), 360)
    if symmetry is not None and len(np.atleast_3d(np.asarray(symmetry))) > 1:
        operators = np.asarray(symmetry, dtype=np.float64)
        # As many views as without symmetry would cover the whole sphere at the same spacing; one of each orbit stays
        direction = np.stack(
            [np.sqrt(1 - z**2) * np.cos(np.deg2rad(rot)), np.sqrt(1 - z**2) * np.sin(np.deg2rad(rot)), z], -1
        )
        corner = np.array([0.36, 0.48, 0.8])
        nearness = np.einsum("sij,mj,i->ms", operators, direction, corner)
        first = direction @ corner >= nearness.max(axis=1) - 1e-9
        tilt, rot = tilt[first], rot[first]
    psi = np.arange(max(round(360 / in_plane_deg), 1)) * (360 / max(round(360 / in_plane_deg), 1))
    return np.stack([np.repeat(rot, len(psi)), np.repeat(tilt, len(psi)), np.tile(psi, len(tilt))], axis=1).astype(
        np.float64
    )


def _resized_reference(volume: Float32, pixel_size: float, target: float) -> tuple[Float32, float]:
    """The volume Fourier-cropped to about `target` A/px, with its exact new pixel size."""
    n = volume.shape[0]
    new = max(round(n * pixel_size / target / 2) * 2, 8)
    if new >= n:
        return volume, pixel_size
    whole = centred_rfftn(volume)
    keep = (new - 1) // 2
    rows = np.r_[0 : keep + 1, -keep:0]
    out = np.zeros((new, new, new // 2 + 1), dtype=np.complex64)
    out[np.ix_(rows, rows, np.arange(keep + 1))] = whole[np.ix_(rows, rows, np.arange(keep + 1))]
    return centred_irfftn(out * np.float32((new / n) ** 3), new), pixel_size * n / new


def _make_level(
    volume: Float32, pixel_size: float, diameter: float, target: float, angles: Float64, settings: TemplateSettings
) -> TemplateLevel:
    small, size = _resized_reference(volume, pixel_size, target)
    radius = diameter / 2 / size
    box = fast_side(np.ceil(2 * radius * (settings.mask + settings.mask_edge) + 4))
    box += box % 2
    support = _disk(box, 1.25 * radius)
    matrices = euler_matrix(angles[:, 0], angles[:, 1], angles[:, 2])
    projector = FourierProjector.from_volume(small, padding=1.5)
    k2 = np.fft.fftfreq(box, size)[:, None] ** 2 + np.fft.rfftfreq(box, size)[None, :] ** 2
    weight = np.sqrt(0.5 * (1 - np.exp(-((k2 * _CTF_RISE**2) ** 2))) + 0.02).astype(np.float32)
    pixels = np.empty((len(angles), int(support.sum())), dtype=np.float32)
    for start in range(0, len(angles), _CHUNK):
        images = _embed(projector.project(matrices[start : start + _CHUNK]), box)
        pixels[start : start + _CHUNK] = irfft2(rfft2(images) * weight, box)[:, support]
    values, vectors = scipy.linalg.eigh((pixels.T @ pixels).astype(np.float64))
    order = np.argsort(values)[::-1]
    share = np.cumsum(np.maximum(values[order], 0)) / max(float(np.maximum(values, 0).sum()), 1e-30)
    number = min(int(np.searchsorted(share, settings.energy)) + 1, len(share))
    vectors = np.ascontiguousarray(vectors[:, order[:number]], dtype=np.float32)
    images = np.zeros((number, box, box), dtype=np.float32)
    images[:, support] = vectors.T
    basis = rfft2(np.fft.ifftshift(images, axes=(1, 2))) / weight
    return TemplateLevel(size, box, basis.astype(np.complex64), pixels @ vectors, angles)


def _disk(box: int, radius: float) -> npt.NDArray[np.bool_]:
    axis = np.arange(box) - box // 2
    return np.asarray(axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2)


def _embed(images: Float32, box: int) -> Float32:
    """Images [m, n, n] cut or zero-padded about their centre to side `box`."""
    n = images.shape[-1]
    out = np.zeros((len(images), box, box), dtype=np.float32)
    low = max(-(n // 2), -(box // 2))
    high = min((n - 1) // 2, (box - 1) // 2) + 1
    source, target = slice(n // 2 + low, n // 2 + high), slice(box // 2 + low, box // 2 + high)
    out[:, target, target] = images[:, source, source]
    return out


@dataclass(frozen=True)
class MaskedTemplates:
    """A level with one micrograph's CTF applied, under the soft mask, in a basis in which white noise is white.

    rows, columns : offsets from the centre of the mask's pixels, px [p]
    weight : float32 [p], the mask, of sum 1
    stamps : float32 [k, p], of zero sum and norm 1: each component's noise has the deviation of the pixels'
    strength : float64 [k], falling: mean square of each component for a template of norm 1, in the stamps' unit
    coefficients : float32 [m, k]; coefficients @ (stamps @ pixels) is the correlation with templates of norm 1 under the
        mask
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    weight: Float32
    stamps: Float32
    strength: Float64
    coefficients: Float32


def apply_ctf(
    level: TemplateLevel, ctf: Float32, diameter: float, settings: TemplateSettings, energy: float = 1.0
) -> MaskedTemplates:
    """Templates as the micrograph shows them: times `ctf` [box, box // 2 + 1], masked and normalised.

    With weights w of sum 1 under the mask, <a, b> = sum w a b, every template t has <t, 1> = 0 and <t, t> = 1, so that
    <t, image> over the image's standard deviation under the mask is Roseman's local correlation coefficient. The basis is
    turned to the principal axes of the templates' power against the noise; only as many components stay as hold the share
    `energy` of it.
    """
    axis = np.arange(level.box) - level.box // 2
    radius = np.hypot(axis[:, None], axis[None, :]) * level.pixel_size / (diameter / 2)
    edge = max(settings.mask_edge, 1e-6)
    mask = 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - settings.mask) / edge, 0, 1))
    inside = mask > 0.01
    weight = (mask[inside] / mask[inside].sum()).astype(np.float32)
    images = np.fft.fftshift(irfft2(level.basis * ctf, level.box), axes=(1, 2))[:, inside]
    images -= (images @ weight)[:, None]
    weighted = images * weight
    gram = (weighted @ images.T).astype(np.float64)
    norm = np.sqrt(
        np.maximum(np.einsum("mk,mk->m", level.coefficients @ gram.astype(np.float32), level.coefficients), 1e-30)
    )
    unit = level.coefficients / norm[:, None]
    noise = (weighted @ weighted.T).astype(np.float64)
    noise += 1e-7 * np.trace(noise) / len(noise) * np.eye(len(noise))
    moments = gram @ (unit.T @ unit).astype(np.float64) @ gram / len(unit)
    values, vectors = scipy.linalg.eigh(moments, noise)
    order = np.argsort(-values)
    share = np.cumsum(np.maximum(values[order], 0)) / max(float(np.maximum(values, 0).sum()), 1e-30)
    number = min(int(np.searchsorted(share, energy)) + 1, len(order)) if energy < 1 else len(order)
    chosen = vectors[:, order[:number]]
    where = np.nonzero(inside)
    return MaskedTemplates(
        where[0] - level.box // 2,
        where[1] - level.box // 2,
        weight,
        (chosen.T @ weighted).astype(np.float32),
        np.maximum(values[order[:number]], 0),
        (unit @ (noise @ chosen)).astype(np.float32),
    )
