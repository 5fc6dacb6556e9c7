"""Particles by defocus group (SPIDER's sel_by_group and win2stk), and the optics block that RELION wants beside them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pandas as pd

from nephila.ctf import Optics
from nephila.defocus_by_hand import particles_by_hand
from nephila.errors import InputError
from nephila.io.mrc import stack_writer
from nephila.particle_images import ParticleImages, image_name
from nephila.plan import Group
from nephila.sampling import ABERRATION_COLUMNS, GROUP_COLUMNS, SAMPLING_COLUMNS, is_uniform

OPTICS_GROUP = 1
COPY_BLOCK = 256


def optics_table(
    name: str, optics: Optics, pixel_size: float, box: int, original_pixel_size: float | None = None
) -> pd.DataFrame:
    """RELION's optics block (one row) of images with this pixel size (A) and side (px)."""
    table = pd.DataFrame(
        {
            "rlnOpticsGroupName": [name],
            "rlnOpticsGroup": [OPTICS_GROUP],
            "rlnVoltage": [optics.voltage_kv],
            "rlnSphericalAberration": [optics.cs_mm],
            "rlnAmplitudeContrast": [optics.amplitude_contrast],
            "rlnMicrographOriginalPixelSize": [original_pixel_size or pixel_size],
            "rlnImagePixelSize": [pixel_size],
            "rlnImageSize": [box],
            "rlnImageDimensionality": [2],
        }
    )
    return table


def optics_block(
    particles: pd.DataFrame,
    name: str,
    optics: Optics,
    pixel_size: float,
    box: int,
    original_pixel_size: float | None = None,
) -> pd.DataFrame:
    """The optics block of particles: one row, the project's (`optics_table`), or that of each group where the rows state them."""
    if is_uniform(particles) or not len(particles):
        return optics_table(name, optics, pixel_size, box, original_pixel_size)
    rows = particles.drop_duplicates("rlnOpticsGroup").sort_values("rlnOpticsGroup")
    columns = ["rlnOpticsGroup", *GROUP_COLUMNS, *SAMPLING_COLUMNS, *ABERRATION_COLUMNS]
    return rows[[c for c in columns if c in rows]].reset_index(drop=True).assign(rlnImageDimensionality=2)


def sort_by_group(particles: pd.DataFrame, def_avg: pd.DataFrame) -> pd.DataFrame:
    """Particles of grouped micrographs with their micrograph's defocus group and its CTF, sorted by group and place of origin.

    particles: rlnMicrographName, nphParticleNumber …; def_avg: table of `average_groups`. Particles of micrographs that are in
    no group (dropped ones) are left out.

    Raises
    ------
    InputError
        No particle is left.
    """
    names = {
        "nphDefocusGroup": "nphDefocusGroup",
        "nphGroupDefocusU": "nphGroupDefocusU",
        "nphGroupDefocusV": "nphGroupDefocusV",
        "nphGroupDefocusAngle": "nphGroupDefocusAngle",
    }
    groups = def_avg[["rlnMicrographName", *names]].drop_duplicates("rlnMicrographName")
    kept = particles.drop(columns=[name for name in names if name in particles], errors="ignore")
    table = kept.merge(groups, on="rlnMicrographName", how="inner", validate="many_to_one")
    if not len(table):
        raise InputError(
            f"none of the {len(particles)} particles lies on a kept micrograph; look at results/particles/percent_selected.star "
            "and edits/sel_micrograph.star"
        )
    return table.sort_values(
        ["nphDefocusGroup", "rlnMicrographName", "nphParticleNumber"], kind="stable", ignore_index=True
    )


def count_by_group(particles: pd.DataFrame, def_avg: pd.DataFrame) -> pd.DataFrame:
    """SPIDER's sel_group: nphDefocusGroup, nphParticles, nphCumulative, nphGroupDefocus; groups without particles count 0."""
    defocus = def_avg.groupby("nphDefocusGroup")["nphGroupDefocus"].first().sort_index()
    counts = particles.groupby("nphDefocusGroup").size().reindex(defocus.index, fill_value=0)
    return pd.DataFrame(
        {
            "nphDefocusGroup": defocus.index.to_numpy(),
            "nphParticles": counts.to_numpy(),
            "nphCumulative": counts.cumsum().to_numpy(),
            "nphGroupDefocus": defocus.to_numpy(),
        }
    )


def particles_of_group(particles: pd.DataFrame, group: Group) -> pd.DataFrame:
    """Rows of a group's micrographs, in order, with the group's number and CTF as the group states them, and defoci by hand."""
    rows = particles_by_hand(particles[particles["rlnMicrographName"].isin(group.micrographs)], group.by_hand)
    return rows.sort_values(["rlnMicrographName", "nphParticleNumber"], kind="stable", ignore_index=True).assign(
        nphDefocusGroup=group.number,
        nphGroupDefocusU=group.defocus_u,
        nphGroupDefocusV=group.defocus_v,
        nphGroupDefocusAngle=group.angle_deg,
    )


def stack_particles(
    particles: pd.DataFrame, path: str | os.PathLike[str], pixel_size: float, box: int, dtype: str
) -> pd.DataFrame:
    """Copy the particles' images into one stack; returns the table with rlnImageName pointing there."""
    images = ParticleImages(particles)
    with stack_writer(path, (len(particles), box, box), pixel_size, dtype) as stack:
        for first in range(0, len(particles), COPY_BLOCK):
            stack[first : first + COPY_BLOCK] = images[first : first + COPY_BLOCK]
    return particles.assign(rlnImageName=[image_name(i, path) for i in range(len(particles))])


def as_group(values: Sequence[Any]) -> Group:
    """The group that a job's params hold as a plain tuple (number, micrographs, defocus U, V, angle, fits by hand)."""
    number, micrographs, defocus_u, defocus_v, angle, by_hand = values
    fits = tuple(tuple(fit) for fit in by_hand)
    return Group(int(number), tuple(micrographs), float(defocus_u), float(defocus_v), float(angle), fits)
