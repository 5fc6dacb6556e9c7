"""Postprocessing of half maps, and relabelled maps that must not become references."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nephila.cli import main
from nephila.ctf import Optics
from nephila.errors import InputError
from nephila.io.mrc import read_image, read_labels, read_volume, write_volume
from nephila.io.tables import read_blocks
from nephila.masks import spherical_mask
from nephila.postprocessing import PostprocessSettings, postprocess, read_mtf
from nephila.references import read_reference
from nephila.relabelling import expected_phase_error, refuse_relabelled, relabelling_warnings
from nephila.sharpening import apply_b_factor, estimate_b_factor, rotational_amplitude

N, PIXEL = 40, 2.0
MASK = spherical_mask(N, 13, 5)
MTF = "data_\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n0.0 1.0\n0.25 0.7\n0.5 0.4\n"


def halves(b_factor: float = 150.0, noise: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    clean = apply_b_factor(rng.standard_normal((N,) * 3).astype(np.float32) * MASK, b_factor, PIXEL)
    deviation = noise * float(clean.std())
    first, second = (clean + deviation * rng.standard_normal(clean.shape).astype(np.float32) for _ in range(2))
    return first, second


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    for number, half in enumerate(halves(), 1):
        write_volume(tmp_path / f"half{number}.mrc", half, PIXEL)
    write_volume(tmp_path / "mask.mrc", MASK, PIXEL)
    (tmp_path / "mtf.star").write_text(MTF)
    return tmp_path


def run(folder: Path, *options: str):
    arguments = [str(folder / "half1.mrc"), str(folder / "half2.mrc"), "-o", str(folder / "out"), *options]
    return CliRunner().invoke(main, ["postprocess", *arguments])


def test_the_fitted_b_factor_undoes_the_fading_and_nothing_is_left_beyond_the_resolution() -> None:
    result = postprocess(*halves(), PIXEL, MASK, None, PostprocessSettings(automatic=True, guinier_start=16.0))
    assert result.b_factor == pytest.approx(-150, abs=20)
    assert result.resolution is not None and 4.0 <= result.resolution < 8.0
    shell = round(N * PIXEL / result.resolution)
    amplitude = rotational_amplitude(result.volume)
    assert amplitude[shell + 3 :].max(initial=0.0) < 1e-3 * amplitude[shell - 2]
    flat = estimate_b_factor(result.volume, PIXEL, 1.1 * result.resolution, 16.0)[0]
    assert abs(flat) < 45  # what the weighting by the FSC takes
    assert result.masked is not None and np.allclose(result.masked, result.volume * MASK)


def test_without_mask_or_b_factor_the_map_is_weighted_alone() -> None:
    result = postprocess(*halves(noise=1e-4), PIXEL, settings=PostprocessSettings(low_pass=0))
    mean = np.mean(halves(noise=1e-4), axis=0)
    inside = rotational_amplitude(result.volume)[:19] / rotational_amplitude(mean)[:19]
    assert inside == pytest.approx(np.ones(19), abs=0.02)
    assert result.masked is None and result.b_factor == 0


def test_mtf_is_divided_out_by_detector_pixels(tmp_path: Path) -> None:
    (tmp_path / "mtf.star").write_text(MTF)
    values = read_mtf(tmp_path / "mtf.star", N, PIXEL, 1.0)
    assert values[0] == 1.0 and values[N // 2] == pytest.approx(0.7)  # 4 A is 0.25 of a 1 A detector pixel
    pair = halves(noise=1e-4)
    plain, divided = (
        postprocess(*pair, PIXEL, mtf=m, settings=PostprocessSettings(low_pass=0)) for m in (None, values)
    )
    ratio = rotational_amplitude(divided.volume)[1:19] / rotational_amplitude(plain.volume)[1:19]
    assert ratio == pytest.approx(1 / values[1:19], rel=1e-2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data_\n\nloop_\n_rlnMtfValue #1\n1.0\n", "rlnResolutionInversePixel"),
        (MTF.replace("0.25 0.7", "0.25 -0.7"), "row 2"),
        (MTF.replace("0.25 0.7", "0.75 0.7"), "row 3"),
    ],
)
def test_wrong_mtf_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mtf.star").write_text(text)
    with pytest.raises(InputError, match=message):
        read_mtf(tmp_path / "mtf.star", N, PIXEL, 1.0)


def test_expected_phase_error_of_the_worked_example() -> None:
    """0.51 A stated as 0.54 with Cs 2.7 mm: the curves part at about 3.3 A, and beyond in earnest."""
    optics = Optics(300.0, 2.7, 0.1)
    error = expected_phase_error(0.54, 0.51, 3.3, optics)
    phase = np.degrees(optics.k4_factor * 3.3**-4 * (1 - (0.51 / 0.54) ** 4))
    assert error.phase_deg == pytest.approx(phase) and error.refitted_deg == pytest.approx(phase / 4)
    assert error.phase_deg < 35 and expected_phase_error(0.54, 0.51, 2.0, optics).phase_deg > 180
    # the best k^2 for a k^4 up to 1, weighted by the area of the disk: 3 / 4, which leaves a quarter at the rim
    k = np.linspace(0, 1, 2001)
    weight = k
    best = (weight * k**6).sum() / (weight * k**4).sum()
    assert 1 - best == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize(
    ("true", "resolution", "cs", "message"),
    [
        (2.0, 2.5, 2.7, None),
        (1.98, 3.5, 2.7, None),
        (1.98, 2.5, 0.01, None),
        (1.98, 2.5, 2.7, "finer than 3 A.*degrees"),
        (1.9, 8.0, 2.7, "-5.00 %.*degrees"),
        (1.96, 8.0, 2.7, None),  # 2 % is not more than 2 %, either way
        (2.04, 8.0, 2.7, None),
        (1.96, 2.5, 2.7, "finer than 3 A"),
        (1.9599, 8.0, 2.7, "-2.01 %, more than 2 %"),
        (1.9, 2.5, 0.0, "-5.00 %.*Cs 0 mm the fitted defocus absorbs it"),
    ],
)
def test_when_relabelling_is_warned_of(true: float, resolution: float, cs: float, message: str | None) -> None:
    found = relabelling_warnings(2.0, true, resolution, Optics(300.0, cs, 0.1))
    if message is None:
        assert not found
    else:
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(found[0])
        assert cs or "4th order" not in found[0]


def test_relabelling_changes_scale_and_header_alone_and_marks_the_map(maps: Path) -> None:
    assert run(maps, "--mask", str(maps / "mask.mrc"), "--mtf", str(maps / "mtf.star")).exit_code == 0
    before, plain = read_image(maps / "out_masked.mrc")[0], read_blocks(maps / "out.star")
    result = run(maps, "--mask", str(maps / "mask.mrc"), "--mtf", str(maps / "mtf.star"), "--angpix", "1.9")
    assert result.exit_code == 0 and "-5.00 %" in result.output and "degrees" in result.output
    after, pixel_size = read_image(maps / "out_masked.mrc")
    assert pixel_size == pytest.approx(1.9) and np.array_equal(before, after)
    axis = read_blocks(maps / "out.star")["fsc"]
    assert np.allclose(
        axis["rlnAngstromResolution"][1:], 0.95 * plain["fsc"]["rlnAngstromResolution"][1:].astype(float), rtol=1e-3
    )
    assert any("relabelled from 2 to 1.9" in label for label in read_labels(maps / "out.mrc"))
    with pytest.raises(InputError, match=r"in truth have 1\.805 A.*reference\.pixel_size: 2"):
        read_reference(str(maps / "out.mrc"), None, "trust", 2.0, N)
    assert read_reference(str(maps / "out.mrc"), 2.0, "refuse", 2.0, N)[1] == 2.0
    refuse_relabelled(maps / "half1.mrc")
    again = CliRunner().invoke(main, ["postprocess", str(maps / "out.mrc"), str(maps / "out.mrc")])
    assert again.exit_code == 2 and "relabelled already" in again.output


def test_the_worked_example_of_a_relabelled_reference(tmp_path: Path) -> None:
    """1.00 A particles on a map relabelled 0.98 A: the result's true pixel size would be 0.9604 A."""
    from nephila.relabelling import relabelling_mark

    write_volume(tmp_path / "map.mrc", MASK, 0.98, relabelling_mark(1.0, 0.98))
    with pytest.raises(InputError, match=r"0\.9604 A"):
        refuse_relabelled(tmp_path / "map.mrc")


