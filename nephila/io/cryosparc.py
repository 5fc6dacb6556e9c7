"""cryoSPARC's particle tables (`.cs`) as particles and optics groups of RELION.

A .cs file is a numpy record array, one record per particle, fields `group/name`. Which fields there are depends on the job; what
a job passes on unchanged lies in a second, passthrough file, matched by `uid`. docs/exchange.md lists the fields, what each
becomes, and what the conventions were checked against.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.geometry import matrix_to_euler, rotation_vector_to_matrix
from nephila.given_checks import DEFOCUS, check_defoci
from nephila.optics_groups import OpticsGroup, ParticleSet

PathLike = str | os.PathLike[str]
Records = dict[str, npt.NDArray[Any]]
Float64 = npt.NDArray[np.float64]

CTF_FIELDS = ("ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast", "ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad")
_LEFT_OUT = ("ctf/shift_A", "ctf/trefoil_A", "ctf/tetra_A", "ctf/anisomag")
_OLD_NAMES = {"ctf/ac": "ctf/amp_contrast"}


@dataclass(frozen=True)
class CryosparcSettings:
    """How a .cs file is read.

    Attributes
    ----------
    alignment_box : box of the refinement that found the shifts, px, where it was smaller than the images' and the file does not
        state `alignments3D/psize_A` (before version 3); None: shifts are in pixels of the images
    flip_y : count rows of coordinates from the other end, for micrographs that another program corrected and that lie upside
        down against cryoSPARC's
    without_ctf : take particles without CTF; their defoci are left out and the optics must then be given
    optics : kV, mm, fraction; for files without CTF
    allow_overfocus : take negative defoci
    """

    alignment_box: int | None = None
    flip_y: bool = False
    without_ctf: bool = False
    optics: tuple[float, float, float] | None = None
    allow_overfocus: bool = False


def read_cs(path: PathLike) -> Records:
    """Fields of a .cs file, each [n] or [n, k]; texts as str.

    InputError where it is no record array, or of the streaming form that only cryoSPARC reads.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"{path}: no such file")
    start = source.read_bytes()[:8]
    if not start:
        raise InputError(f"{path}: the file is empty (0 bytes); copy it again")
    if start[:6] == b"\x94CSDAT":
        raise InputError(
            f"{path}: in cryoSPARC's stream form; export it again, or write it with cryosparc-tools: Dataset.load(…).save(path, "
            "format=NUMPY_FORMAT)"
        )
    if start[:6] != b"\x93NUMPY":
        raise InputError(f"{path}: not a cryoSPARC .cs file (a numpy record array)")
    try:
        array = np.load(source, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a complete .cs file ({' '.join(str(error).split())}); copy it again") from error
    if array.dtype.names is None or array.ndim != 1:
        raise InputError(f"{path}: a plain numpy array, not a table with named fields as cryoSPARC writes")
    if len(array) == 0:
        raise InputError(f"{path}: the table has no rows")
    return {_OLD_NAMES.get(name, name): _text(array[name]) for name in array.dtype.names}


def _text(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def merge_passthrough(records: Records, others: Sequence[Records], source: str) -> Records:
    """Fields of passthrough files added by uid. InputError where a file has no uid, or lacks one of the particles."""
    merged = dict(records)
    for other in others:
        if "uid" not in merged or "uid" not in other:
            raise InputError(f"{source}: no field uid, so a passthrough file cannot be matched")
        order = np.argsort(other["uid"])
        place = np.searchsorted(other["uid"], merged["uid"], sorter=order)
        rows = order[np.minimum(place, len(order) - 1)]
        lacking = np.flatnonzero(other["uid"][rows] != merged["uid"])
        if len(lacking):
            raise InputError(
                f"{source}: {len(lacking)} particles are not in the passthrough file (uid {merged['uid'][lacking[0]]}); give the "
                "one of the same job"
            )
        merged |= {name: values[rows] for name, values in other.items() if name not in merged}
    return merged


def cryosparc_particles(
    path: PathLike, passthrough: Sequence[PathLike] = (), settings: CryosparcSettings | None = None
) -> ParticleSet:
    """Particles of a .cs file and its passthrough files, with optics groups, as a STAR table of RELION 3.1 holds them.

    Raises
    ------
    InputError
        No images (`blob/path`), no CTF where it is wanted, or values that make no sense; the field is named.
    """
    chosen = settings or CryosparcSettings()
    source = str(path)
    records = merge_passthrough(read_cs(path), [read_cs(other) for other in passthrough], source)
    _require(
        records, ("blob/path", "blob/idx"), source, "the particles' images; give the file of extracted particles too"
    )
    count = len(records["blob/idx"])
    has_ctf = all(name in records for name in CTF_FIELDS)
    notes: list[str] = []
    if has_ctf and chosen.optics is not None:
        raise InputError(f"{source}: has a CTF with its own optics (ctf/accel_kv …); leave --optics away")
    if not has_ctf and not chosen.without_ctf:
        missing = [name for name in CTF_FIELDS if name not in records]
        raise InputError(
            f"{source}: no CTF ({', '.join(missing)}): give the passthrough file that has it, or --without-ctf with the optics"
        )
    paths = [str(name).lstrip(">") for name in records["blob/path"]]
    table = pd.DataFrame(
        {"rlnImageName": [f"{int(i) + 1:06d}@{p}" for i, p in zip(records["blob/idx"], paths, strict=True)]}
    )
    groups, table["rlnOpticsGroup"] = _optics(records, count, chosen, has_ctf, source, notes)
    if has_ctf:
        table["rlnDefocusU"] = records["ctf/df1_A"].astype(np.float64)
        table["rlnDefocusV"] = records["ctf/df2_A"].astype(np.float64)
        table["rlnDefocusAngle"] = np.rad2deg(records["ctf/df_angle_rad"].astype(np.float64))
        fields = dict(zip(DEFOCUS, CTF_FIELDS[3:], strict=True))
        check_defoci(table, source, overfocus=chosen.allow_overfocus, fields=fields)
        if "ctf/phase_shift_rad" in records:
            table["rlnPhaseShift"] = np.rad2deg(records["ctf/phase_shift_rad"].astype(np.float64))
        if "ctf/bfactor" in records and records["ctf/bfactor"].any():
            table["rlnCtfBfactor"] = records["ctf/bfactor"].astype(np.float64)
    else:
        notes.append("no CTF: the defoci are missing; particles without them cannot go into input.particles")
    _add_locations(table, records, chosen, notes)
    _add_alignments(table, records, chosen, notes)
    if "blob/sign" in records and (records["blob/sign"] < 0).all():
        notes.append("blob/sign is -1: protein is dark in the images (input.contrast: dark)")
    return ParticleSet(tuple(groups), table, {}, source, tuple(notes))


def alignment_shifts(shift: npt.ArrayLike, pixel_size: npt.ArrayLike) -> Float64:
    """rlnOriginXAngst, YAngst [n, 2] from cryoSPARC's shifts [n, 2] in px of `pixel_size` [n] (A): the same sign."""
    return np.asarray(shift, dtype=np.float64) * np.asarray(pixel_size, dtype=np.float64)[:, None]


def pose_angles(pose: npt.ArrayLike) -> tuple[Float64, Float64, Float64]:
    """RELION's rot, tilt, psi (degrees) from rotation vectors [n, 3] (radians): A is the transpose of the vector's rotation."""
    return matrix_to_euler(np.swapaxes(rotation_vector_to_matrix(pose), -1, -2))


def _require(records: Records, names: Sequence[str], source: str, what: str) -> None:
    missing = [name for name in names if name not in records]
    if missing:
        raise InputError(f"{source}: field {', '.join(missing)} is missing: {what}")


def _optics(
    records: Records, count: int, settings: CryosparcSettings, has_ctf: bool, source: str, notes: list[str]
) -> tuple[list[OpticsGroup], npt.NDArray[np.int64]]:
    """Optics groups and each particle's: one for each exposure group and each set of values in it."""
    _require(records, ("blob/psize_A",), source, "the pixel size of the images")
    if has_ctf:
        columns = [records[name].astype(np.float64) for name in CTF_FIELDS[:3]]
    elif settings.optics is None:
        raise InputError(f"{source}: no CTF: give voltage, Cs and amplitude contrast (--optics 300,2.7,0.1)")
    else:
        columns = [np.full(count, value) for value in settings.optics]
    columns.append(records["blob/psize_A"].astype(np.float64))
    shape = records.get("blob/shape")
    columns.append(np.full(count, np.nan) if shape is None else shape[:, 0].astype(np.float64))
    exposure = records.get("ctf/exp_group_id", records.get("location/exp_group_id", np.zeros(count)))
    tilt = records.get("ctf/tilt_A", np.zeros((count, 2))).astype(np.float64)
    # float32 in the file: 2.7 mm is 2.7000000477
    keys = pd.DataFrame(np.round(np.column_stack([exposure, *columns, tilt]), 6))
    numbers = np.asarray(keys.groupby(list(keys), sort=False, dropna=False).ngroup(), dtype=np.int64) + 1
    groups: list[OpticsGroup] = []
    for number in range(1, int(numbers.max()) + 1):
        row = keys.iloc[int(np.flatnonzero(numbers == number)[0])].to_numpy()
        name = f"exposures_{int(row[0])}"
        if any(group.name == name for group in groups):
            name = f"{name}_{number}"
        try:
            groups.append(
                OpticsGroup(
                    number,
                    name,
                    float(row[1]),
                    float(row[2]),
                    float(row[3]),
                    pixel_size=float(row[4]),
                    image_size=None if np.isnan(row[5]) else int(row[5]),
                    beam_tilt=_beam_tilt(row[6:8], float(row[2])),
                    other={"rlnImageDimensionality": 2},
                )
            )
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
    for name in _LEFT_OUT:
        if name in records and np.any(records[name]):
            notes.append(f"{name} is not 0 and is left out; RELION's terms are others, so refine them again")
    return groups, numbers


def _beam_tilt(tilt_angst: npt.NDArray[np.float64], cs_mm: float) -> tuple[float, float]:
    """Beam tilt in mrad from ctf/tilt_A, which is sin(tilt) times Cs in A."""
    if not tilt_angst.any() or cs_mm == 0:
        return (0.0, 0.0)
    x, y = (float(1e3 * np.arcsin(value / (cs_mm * 1e7))) for value in tilt_angst)
    return (x, y)


def _add_locations(table: pd.DataFrame, records: Records, settings: CryosparcSettings, notes: list[str]) -> None:
    """Micrograph and coordinates: fractions of its size, [ny, nx] in the field micrograph_shape."""
    name = next((n for n in ("location/micrograph_path", "micrograph_blob/path") if n in records), None)
    if name is None:
        table["rlnMicrographName"] = [str(path).partition("@")[2] for path in table["rlnImageName"]]
        notes.append("no micrographs are named: each stack stands for one; give the passthrough file with location/…")
    else:
        table["rlnMicrographName"] = [str(path).lstrip(">") for path in records[name]]
    fields = ("location/center_x_frac", "location/center_y_frac", "location/micrograph_shape")
    if all(field in records for field in fields):
        x, y, shape = (records[field].astype(np.float64) for field in fields)
        table["rlnCoordinateX"] = np.round(x * shape[:, 1], 2)
        table["rlnCoordinateY"] = np.round((1 - y if settings.flip_y else y) * shape[:, 0], 2)


def _add_alignments(table: pd.DataFrame, records: Records, settings: CryosparcSettings, notes: list[str]) -> None:
    """Poses, shifts, half-sets and class of a 3D refinement, else angle and shift of a 2D classification."""
    kind = next(
        (k for k in ("alignments3D", "alignments2D") if f"{k}/shift" in records and f"{k}/pose" in records), None
    )
    if kind is None:
        notes.append("no alignment: particles without poses")
        return
    if kind == "alignments3D":
        rot, tilt, psi = pose_angles(records[f"{kind}/pose"])
    else:
        psi = np.rad2deg(records[f"{kind}/pose"].astype(np.float64).reshape(len(table)))
        rot = tilt = np.zeros(len(table))
    table["rlnAngleRot"], table["rlnAngleTilt"], table["rlnAnglePsi"] = rot, tilt, psi
    pixel = records["blob/psize_A"].astype(np.float64)
    if f"{kind}/psize_A" in records:
        pixel = records[f"{kind}/psize_A"].astype(np.float64)
        notes.append(f"shifts: pixels of {kind}/psize_A ({pixel[0]:g} A)")
    elif settings.alignment_box is not None:
        _require(records, ("blob/shape",), "alignment box", "the images' size, to scale the shifts")
        pixel = pixel * records["blob/shape"][:, 0] / settings.alignment_box
        notes.append(f"shifts: pixels of a box of {settings.alignment_box} px ({pixel[0]:g} A)")
    else:
        notes.append(
            f"shifts: taken as pixels of the images ({pixel[0]:g} A); --alignment-box if the refinement was binned"
        )
    shifts = alignment_shifts(records[f"{kind}/shift"], pixel)
    table["rlnOriginXAngst"], table["rlnOriginYAngst"] = shifts[:, 0], shifts[:, 1]
    split = records.get(f"{kind}/split")
    if split is not None and len(np.unique(split)) == 2:
        table["rlnRandomSubset"] = split.astype(np.int64) - int(split.min()) + 1
    if f"{kind}/class" in records:
        table["rlnClassNumber"] = records[f"{kind}/class"].astype(np.int64) + 1


def link_stacks(particles: ParticleSet, root: PathLike, folder: PathLike) -> ParticleSet:
    """The set with its stacks linked into `folder` under names that end in .mrcs, as RELION wants stacks named.

    root : the cryoSPARC project's folder, from which the paths count. InputError for a stack that is not there.
    """
    names = [str(name).partition("@") for name in particles.particles["rlnImageName"]]
    links: dict[str, str] = {}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for path in dict.fromkeys(path for _, _, path in names):
        target = Path(root, path)
        if not target.is_file():
            raise InputError(
                f"{particles.source}: stack {path} is not in {root}; give the folder of the cryoSPARC project"
            )
        link = Path(folder, target.stem + ".mrcs")
        if str(link) in links.values():
            raise InputError(f"{particles.source}: two stacks are named {target.name}; link them by hand")
        if not link.is_symlink() and not link.exists():
            link.symlink_to(target.resolve())
        links[path] = str(link)
    table = particles.particles.assign(rlnImageName=[f"{number}@{links[path]}" for number, _, path in names])
    return replace(particles, particles=table)
