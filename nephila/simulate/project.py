"""A simulated project folder: micrographs, starting reference, configuration and truth."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.fast_sides import good_box
from nephila.fourier import lowpass
from nephila.io.atomic import atomic_path
from nephila.io.mrc import read_volume, write_volume
from nephila.io.tables import write_blocks
from nephila.simulate.density import Atoms, density
from nephila.simulate.micrographs import MicrographSettings, Molecule, SimulatedMicrograph, simulate_micrograph
from nephila.simulate.phantom import build_phantom

PathLike = str | os.PathLike[str]
Float32 = npt.NDArray[np.float32]

REFERENCE_RESOLUTION = 40.0
BOX_DIAMETERS = 1.5
OPTICS = Optics(voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.1)


@dataclass(frozen=True)
class ObjectSettings:
    """What is simulated: the built-in phantom, or a map, or an atomic model.

    Attributes
    ----------
    map, structure : MRC volume, or PDB/mmCIF file; both None: the phantom
    assembly : biological assembly of `structure` to build
    diameter : A; of the phantom (180 where None), or of the map (None: measured at 5 % of its highest density at 20 A)
    symmetry : point group with RELION's axes; the phantom is built with it, a map or model must have it already
    b_factor : A^2 of the density of phantom or atomic model
    reference_resolution : low-pass of the starting reference, A
    """

    map: PathLike | None = None
    structure: PathLike | None = None
    assembly: str | None = None
    diameter: float | None = None
    symmetry: str = "C1"
    b_factor: float = 60.0
    reference_resolution: float = REFERENCE_RESOLUTION


def simulate_project(
    out: PathLike,
    seed: int = 1,
    micrographs: int = 24,
    settings: MicrographSettings | None = None,
    subject: ObjectSettings | None = None,
    optics: Optics = OPTICS,
    *,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make a project folder that is ready to run.

    Writes micrographs/mic_0001.mrc … (16-bit integers, pixel size in the header), reference.mrc, config.yaml, and
    truth/map.mrc, truth/micrographs.star, truth/particles.star. Coordinates count from the centre of the first pixel
    (0) and give the particle's box centre (index n // 2) as RELION's do; the particle's exact centre is coordinate -
    origin.

    Parameters
    ----------
    seed : of molecule, places, orientations, defoci and noise; micrograph i is the same however many there are
    threads : micrographs made at a time; the result does not depend on it
    progress : called with (done, all) after each micrograph

    Raises
    ------
    InputError
        The folder holds a configuration already, fewer than one micrograph, or settings that cannot be met.
    """
    settings, subject = settings or MicrographSettings(), subject or ObjectSettings()
    folder = Path(out)
    if micrographs < 1:
        raise InputError(f"{micrographs} micrographs: at least 1 is needed")
    if (folder / "config.yaml").exists():
        raise InputError(f"{folder}: holds a project already (config.yaml); give another folder or remove it")
    volume, diameter = make_object(subject, settings.pixel_size, seed)
    molecule = Molecule.from_volume(volume, settings.pixel_size, diameter)
    write_volume(folder / "truth" / "map.mrc", volume, settings.pixel_size)
    reference = lowpass(volume, settings.pixel_size, subject.reference_resolution)
    write_volume(folder / "reference.mrc", reference, settings.pixel_size)

    def make(number: int) -> tuple[str, SimulatedMicrograph]:
        name = f"micrographs/mic_{number:04d}.mrc"
        made = simulate_micrograph(molecule, optics, settings, seed, number)
        write_counts(folder / name, made.image, settings.pixel_size)
        return name, made

    rows, tables = [], []
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for done, (name, made) in enumerate(pool.map(make, range(1, micrographs + 1)), start=1):
            rows.append((name, made.defocus_u, made.defocus_v, made.defocus_angle, len(made.particles)))
            tables.append(made.particles.assign(rlnMicrographName=name, rlnOpticsGroup=1))
            if progress is not None:
                progress(done, micrographs)
    columns = ["rlnMicrographName", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "nphParticles"]
    group = optics_table(optics, settings.pixel_size, len(volume))
    defoci = pd.DataFrame(rows, columns=columns).assign(rlnOpticsGroup=1)
    note = f"Simulated by nephila, seed {seed}. Coordinates in px, 0 at the centre of the micrograph's first pixel."
    write_blocks(folder / "truth" / "micrographs.star", {"optics": group, "micrographs": defoci}, comment=note)
    particles = pd.concat(tables, ignore_index=True)
    first = ["rlnMicrographName", "nphParticleNumber"]
    particles = particles[first + [c for c in particles.columns if c not in first]]
    write_blocks(folder / "truth" / "particles.star", {"optics": group, "particles": particles}, comment=note)
    _write_config(
        folder / "config.yaml", project_config(folder.resolve().name, seed, settings, optics, subject, diameter)
    )