@pytest.mark.parametrize("stated", [1.96, 1.99, 2.1])
def test_a_reference_that_looks_relabelled_is_refused(tmp_path: Path, stated: float) -> None:
    """What RELION's PostProcess writes with --angpix: the particles' box, nearly their pixel size, and no mark."""
    source = str(tmp_path / "postprocess.mrc")
    write_volume(source, MASK, stated)
    told = f"{stated**2 / 2:.4f} A.*reference.pixel_size: 2.*reference.sampling: resample".replace(".", r"\.", 1)
    with pytest.raises(InputError, match=told):
        read_reference(source, None, "trust", 2.0, N)
    write_volume(source, MASK, 2.0)
    with pytest.raises(InputError, match="relabelled"):  # the same mistake made in the configuration
        read_reference(source, stated, "trust", 2.0, N)
    assert read_reference(source, stated, "resample", 2.0, N)[1] == pytest.approx(stated)
    assert read_reference(source, None, "trust", 2.0, N)[1] == 2.0
    # clearly another sampling, or another box, is believed as before
    assert read_reference(source, None, "trust", 3.0, N)[1] == 2.0
    assert read_reference(source, stated, "trust", 2.0, N + 2)[1] == pytest.approx(stated)


def test_a_map_stays_marked_through_conversion_and_turning(tmp_path: Path) -> None:
    from nephila.relabelling import relabelling_mark, stated_before

    def convert(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["convert", *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    volume = np.random.default_rng(1).normal(size=(16, 16, 16)).astype(np.float32) + MASK[:16, :16, :16]
    names = [str(tmp_path / name) for name in ("a.mrc", "b.spi", "c.mrc", "d.mrc", "e.mrc", "f.mrc")]
    write_volume(names[0], volume, 1.96, relabelling_mark(2.0, 1.96))
    for source, target in zip(names, names[1:3], strict=False):
        assert "relabelled from 2 to 1.96" in convert(source, target)
        assert stated_before(target) == (2.0, 1.96)
    convert(names[2], names[3], "--pixel-size", "2.0")  # what it was
    assert stated_before(names[3]) is None
    convert(names[3], names[4], "--pixel-size", "1.96")
    assert stated_before(names[4]) == (2.0, 1.96)
    turned = str(tmp_path / "turned.mrc")
    options = ["--group", "C2", "--resolution", "8", "-o", turned]
    assert CliRunner().invoke(main, ["symmetry", names[4], *options]).exit_code == 0
    assert stated_before(turned) == (2.0, 1.96)
    with pytest.raises(InputError, match="only relabelled from 2 to 1.96"):
        read_reference(turned, None, "resample", 2.0, 16)


def test_setting_a_header_that_states_nothing_or_nonsense_is_no_relabelling(tmp_path: Path) -> None:
    from nephila.relabelling import mark_for

    path = tmp_path / "a.mrc"
    write_volume(path, MASK, 1.0)
    assert not mark_for(path, 0.0, 2.0) and not mark_for(path, 1.0, 2.0) and not mark_for(path, 3.3, 1.65)
    assert "from 1 to 0.98" in mark_for(path, 1.0, 0.98) and "from 0.54 to 0.51" in mark_for(path, 0.54, 0.51)


def test_references_of_classes_must_be_on_the_scale_of_the_particles(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from nephila.classes.maps import frame_references
    from nephila.relabelling import relabelling_mark

    settings, frame = SimpleNamespace(box=N, pixel_size=2.0), SimpleNamespace(n=N // 2, pixel_size=4.0)
    for stated, mark in ((1.97, ""), (1.97, relabelling_mark(2.0, 1.97))):
        write_volume(tmp_path / "a.mrc", MASK, stated, mark)
        with pytest.raises(InputError, match="relabelled.*as the refinement wrote it"):
            frame_references([str(tmp_path / "a.mrc")], frame, settings)  # type: ignore[arg-type]
    write_volume(tmp_path / "a.mrc", MASK, 2.0)
    assert frame_references([str(tmp_path / "a.mrc")], frame, settings)[0].shape == (N // 2,) * 3  # type: ignore[arg-type]


@pytest.mark.parametrize(("pixel_size", "box"), [(2.002, N), (2.0, N + 2)])
def test_a_reference_of_another_sampling_is_refused_or_trusted(maps: Path, pixel_size: float, box: int) -> None:
    source = str(maps / "half1.mrc")
    with pytest.raises(InputError, match=r"reference\.sampling: trust"):
        read_reference(source, None, "refuse", pixel_size, box)
    assert len(read_reference(source, None, "trust", pixel_size, box)[0]) == N


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--auto", "--b-factor", "-50"], "one of them"),
        (["--fit-range", "10", "5"], "--auto"),
        (["--angpix", "-1"], "'--angpix'"),
        (["--angpix", "1e9"], "'--angpix'"),
        (["--angpix", "nan"], "'--angpix'"),
        (["--angpix", "20"], "no matter of calibration"),
        (["--b-factor", "nan"], "'--b-factor': nan is not a finite number"),
        (["--b-factor", "inf"], "'--b-factor'"),
        (["--lowpass", "-3"], "'--lowpass'"),
        (["--mtf-angpix", "1.5"], "--mtf-angpix belongs to --mtf"),
        (["--mask-threshold", "0.1"], "--mask-threshold belongs to --auto-mask"),
        (["--diameter", "60"], "--diameter belongs to --auto-mask"),
        (["--auto", "--fit-range", "5.2", "5"], "fewer than 3 shells"),
    ],
)
def test_wrong_options(maps: Path, options: list[str], message: str) -> None:
    result = run(maps, *options)
    assert result.exit_code == 2 and message in result.output


def test_a_mask_of_another_box_is_refused(maps: Path) -> None:
    write_volume(maps / "mask.mrc", spherical_mask(N + 2, 9), PIXEL)
    result = run(maps, "--mask", str(maps / "mask.mrc"))
    assert result.exit_code == 2 and "mask.mrc" in result.output


def test_outputs(maps: Path) -> None:
    result = run(maps, "--auto-mask", "--auto", "--fit-range", "16", "6")
    assert result.exit_code == 0, result.output
    assert {"out.mrc", "out_masked.mrc", "out_mask.mrc", "out.star", "out_fsc.png"} <= {p.name for p in maps.iterdir()}
    assert read_volume(maps / "out.mrc")[1] == PIXEL
    blocks = read_blocks(maps / "out.star")
    assert set(blocks) == {"general", "fsc", "guinier"} and "rlnLogAmplitudesSharpened" in blocks["guinier"]
