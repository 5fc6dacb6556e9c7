"""Other starts than micrographs (coordinates, particles, the Nature Protocols layout) and other ways through the chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import workflow_runs as runs

from nephila.errors import InputError
from nephila.extraction import ExtractionSettings
from nephila.import_particles import (
    check_against_config,
    find_stacks,
    list_particles,
    micrograph_defoci,
    read_given_particles,
    take_windows,
)
from nephila.io.mrc import open_stack, read_volume, write_stack, write_volume
from nephila.io.spider import write_document, write_spider
from nephila.io.tables import read_table, write_blocks, write_table

OPTICS = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1, "phase_shift_deg": 0.0}
BOX = 16


def given(**changes: Any) -> pd.DataFrame:
    """Five particles of two micrographs, with defoci."""
    table = pd.DataFrame(
        {
            "rlnMicrographName": ["b.mrc", "a.mrc", "b.mrc", "b.mrc", "a.mrc"],
            "rlnImageName": [f"{i}@stack.mrcs" for i in (1, 2, 3, 4, 5)],
            "rlnOpticsGroup": 1,
            "rlnDefocusU": [12000.0, 20000.0, 12000.0, 12300.0, 20000.0],
            "rlnDefocusV": [11000.0, 20000.0, 11000.0, 11300.0, 20000.0],
            "rlnDefocusAngle": 30.0,
            "rlnRandomSubset": [1, 2, 2, 1, 1],
        }
    )
    return table.assign(**changes)


def optics_block(**changes: Any) -> pd.DataFrame:
    block = {"rlnOpticsGroup": 1, "rlnOpticsGroupName": "o", "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7}
    block |= {"rlnAmplitudeContrast": 0.1, "rlnImagePixelSize": 4.0, "rlnImageSize": BOX}
    return pd.DataFrame({key: [value] for key, value in (block | changes).items()})


def write_given(folder: Path, table: pd.DataFrame, optics: pd.DataFrame | None) -> Path:
    path = folder / "given.star"
    write_blocks(path, ({} if optics is None else {"optics": optics}) | {"particles": table})
    return path


def test_tables_of_relion_3_1_and_3_0_say_the_same(tmp_path: Path) -> None:
    new = read_given_particles(write_given(tmp_path, given(), optics_block()))
    old_style = given(rlnDetectorPixelSize=5.0, rlnMagnification=12500.0).drop(columns="rlnOpticsGroup")
    old = read_given_particles(write_given(tmp_path, old_style, None))
    np.testing.assert_allclose(new["rlnImagePixelSize"], 4.0)
    np.testing.assert_allclose(old["rlnImagePixelSize"], 4.0)
    assert old["nphParticleNumber"].tolist() == new["nphParticleNumber"].tolist() == [1, 1, 2, 3, 2]


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (given().drop(columns="rlnDefocusV"), "_rlnDefocusV"),
        (given().drop(columns="rlnMicrographName"), "_rlnMicrographName"),
        (given(rlnOpticsGroup=2), "optics group 2"),
    ],
)
def test_what_a_table_lacks_is_named(table: pd.DataFrame, named: str, tmp_path: Path) -> None:
    path = write_given(tmp_path, table, optics_block())
    with pytest.raises(InputError, match=named) as error:
        read_given_particles(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rlnImagePixelSize": 3.9}, "input.pixel_size is 4"),
        ({"rlnImageSize": 20}, "particle.box is 16"),
        ({"rlnVoltage": 200.0}, "optics.voltage_kv is 300"),
        ({"rlnSphericalAberration": 0.01}, "optics.cs_mm is 2.7"),
        ({"rlnAmplitudeContrast": 0.07}, "optics.amplitude_contrast is 0.1"),
    ],
)
def test_optics_that_contradict_the_configuration_are_refused(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    table = read_given_particles(write_given(tmp_path, given(), optics_block(**changes)))
    with pytest.raises(InputError, match=named):
        check_against_config(table, 4.0, BOX, OPTICS, "given.star")
    check_against_config(
        read_given_particles(write_given(tmp_path, given(), optics_block())), 4.0, BOX, OPTICS, "given.star"
    )


def test_defocus_of_a_micrograph_is_the_mean_over_its_particles(tmp_path: Path) -> None:
    angles = given(rlnDefocusAngle=[0.0, 30.0, 90.0, 0.0, 30.0], rlnDefocusU=[12000, 20000, 12000, 12000, -5.0])
    angles["rlnDefocusV"] = [11000.0, 20000.0, 11000.0, 11000.0, -30000.0]
    table = micrograph_defoci(angles, {"b.mrc": 1, "a.mrc": 2}, "given.star").set_index("rlnMicrographName")
    # 0 and 90 degrees cancel, which leaves a third of the astigmatism along 0
    assert table.loc["b.mrc", "rlnDefocusU"] == pytest.approx(11500 + 500 / 3, abs=0.01)
    assert table.loc["b.mrc", "rlnDefocusV"] == pytest.approx(11500 - 500 / 3, abs=0.01)
    assert table.loc["b.mrc", "rlnDefocusAngle"] == pytest.approx(0.0, abs=1e-6)
    assert table["nphKeep"].tolist() == [1, 0]
    assert "not underfocus" in table.loc["a.mrc", "nphReason"]


def test_particles_are_listed_with_the_coordinates_that_they_have(tmp_path: Path) -> None:
    table = read_given_particles(write_given(tmp_path, given(), optics_block()))
    listed = list_particles(table)
    assert "rlnCoordinateX" not in listed
    assert listed["nphKeep"].eq(1).all()
    assert list_particles(table.assign(rlnCoordinateX=3.0, rlnCoordinateY=4.0))["rlnCoordinateY"].eq(4.0).all()


@pytest.fixture
def stacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The table with a stack of numbered images on a sloping, noisy background, dark protein, in the STAR file's folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    disc = (x**2 + y**2 < 16).astype(np.float32)
    images = np.stack([50 - 10 * (i + 1) * disc + 0.3 * x + rng.normal(size=disc.shape) for i in range(5)])
    write_stack(tmp_path / "elsewhere" / "stack.mrcs", images.astype(np.float32), 4.0)
    (tmp_path / "elsewhere").mkdir(exist_ok=True)
    write_given(tmp_path / "elsewhere", given(), optics_block())
    return find_stacks(read_given_particles("elsewhere/given.star"), "elsewhere/given.star")


SETTINGS = ExtractionSettings(radius=5.5, invert=True, dust_sigma=0.0)


def test_windows_come_by_micrograph_bright_and_normalised(stacked: pd.DataFrame) -> None:
    table = take_windows(stacked, ["a.mrc", "b.mrc"], BOX, 4.0, SETTINGS, "out.mrcs")
    assert table["rlnMicrographName"].tolist() == ["a.mrc", "a.mrc", "b.mrc", "b.mrc", "b.mrc"]
    assert table["rlnRandomSubset"].tolist() == [2, 1, 1, 2, 1]
    assert table["rlnImageName"].tolist() == [f"{i:06d}@out.mrcs" for i in range(1, 6)]
    images = open_stack("out.mrcs")[:]
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    background = x**2 + y**2 > 5.5**2
    np.testing.assert_allclose(images[:, background].mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(images[:, background].std(axis=1), 1, atol=1e-4)
    # images 2, 5, 1, 3, 4 of the stack had discs of 20, 50, 10, 30, 40
    centre = images[:, BOX // 2 - 1 : BOX // 2 + 2, BOX // 2 - 1 : BOX // 2 + 2].mean(axis=(1, 2))
    assert np.argsort(centre).tolist() == [2, 0, 3, 4, 1]
    # a batch of its own holds the same windows
    take_windows(stacked, ["b.mrc"], BOX, 4.0, SETTINGS, "b.mrcs")
    np.testing.assert_array_equal(open_stack("b.mrcs")[:], images[2:])


@pytest.mark.parametrize(
    ("box", "pixel_size", "settings", "named"),
    [
        (18, 4.0, SETTINGS, "particle.box: 16"),
        (BOX, 4.2, SETTINGS, r"input\.pixel_size \(and the table\) is 4\.2"),
        (BOX, 4.0, ExtractionSettings(normalise="noise"), "use ring"),
    ],
)
def test_stacks_that_do_not_fit_are_refused(
    box: int, pixel_size: float, settings: ExtractionSettings, named: str, stacked: pd.DataFrame
) -> None:
    with pytest.raises(InputError, match=named):
        take_windows(stacked, ["a.mrc"], box, pixel_size, settings, "out.mrcs")
    assert not Path("out.mrcs").exists()


def test_a_stack_that_is_nowhere_is_named(stacked: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"lost\.mrcs is neither"):
        find_stacks(stacked.assign(rlnImageName="1@lost.mrcs"), "elsewhere/given.star")


def resolution(folder: Path) -> float:
    """Resolution (A) that the run found by its half maps at FSC 0.143."""
    summary = json.loads((folder / "results" / "summary.json").read_text())
    return float(summary["resolution"]["fsc_0143"])


def test_nature_protocols_layout_becomes_particles(code: Path, fresh_project: Path) -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(size=(6, 60, 60)).astype(np.float32)
    for number, image in enumerate(images, 1):
        path = fresh_project / "natproto" / "win" / f"ser_{number:05d}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_spider(path, image)
    order = {"group": [2, 2, 1, 1, 1, 2], "particle": [1, 2, 1, 2, 3, 3], "cumulative": [5, 6, 1, 2, 3, 4]}
    write_document(
        fresh_project / "natproto" / "order_select.dat", order | {"defocus": [18000.0] * 2 + [12000.0] * 3 + [18000.0]}
    )
    runs.configure(fresh_project, {"input": {"particles": "natproto/particles.star", "contrast": "bright"}})
    runs.finished(runs.snakemake(code, fresh_project, "particles"))
    table = read_table(fresh_project / "results" / "particles" / "ngood.star", kind="particles")
    assert table["rlnMicrographName"].value_counts().to_dict() == {"group_001": 3, "group_002": 3}
    assert set(table["rlnDefocusU"]) == {12000.0, 18000.0}
    # numbers 1 to 6 in this order, since the table is sorted by group and cumulative number
    stack = open_stack(fresh_project / "natproto" / "particles.mrcs")
    np.testing.assert_allclose(stack[:], images, atol=1e-6)
    assert (fresh_project / "results" / "particles" / "given" / "particles_1.png").stat().st_size > 5000
    assert runs.snakemake(code, fresh_project, "particles", "-n").nothing_to_do


@pytest.mark.slow
def test_from_particles_to_a_map(code: Path, finished_project: Path, tmp_path: Path) -> None:
    """Particles cut by one run go into another, which knows nothing of the micrographs."""
    windows = read_table(finished_project / "results" / "particles" / "ngood.star", kind="particles")
    particles = windows.drop(columns=["rlnOriginXAngst", "rlnOriginYAngst", "nphParticleNumber"])
    folder = tmp_path / "given"
    (folder / "parts").mkdir(parents=True)
    for path in sorted((finished_project / "results" / "particles" / "win").glob("*.mrcs")):
        (folder / "parts" / path.name).symlink_to(path)
    (folder / "reference.mrc").symlink_to(finished_project / "reference.mrc")
    optics = optics_block(
        rlnImageSize=open_stack(finished_project / "results" / "alignment" / "group_001" / "data.mrcs").shape[1]
    )
    write_blocks(folder / "parts" / "particles.star", {"optics": optics, "particles": particles})
    (folder / "config.yaml").write_text((finished_project / "config.yaml").read_text())
    runs.configure(
        folder,
        {
            "input": {"particles": "parts/particles.star", "contrast": "bright", "micrographs": "none/*.mrc"},
            "truth": {"map": None, "particles": None, "micrographs": None},
            "reconstruction": {"method": "richardson"},
            "refinement": {"ctf": "particle", "end_method": "direct"},
        },
    )
    runs.finished(runs.snakemake(code, folder))
    refined = read_table(folder / "results" / "refinement" / "particles.star", kind="particles")
    # half-sets are kept, and so are the defoci of each particle
    keys = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"]
    both = refined.merge(particles, on=keys, suffixes=("", "_given"))
    assert len(both) == len(refined) > 0.7 * len(particles)
    assert (both["rlnRandomSubset"] == both["rlnRandomSubset_given"]).all()
    np.testing.assert_allclose(both["rlnDefocusU"], both["rlnDefocusU_given"], rtol=1e-6)
    assert resolution(folder) < 1.25 * resolution(finished_project)
    assert runs.snakemake(code, folder, "-n").nothing_to_do


@pytest.mark.slow
def test_from_coordinates_with_a_point_group(code: Path, tmp_path: Path) -> None:
    """Coordinates of another program, named by file name alone; D2, histogram normalisation, float16, optimal groups, no CTF."""
    folder = runs.simulate(
        tmp_path / "d2",
        4,
        12,
        "D2",
        input={"coordinates": "picks.star"},
        defocus_groups={"method": "optimal", "resolution": 12.0},
        particles={"normalise": "histogram", "dtype": "float16"},
        alignment={"usectf": False},
        refinement={"end_method": "direct", "b_factor": -100.0, "join_resolution": 0.0},
        jobs={"keep_intermediate": True},
    )
    truth = read_table(folder / "truth" / "particles.star", block="particles")
    names = truth["rlnMicrographName"].str.rpartition("/")[2]
    coordinates = truth[["rlnCoordinateX", "rlnCoordinateY"]].assign(rlnMicrographName=names)
    write_table(folder / "picks.star", coordinates, kind="coordinates")
    runs.finished(runs.snakemake(code, folder))
    assert not list((folder / "results" / "particles").rglob("lfc_pick*"))
    listed = read_table(folder / "results" / "particles" / "coordinates.star", kind="coordinates")
    assert len(listed) == len(truth)
    volume, _ = read_volume(folder / "results" / "refinement" / "map.mrc")
    # two-fold axes along z and x about the voxel n // 2
    inner = volume[1:, 1:, 1:]
    for turned in (inner[:, ::-1, ::-1], inner[::-1, ::-1, :]):
        assert np.corrcoef(inner.ravel(), turned.ravel())[0, 1] > 0.99
    assert (folder / "results" / "refinement" / "iter_01" / "half1_0001_sums.npz").is_file()
    assert runs.snakemake(code, folder, "-n").nothing_to_do


@pytest.mark.slow
def test_the_ways_of_spider(code: Path, tmp_path: Path) -> None:
    """1D defocus, blob picks, decimation, grid search, lists with local and small-angle search, enhancement, shared halves."""
    from nephila.masks import spherical_mask

    folder = tmp_path / "spider"
    settings = {
        "input": {"decimate": 2},
        "ctf": {"method": "powdefocus", "max_resolution": 8.5},
        "picking": {"method": "pick", "threshold": 2.9, "at_most": 16},
        "particles": {"pfilt": True},
        "alignment": {"search": "grid", "shift_step": 8.0},
        "defocus_groups": {"resolution": 12.0},
        "thresholds": {"best_per_view": 5},
        "reconstruction": {"method": "conjugate_gradients"},
        "refinement": {
            "iterations": 3,
            "schedule": "lists",
            "angular_step_deg": [15.0, 7.5, 5.0],
            "search_range_deg": [0.0, 20.0, 0.0],
            "small_angle": [False, False, True],
            "enhance": [False, True],
            "scattering": "scattering.star",
            "halves": "shared",
            "snr": 3.0,
            "filter": "butterworth",
            "end_method": "richardson",
            "mask": {"file": "mask.mrc"},
        },
        "truth": {"map": None, "particles": None, "micrographs": None},
    }
    runs.simulate(folder, 4, 16, pixel_size=2.0, noise=1.5, **settings)
    box = 60
    runs.configure(folder, {"particle": {"box": box}})
    write_volume(folder / "mask.mrc", spherical_mask(box, 24.0, 3.0), 4.0)
    frequency = np.linspace(0.005, 0.1, 40)
    curve = pd.DataFrame({"nphSpatialFrequency": frequency, "nphIntensity": np.exp(-1000 * frequency**2) + 0.01})
    write_table(folder / "scattering.star", curve, kind="scattering")
    runs.finished(runs.snakemake(code, folder))
    results = folder / "results"
    assert open_stack(results / "particles" / "flt" / "winser_0001.mrcs").shape[1:] == (box, box)
    assert (results / "refinement" / "iter_01" / "enhanced_half1.mrc").is_file()
    first, second = (read_volume(results / "refinement" / "iter_02" / f"reference_half{i}.mrc")[0] for i in (1, 2))
    np.testing.assert_array_equal(first, second)
    views = read_table(results / "averages" / "group_001" / "bestim.star", block="particles")
    assert len(views) > 0
    iterations = read_table(results / "refinement" / "iterations.star", kind="iterations")
    assert iterations["nphSearch"].tolist()[-2:] == ["local", "local"]
    truth = read_table(folder / "truth" / "particles.star", block="particles")
    coordinates = read_table(results / "particles" / "coordinates.star", kind="coordinates")
    assert (
        coordinates["rlnCoordinateX"].max() > 0.75 * truth["rlnCoordinateX"].max()
    )  # px of the files, not of decimated images
    assert 10.0 < resolution(folder) < 60.0
    assert runs.snakemake(code, folder, "-n").nothing_to_do