def make_object(subject: ObjectSettings, pixel_size: float, seed: int) -> tuple[Float32, float]:
    """The volume to simulate from, float32 [n, n, n] at `pixel_size` (A), n about 1.5 diameters, and its diameter in A.

    InputError for both a map and a structure, a file that cannot be used, or an object smaller than 10 px.
    """
    if subject.map is not None and subject.structure is not None:
        raise InputError("simulate: give a map or a structure, not both")
    if subject.map is not None:
        return _object_from_map(subject, pixel_size)
    atoms: Atoms
    if subject.structure is not None:
        from nephila.simulate.structure import read_structure

        atoms = read_structure(subject.structure, subject.assembly)
    else:
        atoms = build_phantom(subject.diameter or 180.0, seed, subject.symmetry)
    box = _box(atoms.diameter, pixel_size)
    return density(atoms, box, pixel_size, subject.b_factor), atoms.diameter


def _object_from_map(subject: ObjectSettings, pixel_size: float) -> tuple[Float32, float]:
    from nephila.resize import resize_volume

    assert subject.map is not None
    volume, map_pixel_size = read_volume(subject.map)
    diameter = subject.diameter or map_diameter(volume, map_pixel_size)
    volume, _ = resize_volume(volume, map_pixel_size, pixel_size, _box(diameter, pixel_size))
    return volume, diameter


def map_diameter(volume: Float32, pixel_size: float) -> float:
    """Diameter in A of the sphere about the box centre that holds all density above 5 % of the highest, at 20 A.

    InputError where there is none (an empty or inverted map).
    """
    smooth = lowpass(volume, pixel_size, max(20.0, 4 * pixel_size))
    smooth = smooth - np.median(smooth)
    n = volume.shape[0]
    if not smooth.max() > 0 or -smooth.min() > 2 * smooth.max():
        raise InputError("simulate: the map holds no bright density; protein must be bright (invert it)")
    axis = (np.arange(n) - n // 2).astype(np.float32)
    squared = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
    return float(2 * pixel_size * np.sqrt(squared[smooth > 0.05 * smooth.max()].max()))


def _box(diameter: float, pixel_size: float) -> int:
    if diameter < 10 * pixel_size:
        raise InputError(f"simulate: an object of {diameter:.0f} A has fewer than 10 px at {pixel_size:g} A/px")
    return good_box(BOX_DIAMETERS * diameter / pixel_size)


def project_config(
    name: str, seed: int, settings: MicrographSettings, optics: Optics, subject: ObjectSettings, diameter: float
) -> dict[str, Any]:
    """What the configuration must say about simulated data (nested, by section); other keys keep their defaults."""
    particle = {
        "diameter": float(5 * np.ceil(diameter / 5)),
        "box": _box(diameter, settings.pixel_size),
        "symmetry": subject.symmetry,
    }
    truth = {"map": "truth/map.mrc", "particles": "truth/particles.star", "micrographs": "truth/micrographs.star"}
    return {
        "project": {"name": name, "seed": seed},
        "input": {
            "micrographs": "micrographs/*.mrc",
            "pixel_size": settings.pixel_size,
            "contrast": settings.contrast,
        },
        "optics": asdict(optics),
        "particle": particle,
        "reference": {"volume": "reference.mrc", "resolution": subject.reference_resolution},
        "truth": truth,
    }


def _write_config(path: Path, values: dict[str, Any]) -> None:
    from nephila.config.render import default_yaml
    from nephila.io.atomic import write_text

    write_text(path, default_yaml(values, title="Configuration of a simulated project."))


def optics_table(optics: Optics, pixel_size: float, box: int) -> pd.DataFrame:
    """RELION's optics block of the simulated data."""
    return pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["simulated"],
            "rlnVoltage": [optics.voltage_kv],
            "rlnSphericalAberration": [optics.cs_mm],
            "rlnAmplitudeContrast": [optics.amplitude_contrast],
            "rlnMicrographPixelSize": [pixel_size],
            "rlnImagePixelSize": [pixel_size],
            "rlnImageSize": [box],
            "rlnImageDimensionality": [2],
        }
    )


def write_counts(path: PathLike, image: npt.NDArray[np.int16], pixel_size: float) -> None:
    """Write a micrograph as MRC mode 1 (16-bit integers); equal pixels give equal bytes."""
    with atomic_path(path) as temporary, mrcfile.new(temporary, overwrite=True) as handle:
        handle.set_data(image)
        handle.voxel_size = pixel_size
        handle.header.label[:] = b""
        handle.header.label[0] = b"Nephila"
        handle.header.nlabl = 1
