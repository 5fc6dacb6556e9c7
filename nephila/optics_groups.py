"""Optics groups and the particles that belong to them: RELION's two blocks as a checked model.

RELION 3.1 and later keep what the images of a microscope session have in common in the block `optics`; a table of RELION 3.0
has it in every row. Both become a `ParticleSet`. Columns that the model does not know are kept as they are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nephila.ctf import electron_wavelength
from nephila.errors import InputError
from nephila.io.tables import Blocks, read_blocks, write_blocks

PathLike = str | os.PathLike[str]
Matrix2 = tuple[float, float, float, float]

IDENTITY: Matrix2 = (1.0, 0.0, 0.0, 1.0)
MAGNIFICATION = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
BEAM_TILT = ("rlnBeamTiltX", "rlnBeamTiltY")
_OLD_MAGNIFICATION = {f"rlnMatrix{i}{j}": f"rlnMagMat{i}{j}" for i in (0, 1) for j in (0, 1)}
OPTICS_COLUMNS = frozenset(
    {
        "rlnOpticsGroup", "rlnOpticsGroupName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
        "rlnImagePixelSize", "rlnImageSize", "rlnMicrographOriginalPixelSize", "rlnMtfFileName", "rlnEvenZernike",
        "rlnOddZernike", *MAGNIFICATION, *BEAM_TILT,
    }
)  # fmt: skip
_EMPTY_NAMES = frozenset({"", "none", "nan", "null", '""'})
_OLD_OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_OLD_ROW = ("rlnMagnification", "rlnDetectorPixelSize", "rlnBeamTiltClass")


@dataclass(frozen=True)
class OpticsGroup:
    """What the images of one optics group have in common. Numbers that make no sense are an InputError.

    Attributes
    ----------
    number, name : rlnOpticsGroup (from 1), rlnOpticsGroupName
    voltage_kv, cs_mm, amplitude_contrast : of the CTF; kV, mm, fraction
    pixel_size : A, of the particle images; None in tables of coordinates, which have no images yet
    image_size : side of the particle images, px, or None
    original_pixel_size : A, of the detector, to which the MTF refers; None where it is not stated
    mtf_file : STAR file of the detector's MTF, or None
    even_zernike, odd_zernike : coefficients in radians, indexed as RELION does; empty: none were fitted
    magnification : M00, M01, M10, M11; the reference is sampled at M k
    beam_tilt : x, y in mrad
    other : columns that the model does not know, by name
    """

    number: int
    name: str
    voltage_kv: float
    cs_mm: float
    amplitude_contrast: float
    pixel_size: float | None = None
    image_size: int | None = None
    original_pixel_size: float | None = None
    mtf_file: str | None = None
    even_zernike: tuple[float, ...] = ()
    odd_zernike: tuple[float, ...] = ()
    magnification: Matrix2 = IDENTITY
    beam_tilt: tuple[float, float] = (0.0, 0.0)
    other: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        limits: list[tuple[str, float | None, float, float, str]] = [
            ("rlnOpticsGroup", self.number, 1, 1e6, "number groups from 1"),
            ("rlnVoltage", self.voltage_kv, 10, 3000, "give kV (is it in V?)"),
            ("rlnSphericalAberration", self.cs_mm, -1, 20, "give mm (is it in A or um?)"),
            ("rlnAmplitudeContrast", self.amplitude_contrast, 0, 0.999, "give a fraction (is it in percent?)"),
            ("rlnImagePixelSize", self.pixel_size, 0.01, 1000, "give A per pixel"),
            ("rlnMicrographOriginalPixelSize", self.original_pixel_size, 0.01, 1000, "give A per pixel"),
            ("rlnImageSize", self.image_size, 2, 100_000, "give the side of the images, px"),
        ]
        limits += [
            (column, tilt, -100, 100, "give mrad") for column, tilt in zip(BEAM_TILT, self.beam_tilt, strict=True)
        ]
        for column, value, low, high, advice in limits:
            if value is not None and not low <= value <= high:
                raise InputError(
                    f"optics group {self.name!r}: _{column} is {value:g}: must lie in {low:g} to {high:g}; {advice}"
                )
        for column, values in (("rlnEvenZernike", self.even_zernike), ("rlnOddZernike", self.odd_zernike)):
            if not np.isfinite(values).all():
                raise InputError(f"optics group {self.name!r}: _{column} holds a value that is not finite; correct it")
        m00, m01, m10, m11 = self.magnification
        determinant = m00 * m11 - m01 * m10
        if not (np.isfinite(determinant) and 0.25 < determinant < 4):
            raise InputError(
                f"optics group {self.name!r}: the magnification matrix {self.magnification} has the determinant "
                f"{determinant:g}; it must be near 1 (columns _{', _'.join(MAGNIFICATION)})"
            )

    @property
    def wavelength(self) -> float:
        """Electron wavelength, A."""
        return electron_wavelength(self.voltage_kv)

    def same_optics(self, other: OpticsGroup) -> list[str]:
        """Columns in which two groups differ, apart from their numbers; numbers count as equal within 1e-6."""
        mine, theirs = self._columns(), other._columns()
        names = [name for name in {**mine, **theirs} if name != "rlnOpticsGroup"]
        return [name for name in names if not _same(mine.get(name), theirs.get(name))]

    def _columns(self) -> dict[str, Any]:
        """All columns by name; what is not known or not there is None."""
        return {
            "rlnOpticsGroup": self.number,
            "rlnOpticsGroupName": self.name,
            "rlnVoltage": self.voltage_kv,
            "rlnSphericalAberration": self.cs_mm,
            "rlnAmplitudeContrast": self.amplitude_contrast,
            "rlnMicrographOriginalPixelSize": self.original_pixel_size,
            "rlnImagePixelSize": self.pixel_size,
            "rlnImageSize": self.image_size,
            "rlnMtfFileName": self.mtf_file,
            "rlnEvenZernike": tuple(self.even_zernike) if any(self.even_zernike) else None,
            "rlnOddZernike": tuple(self.odd_zernike) if any(self.odd_zernike) else None,
            **dict(zip(MAGNIFICATION, self.magnification, strict=True)),
            **dict(zip(BEAM_TILT, self.beam_tilt, strict=True)),
            **self.other,
        }


@dataclass(frozen=True)
class ParticleSet:
    """Particles and their optics groups, as one STAR file holds them.

    Attributes
    ----------
    optics : the groups, numbers and names unique
    particles : table with rlnOpticsGroup
    other : further blocks of the file, by name
    source : file that it was read from, for messages
    notes : what was changed on reading, one line each
    """

    optics: tuple[OpticsGroup, ...]
    particles: pd.DataFrame
    other: Blocks = field(default_factory=dict)
    source: str = "particles"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_unique(self.optics, self.source)

    @property
    def names(self) -> list[str]:
        """Names of the groups, in order."""
        return [group.name for group in self.optics]

    def blocks(self) -> Blocks:
        """The blocks optics and particles (RELION 3.1), and the others."""
        return {"optics": optics_frame(self.optics), "particles": self.particles, **self.other}


def _check_unique(groups: Sequence[OpticsGroup], source: str) -> None:
    for what, values in (
        ("rlnOpticsGroup", [group.number for group in groups]),
        ("rlnOpticsGroupName", [group.name for group in groups]),
    ):
        double = next((value for i, value in enumerate(values) if value in values[:i]), None)
        if double is not None:
            raise InputError(
                f"{source}: block data_optics: _{what} {double} occurs twice; give each group its own row, number and name"
            )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple) or isinstance(b, tuple):
        size = max(len(a or ()), len(b or ()))
        x, y = (np.pad(np.asarray(v or (), dtype=float), (0, size - len(v or ()))) for v in (a, b))
        return bool(np.allclose(x, y, rtol=1e-6, atol=1e-9))
    if isinstance(a, int | float | np.number) and isinstance(b, int | float | np.number):
        return bool(np.isclose(float(a), float(b), rtol=1e-6, atol=1e-9, equal_nan=True))
    return bool(a == b) or (a is None and b is None)


def optics_frame(groups: Sequence[OpticsGroup]) -> pd.DataFrame:
    """RELION's block optics. Aberrations get a column where one of the groups has them; groups without are filled
    (beam tilt 0, unit magnification, zero coefficients), as RELION does when it joins tables.

    InputError where a group lacks a column that another one has and that cannot be filled.
    """
    rows = [group._columns() for group in groups]
    unit = dict(zip(MAGNIFICATION, IDENTITY, strict=True)) | dict.fromkeys(BEAM_TILT, 0.0)
    frame: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        family = MAGNIFICATION if name in MAGNIFICATION else BEAM_TILT if name in BEAM_TILT else (name,)
        if name in unit and all(row[column] == unit[column] for row in rows for column in family):
            continue
        if all(value is None for value in values):
            continue
        if name in ("rlnEvenZernike", "rlnOddZernike"):
            length = max(9 if name == "rlnEvenZernike" else 6, *(len(value or ()) for value in values))
            frame[name] = [zernike_text(value or (), length) for value in values]
            continue
        missing = [row["rlnOpticsGroupName"] for row, value in zip(rows, values, strict=True) if value is None]
        if missing:
            raise InputError(
                f"optics group {missing[0]!r} has no _{name}, others have; add it to its table, or take it out of all"
            )
        frame[name] = values
    return pd.DataFrame(frame)


def zernike_text(values: Sequence[float], length: int) -> str:
    """Coefficients as RELION writes a vector: [a,b,…], filled with zeros to `length`."""
    filled = [*values, *[0.0] * (length - len(values))]
    return "[" + ",".join(f"{value:.9g}" for value in filled) + "]"


def read_particle_set(path: PathLike) -> ParticleSet:
    """Read particles and optics groups of a STAR file of RELION 3.1 and later, or of 3.0 (one block).

    A table of 3.0 is brought to 3.1: a group for each combination of optics, pixel size from magnification and detector,
    origins in A. `notes` say so.

    Raises
    ------
    InputError
        No such file or block, a column missing, a ragged row, two groups of one number or name, a particle of a group that is
        not there, or a value that makes no sense; names file, block, row and column.
    """
    return as_particle_set(read_blocks(path), str(path))


def as_particle_set(blocks: Blocks, source: str) -> ParticleSet:
    """The blocks of a STAR file as a set; see `read_particle_set`."""
    if "optics" not in blocks:
        return _old_particle_set(blocks, source)
    groups = read_optics(blocks["optics"], source)
    name = next((b for b in ("particles", "micrographs", "movies") if b in blocks), None)
    if name is None:
        raise InputError(f"{source}: no block 'data_particles'; the file has {', '.join('data_' + b for b in blocks)}")
    if name != "particles":
        raise InputError(
            f"{source}: holds {name} (block data_{name}), not particles; give the STAR file of the particles"
        )
    particles = blocks[name].reset_index(drop=True)
    if "rlnOpticsGroup" not in particles:
        raise InputError(f"{source}: block data_particles has no column _rlnOpticsGroup")
    numbers = _numbers(particles["rlnOpticsGroup"], "rlnOpticsGroup", f"{source}, block data_particles").astype(
        np.int64
    )
    unknown = np.flatnonzero(~np.isin(numbers, [group.number for group in groups]))
    if len(unknown):
        raise InputError(
            f"{source}: block data_particles, row {unknown[0] + 1}: optics group {numbers[unknown[0]]} is not in the block "
            "data_optics"
        )
    others = {key: block for key, block in blocks.items() if key not in ("optics", name)}
    return ParticleSet(groups, particles.assign(rlnOpticsGroup=numbers), others, source)


def write_particle_set(path: PathLike, particles: ParticleSet, comment: str | None = None) -> None:
    """Write a set as a STAR file of RELION 3.1."""
    write_blocks(path, particles.blocks(), comment)


def read_optics(frame: pd.DataFrame, source: str) -> tuple[OpticsGroup, ...]:
    """The groups of a block optics. InputError names block, row and column of what is missing or makes no sense."""
    where = f"{source}, block data_optics"
    frame = frame.rename(columns={old: new for old, new in _OLD_MAGNIFICATION.items() if old in frame})
    needed = ("rlnOpticsGroup", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
    missing = [f"_{column}" for column in needed if column not in frame]
    if missing:
        raise InputError(f"{where}: column {', '.join(missing)} is missing")
    groups = []
    for row in range(len(frame)):
        values = {str(column): frame[column].iloc[row] for column in frame}
        try:
            groups.append(_group(values))
        except InputError as error:
            raise InputError(f"{where}, row {row + 1}: {error}") from None
    if not groups:
        raise InputError(f"{where}: no rows; at least one optics group is needed")
    _check_unique(groups, source)
    return tuple(groups)


def _group(row: dict[str, Any]) -> OpticsGroup:
    def number(column: str, default: float | None = None) -> Any:
        return float(_number(row[column], column)) if column in row else default

    group = int(number("rlnOpticsGroup"))
    size = number("rlnImageSize")
    mtf = str(row.get("rlnMtfFileName", "")).strip()
    partial = [name for name in (*MAGNIFICATION, *BEAM_TILT) if name in row]
    if 0 < sum(name in row for name in MAGNIFICATION) < 4 or partial in ([BEAM_TILT[0]], [BEAM_TILT[1]]):
        raise InputError(f"only {', '.join('_' + name for name in partial)}; give all of the matrix or tilt, or none")
    return OpticsGroup(
        number=group,
        name=str(row.get("rlnOpticsGroupName", f"opticsGroup{group}")),
        voltage_kv=number("rlnVoltage"),
        cs_mm=number("rlnSphericalAberration"),
        amplitude_contrast=number("rlnAmplitudeContrast"),
        pixel_size=number("rlnImagePixelSize"),
        image_size=None if size is None else int(size),
        original_pixel_size=number("rlnMicrographOriginalPixelSize"),
        mtf_file=None if mtf.lower() in _EMPTY_NAMES else mtf,
        even_zernike=_coefficients(row, "rlnEvenZernike"),
        odd_zernike=_coefficients(row, "rlnOddZernike"),
        magnification=tuple(number(column, unit) for column, unit in zip(MAGNIFICATION, IDENTITY, strict=True)),  # type: ignore[arg-type]
        beam_tilt=(number(BEAM_TILT[0], 0.0), number(BEAM_TILT[1], 0.0)),
        other={column: value for column, value in row.items() if column not in OPTICS_COLUMNS},
    )


def _number(value: Any, column: str) -> float:
    try:
        result = float(value)
    except (TypeError, ValueError):
        result = float("nan")
    if not np.isfinite(result):
        raise InputError(f"column _{column}: {str(value)!r} is not a finite number")
    return result


def _numbers(values: pd.Series, column: str, where: str) -> np.ndarray:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise InputError(f"{where}, row {bad[0] + 1}, column _{column}: {values.iloc[bad[0]]!r} is not a finite number")
    return numbers


def _coefficients(row: dict[str, Any], column: str) -> tuple[float, ...]:
    text = str(row.get(column, "")).strip()
    if text.lower() in _EMPTY_NAMES | {"[]"}:
        return ()
    if not (text.startswith("[") and text.endswith("]")):
        raise InputError(f"column _{column}: {text!r} is not a vector as RELION writes it, [a,b,…]")
    return tuple(_number(part, column) for part in text[1:-1].split(","))


def _old_particle_set(blocks: Blocks, source: str) -> ParticleSet:
    """A table of RELION 3.0 as optics groups and particles."""
    table = blocks.get("particles", next(iter(blocks.values())) if len(blocks) == 1 else None)
    if table is None:
        raise InputError(
            f"{source}: neither a block data_optics (RELION 3.1) nor a single block (3.0); the file has "
            f"{', '.join('data_' + name for name in blocks)}"
        )
    table = table.reset_index(drop=True)
    missing = [f"_{column}" for column in _OLD_OPTICS if column not in table]
    if missing:
        raise InputError(
            f"{source}: no block data_optics, so a table of RELION 3.0 is expected, but column {', '.join(missing)} is missing"
        )
    pixel = _old_pixel_size(table, source)
    per_row = {column: _numbers(table[column], column, source) for column in _OLD_OPTICS}
    tilts = {column: _numbers(table[column], column, source) for column in BEAM_TILT if column in table}
    keys = pd.DataFrame({**per_row, **tilts, "pixel": np.nan if pixel is None else pixel})
    numbers = keys.groupby(list(keys), sort=False, dropna=False).ngroup().to_numpy() + 1
    groups = []
    for number in range(1, int(numbers.max(initial=0)) + 1):
        row = keys.iloc[int(np.flatnonzero(numbers == number)[0])]
        groups.append(
            OpticsGroup(
                number,
                f"opticsGroup{number}",
                float(row["rlnVoltage"]),
                float(row["rlnSphericalAberration"]),
                float(row["rlnAmplitudeContrast"]),
                pixel_size=None if pixel is None else float(row["pixel"]),
                image_size=None,
                original_pixel_size=None if pixel is None else float(row["pixel"]),
                beam_tilt=(float(row.get(BEAM_TILT[0], 0.0)), float(row.get(BEAM_TILT[1], 0.0))),
            )
        )
    if not groups:
        raise InputError(f"{source}: the table has no rows")
    new = table.drop(columns=[c for c in (*_OLD_OPTICS, *tilts, *_OLD_ROW, "rlnImagePixelSize") if c in table])
    notes = [f"{source}: a table of RELION 3.0, read as {len(groups)} optics group{'s' if len(groups) > 1 else ''}"]
    for axis in "XY":
        old = f"rlnOrigin{axis}"
        if old in new and pixel is not None:
            new[f"rlnOrigin{axis}Angst"] = _numbers(table[old], old, source) * pixel
            new = new.drop(columns=old)
    return ParticleSet(tuple(groups), new.assign(rlnOpticsGroup=numbers), {}, source, tuple(notes))


def _old_pixel_size(table: pd.DataFrame, source: str) -> np.ndarray | None:
    """Pixel size of each row of a 3.0 table, A: detector pixel size (um) over magnification."""
    if "rlnImagePixelSize" in table:
        return _numbers(table["rlnImagePixelSize"], "rlnImagePixelSize", source)
    if not {"rlnDetectorPixelSize", "rlnMagnification"} <= set(table.columns):
        return None
    detector = _numbers(table["rlnDetectorPixelSize"], "rlnDetectorPixelSize", source)
    magnification = _numbers(table["rlnMagnification"], "rlnMagnification", source)
    bad = np.flatnonzero(magnification <= 0)
    if len(bad):
        raise InputError(
            f"{source}, row {bad[0] + 1}: _rlnMagnification is {magnification[bad[0]]:g}: must be positive"
        )
    return np.round(1e4 * detector / magnification, 6)


def with_image_sizes(particles: ParticleSet) -> ParticleSet:
    """The set with rlnImageSize of groups that lack it taken from their first particle's stack.

    Tables of RELION 3.0 do not state it. A group whose stack is not found stays as it is.
    """
    from nephila.io.mrc import open_stack
    from nephila.particle_images import split_image_name

    groups = []
    for group in particles.optics:
        rows = np.flatnonzero((particles.particles["rlnOpticsGroup"] == group.number).to_numpy())
        if group.image_size is None and len(rows) and "rlnImageName" in particles.particles:
            path = split_image_name(str(particles.particles["rlnImageName"].iloc[rows[0]]))[1]
            folder = Path(particles.source).parent
            found = next((p for p in (Path(path), folder / path, folder / Path(path).name) if p.is_file()), None)
            if found:
                other = {"rlnImageDimensionality": 2} | group.other
                group = replace(group, image_size=open_stack(found).shape[1], other=other)
        groups.append(group)
    return replace(particles, optics=tuple(groups))


def stem(path: PathLike) -> str:
    """A file's name without folder and last suffix."""
    return Path(path).stem
