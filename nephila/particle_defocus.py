"""Defocus of particles where it changes across their micrograph."""

from __future__ import annotations

import numpy as np
import pandas as pd


def particle_defoci(particles: pd.DataFrame, micrographs: pd.DataFrame, pixel_size: float) -> pd.DataFrame:
    """Particles with rlnDefocusU and V moved from the micrograph's defocus to that of the plane at their place.

    particles: rlnMicrographName, rlnCoordinateX, Y (px of `pixel_size`, A), rlnDefocusU, V; micrographs: table of CTFs, with
    nphDefocusSlopeX, Y and nphPlaneCentreX, Y where planes were fitted (otherwise the particles come back as they are).
    """
    columns = ["nphDefocusSlopeX", "nphDefocusSlopeY", "nphPlaneCentreX", "nphPlaneCentreY"]
    if not set(columns) <= set(micrographs) or not {"rlnCoordinateX", "rlnCoordinateY"} <= set(particles):
        return particles
    planes = micrographs.set_index("rlnMicrographName")[columns].astype(float)
    slope_x, slope_y, centre_x, centre_y = planes.loc[particles["rlnMicrographName"]].to_numpy().T
    x, y = (pixel_size * particles[f"rlnCoordinate{axis}"].to_numpy(np.float64) for axis in "XY")
    offset = slope_x * (x - centre_x) + slope_y * (y - centre_y)
    return particles.assign(
        rlnDefocusU=np.round(particles["rlnDefocusU"] + offset, 3),
        rlnDefocusV=np.round(particles["rlnDefocusV"] + offset, 3),
    )
