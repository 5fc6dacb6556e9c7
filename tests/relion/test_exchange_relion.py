"""What Nephila writes RELION reads, what RELION writes Nephila reads, and joining is RELION's where that is right."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nephila.aberrations import even_term, zernike
from nephila.conversion import convert
from nephila.ctf import Optics, ctf_2d
from nephila.errors import InputError
from nephila.fsc import fourier_shell_correlation
from nephila.geometry import euler_matrix
from nephila.io.cryosparc import CryosparcSettings, cryosparc_particles, link_stacks
from nephila.io.mrc import open_stack, read_image, write_stack, write_volume
from nephila.io.spider import read_spider, write_document, write_spider
from nephila.io.tables import write_blocks
from nephila.joining import join_particle_sets
from nephila.masks import spherical_mask
from nephila.optics_groups import (
    OpticsGroup,
    ParticleSet,
    optics_frame,
    read_particle_set,
    with_image_sizes,
    write_particle_set,
)
from nephila.projection import FourierProjector
from nephila.spider_poses import spider_alignment
from nephila.spider_project import import_spider

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_star_handler") is None, reason="RELION is not installed"),
]

BOX, PIXEL, COUNT = 32, 4.0, 400


def relion(folder: Path, *command: object) -> str:
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def group(name: str, **changes: Any) -> OpticsGroup:
    values: dict[str, Any] = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1, "pixel_size": PIXEL}
    values |= {"image_size": BOX, "original_pixel_size": 1.0, "other": {"rlnImageDimensionality": 2}}
    return OpticsGroup(1, name, **(values | changes))


def write_set(folder: Path, name: str, one: OpticsGroup, count: int = 3, **more: Any) -> ParticleSet:
    """A table of one group, with its stack."""
    size = one.image_size or BOX
    images = np.random.default_rng(len(name) + count).normal(size=(count, size, size)).astype(np.float32)
    write_stack(folder / f"{name}.mrcs", images, one.pixel_size or PIXEL)
    table = {
        "rlnImageName": [f"{i:06d}@{name}.mrcs" for i in range(1, count + 1)],
        "rlnMicrographName": [f"{name}_{i % 2}.mrc" for i in range(count)],
        "rlnOpticsGroup": [1] * count,
        "rlnDefocusU": np.linspace(12000, 13000, count),
        "rlnDefocusV": np.linspace(11000, 12500, count),
        "rlnDefocusAngle": np.linspace(-80, 80, count),
        "rlnAngleRot": np.linspace(-170, 170, count),
        "rlnAngleTilt": np.linspace(5, 175, count),
        "rlnAnglePsi": np.linspace(-100, 30, count),
        "rlnOriginXAngst": np.linspace(-3, 3, count),
        "rlnOriginYAngst": np.linspace(4, -4, count),
    }
    particles = ParticleSet((one,), pd.DataFrame(table | more), source=str(folder / f"{name}.star"))
    write_particle_set(folder / f"{name}.star", particles)
    return read_particle_set(folder / f"{name}.star")


def same_tables(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """The same columns and values; RELION writes six decimals."""
    assert set(ours) == set(theirs)
    for column in ours:
        if ours[column].dtype.kind in "if":
            np.testing.assert_allclose(ours[column], theirs[column], atol=6e-7, rtol=1e-6, err_msg=column)
        else:
            assert ours[column].astype(str).tolist() == theirs[column].astype(str).tolist(), column


# RELION 3.1.3 stops where a third table has columns that the first does not
@pytest.mark.parametrize("names", ["ABD", "AC"])
def test_joining_equals_relions(tmp_path: Path, names: str) -> None:
    zernike, tilt = (0.0,) * 6 + (0.5, 0.0, -0.25), (0.1, -0.2)
    every = [
        write_set(tmp_path, "A", group("one")),
        write_set(tmp_path, "B", group("two", pixel_size=4.4, image_size=28, even_zernike=zernike, beam_tilt=tilt)),
        write_set(tmp_path, "C", group("one"), rlnAutopickFigureOfMerit=[0.5, 0.25, 0.125]),
        write_set(tmp_path, "D", group("three", magnification=(1.01, 0.001, 0.002, 0.99))),
    ]
    sets = [one for one in every if Path(one.source).stem in names]
    tables = " ".join(f"{name}.star" for name in names)
    relion(tmp_path, "relion_star_handler", "--i", tables, "--combine", "--o", "theirs.star")
    theirs = read_particle_set(tmp_path / "theirs.star")
    joined = join_particle_sets(sets)
    write_particle_set(tmp_path / "ours.star", joined.particles)
    ours = read_particle_set(tmp_path / "ours.star")
    assert theirs.names == ours.names == (["one", "two", "three"] if "B" in names else ["one"])
    same_tables(optics_frame(ours.optics), optics_frame(theirs.optics))
    same_tables(ours.particles, theirs.particles)


def test_where_relion_joins_silently_nephila_stops(tmp_path: Path) -> None:
    a, b = write_set(tmp_path, "A", group("one")), write_set(tmp_path, "B", group("one", pixel_size=4.4))
    said = relion(tmp_path, "relion_star_handler", "--i", "A.star B.star", "--combine", "--o", "theirs.star")
    theirs = read_particle_set(tmp_path / "theirs.star")
    assert "WARNING" in said and [g.pixel_size for g in theirs.optics] == [4.0]  # B's 4.4 A are lost
    with pytest.raises(InputError, match="_rlnImagePixelSize"):
        join_particle_sets([a, b])
    renamed = join_particle_sets([a, b], rename=True).particles
    assert [(g.name, g.pixel_size) for g in renamed.optics] == [("one", 4.0), ("one_B", 4.4)]


def test_relion_rewrites_our_tables_without_change(tmp_path: Path) -> None:
    one = group("one", even_zernike=(0.5,) * 9, odd_zernike=(0.25,) * 6, magnification=(1.01, 0.0, 0.002, 0.99))
    ours = write_set(tmp_path, "A", one, rlnRandomSubset=[1, 2, 1])
    relion(
        tmp_path, "relion_star_handler", "--i", "A.star", "--operate", "rlnDefocusU", "--add_to", "0", "--o", "B.star"
    )
    back = read_particle_set(tmp_path / "B.star")
    assert back.optics[0].same_optics(one) == []
    same_tables(ours.particles, back.particles)


def test_tables_of_relion_3_0_become_what_relion_makes_of_them(tmp_path: Path) -> None:
    write_stack(tmp_path / "s.mrcs", np.random.default_rng(1).normal(size=(4, BOX, BOX)), 1.25)
    old = pd.DataFrame(
        {
            "rlnImageName": [f"{i:06d}@s.mrcs" for i in range(1, 5)],
            "rlnMicrographName": ["m1.mrc", "m1.mrc", "m2.mrc", "m2.mrc"],
            "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
            "rlnDetectorPixelSize": 5.0,
            "rlnMagnification": 40000.0,
            "rlnDefocusU": [12000.0, 12000.0, 13000.0, 13000.0],
            "rlnDefocusV": 11000.0,
            "rlnDefocusAngle": 30.0,
            "rlnOriginX": [1.0, -2.0, 0.5, 0.0],
            "rlnOriginY": [0.25, 4.0, 0.0, -1.5],
        }
    )
    write_blocks(tmp_path / "old.star", {"": old})
    relion(tmp_path, "relion_convert_star", "--i", "old.star", "--o", "theirs.star")
    theirs = read_particle_set(tmp_path / "theirs.star")
    ours = with_image_sizes(read_particle_set(tmp_path / "old.star"))
    (mine,), (other,) = ours.optics, theirs.optics
    assert mine.name == other.name == "opticsGroup1" and mine.image_size == other.image_size == BOX
    for column in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize"):
        assert column not in mine.same_optics(other)
    shared = [column for column in ours.particles if column in theirs.particles]
    assert {"rlnOriginXAngst", "rlnOriginYAngst", "rlnOpticsGroup", "rlnDefocusU"} <= set(shared)
    same_tables(ours.particles[shared], theirs.particles[shared])


def test_images_go_both_ways(tmp_path: Path) -> None:
    write_set(tmp_path, "A", group("one"), 5)
    images = open_stack(tmp_path / "A.mrcs")[:]
    relion(tmp_path, "relion_stack_create", "--i", "A.star", "--o", "again")
    np.testing.assert_array_equal(open_stack(tmp_path / "again.mrcs")[:], images)
    assert read_particle_set(tmp_path / "again.star").optics[0].same_optics(group("one")) == []
    # ours by RELION: volumes and images
    volume = np.random.default_rng(2).normal(size=(24, 24, 24)).astype(np.float32)
    for name, array in (("v.vol", volume), ("i.spi", volume[3])):
        for order in "<>":
            write_spider(tmp_path / name, array, 2.0, byte_order=order)
            relion(tmp_path, "relion_image_handler", "--i", name, "--o", "out.mrc", "--multiply_constant", "1")
            np.testing.assert_array_equal(read_image(tmp_path / "out.mrc")[0], array)
        # and back: RELION writes SPIDER
        write_spider(tmp_path / name, array)
        theirs = f"theirs{Path(name).suffix}"
        relion(tmp_path, "relion_image_handler", "--i", name, "--o", theirs, "--multiply_constant", "1")
        np.testing.assert_array_equal(read_spider(tmp_path / theirs)[0], array)
    # and a stack of ours
    convert(tmp_path / "A.mrcs", tmp_path / "ours.stk")
    table = read_particle_set(tmp_path / "A.star").particles
    table["rlnImageName"] = table["rlnImageName"].str.replace("A.mrcs", "ours.stk")
    write_particle_set(tmp_path / "S.star", ParticleSet((group("one"),), table))
    relion(tmp_path, "relion_stack_create", "--i", "S.star", "--o", "from_spider")
    np.testing.assert_array_equal(open_stack(tmp_path / "from_spider.mrcs")[:], images)


def blobs() -> np.ndarray:
    z, y, x = np.mgrid[:BOX, :BOX, :BOX] - BOX // 2
    volume = np.zeros((BOX,) * 3)
    for cx, cy, cz, height in ((5, 0, 0, 1.0), (0, -6, 2, 0.8), (-3, 3, -6, 1.2), (2, 5, 4, 0.6)):
        volume += height * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * 1.6**2))
    return volume.astype(np.float32)


def simulate() -> tuple[np.ndarray, np.ndarray]:
    """Projections at random poses [n, 5]: rot, tilt, psi, origin in px."""
    rng = np.random.default_rng(11)
    poses = np.column_stack(
        [rng.uniform(-180, 180, COUNT), np.degrees(np.arccos(rng.uniform(-1, 1, COUNT))), rng.uniform(-180, 180, COUNT)]
    )
    poses = np.column_stack([poses, rng.uniform(-3, 3, (COUNT, 2))])
    images = FourierProjector.from_volume(blobs()).project(euler_matrix(*poses[:, :3].T), shifts_px=poses[:, 3:])
    return images, poses


def check_reconstruction(folder: Path, table: Path) -> None:
    """relion_reconstruct from the imported table gives the volume: angles, hand, origins and their signs."""
    relion(folder, "relion_reconstruct", "--i", table.relative_to(folder), "--o", "rec.mrc")
    volume, pixel_size = read_image(folder / "rec.mrc")
    assert pixel_size == pytest.approx(PIXEL)
    inner = np.sqrt(sum((axis - BOX // 2) ** 2 for axis in np.mgrid[:BOX, :BOX, :BOX])) < 13
    fsc = fourier_shell_correlation(volume * inner, blobs() * inner)
    assert fsc[1:11].min() > 0.95


def test_poses_of_spider_through_relion_reconstruct(tmp_path: Path) -> None:
    images, poses = simulate()
    folder = tmp_path / "spider"
    for name in ("Alignment", "Power_Spectra"):
        (folder / name).mkdir(parents=True)
    params = {1: 0, 2: 0, 5: PIXEL, 6: 300, 7: 2.7, 12: 0.1, 16: 1, 17: BOX, 18: 20}
    write_document(folder / "params.dat", {"value": list(params.values())}, params)
    write_document(folder / "Power_Spectra" / "def_sort.dat", {"m": [1], "d": [15000.0], "g": [1]})
    numbers = np.arange(COUNT) + 1
    write_spider(folder / "Alignment" / "data001.dat", images, stack=True, numbers=(np.ones(COUNT), numbers))
    psi, theta, phi, angle, x, y = spider_alignment(*poses[:, :3].T, poses[:, 3:]).T
    columns = {"psi": psi, "theta": theta, "phi": phi, "ref": numbers, "exp": numbers, "angle": angle, "x": x, "y": y}
    write_document(folder / "Alignment" / "align_01_001.dat", columns)
    import_spider(folder, tmp_path)
    check_reconstruction(tmp_path, tmp_path / "spider" / "particles.star")


@pytest.mark.parametrize("stated", [True, False])
def test_poses_of_cryosparc_through_relion_reconstruct(tmp_path: Path, stated: bool) -> None:
    """Vectors whose rotation is the transpose of A; shifts in pixels of a box of half the size, stated or given."""
    from scipy.spatial.transform import Rotation

    images, poses = simulate()
    write_stack(tmp_path / "cs" / "J1" / "stack.mrc", images, PIXEL)
    values: dict[str, np.ndarray] = {
        "uid": np.arange(COUNT, dtype="<u8"),
        "blob/path": np.full(COUNT, b"J1/stack.mrc"),
        "blob/idx": np.arange(COUNT, dtype="<u4"),
        "blob/shape": np.full((COUNT, 2), BOX, dtype="<u4"),
        "blob/psize_A": np.full(COUNT, PIXEL, dtype="<f4"),
        "alignments3D/pose": Rotation.from_matrix(np.swapaxes(euler_matrix(*poses[:, :3].T), 1, 2)).as_rotvec(),
        "alignments3D/shift": poses[:, 3:] / 2,
    }
    values |= {"alignments3D/psize_A": np.full(COUNT, 2 * PIXEL, dtype="<f4")} if stated else {}
    optics = {"accel_kv": 300.0, "cs_mm": 2.7, "amp_contrast": 0.1, "df1_A": 1e4, "df2_A": 1e4, "df_angle_rad": 0.0}
    values |= {f"ctf/{name}": np.full(COUNT, value, dtype="<f4") for name, value in optics.items()}
    array = np.zeros(COUNT, dtype=[(name, value.dtype, value.shape[1:]) for name, value in values.items()])
    for name, value in values.items():
        array[name] = value
    with open(tmp_path / "p.cs", "wb") as handle:
        np.save(handle, array)
    settings = CryosparcSettings(alignment_box=None if stated else BOX // 2)
    particles = link_stacks(cryosparc_particles(tmp_path / "p.cs", (), settings), tmp_path / "cs", tmp_path / "stacks")
    write_particle_set(tmp_path / "p.star", particles)
    check_reconstruction(tmp_path, tmp_path / "p.star")


def test_relion_refines_a_joined_table_and_we_read_what_it_writes(tmp_path: Path) -> None:
    """One iteration over two groups of different pixel size and box."""
    sets = []
    for name, one in (("A", group("one")), ("B", group("two", pixel_size=4.4, image_size=28))):
        sets.append(write_set(tmp_path, name, one, 40, rlnRandomSubset=[1, 2] * 20))
    joined = join_particle_sets(sets)
    write_particle_set(tmp_path / "joined.star", joined.particles)
    write_volume(tmp_path / "ref.mrc", blobs(), PIXEL)
    (tmp_path / "out").mkdir()
    arguments = (
        "--o out/run --i joined.star --ref ref.mrc --iter 1 --tau2_fudge 1 --particle_diameter 100 --K 1 --ini_high 20"
    )
    more = "--healpix_order 1 --offset_range 2 --offset_step 2 --sym C1 --norm --scale --ctf --flatten_solvent --random_seed 1"
    relion(tmp_path, "relion_refine", *arguments.split(), *more.split(), "--trust_ref_size")
    back = read_particle_set(tmp_path / "out" / "run_it001_data.star")
    assert back.names == ["one", "two"] and [g.image_size for g in back.optics] == [BOX, 28]
    assert sorted(back.particles["rlnImageName"]) == sorted(joined.particles.particles["rlnImageName"])
    write_particle_set(tmp_path / "again.star", back)
    same_tables(read_particle_set(tmp_path / "again.star").particles, back.particles)


def test_ctf_refine_reads_our_table_and_we_read_its_aberrations(tmp_path: Path) -> None:
    """The table and the half maps go through relion_ctf_refine; its coefficients give the phases that it draws itself."""
    _, poses = simulate()
    defocus = np.linspace(8000, 12000, COUNT)
    ctf = ctf_2d(BOX, PIXEL, defocus, defocus, 0 * defocus, Optics(300.0, 2.7, 0.1))
    projector = FourierProjector.from_volume(blobs())
    images = projector.project(euler_matrix(*poses[:, :3].T), shifts_px=poses[:, 3:], ctf=ctf)
    images += np.random.default_rng(0).normal(scale=images.std(), size=images.shape).astype(np.float32)
    table = pd.DataFrame(poses[:, :3], columns=["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]).assign(
        rlnOriginXAngst=PIXEL * poses[:, 3],
        rlnOriginYAngst=PIXEL * poses[:, 4],
        rlnImageName=[f"{i:06d}@s.mrcs" for i in range(1, COUNT + 1)],
        rlnMicrographName=[f"m{i // 50}.mrc" for i in range(COUNT)],
        rlnOpticsGroup=1,
        rlnDefocusU=defocus,
        rlnDefocusV=defocus,
        rlnDefocusAngle=0.0,
        rlnRandomSubset=np.arange(COUNT) % 2 + 1,
    )
    write_stack(tmp_path / "s.mrcs", images, PIXEL)
    write_particle_set(tmp_path / "p.star", ParticleSet((group("one"),), table))
    for half in (1, 2):
        name = f"run_half{half}_class001_unfil.mrc"
        relion(tmp_path, "relion_reconstruct", "--i", "p.star", "--ctf", "--subset", half, "--o", name)
    write_volume(tmp_path / "mask.mrc", spherical_mask(BOX, 11.0, 3.0), PIXEL)
    for name in ("out", "post"):
        (tmp_path / name).mkdir()
    post = "--i run_half1_class001_unfil.mrc --o post/post --angpix 4 --mask mask.mrc"
    relion(tmp_path, "relion_postprocess", *post.split())
    fit = "--fit_aberr --even_aberr_max_n 4 --fit_beamtilt --odd_aberr_max_n 3 --fit_aniso --kmin_tilt 20 --kmin_mag 20"
    relion(tmp_path, "relion_ctf_refine", "--i", "p.star", "--f", "post/post.star", "--o", "out/", *fit.split())
    refined = read_particle_set(tmp_path / "out" / "particles_ctf_refine.star")
    (one,) = refined.optics
    assert len(one.even_zernike) == 9 and len(one.odd_zernike) == 6 and one.beam_tilt != (0.0, 0.0)
    assert one.magnification == pytest.approx((1, 0, 0, 1), abs=0.02) and one.magnification != (1, 0, 0, 1)
    drawn = read_image(tmp_path / "out" / "aberr_delta-phase_iter-fit_optics-group_1_N-4.mrc")[0].reshape(BOX, BOX)
    ky, kx = (np.mgrid[:BOX, :BOX] - BOX // 2) / (BOX * PIXEL)
    k, phi = np.hypot(kx, ky), np.arctan2(ky, kx)
    ours = np.array(sum(value * zernike(*even_term(i), k, phi) for i, value in enumerate(one.even_zernike)))
    inner = (k > 2 / (BOX * PIXEL)) & (k < 12 / (BOX * PIXEL))
    assert np.abs(ours - drawn)[inner].max() < 0.03 * np.abs(drawn[inner]).max()
    # and written by us, RELION reads them again
    write_particle_set(tmp_path / "again.star", refined)
    assert read_particle_set(tmp_path / "again.star").optics[0].same_optics(one) == []
    relion(tmp_path, "relion_reconstruct", "--i", "again.star", "--ctf", "--o", "again.mrc")
