"""Micrographs with known truth.

A micrograph is built as the microscope builds it: projections of the molecule at random positions and orientations,
structural noise (ice), the CTF over the whole field with its envelope, shot noise, a gradient of ice thickness and
dirt. Everything random comes from (seed, number of the micrograph), so a micrograph does not depend on how many
others there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial.transform import Rotation

from nephila.ctf import Optics, ctf_2d
from nephila.errors import InputError
from nephila.fast_sides import fast_side
from nephila.fourier import irfft2, rfft2
from nephila.geometry import matrix_to_euler
from nephila.projection import FourierProjector

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

NOISE_PIXEL_SIZE = 3.0
MARGIN_A = 300.0  # simulated beyond the edge, so that rings of particles and ice outside reach into the field
FILE_MEAN, FILE_STD = 3000.0, 300.0
DENSEST = 0.45  # share of the area under discs of min_distance that random placing reaches without trouble
_FIELD, _PLACES, _ICE, _SHOT, _DIRT = range(5)


@dataclass(frozen=True)
class MicrographSettings:
    """What a simulated micrograph is like. "Signal" is the standard deviation of a particle's projection within its
    disc.

    Attributes
    ----------
    shape : (ny, nx), px
    pixel_size : A
    particles : per micrograph
    min_distance : between centres, in diameters
    overlapping : share of the particles placed without regard for the others, but at least half of min_distance away
    defocus_range : lowest and highest mean defocus, A, underfocus positive; drawn uniformly
    max_astigmatism : A; defocusU - defocusV is drawn uniformly up to it, its angle uniformly
    b_factor : A^2, envelope exp(-B k^2 / 4) of the micrograph
    structural_noise : standard deviation before the CTF, in signals
    noise : standard deviation of the shot noise after the CTF, in signals, per px of 3 A. Both noises scale as 3 /
        pixel_size: the same dose per area
    ice_gradient : rise of the background across the micrograph, in standard deviations of the noise
    dirt : mean number of contaminations per micrograph
    contrast : how protein appears in the file
    """

    shape: tuple[int, int] = (1024, 1024)
    pixel_size: float = 3.0
    particles: int = 70
    min_distance: float = 1.0
    overlapping: float = 0.0
    defocus_range: tuple[float, float] = (8000.0, 30000.0)
    max_astigmatism: float = 500.0
    b_factor: float = 100.0
    structural_noise: float = 0.5
    noise: float = 1.2
    ice_gradient: float = 0.5
    dirt: float = 1.0
    contrast: Literal["dark", "bright"] = "dark"

    def __post_init__(self) -> None:
        low, high = self.defocus_range
        if not 0 <= low <= high:
            raise InputError(
                f"defocus range {low:g} to {high:g} A: the lowest must come first, and neither be negative"
            )
        if self.contrast not in ("dark", "bright"):
            raise InputError(f"contrast {self.contrast!r} is not known; use dark or bright")
        for name in ("pixel_size", "min_distance"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} {getattr(self, name)}: it must be positive")
        for name in (
            "particles",
            "max_astigmatism",
            "structural_noise",
            "noise",
            "ice_gradient",
            "dirt",
            "overlapping",
        ):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} {getattr(self, name)}: it must not be negative")


@dataclass(frozen=True)
class Molecule:
    """A molecule ready to be projected.

    Attributes
    ----------
    projector : at the micrographs' pixel size
    diameter : A
    signal : standard deviation of its projections within a disc of the diameter, mean over directions
    """

    projector: FourierProjector
    diameter: float
    signal: float

    @classmethod
    def from_volume(cls, volume: npt.ArrayLike, pixel_size: float, diameter: float) -> Molecule:
        """Prepare a volume [n, n, n], protein bright; InputError where it holds nothing."""
        projector = FourierProjector.from_volume(volume, padding=2.0)
        directions = random_rotations(40, np.random.default_rng(40))
        images = projector.project(directions)
        axis = np.arange(projector.n) - projector.n // 2
        disc = np.hypot(axis[:, None], axis[None, :]) <= diameter / (2 * pixel_size)
        signal = float(images[:, disc].std(axis=1, dtype=np.float64).mean())
        if not signal > 0:
            raise InputError("the volume to simulate from is empty: all its projections are flat")
        return cls(projector, diameter, signal)


@dataclass(frozen=True)
class SimulatedMicrograph:
    """A micrograph and its truth.

    Attributes
    ----------
    image : int16 [ny, nx], as a camera gives it
    defocus_u, defocus_v : A; defocus_angle : deg
    particles : columns nphParticleNumber, rlnCoordinateX/Y (px, whole numbers), rlnAngleRot/Tilt/Psi (deg),
        rlnOriginX/YAngst (A), rlnDefocusU/V/Angle. The particle's centre lies at coordinate - origin / pixel size,
        counted from the centre of the first pixel
    """

    image: npt.NDArray[np.int16]
    defocus_u: float
    defocus_v: float
    defocus_angle: float
    particles: pd.DataFrame


def simulate_micrograph(
    molecule: Molecule, optics: Optics, settings: MicrographSettings, seed: int, number: int
) -> SimulatedMicrograph:
    """Make micrograph `number` of the set with this seed; the same bytes for the same arguments.

    InputError where the particles cannot find room.
    """
    rng = [np.random.default_rng([seed, number, stage]) for stage in range(5)]
    mean = rng[_FIELD].uniform(*settings.defocus_range)
    astigmatism = rng[_FIELD].uniform(0, settings.max_astigmatism)
    angle = float(rng[_FIELD].uniform(0, 180))
    defocus_u, defocus_v = float(mean + astigmatism / 2), float(mean - astigmatism / 2)

    blobs = _draw_dirt(settings, rng[_DIRT])
    thickness = _dirt_thickness(blobs, settings)
    centres = place_particles(settings, molecule.diameter, rng[_PLACES], thickness > 0.05)
    matrices = random_rotations(len(centres), rng[_PLACES])
    whole = np.round(centres)
    origins_px = whole - centres

    noise_scale = molecule.signal * NOISE_PIXEL_SIZE / settings.pixel_size
    field, inner = _empty_field(settings)
    if settings.structural_noise:
        field += _normal(rng[_ICE], field.shape, settings.structural_noise * noise_scale)
    if len(centres):
        _add_particles(field, inner, whole, molecule.projector.project(matrices, origins_px))
    field[inner] += thickness * _normal(rng[_DIRT], settings.shape, 2 * noise_scale)
    ctf = ctf_2d(field.shape, settings.pixel_size, defocus_u, defocus_v, angle, optics, settings.b_factor)
    image = irfft2(rfft2(field) * ctf, field.shape[1])[inner]

    spread = float(np.hypot(settings.noise, settings.structural_noise)) * noise_scale or molecule.signal
    image += _normal(rng[_SHOT], settings.shape, settings.noise * noise_scale)
    image += spread * (_background(settings, rng[_FIELD]) + thickness)
    sign = -1.0 if settings.contrast == "dark" else 1.0
    counts = np.rint(FILE_MEAN + sign * FILE_STD / spread * image)
    truth = _truth_table(whole, origins_px * settings.pixel_size, matrices, defocus_u, defocus_v, angle)
    return SimulatedMicrograph(np.clip(counts, -32768, 32767).astype(np.int16), defocus_u, defocus_v, angle, truth)


def random_rotations(n: int, rng: np.random.Generator) -> Float64:
    """Rotation matrices [n, 3, 3], uniform over all rotations (unit quaternions in random directions)."""
    if n == 0:
        return np.zeros((0, 3, 3))
    return np.asarray(Rotation.from_quat(rng.normal(size=(n, 4))).as_matrix(), dtype=np.float64)


def place_particles(
    settings: MicrographSettings, diameter: float, rng: np.random.Generator, forbidden: npt.NDArray[np.bool_]
) -> Float64:
    """Random centres [m, 2] (x, y) in px, at least half a diameter inside the edge and not where `forbidden` [ny, nx]
    is set.

    Fewer than asked for where dirt takes the room. InputError where so many cannot fit at all.
    """
    radius = diameter / 2 / settings.pixel_size
    distance = settings.min_distance * diameter / settings.pixel_size
    ny, nx = settings.shape
    width, height = nx - 1 - 2 * radius, ny - 1 - 2 * radius
    if settings.particles == 0:
        return np.zeros((0, 2))
    if width <= 0 or height <= 0:
        raise InputError(f"a particle of {2 * radius:.0f} px does not fit into a micrograph of {nx} x {ny} px")
    share = settings.particles * np.pi / 4 * distance**2 / ((width + distance) * (height + distance))
    if share * (1 - settings.overlapping) > DENSEST:
        most = int(settings.particles * DENSEST / (share * (1 - settings.overlapping)))
        raise InputError(
            f"{settings.particles} particles do not fit at min_distance {settings.min_distance:g}; at most {most} do"
        )
    near = int(round(settings.overlapping * settings.particles))
    centres = np.zeros((0, 2))
    for _ in range(200 * settings.particles):
        if len(centres) == settings.particles:
            break
        point = radius + rng.random(2) * np.array([width, height])
        if forbidden[int(round(point[1])), int(round(point[0]))]:
            continue
        wanted = distance / 2 if len(centres) >= settings.particles - near else distance
        if np.all(np.hypot(*(centres - point).T) >= wanted):
            centres = np.vstack([centres, point])
    return centres


def _truth_table(
    whole: Float64, origins: Float64, matrices: Float64, defocus_u: float, defocus_v: float, angle: float
) -> pd.DataFrame:
    rot, tilt, psi = matrix_to_euler(matrices)
    return pd.DataFrame(
        {
            "nphParticleNumber": np.arange(1, len(whole) + 1),
            "rlnCoordinateX": whole[:, 0],
            "rlnCoordinateY": whole[:, 1],
            "rlnAngleRot": rot,
            "rlnAngleTilt": tilt,
            "rlnAnglePsi": psi,
            "rlnOriginXAngst": origins[:, 0],
            "rlnOriginYAngst": origins[:, 1],
            "rlnDefocusU": defocus_u,
            "rlnDefocusV": defocus_v,
            "rlnDefocusAngle": angle,
        }
    )


def _normal(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Float32:
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise *= np.float32(scale)
    return noise


def _empty_field(settings: MicrographSettings) -> tuple[Float32, tuple[slice, slice]]:
    """A field of zeros larger than the micrograph on all sides, and where the micrograph lies in it."""
    margin = int(np.ceil(MARGIN_A / settings.pixel_size))
    ny, nx = (fast_side(n + 2 * margin) for n in settings.shape)
    inner = slice(margin, margin + settings.shape[0]), slice(margin, margin + settings.shape[1])
    return np.zeros((ny, nx), dtype=np.float32), inner


def _add_particles(field: Float32, inner: tuple[slice, slice], whole: Float64, images: Float32) -> None:
    """Add images, centred at n // 2, at whole-pixel centres (x, y) of the micrograph."""
    n = images.shape[-1]
    for (x, y), image in zip(whole.astype(int), images, strict=True):
        top, left = inner[0].start + y - n // 2, inner[1].start + x - n // 2
        rows = slice(max(top, 0), min(top + n, field.shape[0]))
        columns = slice(max(left, 0), min(left + n, field.shape[1]))
        field[rows, columns] += image[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def _background(settings: MicrographSettings, rng: np.random.Generator) -> Float32:
    """Ice thickness across the micrograph: a plane in a random direction and a weaker bowl, mean about 0."""
    direction = rng.uniform(0, 2 * np.pi)
    bowl = rng.uniform(-0.5, 0.5)
    y, x = (np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in settings.shape)
    plane = np.cos(direction) * x[None, :] + np.sin(direction) * y[:, None]
    curve = 4 * bowl * (x[None, :] ** 2 + y[:, None] ** 2 - 1 / 6)
    return np.asarray(settings.ice_gradient * (plane + curve), dtype=np.float32)


def _draw_dirt(settings: MicrographSettings, rng: np.random.Generator) -> list[tuple[Float64, Float64, Float64]]:
    """Contaminations: (x, y, radius, height) with lengths in px, amplitudes and phases of the outline's bumps."""
    ny, nx = settings.shape
    blobs = []
    for _ in range(rng.poisson(settings.dirt)):
        radius = rng.uniform(80, 260) / settings.pixel_size
        place = np.array([rng.uniform(0, nx), rng.uniform(0, ny), radius, rng.uniform(3, 9)])
        blobs.append((place, rng.normal(scale=0.10, size=6) / np.sqrt(np.arange(1, 7)), rng.uniform(0, 2 * np.pi, 6)))
    return blobs


def _dirt_thickness(blobs: list[tuple[Float64, Float64, Float64]], settings: MicrographSettings) -> Float32:
    """Darkness [ny, nx] of the dirt, in standard deviations of the noise."""
    out = np.zeros(settings.shape, dtype=np.float32)
    for (x, y, radius, height), bumps, phases in blobs:
        reach = int(np.ceil(2 * radius))
        rows = slice(max(int(y) - reach, 0), min(int(y) + reach + 1, settings.shape[0]))
        columns = slice(max(int(x) - reach, 0), min(int(x) + reach + 1, settings.shape[1]))
        dy = np.arange(rows.start, rows.stop)[:, None] - y
        dx = np.arange(columns.start, columns.stop)[None, :] - x
        theta = np.arctan2(dy, dx)
        edge = radius * (
            1 + sum(a * np.cos((k + 2) * theta + p) for k, (a, p) in enumerate(zip(bumps, phases, strict=True)))
        )
        softness = 0.12 * radius
        out[rows, columns] += (height / (1 + np.exp((np.hypot(dx, dy) - edge) / softness))).astype(np.float32)
    return out
