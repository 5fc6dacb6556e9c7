"""What a refinement of optics starts from: a finished project or a particle table, and its maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nephila.config import load_config
from nephila.errors import InputError
from nephila.fsc import masked_fsc, resolution_at
from nephila.import_particles import find_stacks
from nephila.io.mrc import read_volume
from nephila.ledger import check_reference
from nephila.masks import spherical_mask
from nephila.optics_groups import ParticleSet, read_particle_set
from nephila.optics_refinement.observations import References

RESULTS = Path("results/refinement")


@dataclass(frozen=True)
class Start:
    """Particles with paths of stacks that exist, the names as they were, the references, and how far the halves agree (A)."""

    particles: ParticleSet
    image_names: list[str]
    references: References
    resolution: float | None


def read_start(
    source: Path, maps: tuple[Path, ...], mask: Path | None, diameter: float | None, *, trust: bool = False
) -> Start:
    """Read particles and maps.

    Parameters
    ----------
    source : project folder with a finished refinement, or a STAR file of particles with poses
    maps : one map, or both half maps in order; none: those of the project
    mask : map of the mask, optional
    diameter : A, of a soft sphere where there is no mask; without it a project's particle diameter
    trust : believe a reference's header that is near but not at the particles' pixel size

    Raises
    ------
    InputError
        The refinement is not finished, maps of different boxes or pixel sizes, or a map that must not be a reference.
    """
    table = source
    if source.is_dir():
        table = source / RESULTS / "particles.star"
        if not table.is_file():
            raise InputError(
                f"{source}: no finished refinement ({RESULTS}/particles.star); `nephila run {source}` makes it"
            )
        if mask is None and diameter is None and (source / "config.yaml").is_file():
            diameter = load_config(source / "config.yaml").particle.diameter
        maps = maps or (source / RESULTS / "half1.mrc", source / RESULTS / "half2.mrc")
    if len(maps) not in (1, 2):
        raise InputError("give one map (--map) or both half maps (--half1, --half2)")
    particles = read_particle_set(table)
    names = [str(name) for name in particles.particles["rlnImageName"]]
    base = source / "any.star" if source.is_dir() else table
    particles = replace(particles, particles=find_stacks(particles.particles, base))
    volumes, sizes = zip(*(read_volume(path) for path in maps), strict=True)
    if len({volume.shape for volume in volumes}) > 1 or max(sizes) - min(sizes) > 1e-3:
        raise InputError(
            f"{maps[0]} and {maps[1]} differ in box or pixel size: both halves of one refinement are needed"
        )
    for path in maps:
        check_reference(particles, str(path), sizes[0], {}, trust=trust)
    n = len(volumes[0])
    window = None
    if mask is not None:
        window, _ = read_volume(mask)
        if window.shape != volumes[0].shape:
            raise InputError(f"{mask}: a mask of {len(window)} px for maps of {n} px")
    elif diameter is not None:
        window = spherical_mask(n, 0.5 * diameter / sizes[0])
    resolution = None
    if len(volumes) == 2:
        whole = np.ones_like(volumes[0]) if window is None else window
        resolution = resolution_at(masked_fsc(*volumes, whole).corrected, 0.143, n, sizes[0])
    if window is not None:
        volumes = tuple(volume * window for volume in volumes)
    numbered = dict(enumerate(volumes, 1)) if len(volumes) == 2 else {0: volumes[0]}
    return Start(particles, names, References(numbered, sizes[0]), resolution)
