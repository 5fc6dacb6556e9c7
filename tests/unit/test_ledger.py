"""The ledger of pixel sizes: the numbers of RELION's page on pixel sizes, and its "must not"s refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from nephila.cli import main
from nephila.config import load_config
from nephila.errors import InputError
from nephila.io.mrc import write_stack, write_volume
from nephila.io.tables import read_blocks, write_blocks
from nephila.ledger import build_ledger, check_cs, check_micrographs, check_reference, check_table, expected_map
from nephila.optics_groups import OpticsGroup, ParticleSet, write_particle_set
from nephila.pixel_size import Calibration, expected_magnification
from nephila.project_ledger import project_ledger
from nephila.relabelling import relabelling_mark


def group(number, name, pixel_size, magnification=1.0, **options):
    return OpticsGroup(
        number, name, 300.0, 2.7, 0.1, pixel_size, 24, magnification=(magnification, 0.0, 0.0, magnification), **options
    )


def particle_set(*groups):
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@{one.name}.mrcs" for one in groups for i in range(2)],
            "rlnMicrographName": "mic.mrc",
            "rlnOpticsGroup": [one.number for one in groups for _ in range(2)],
        }
    )
    return ParticleSet(groups, table)


def given(**sizes):
    return {name: Calibration(size, None, "given") for name, size in sizes.items()}


ONE, TWO = group(1, "one", 1.0), group(2, "two", 0.95)


def rows(ledger):
    return {entry.what: entry for entry in ledger.entries}


def test_a_map_made_on_a_relabelled_reference():
    assert expected_map(ONE, 0.98, 0.98) == pytest.approx(0.9604)


def test_mixture_of_two_groups():
    found = rows(build_ledger(particle_set(ONE, TWO), given(one=1.0, two=0.9)))
    assert found["optics group two"].effective == pytest.approx(0.947, abs=5e-4)
    mixed = found["map on the grid of the reference"]
    assert (mixed.low, mixed.high, mixed.calibrated) == (pytest.approx(0.947, abs=5e-4), pytest.approx(1.0), None)


def test_magnifications_of_the_example():
    assert expected_magnification(1.0, 1.0, 0.99, 1.0) == pytest.approx(0.9900)
    assert expected_magnification(0.9, 0.95, 0.99, 1.0) == pytest.approx(1.045, abs=5e-5)


@pytest.mark.parametrize("known", [{"one": 1.0}, {"reference": 0.99}, {"two": 0.9}])
def test_one_known_size_tells_the_others(known):
    fitted = particle_set(group(1, "one", 1.0, 0.99), group(2, "two", 0.95, 1.045))
    found = rows(build_ledger(fitted, given(**known)))
    assert found["optics group two"].relative == pytest.approx(0.9091, abs=5e-5)
    assert found["optics group two"].calibrated == pytest.approx(0.900, abs=1e-4)
    assert found["optics group one"].calibrated == pytest.approx(1.0, abs=1e-4)
    assert found["map on the grid of the reference"].calibrated == pytest.approx(0.99, abs=1e-4)


def test_nothing_known_is_said():
    found = build_ledger(particle_set(group(1, "one", 1.0, 0.99), group(2, "two", 0.95, 1.045)), {})
    assert rows(found)["optics group two"].calibrated is None and "nothing is calibrated" in found.notes[0]
    assert rows(found)["optics group two"].relative == pytest.approx(0.9091, abs=5e-5)
    assert found.table()["nphCalibratedPixelSizeLow"].eq(0).all()


def test_errors_and_micrographs_follow():
    one = group(1, "one", 1.0, original_pixel_size=0.5)
    found = rows(build_ledger(particle_set(one), {"reference": Calibration(0.98, 0.004, "model")}))
    assert found["optics group one"].calibrated == pytest.approx(0.98)
    assert found["optics group one"].error == pytest.approx(0.004)
    assert found["micrographs of one"].calibrated == pytest.approx(0.49)


def test_contradictions_and_unknown_names():
    fitted = particle_set(group(1, "one", 1.0, 0.99), group(2, "two", 0.95, 1.045))
    with pytest.raises(InputError, match="contradict"):
        build_ledger(fitted, given(one=1.0, two=0.95))
    with pytest.raises(InputError, match="no optics group 'three'"):
        build_ledger(fitted, given(three=1.0))


def test_a_calibrated_map_is_no_reference():
    with pytest.raises(InputError, match=r"must not be a reference.*be 0\.9604"):
        check_reference(particle_set(ONE), "post.mrc", 0.98, given(one=0.98))
    with pytest.raises(InputError, match=r"be 0\.9604"):
        check_reference(particle_set(ONE), "post.mrc", 0.98, {})
    check_reference(particle_set(ONE, TWO), "reference.mrc", 0.95, {})
    check_reference(particle_set(ONE), "other.mrc", 1.5, {})
    check_reference(particle_set(ONE), "resampled.mrc", 0.98, {}, trust=True)


def test_an_edited_pixel_size_is_refused(tmp_path):
    write_stack(tmp_path / "one.mrcs", np.zeros((2, 24, 24), np.float32), 1.0)
    assert check_table(particle_set(ONE), tmp_path) == []
    far = particle_set(replace(ONE, pixel_size=1.5))
    assert check_table(far, tmp_path) == ["one.mrcs: its header states no pixel size (or 1)"]
    # the seed's case: particles of 1.00 A whose table was edited to 0.98
    with pytest.raises(InputError, match=r"is 0\.98 A/px, the stack one\.mrcs has 1 in its header: never edit"):
        check_table(particle_set(replace(ONE, pixel_size=0.98)), tmp_path)
    write_stack(tmp_path / "one.mrcs", np.zeros((2, 24, 24), np.float32), 1.02)
    with pytest.raises(InputError, match="never edit the pixel size"):
        check_table(particle_set(ONE), tmp_path)


def test_a_pixel_size_set_at_extraction_is_refused():
    extracted = particle_set(group(1, "one", 1.0, original_pixel_size=0.49))
    with pytest.raises(InputError, match="must not be set by hand at extraction"):
        check_micrographs(extracted, [replace(ONE, original_pixel_size=0.5)], "micrographs_ctf.star")
    check_micrographs(extracted, [replace(ONE, original_pixel_size=0.49)], "micrographs_ctf.star")


def test_an_edited_cs_is_refused():
    edited = particle_set(replace(ONE, cs_mm=3.39, even_zernike=(0.0,) * 6 + (13.8, 0.0, 0.0)))
    with pytest.raises(InputError, match="do not write the apparent Cs into the table"):
        check_cs(edited, 2.7)


def test_commands(tmp_path):
    z40 = 13.856
    aberrated = replace(group(1, "one", 0.54), even_zernike=(0.0,) * 6 + (z40, 0.0, 0.0))
    write_particle_set(tmp_path / "p.star", particle_set(aberrated))
    write_stack(tmp_path / "one.mrcs", np.zeros((2, 24, 24), np.float32), 0.54)
    run = CliRunner()
    found = run.invoke(main, ["pixelsize", "cs", str(tmp_path / "p.star")])
    assert found.exit_code == 0 and "0.51 A/px" in found.output and "voltage" in found.output
    out = tmp_path / "ledger.star"
    found = run.invoke(
        main, ["pixelsize", "ledger", str(tmp_path / "p.star"), "--known", "one=0.51+-0.002", "-o", str(out)]
    )
    assert found.exit_code == 0 and "0.5100" in found.output and out.is_file()
    write_volume(tmp_path / "post.mrc", np.zeros((24, 24, 24), np.float32), 0.51)
    refused = run.invoke(
        main, ["pixelsize", "ledger", str(tmp_path / "p.star"), "--reference", str(tmp_path / "post.mrc")]
    )
    assert refused.exit_code == 2 and "must not be a reference" in refused.output
    assert run.invoke(main, ["pixelsize", "ledger", str(tmp_path / "p.star"), "--known", "one"]).exit_code == 2


def test_tables_of_micrographs_are_not_joined(tmp_path):
    blocks = particle_set(ONE).blocks()
    for name in ("a", "b"):
        write_blocks(tmp_path / f"{name}.star", {"optics": blocks["optics"], "micrographs": blocks["particles"]})
    command = ["join", str(tmp_path / "a.star"), str(tmp_path / "b.star"), "-o", str(tmp_path / "c.star")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2 and "must not be merged" in result.output


def test_the_ledger_of_a_project_has_a_row_for_every_file(tmp_path):
    """Reference, maps, masks and postprocessed maps, marked or not; pixel sizes follow from one that is known."""
    results = tmp_path / "results" / "refinement"
    write_particle_set(results / "particles.star", particle_set(replace(ONE, original_pixel_size=0.5)))
    write_stack(tmp_path / "one.mrcs", np.zeros((2, 24, 24), np.float32), 1.0)
    volume = np.random.default_rng(1).normal(size=(24, 24, 24)).astype(np.float32)
    for name in ("map", "half1", "half2", "map_filtered", "mask"):
        write_volume(results / f"{name}.mrc", volume, 1.0)
    write_volume(tmp_path / "reference.mrc", np.zeros((30, 30, 30), np.float32), 1.5)
    write_volume(tmp_path / "results" / "project" / "reference_volume.mrc", volume, 1.0)
    write_volume(tmp_path / "post.mrc", volume, 0.98, relabelling_mark(1.0, 0.98))
    write_volume(tmp_path / "relion" / "post.mrc", volume, 0.98)
    write_volume(tmp_path / "relion" / "copy.mrc", volume, 1.0)
    write_volume(tmp_path / "relion" / "other.mrc", np.zeros((16, 16, 16), np.float32), 0.98)
    (tmp_path / "relion" / "text.mrc").write_text("no map")
    (tmp_path / "config.yaml").write_text("input: {micrographs: 'm/*.mrc', pixel_size: 0.5, decimate: 2}\n")
    out = tmp_path / "ledger.star"
    done = CliRunner().invoke(main, ["pixelsize", "ledger", str(tmp_path), "--known", "one=0.98", "-o", str(out)])
    assert done.exit_code == 0, done.output
    table = read_blocks(out)["ledger"].set_index("nphFile")
    made = ("particles.star", "map.mrc", "half1.mrc", "half2.mrc", "map_filtered.mrc", "mask.mrc")
    assert set(table.index) == {
        "m/*.mrc", "reference.mrc", "post.mrc", "relion/post.mrc", "relion/copy.mrc", "results/project/reference_volume.mrc",
        *(f"results/refinement/{name}" for name in made),
    }  # fmt: skip
    size = table["nphCalibratedPixelSizeLow"]
    for name in ("results/refinement/map.mrc", "results/refinement/mask.mrc", "post.mrc", "relion/copy.mrc"):
        assert size[name] == pytest.approx(0.98)
    assert size["reference.mrc"] == size["relion/post.mrc"] == 0
    assert (
        table.loc["reference.mrc", "nphNominalPixelSize"] == 1.5
        and "resampled to 24 px" in table.loc["reference.mrc", "nphHow"]
    )
    assert table.loc["post.mrc", "nphHow"] == "relabelled from 1 A/px: never to be used as a reference"
    assert "looks relabelled" in table.loc["relion/post.mrc", "nphHow"]
    own = project_ledger(
        tmp_path,
        load_config(tmp_path / "config.yaml").input.model_dump(),
        {"volume": None, "pixel_size": None},
        search=False,
    )
    assert not [entry.file for entry in own.entries if "post" in entry.file]
