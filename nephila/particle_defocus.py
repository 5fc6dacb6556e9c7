"""Defocus of particles where it changes across their micrograph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

Float64 = npt.NDArray[np.float64]


def particle_defoci(
    particles: pd.DataFrame, micrographs: pd.DataFrame, pixel_size: float, heights: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Particles with rlnDefocusU and V moved from the micrograph's defocus to that at their place.

    particles: rlnMicrographName, rlnCoordinateX, Y (px of `pixel_size`, A), rlnDefocusU, V; micrographs: table of CTFs, with
    nphDefocusSlopeX, Y and nphPlaneCentreX, Y where planes were fitted (otherwise the particles come back as they are); heights:
    of the tiles (`defocus.heights.height_table`), where particles take more than the plane from them.
    """
    columns = ["nphDefocusSlopeX", "nphDefocusSlopeY", "nphPlaneCentreX", "nphPlaneCentreY"]
    if not set(columns) <= set(micrographs) or not {"rlnCoordinateX", "rlnCoordinateY"} <= set(particles):
        return particles
    planes = micrographs.set_index("rlnMicrographName")[columns].astype(float)
    slope_x, slope_y, centre_x, centre_y = planes.loc[particles["rlnMicrographName"]].to_numpy().T
    x, y = (pixel_size * particles[f"rlnCoordinate{axis}"].to_numpy(np.float64) for axis in "XY")
    offset = slope_x * (x - centre_x) + slope_y * (y - centre_y)
    if heights is not None and len(heights):
        offset = offset + _from_tiles(
            particles["rlnMicrographName"].astype(str).to_numpy(), np.column_stack([x, y]), heights
        )
    return particles.assign(
        rlnDefocusU=np.round(particles["rlnDefocusU"] + offset, 3),
        rlnDefocusV=np.round(particles["rlnDefocusV"] + offset, 3),
    )


def _from_tiles(names: npt.NDArray[np.object_], place: Float64, heights: pd.DataFrame) -> Float64:
    """Height (A of defocus) at each particle's place [m, 2] (A); 0 in micrographs without tiles."""
    from nephila.defocus.heights import expected_heights, heights_of

    tiles = heights_of(heights)
    rows = {name: np.flatnonzero(names == name) for name in tiles}
    found = expected_heights(list(tiles.values()), [place[index] for index in rows.values()])
    offset = np.zeros(len(names))
    for index, values in zip(rows.values(), found, strict=True):
        offset[index] = values
    return offset
