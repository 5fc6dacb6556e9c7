"""Picking by texture, tile by tile correlation, evidence of windows, and the preview of one micrograph."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from nephila.cli import main
from nephila.config import parse_config
from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.io.mrc import open_stack, summarise
from nephila.io.tables import write_table
from nephila.particle_selection import doubt_empty_windows, propose_bad_particles
from nephila.picking import BlobSettings, candidates_table, choose_picks, pick_blobs
from nephila.picking.contaminants import local_statistics, mark_contaminants
from nephila.picking.local_correlation import best_pixels
from nephila.picking.preview import find_in_project
from nephila.picking.tables import blob_picker, count_picks, pick_batch
from nephila.picking.templates import finest_structure
from nephila.picking.tiles import TiledCorrelation
from nephila.simulate.micrographs import MicrographSettings
from nephila.simulate.project import ObjectSettings, simulate_project
from nephila.window_evidence import window_evidence
from nephila.windows import extract_batch, extraction_settings

PIXEL, DIAMETER = 4.0, 120.0


def textured(
    rng: np.random.Generator, shape: tuple[int, int], places: list[tuple[int, int]], strength: float
) -> np.ndarray:
    """Noise with disks of stronger fine structure and no mean density; places are (y, x)."""
    image = rng.normal(size=shape)
    y, x = np.indices(shape)
    k2 = np.fft.fftfreq(shape[0], PIXEL)[:, None] ** 2 + np.fft.rfftfreq(shape[1], PIXEL)[None, :] ** 2
    band = np.exp(-((np.sqrt(k2) - 1 / 30.0) ** 2) / (2 * 0.006**2))
    fine = np.fft.irfft2(np.fft.rfft2(rng.normal(size=shape)) * band, s=shape)
    inside = np.zeros(shape, dtype=bool)
    for py, px in places:
        inside |= np.hypot(y - py, x - px) < 0.45 * DIAMETER / PIXEL
    return (image + strength * fine / fine.std() * inside).astype(np.float32)


def test_a_particle_without_mean_density_is_found_by_its_texture() -> None:
    places = [(60, 70), (80, 220), (170, 150), (200, 280), (290, 80), (300, 210)]
    picks = pick_blobs(textured(np.random.default_rng(4), (360, 340), places, 0.8), PIXEL, DIAMETER)
    best = np.stack([picks.y[:6], picks.x[:6]], axis=1)
    nearest = np.hypot(*(best[:, None] - np.array(places)[None]).transpose(2, 0, 1)).min(axis=0)
    assert (nearest < 0.25 * DIAMETER / PIXEL).all()
    without = pick_blobs(
        textured(np.random.default_rng(4), (360, 340), places, 0.8), PIXEL, DIAMETER, BlobSettings(texture=0)
    )
    alone = np.stack([without.y[:6], without.x[:6]], axis=1)
    missed = np.hypot(*(alone[:, None] - np.array(places)[None]).transpose(2, 0, 1)).min(axis=0)
    assert (missed > 0.25 * DIAMETER / PIXEL).sum() >= 3


@pytest.mark.parametrize("shape", [(40, 300), (333, 70)])
def test_tiles_give_the_correlation_of_the_whole(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(size=shape).astype(np.float32)
    rows, columns = (v.ravel() for v in np.meshgrid(np.arange(-6, 7), np.arange(-5, 6), indexing="ij"))
    stamps = rng.normal(size=(3, len(rows))).astype(np.float32)
    found = np.full((3, *shape), np.nan)
    for y, x, values in TiledCorrelation(rows, columns, stamps).tiles(image):
        found[:, y, x] = values
    padded = np.pad(image, 6)
    for y, x in ((0, 0), (shape[0] - 1, shape[1] - 1), (20, 33), (shape[0] // 2, shape[1] // 2)):
        expected = stamps @ padded[y + 6 + rows, x + 6 + columns]
        assert np.allclose(found[:, y, x], expected, atol=1e-4)
    assert np.isfinite(found).all()


def test_best_pixels_are_the_highest_and_the_maxima() -> None:
    score = np.random.default_rng(2).normal(size=(60, 50)).astype(np.float32)
    dirt = np.zeros(score.shape, dtype=bool)
    dirt[20:30, 20:30] = True
    score[dirt] += 20
    rows, columns = best_pixels(score, (5.0, 5.0), 0.1, 1e3, dirt)
    inside = (rows >= 5) & (rows < 55) & (columns >= 5) & (columns < 45)
    assert inside.all()
    clean = ~dirt[rows, columns]
    least = np.sort(score[5:55, 5:45][~dirt[5:55, 5:45]])[::-1][clean.sum() - 1]
    assert score[rows[clean], columns[clean]].min() == pytest.approx(least)
    assert clean.sum() == 190 and 0 < (~clean).sum() <= 190 // 4 + 1


def test_strong_texture_is_no_contaminant_and_a_dark_patch_is() -> None:
    image = textured(np.random.default_rng(5), (300, 300), [(100, 100)], 1.2)
    image[200:240, 200:240] += 8
    marked = mark_contaminants(*local_statistics(image, 8.0), 8.0)
    assert not marked[90:110, 90:110].any() and marked[220, 220]


def test_what_a_reference_holds_at_most() -> None:
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(48, 48, 48)).astype(np.float32)
    from nephila.fourier import lowpass

    assert finest_structure(volume, 3.0, 100.0) == pytest.approx(6.0, abs=0.3)
    assert finest_structure(lowpass(volume, 3.0, 30.0), 3.0, 100.0) == pytest.approx(25.0, abs=7)


def test_evidence_tells_full_windows_from_empty_ones() -> None:
    rng = np.random.default_rng(3)
    n = 48
    y, x = np.indices((n, n)) - n // 2
    blob = np.clip(1 - np.hypot(y, x) / 15, 0, None)
    tables, windows = [], []
    for number in range(3):
        holds = np.r_[np.ones(60), np.zeros(10)].astype(bool)
        noise = rng.normal(size=(70, n, n)) + holds[:, None, None] * (0.8 + 0.2 * number) * blob
        windows.append(noise.astype(np.float32))
        tables.append(
            pd.DataFrame({"rlnMicrographName": f"m{number}", "nphParticleNumber": range(1, 71), "true": holds})
        )
    table = pd.concat(tables, ignore_index=True)
    table["nphEvidence"] = np.concatenate([window_evidence(w, PIXEL, DIAMETER) for w in windows])
    empty = table.loc[~table["true"], "nphEvidence"]
    assert abs(empty.mean()) < 0.6 and empty.std() == pytest.approx(1, abs=0.35)
    proposal, why = doubt_empty_windows(propose_bad_particles(table[["rlnMicrographName", "nphParticleNumber"]]), table)
    assert why == "none"
    assert (proposal["nphKeep"][~table["true"]] == 0).mean() > 0.9
    assert (proposal["nphKeep"][table["true"]] == 1).mean() > 0.98
    assert proposal.loc[proposal["nphKeep"] == 0, "nphReason"].str.contains("no particle").all()
    full = table[table["true"]].reset_index(drop=True)
    kept, _ = doubt_empty_windows(propose_bad_particles(full[["rlnMicrographName", "nphParticleNumber"]]), full)
    assert kept["nphKeep"].mean() > 0.97
    with pytest.raises(InputError, match="square"):
        window_evidence(np.zeros((3, 4, 5)), 1.0, 3.0)
    assert (window_evidence(np.ones((2, n, n)), PIXEL, DIAMETER) < 1).all()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pick") / "made"
    settings = MicrographSettings(
        shape=(640, 640), pixel_size=4.0, particles=16, noise=0.9, dirt=0, defocus_range=(2e4, 2e4)
    )
    simulate_project(folder, 3, 2, settings, ObjectSettings(diameter=150.0))
    return folder


def test_preview_draws_the_picks_and_says_so(project, monkeypatch) -> None:
    config = project / "config.yaml"
    config.write_text(config.read_text().replace("method: lfc_pick", "method: pick").replace("tile: 512", "tile: 256"))
    result = CliRunner().invoke(main, ["pick", str(project), "--preview", "mic_0002.mrc"])
    assert result.exit_code == 0, result.output
    picture = project / "previews" / "mic_0002.png"
    assert picture.read_bytes()[:4] == b"\x89PNG" and str(picture) in result.output
    number = int(result.output.split(" picks of")[0].split()[-1])
    assert 8 <= number <= 20
    assert "this micrograph alone" in result.output and result.output.rstrip().endswith(" s")
    assert not (project / "results").exists()
    unknown = CliRunner().invoke(main, ["pick", str(project), "--preview", "mic_0009.mrc"])
    assert unknown.exit_code == 2 and "not a micrograph of this project" in unknown.output


def test_micrographs_are_found_by_path_and_name() -> None:
    names = ["a/m1.mrc", "b/m1.mrc", "b/m2.mrc"]
    assert find_in_project("b/m1.mrc", names) == "b/m1.mrc"
    assert find_in_project("./b/m2.mrc", names) == find_in_project("m2", names) == "b/m2.mrc"
    with pytest.raises(InputError, match="2 micrographs share"):
        find_in_project("m1.mrc", names)


@pytest.mark.parametrize("bin_,dtype", [(1.0, "float32"), (2.0, "float16"), (1.5, "float32")])
def test_windows_of_a_batch_are_binned_as_the_configuration_says(project, tmp_path, monkeypatch, bin_, dtype) -> None:
    monkeypatch.chdir(project)
    config = parse_config(
        {
            "input": {"pixel_size": 4.0},
            "particle": {"diameter": 150.0, "box": 40},
            "particles": {"bin": bin_, "dtype": dtype},
            "reference": {"resolution": 60.0},
        }
    )
    assert config.cut_box == round(40 * bin_) and config.pixel_size == pytest.approx(4.0 * config.cut_box / 40)
    assert config.micrograph_pixel_size == 4.0
    rows = pd.DataFrame(
        {
            "rlnMicrographName": "micrographs/mic_0001.mrc",
            "nphParticleNumber": [1, 2],
            "rlnCoordinateX": [200.25, 300.0],
            "rlnCoordinateY": [210.0, 320.5],
            "rlnAutopickFigureOfMerit": [1.0, 0.5],
            "rlnDefocusU": [20000.0, 20100.0],
            "rlnDefocusV": [19000.0, 19100.0],
            "rlnDefocusAngle": [10.0, 10.0],
        }
    )
    settings = extraction_settings(config.particles.model_dump(), 150.0, 4.0, config.cut_box, 1, config.box)
    stack = tmp_path / "w.mrcs"
    table, _ = extract_batch(
        rows, ["micrographs/mic_0001.mrc"], config.cut_box, config.input.model_dump(), settings, None, stack, 150.0
    )
    images = open_stack(stack)
    assert images[0:2].shape == (2, 40, 40) and images.pixel_size == pytest.approx(config.pixel_size, rel=1e-6)
    assert summarise(stack).mode == (12 if dtype == "float16" else 2)
    # the sub-pixel rest, in A, does not depend on the binning
    assert table["rlnOriginXAngst"].tolist() == pytest.approx([-1.0, 0.0])
    assert table["rlnDefocusU"].tolist() == [20000.0, 20100.0]
    assert {"nphEvidence", "nphBackgroundDeviation"} <= set(table.columns)
    section = config.particles.model_dump() | {"shift_to_centre": True}
    shifted = extraction_settings(section, 150.0, 4.0, config.cut_box, 1, config.box)
    table, _ = extract_batch(
        rows, ["micrographs/mic_0001.mrc"], config.cut_box, config.input.model_dump(), shifted, None, stack, 150.0
    )
    assert table["rlnOriginXAngst"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "section,text",
    [
        ({"particle": {"diameter": 20.0, "box": 64}}, "particle.diameter"),
        ({"particles": {"bin": 12}, "particle": {"diameter": 150.0}}, "bin less"),
        ({"particles": {"bin": 2}, "input": {"pixel_size": 3.0, "particles": "p.star"}}, "particles.bin"),
    ],
)
def test_absurd_sizes_are_refused(section: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        parse_config({"input": {"pixel_size": 3.0}, "reference": {"resolution": 100.0}, **section})


def test_nothing_but_noise_gives_no_picks() -> None:
    rng = np.random.default_rng(8)
    picks = {f"m{i}": pick_blobs(rng.normal(size=(500, 500)).astype(np.float32), PIXEL, DIAMETER) for i in range(3)}
    table, model = choose_picks(candidates_table(picks))
    assert table["nphKeep"].sum() <= 6 and model.reason != "none"


def test_sizes_of_the_configuration_reach_the_picker() -> None:
    picking = parse_config({"picking": {"scales": [0.7, 1.4]}}).picking.model_dump()
    image = np.random.default_rng(7).normal(size=(300, 300)).astype(np.float32)
    picks = blob_picker(picking, DIAMETER, 1.5 * DIAMETER, Optics(300, 2.7, 0.1))(image, PIXEL, None)
    assert set(picks.scale) == {0.7, 1.4}
    with pytest.raises(InputError, match="picking.scales"):
        parse_config({"picking": {"scales": [0]}})


def test_a_micrograph_without_picks_is_a_row_with_a_reason(tmp_path) -> None:
    table = pd.DataFrame(
        {
            "rlnMicrographName": ["a", "a", "b", "b", "b"],
            "nphKeep": [1, 0, 0, 0, 0],
            "nphReason": ["none", "on a contaminant", "score below the threshold", "score below the threshold", "dirt"],
        }
    )
    counts = count_picks(table, ["a", "b", "c"])
    assert counts["nphPicked"].tolist() == [1, 0, 0] and counts["nphCandidates"].tolist() == [2, 3, 0]
    assert counts["nphReason"].tolist() == [
        "none",
        "no candidate was taken, most of them for: score below the threshold",
        "no candidates",
    ]
    searched = [pd.DataFrame({"rlnMicrographName": ["a", "b"], "nphReason": ["constant", "none"]})]
    none = count_picks(table.iloc[:0], ["a", "b"], searched)
    assert none["nphReason"].tolist() == ["constant", "no candidates"]
    write_table(tmp_path / "counts.star", counts, block="picks")


@pytest.mark.parametrize("spoilt", ["constant", "tiny", "nan"])
def test_a_micrograph_that_cannot_be_picked_does_not_stop_the_others(spoilt: str, monkeypatch, caplog) -> None:
    image = np.random.default_rng(6).normal(size=(300, 300)).astype(np.float32)
    bad = {"constant": np.full((300, 300), 5.0), "tiny": image[:40, :40], "nan": np.where(image > 3, np.nan, image)}[
        spoilt
    ]
    shown = {"good.mrc": image, "bad.mrc": bad}
    monkeypatch.setattr(
        "nephila.picking.tables.read_input", lambda name, settings: SimpleNamespace(image=shown[name], pixel_size=PIXEL)
    )
    defocus = pd.DataFrame(
        {"rlnMicrographName": list(shown), "rlnDefocusU": 2e4, "rlnDefocusV": 2e4, "rlnDefocusAngle": 0.0}
    )
    blocks = pick_batch(
        list(shown),
        defocus,
        lambda i, p, ctf: pick_blobs(i, p, DIAMETER, None, ctf),
        {"decimate": 1, "pixel_size": PIXEL},
    )
    assert set(blocks["particles"]["rlnMicrographName"]) == {"good.mrc"}
    reasons = blocks["micrographs"].set_index("rlnMicrographName")["nphReason"]
    expected = {"constant": "constant", "tiny": "smaller than two particle diameters", "nan": "NaN"}[spoilt]
    assert reasons["good.mrc"] == "none" and expected in reasons["bad.mrc"]
    assert "bad.mrc: no picks" in caplog.text
