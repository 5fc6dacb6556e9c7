"""CTF results of other programs must have been fitted with the configuration's optics and pixel size."""

from __future__ import annotations

import pandas as pd
import pytest

from nephila.defocus.result_optics import check_result_optics
from nephila.errors import InputError
from nephila.io.tables import write_blocks

RESULT_OPTICS = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1, "phase_shift_deg": 0.0}


def write_results(path, rows=None, **changes):
    """micrographs_ctf.star as RELION writes it, fitted at 4 A."""
    optics = {
        "rlnOpticsGroupName": ["one", "two"], "rlnOpticsGroup": [1, 2], "rlnMicrographOriginalPixelSize": 2.0,
        "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1, "rlnMicrographPixelSize": 4.0,
    }  # fmt: skip
    table = {
        "rlnMicrographName": ["m/a.mrc", "m/b.mrc"],
        "rlnOpticsGroup": [1, 2],
        "rlnDefocusU": 1e4,
        "rlnDefocusV": 1e4,
    }
    write_blocks(path, {"optics": pd.DataFrame(optics | changes), "micrographs": pd.DataFrame(table | (rows or {}))})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rlnVoltage": 200.0}, "row 1: _rlnVoltage is 200, optics.voltage_kv is 300"),
        ({"rlnSphericalAberration": [2.7, 1.4]}, "row 2: _rlnSphericalAberration is 1.4, optics.cs_mm is 2.7"),
        ({"rlnAmplitudeContrast": 0.07}, "_rlnAmplitudeContrast is 0.07, optics.amplitude_contrast is 0.1"),
        ({"rlnMicrographPixelSize": 3.0}, "_rlnMicrographPixelSize is 3, input.pixel_size is 4"),
        ({"rlnMicrographPixelSize": 3.92}, "_rlnMicrographPixelSize is 3.92, input.pixel_size is 4"),
        ({"rlnMicrographPixelSize": "nan"}, "not a number"),
        ({"rlnMicrographPixelSize": 2.0}, None),  # fitted before binning
        ({}, None),
    ],
)
def test_imported_results_must_have_the_configurations_optics(tmp_path, changes, message):
    path = str(tmp_path / "micrographs_ctf.star")
    write_results(path, **changes)
    if message is None:
        return check_result_optics(["x/a.mrc", "x/b.mrc"], path, RESULT_OPTICS, 4.0)
    with pytest.raises(InputError, match=message):
        check_result_optics(["x/a.mrc", "x/b.mrc"], path, RESULT_OPTICS, 4.0)


def test_imported_results_of_other_micrographs_do_not_count(tmp_path):
    path = str(tmp_path / "micrographs_ctf.star")
    write_results(path, rlnVoltage=[300.0, 200.0])
    check_result_optics(["x/a.mrc"], path, RESULT_OPTICS, 4.0)
    with pytest.raises(InputError, match="row 2: _rlnVoltage is 200"):
        check_result_optics(["x/b.mrc"], path, RESULT_OPTICS, 4.0)


def test_optics_of_old_tables_and_of_ctffind(tmp_path):
    old = {
        "rlnMicrographName": ["a.mrc"],
        "rlnVoltage": 300.0,
        "rlnMagnification": 10000.0,
        "rlnDetectorPixelSize": 3.0,
    }
    write_blocks(tmp_path / "old.star", {"": pd.DataFrame(old)})
    with pytest.raises(InputError, match="detector pixel size over magnification is 3, input.pixel_size is 4"):
        check_result_optics(["a.mrc"], str(tmp_path / "old.star"), RESULT_OPTICS, 4.0)
    heading = (
        "# Output from CTFFind\n# Pixel size: 4.000 Angstroms ; acceleration voltage: 300.0 keV ; spherical aberration: 1.40 mm ; "
        "amplitude contrast: 0.10\n1 10000 10000 0 0 0.1 5\n"
    )
    (tmp_path / "a.txt").write_text(heading)
    with pytest.raises(InputError, match=r"a\.txt: spherical aberration is 1\.4, optics\.cs_mm is 2\.7"):
        check_result_optics(["a.mrc"], str(tmp_path / "*.txt"), RESULT_OPTICS, 4.0)
    check_result_optics(["a.mrc"], str(tmp_path / "*.txt"), RESULT_OPTICS | {"cs_mm": 1.4}, 4.0)
    with pytest.raises(InputError, match="pixel size is 4, input.pixel_size is 3"):
        check_result_optics(["a.mrc"], str(tmp_path / "*.txt"), RESULT_OPTICS | {"cs_mm": 1.4}, 3.0)
