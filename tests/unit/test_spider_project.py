"""A SPIDER project folder as a Nephila project: geometry against a simulation of SPIDER's own operation, and real files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from scipy.ndimage import map_coordinates

from nephila.cli import main
from nephila.config import load_config
from nephila.ctf import ctf_2d
from nephila.defocus.importers import read_results
from nephila.defocus.result_optics import check_result_optics
from nephila.errors import InputError
from nephila.geometry import angular_distance, euler_matrix
from nephila.import_particles import check_against_config, find_stacks, read_given_particles
from nephila.io.mrc import open_stack, read_volume
from nephila.io.spider import read_document, read_spider, write_document, write_spider
from nephila.io.tables import read_table
from nephila.projection import FourierProjector
from nephila.spider_poses import relion_poses, spider_alignment
from nephila.spider_project import import_spider, read_params

BOX, PIXEL = 32, 4.5
PARAMS = {1: 0, 2: 0, 3: 0, 4: 0, 5: PIXEL, 6: 200, 7: 2.0, 8: 0, 9: 0, 10: 0, 11: 0, 12: 0.1, 16: 1, 17: BOX, 18: 20}
POSES = {  # rot, tilt, psi (degrees), origin (px); two of them beyond the equator
    4: np.array([[20.0, 35.0, 50.0, 1.5, -2.0], [-100.0, 80.0, 170.0, 0.0, 3.0], [60.0, 130.0, -20.0, -2.5, 0.5]]),
    9: np.array([[10.0, 0.0, 0.0, 2.0, 1.0], [-45.0, 110.0, 33.0, -1.0, -1.5]]),
}


def blobs() -> np.ndarray:
    """A volume without symmetry, smooth enough for interpolation."""
    z, y, x = np.mgrid[:BOX, :BOX, :BOX] - BOX // 2
    volume = np.zeros((BOX,) * 3)
    for cx, cy, cz, height in ((5, 0, 0, 1.0), (0, -6, 2, 0.8), (-3, 3, -6, 1.2), (2, 5, 4, 0.6)):
        volume += height * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * 2.5**2))
    return volume.astype(np.float32)


def rotate_and_shift(image: np.ndarray, angle: float, x: float, y: float) -> np.ndarray:
    """SPIDER's RT SQ, pixel by pixel: turned by the angle about N // 2, then shifted (from its description and source)."""
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    rows, columns = np.mgrid[: len(image), : len(image)] - len(image) // 2
    u, v = columns - x, rows - y
    return map_coordinates(image, [s * u + c * v + len(image) // 2, c * u - s * v + len(image) // 2], order=3)


def project(poses: np.ndarray) -> np.ndarray:
    """Projections in RELION's convention, as the rest of Nephila makes them."""
    matrices = euler_matrix(*poses[:, :3].T)
    return FourierProjector.from_volume(blobs()).project(matrices, shifts_px=poses[:, 3:])


def document(poses: np.ndarray) -> np.ndarray:
    """Lines of an alignment document, 15 columns, for known poses; those beyond the equator as AP SH writes mirrored ones."""
    psi, theta, phi, angle, x, y = spider_alignment(*poses[:, :3].T, poses[:, 3:]).T
    lines = np.zeros((len(poses), 15))
    mirrored = theta > 90
    # the reference above the equator, seen from behind: theta + 180
    lines[:, 0], lines[:, 1], lines[:, 2] = psi, theta, phi
    lines[mirrored, 1] = 180 + (180 - theta[mirrored])
    lines[mirrored, 2] = phi[mirrored] + 180
    lines[:, 3], lines[:, 4], lines[:, 5], lines[:, 6], lines[:, 7] = 1, np.arange(len(poses)) + 1, angle, x, y
    lines[mirrored, 5] = angle[mirrored] + 180
    c, s = np.cos(np.pi), np.sin(np.pi)
    lines[mirrored, 6], lines[mirrored, 7] = c * x[mirrored] - s * y[mirrored], s * x[mirrored] + c * y[mirrored]
    return lines


@pytest.fixture
def spider(tmp_path: Path) -> Path:
    """A project folder as SPIDER's procedures leave it, with known poses, defoci and groups."""
    folder = tmp_path / "ribo some"
    for name in ("Alignment", "Power_Spectra", "Particles/coords"):
        (folder / name).mkdir(parents=True)
    write_document(folder / "params.dat", {"value": list(PARAMS.values())}, PARAMS)
    write_document(folder / "sel_micrograph.dat", {"micrograph": [3, 11, 22]})
    micrographs = {4: [11, 11, 3], 9: [22, 22]}
    write_document(
        folder / "Power_Spectra" / "def_sort.dat",
        {"micrograph": [11, 3, 22], "defocus": [20500.0, 20900.0, 34600.0], "group": [4, 4, 9]},
    )
    write_spider(folder / "reference_volume.dat", blobs())
    for group, poses in POSES.items():
        images, numbers = project(poses), np.arange(len(poses)) + 1
        path = folder / "Alignment" / f"data{group:03d}.dat"
        write_spider(path, images, stack=True, numbers=(micrographs[group], numbers))
        listed = {"n": numbers, "particle": numbers, "group": [group] * len(poses), "micrograph": micrographs[group]}
        write_document(folder / "Alignment" / f"sel_particles_{group:03d}.dat", listed)
        lines = document(poses)
        write_document(
            folder / "Alignment" / f"align_01_{group:03d}.dat", {f"c{i}": lines[:, i] for i in range(lines.shape[1])}
        )
    return folder


@pytest.mark.parametrize("group", POSES)
def test_the_aligned_image_is_the_reference(spider: Path, group: int) -> None:
    """SPIDER turns and shifts the image by columns 6 to 8; it then is the projection at psi, theta, phi of columns 1 to 3."""
    images, _ = read_spider(spider / "Alignment" / f"data{group:03d}.dat")
    lines = read_document(spider / "Alignment" / f"align_01_{group:03d}.dat").to_numpy()
    references = FourierProjector.from_volume(blobs()).project(euler_matrix(lines[:, 2], lines[:, 1], lines[:, 0]))
    inner = np.hypot(*(np.mgrid[:BOX, :BOX] - BOX // 2)) < 11
    for image, line, reference in zip(images, lines, references, strict=True):
        aligned = rotate_and_shift(image, *line[5:8])
        assert np.corrcoef(aligned[inner], reference[inner])[0, 1] > 0.998


def test_poses_and_origins_come_back(spider: Path) -> None:
    done = import_spider(spider, spider.parent / "new")
    assert done.files == [
        "config.yaml",
        "spider/particles.star",
        "spider/particles.mrcs",
        "edits/def_sort.star",
        "reference.mrc",
    ]
    table = read_table(spider.parent / "new" / "spider" / "particles.star", kind="particles")
    truth = np.concatenate(list(POSES.values()))
    found = euler_matrix(table["rlnAngleRot"], table["rlnAngleTilt"], table["rlnAnglePsi"])
    assert angular_distance(found, euler_matrix(*truth[:, :3].T)).max() < 1e-3
    np.testing.assert_allclose(table["rlnOriginXAngst"], PIXEL * truth[:, 3], atol=1e-4)
    np.testing.assert_allclose(table["rlnOriginYAngst"], PIXEL * truth[:, 4], atol=1e-4)
    np.testing.assert_array_equal(open_stack(spider.parent / "new" / "spider" / "particles.mrcs")[:], project(truth))


def test_negative_reference_numbers_stand_for_mirrors(spider: Path) -> None:
    """Documents that keep the reference's own angles and mark a mirrored match by a negative number in column 4."""
    lines = read_document(spider / "Alignment" / "align_01_004.dat")
    marked = lines.copy()
    turned = lines["c2"] > 180
    assert turned.any()
    marked.loc[turned, "c2"] -= 180
    marked.loc[turned, "c4"] *= -1
    first, second = (relion_poses(table, PIXEL, "align") for table in (lines, marked))
    np.testing.assert_allclose(first, second, atol=1e-9)


def test_settings_defoci_groups_and_reference(spider: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(spider.parent)
    result = CliRunner().invoke(main, ["import", "spider", str(spider), "new"])
    assert result.exit_code == 0, result.stderr
    assert Path("new/spider/check.png").stat().st_size > 5000
    config = load_config("new/config.yaml")
    assert (config.project.name, config.box, config.pixel_size) == ("ribo_some", BOX, PIXEL)
    assert config.particle.diameter == pytest.approx(20 * PIXEL)
    assert (config.optics.voltage_kv, config.optics.cs_mm, config.optics.amplitude_contrast) == (200.0, 2.0, 0.1)
    monkeypatch.chdir("new")
    given = find_stacks(read_given_particles(config.input.particles or ""), config.input.particles or "")
    check_against_config(given, config.pixel_size, config.box, config.optics.model_dump(), "given")
    assert given["rlnDefocusU"].tolist() == [20500.0, 20500.0, 20900.0, 34600.0, 34600.0]
    assert given["rlnMicrographName"].tolist() == ["mic_0011", "mic_0011", "mic_0003", "mic_0022", "mic_0022"]
    groups = read_table("edits/def_sort.star", kind="def_sort").set_index("rlnMicrographName")["nphDefocusGroup"]
    assert groups.to_dict() == {"mic_0011": 4, "mic_0003": 4, "mic_0022": 9}
    volume, pixel_size = read_volume("reference.mrc")
    np.testing.assert_array_equal(volume, blobs())
    assert pixel_size == pytest.approx(PIXEL)
    result = CliRunner().invoke(main, ["import", "spider", str(spider), "."])
    assert result.exit_code == 2 and "exists already" in result.stderr


@pytest.mark.parametrize("suffix", ["dat", "tif"])
def test_micrographs_with_their_selection_and_coordinates(spider: Path, suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    corner = {3: [(11, 7)], 22: [(31, 40), (60, 2)]}  # of the windows, from 1, as pick writes them
    for number in (3, 22, 30):
        image = rng.normal(size=(80, 100)).astype(np.float32)
        for x, y in corner.get(number, []):
            image[y - 1 + BOX // 2, x - 1 + BOX // 2] = 50.0
        path = spider / "Micrographs" / f"raw{number:04d}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        if suffix == "dat":
            write_spider(path, image)
        else:
            tifffile.imwrite(path, image)
    for number, places in corner.items():
        x, y = zip(*places, strict=True)
        write_document(
            spider / "Particles" / "coords" / f"sndc{number:04d}.dat", {"x": x, "y": y, "n": np.arange(len(x)) + 1}
        )
    # of micrograph 22, a third pick that was not selected
    write_document(
        spider / "Particles" / "coords" / "sndc0022.dat", {"x": [50, 31, 60], "y": [20, 40, 2], "n": [1, 2, 3]}
    )
    (spider / "Particles" / "good").mkdir()
    write_document(spider / "Particles" / "good" / "ngood0022.dat", {"particle": [2, 3], "category": [1, 1]})
    done = import_spider(spider, tmp_path / "new", start="micrographs")
    assert any("2 of 3 picks are selected" in note for note in done.notes)
    settings = load_config(tmp_path / "new" / "config.yaml").input
    assert settings.coordinates == "spider/coordinates.star" and settings.pixel_size == PIXEL
    assert Path(settings.micrographs).name == f"raw*.{suffix}"
    picks = read_table(tmp_path / "new" / "spider" / "coordinates.star", kind="coordinates")
    assert len(picks) == 3
    from nephila.io.micrographs import read_micrograph

    for row in picks.itertuples():
        image = read_micrograph(str(row.rlnMicrographName), contrast="bright").image
        assert image[int(row.rlnCoordinateY), int(row.rlnCoordinateX)] == 50.0
    keep = read_table(tmp_path / "new" / "edits" / "sel_micrograph.star", kind="sel_micrograph")
    assert {Path(n).stem: k for n, k in zip(keep["rlnMicrographName"], keep["nphKeep"], strict=True)} == {
        "raw0003": 1, "raw0022": 1, "raw0030": 0,
    }  # fmt: skip
    assert any("lists 1 micrographs that are not there (11)" in note for note in done.notes)
    ctf = load_config(tmp_path / "new" / "config.yaml").ctf
    assert (ctf.method, ctf.import_from) == ("import", "spider/micrographs_ctf.star")
    names = [str(name) for name in keep["rlnMicrographName"]]
    source = str(tmp_path / "new" / "spider" / "micrographs_ctf.star")
    optics = {"voltage_kv": PARAMS[6], "cs_mm": PARAMS[7], "amplitude_contrast": PARAMS[12]}
    check_result_optics(names, source, optics, PIXEL)
    fits = dict(zip((Path(name).stem for name in names), read_results(names, source), strict=True))
    assert fits["raw0003"].defocus_u == fits["raw0003"].defocus_v == pytest.approx(20900.0)
    assert fits["raw0022"].defocus_u == pytest.approx(34600.0)
    assert fits["raw0030"].failed and any("1 micrographs have no defocus there" in note for note in done.notes)


def test_a_project_without_picks_names_no_picture(spider: Path, tmp_path: Path) -> None:
    for name in ("def_sort", "defocus"):
        (spider / "Power_Spectra" / f"{name}.dat").unlink(missing_ok=True)
    write_spider(spider / "Micrographs" / "raw0003.dat", np.random.default_rng(6).normal(size=(80, 100)))
    command = ["import", "spider", str(spider), str(tmp_path / "new"), "--start", "micrographs"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "no picture" in result.output and "check.png" not in result.output
    assert "defoci are fitted from the micrographs" in result.output
    assert load_config(tmp_path / "new" / "config.yaml").ctf.method == "ctffind"


def test_decimation_and_scanners_of_params(spider: Path, tmp_path: Path) -> None:
    changed = PARAMS | {2: 1, 3: 100, 4: 80, 16: 2}
    write_document(spider / "params.dat", {"value": list(changed.values())}, changed)
    (spider / "Micrographs").mkdir()
    for number in (3, 11, 22):
        (spider / "Micrographs" / f"raw{number:04d}.raw").write_bytes(bytes(342 + 2 * 8000))
    write_document(spider / "Particles" / "coords" / "sndc0003.dat", {"x": [5.0], "y": [6.0], "n": [1.0]})
    import_spider(spider, tmp_path / "new", start="micrographs")
    settings = load_config(tmp_path / "new" / "config.yaml").input
    assert (settings.decimate, settings.pixel_size, settings.film) == (2, PIXEL / 2, "transmission")
    assert settings.raw is not None and (settings.raw.header_bytes, settings.raw.byte_order) == (342, "big")
    picks = read_table(tmp_path / "new" / "spider" / "coordinates.star", kind="coordinates")
    # centre 5 - 1 + 16 = 20 of the decimated image is 40.5 of the file
    assert picks[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy().tolist() == [[40.5, 42.5]]


def test_defocus_without_groups(spider: Path, tmp_path: Path) -> None:
    (spider / "Power_Spectra" / "def_sort.dat").unlink()
    columns = {"micrograph": [3, 11, 22], "defocus": [20900.0, 20500.0, 34600.0], "cutoff": [0.1, 0.1, 0.1]}
    write_document(spider / "Power_Spectra" / "defocus.dat", columns)
    done = import_spider(spider, tmp_path / "new")
    table = read_table(tmp_path / "new" / "spider" / "particles.star", kind="particles")
    assert table["rlnDefocusU"].tolist() == [20500.0, 20500.0, 20900.0, 34600.0, 34600.0]
    assert "no def_sort: defocus groups are made anew" in done.notes
    assert not (tmp_path / "new" / "edits" / "def_sort.star").exists()


def spoil(folder: Path, kind: str) -> None:
    alignment = folder / "Alignment"
    if kind == "params":
        (folder / "params.dat").unlink()
    elif kind == "key":
        write_document(folder / "params.dat", {"value": [1.0, 200.0]}, [1, 6])
    elif kind == "pixel":
        write_document(folder / "params.dat", {"value": list((PARAMS | {5: 0}).values())}, PARAMS)
    elif kind == "cut":
        (alignment / "data004.dat").write_bytes((alignment / "data004.dat").read_bytes()[:-8])
    elif kind == "box":
        write_document(folder / "params.dat", {"value": list((PARAMS | {17: 40}).values())}, PARAMS)
    elif kind == "lines":
        write_document(alignment / "align_01_009.dat", {f"c{i}": [1.0] for i in range(15)})
    elif kind == "columns":
        write_document(alignment / "align_01_009.dat", {"a": [1.0, 2.0]})
    elif kind == "defocus":
        write_document(folder / "Power_Spectra" / "def_sort.dat", {"m": [11, 3], "d": [2e4, 2e4], "g": [4, 4]})
    elif kind == "overfocus":
        write_document(folder / "Power_Spectra" / "def_sort.dat", {"m": [11], "d": [-2e4], "g": [4]})
    elif kind == "twice":
        shutil.copy(alignment / "data004.dat", alignment / "data004.spi")
    elif kind == "reference":
        write_spider(folder / "reference_volume.dat", blobs(), 3.0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("params", r"no file params\.\*: not a SPIDER project folder"),
        ("key", r"params\.dat: key 5 \(pixel size, A\) is missing"),
        ("pixel", "key 5: pixel size 0 A"),
        ("cut", r"data004\.dat.*cut short"),
        ("box", r"stacks of 40 px are expected \(key 17"),
        ("lines", r"align_01_009\.dat: 1 lines, data009\.dat holds 2 images"),
        ("columns", "1 columns; an alignment document"),
        ("defocus", "micrograph 22 has particles but no line in def_sort"),
        ("overfocus", "micrograph 11: defocus -20000 A is not underfocus"),
        ("twice", "have the same number"),
        ("reference", "header's pixel size is 3 A, key 5"),
    ],
)
def test_damaged_projects_are_named(spider: Path, kind: str, message: str, tmp_path: Path) -> None:
    spoil(spider, kind)
    with pytest.raises(InputError, match=message):
        import_spider(spider, tmp_path / "new")
    assert not (tmp_path / "new" / "config.yaml").exists()


def test_files_of_spider_itself(real_data: Path, tmp_path: Path) -> None:
    """79 particles that SPIDER stacked and aligned: its poses explain the images, turned ones do not."""
    folder = real_data / "spider" / "project"
    params = read_params(folder / "params.dat")
    assert (params.box, params.diameter_px, params.pixel_size, params.scanner) == (128, 89, 2.8017, None)
    import_spider(folder, tmp_path / "new")
    table = read_table(tmp_path / "new" / "spider" / "particles.star", kind="particles")
    assert len(table) == 79
    rows = table[table["rlnMicrographName"] == "mic_0022"].iloc[:12]
    images = open_stack(tmp_path / "new" / "spider" / "particles.mrcs")[[int(n[:6]) - 1 for n in rows["rlnImageName"]]]
    volume, _ = read_volume(tmp_path / "new" / "reference.mrc")
    defocus = rows["rlnDefocusU"].to_numpy()
    ctf = ctf_2d(128, params.pixel_size, defocus, defocus, 0 * defocus, params.optics)
    inner = np.hypot(*(np.mgrid[:128, :128] - 64)) < 50
    origins = rows[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() / params.pixel_size
    projector = FourierProjector.from_volume(volume)

    def correlation(psi_sign: float, shift_sign: float) -> float:
        matrices = euler_matrix(rows["rlnAngleRot"], rows["rlnAngleTilt"], psi_sign * rows["rlnAnglePsi"])
        made = projector.project(matrices, shifts_px=shift_sign * origins, ctf=ctf)
        return float(np.mean([np.corrcoef(a[inner], b[inner])[0, 1] for a, b in zip(made, images, strict=True)]))

    right = correlation(1, 1)
    assert right > 0.15 and right > 2 * max(correlation(-1, 1), correlation(1, -1))
