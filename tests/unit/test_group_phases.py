"""Micrographs against the CTF of their defocus group."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nephila.ctf import Optics, ctf_1d
from nephila.defocus.group_phases import draw_groups, drawn_profile, group_phases
from nephila.defocus_groups import average_groups

OPTICS = Optics(300, 2.7, 0.1)
FREQUENCY = np.linspace(1 / 30, 1 / 4, 220)


def ring_rows(defocus, noise=0.0):
    """Rings of a micrograph, falling in strength, on a sloping background."""
    envelope, background = 40 * np.exp(-40 * FREQUENCY**2), 100 - 80 * FREQUENCY
    subtracted = envelope * ctf_1d(FREQUENCY, defocus, OPTICS) ** 2
    subtracted = subtracted + noise * envelope * np.random.default_rng(int(defocus)).standard_normal(len(FREQUENCY))
    return pd.DataFrame(
        {
            "nphSpatialFrequency": FREQUENCY,
            "nphBackground": background,
            "nphEnvelope": envelope,
            "nphSubtracted": subtracted,
        }
    )


@pytest.fixture
def grouped():
    defocus = {"m/a.mrc": 14800.0, "m/b.mrc": 15000.0, "m/c.mrc": 15700.0, "m/d.mrc": 21000.0}
    micrographs = pd.DataFrame(
        {
            "rlnMicrographName": list(defocus),
            "rlnDefocusU": [z + 100 for z in defocus.values()],
            "rlnDefocusV": [z - 100 for z in defocus.values()],
            "rlnDefocusAngle": [10.0, 10.0, 100.0, 50.0],
            "rlnCtfMaxResolution": [4.5, 6.0, 4.5, 0.0],
        }
    )
    sort = pd.DataFrame({"rlnMicrographName": list(defocus), "nphDefocusGroup": [1, 1, 1, 2]})
    return defocus, micrographs, *average_groups(sort, micrographs, OPTICS)


def test_the_worst_of_a_group_is_what_its_table_says(grouped):
    defocus, micrographs, def_avg, sel_group = grouped
    rings = {name: ring_rows(z, 0.05) for name, z in defocus.items() if z < 20000}
    table = group_phases(def_avg, micrographs, rings, OPTICS).set_index("rlnMicrographName")
    worst = table.groupby("nphDefocusGroup")[["nphDefocusDeviation", "nphPhaseErrorLimit"]].max()
    np.testing.assert_allclose(worst["nphDefocusDeviation"], sel_group["nphWorstDeviation"])
    np.testing.assert_allclose(worst["nphPhaseErrorLimit"], sel_group["nphPhaseErrorLimit"])
    # a and b lie 370 and 170 A below the group, c lies 530 A above and has its astigmatism across
    assert table.loc["m/c.mrc", "nphDefocusDeviation"] == pytest.approx(533 + 133, abs=2)
    assert table["nphInPhase"].loc[["m/b.mrc", "m/a.mrc", "m/c.mrc", "m/d.mrc"]].is_monotonic_decreasing
    assert table.loc["m/b.mrc", "nphInPhase"] > 0.97 and table.loc["m/d.mrc", "nphInPhase"] == 0


def test_profiles_are_drawn_as_far_as_they_are_explained(grouped, tmp_path):
    defocus, micrographs, def_avg, _ = grouped
    grid = FREQUENCY[10:]
    profile = drawn_profile(ring_rows(15000.0), grid, 6.0)
    seen = grid < 1 / 6
    assert np.isnan(profile[~seen]).all()
    assert np.corrcoef(profile[seen], ctf_1d(grid[seen], 15000.0, OPTICS) ** 2)[0, 1] > 0.99
    assert np.isnan(drawn_profile(ring_rows(15000.0).iloc[:5], grid, 6.0)).all()
    rings = {name: ring_rows(z, 0.05) for name, z in defocus.items() if z < 20000}
    phases = group_phases(def_avg, micrographs, rings, OPTICS)
    draw_groups(phases, def_avg, micrographs, rings, OPTICS, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["group_001.png"]
