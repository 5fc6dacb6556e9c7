"""What a chunk hands to the merge: exact sums by defocus group, and the noise, in one file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nephila.errors import InputError
from nephila.io.atomic import atomic_path
from nephila.partial_sum import GridShape, PartialSum
from nephila.refinement.noise import NoiseSum


@dataclass
class ChunkSums:
    """Sums of a chunk: gridded slices by defocus group, and the noise by shell (None where it was not measured).

    optics : the noise by optics group and the images' own shells, where images are of several pixel sizes or boxes; `noise`
        is None then
    group_noise : the noise by defocus group, by the shells of the group's images
    """

    groups: dict[int, PartialSum]
    noise: NoiseSum | None
    optics: dict[int, NoiseSum] = field(default_factory=dict)
    group_noise: dict[int, NoiseSum] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to an uncompressed .npz in one step."""
        header = {
            "groups": {
                str(number): {"grid": asdict(part.grid), "particles": part.particles, "weight_units": part.weight_units}
                for number, part in self.groups.items()
            },
            "noise": self.noise.particles if self.noise else None,
            "optics": {str(number): noise.particles for number, noise in self.optics.items()},
            "group_noise": {str(number): noise.particles for number, noise in self.group_noise.items()},
        }
        arrays = {f"group_{number}": _narrow(part.sums) for number, part in self.groups.items()}
        if self.noise:
            arrays |= {"residual": self.noise.residual, "signal": self.noise.signal}
        for number, noise in self.optics.items():
            arrays |= {f"residual_{number}": noise.residual, f"signal_{number}": noise.signal}
        for number, noise in self.group_noise.items():
            arrays |= {f"group_residual_{number}": noise.residual, f"group_signal_{number}": noise.signal}
        with atomic_path(path) as temporary, open(temporary, "wb") as handle:
            np.savez(handle, allow_pickle=False, header=np.array(json.dumps(header)), **arrays)


def add_noise(total: ChunkSums, archive: Mapping[str, Any], header: dict[str, Any]) -> None:
    """Add the noise of an opened file of sums: of all, by optics group, and by defocus group."""
    if header["noise"] is not None:
        noise = NoiseSum(archive["residual"], archive["signal"], header["noise"])
        total.noise = noise if total.noise is None else total.noise.add(noise)
    for name, prefix, sums in (("optics", "", total.optics), ("group_noise", "group_", total.group_noise)):
        for key, particles in header.get(name, {}).items():
            noise = NoiseSum(archive[f"{prefix}residual_{key}"], archive[f"{prefix}signal_{key}"], particles)
            here = sums.get(int(key))
            sums[int(key)] = noise if here is None else here.add(noise)


def _narrow(sums: np.ndarray) -> np.ndarray:
    """32 bits where they hold the numbers: half the disk."""
    if sums.size == 0 or (sums.max() < 2**31 and sums.min() >= -(2**31)):
        return sums.astype(np.int32)
    return sums


def add_chunks(paths: Iterable[str | os.PathLike[str]]) -> ChunkSums:
    """Sum over chunks. InputError where a file is not one of sums, or where grids differ."""
    total = ChunkSums({}, None)
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as archive:
                header = json.loads(str(archive["header"]))
                for key, entry in header["groups"].items():
                    grid = GridShape(**entry["grid"])
                    part = PartialSum(
                        grid, archive[f"group_{key}"].astype(np.int64), entry["particles"], entry["weight_units"]
                    )
                    here = total.groups.get(int(key))
                    total.groups[int(key)] = part if here is None else here.add(part)
                add_noise(total, archive, header)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a file of partial sums ({error}); delete it and run again") from error
    return total


def whole(groups: dict[int, PartialSum]) -> PartialSum | None:
    """Sum over the groups, in a new array; None where there are none."""
    total: PartialSum | None = None
    for number in sorted(groups):
        total = groups[number].copy() if total is None else total.add(groups[number])
    return total
