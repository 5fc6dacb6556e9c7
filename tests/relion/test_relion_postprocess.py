"""Postprocessing beside relion_postprocess on the same half maps and mask."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nephila.cli import main
from nephila.fsc import fourier_shell_correlation
from nephila.io.mrc import read_image, write_volume
from nephila.io.tables import read_blocks
from nephila.masks import AutomaticMaskSettings, automatic_mask
from nephila.sharpening import rotational_amplitude
from nephila.simulate.density import density
from nephila.simulate.phantom import build_phantom

pytestmark = pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="RELION is not installed")

N, PIXEL = 64, 2.0
# as finely sampled as the files of detectors are: RELION takes the nearest row
ROWS = "".join(f"{x:.3f} {1 - 1.4 * x:.4f}\n" for x in np.arange(101) / 200)
MTF = f"data_\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n{ROWS}"


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("postprocess")
    clean = density(build_phantom(80.0, 1), N, PIXEL, 300.0)
    rng = np.random.default_rng(1)
    for number in (1, 2):
        noise = 0.5 * clean.std() * rng.standard_normal(clean.shape).astype(np.float32)
        write_volume(folder / f"half{number}.mrc", clean + noise, PIXEL)
    settings = AutomaticMaskSettings(resolution=12, extend=4, edge=10)
    write_volume(folder / "mask.mrc", automatic_mask(clean, PIXEL, settings=settings), PIXEL)
    (folder / "mtf.star").write_text(MTF)
    (folder / "theirs").mkdir()  # for its log
    return folder


@pytest.mark.parametrize("mtf", [False, True])
def test_resolution_curves_and_b_factor_are_relions(maps: Path, mtf: bool) -> None:
    command = ["relion_postprocess", "--i", "half1.mrc", "--i2", "half2.mrc", "--mask", "mask.mrc", "--auto_bfac"]
    command += ["--autob_lowres", "12", "--autob_highres", "5.3", "--angpix", "2", "--mtf_angpix", "2", "--o", "theirs"]
    subprocess.run(command + ["--mtf", "mtf.star"] * mtf, cwd=maps, check=True, capture_output=True, timeout=120)
    names = {name: str(maps / f"{name}.mrc") for name in ("half1", "half2", "mask")}
    options = ["--mask", names["mask"], "--auto", "--fit-range", "12", "5.3", "-o", str(maps / "ours")]
    options += ["--mtf", str(maps / "mtf.star")] * mtf
    result = CliRunner().invoke(main, ["postprocess", names["half1"], names["half2"], *options])
    assert result.exit_code == 0, result.output
    ours, theirs = read_blocks(maps / "ours.star"), read_blocks(maps / "theirs.star")
    for column, tolerance in (("rlnFinalResolution", 1e-4), ("rlnBfactorUsedForSharpening", 0.03)):
        assert float(ours["general"][column].iloc[0]) == pytest.approx(
            float(theirs["general"][column].iloc[0]), rel=tolerance
        )
    for kind, limit in (("UnmaskedMaps", 0.01), ("MaskedMaps", 0.01), ("Corrected", 0.1)):
        column = f"rlnFourierShellCorrelation{kind}"
        # random phases differ, and with them the corrected curve about the first of their shells
        assert np.abs(ours["fsc"][column].astype(float) - theirs["fsc"][column].astype(float)).max() < limit
    mine, his = (read_image(maps / f"{name}.mrc")[0] for name in ("ours", "theirs"))
    # RELION leaves what lies beyond the resolution to the weighting alone
    resolved = round(N * PIXEL / float(ours["general"]["rlnFinalResolution"].iloc[0])) - 1
    assert fourier_shell_correlation(mine, his)[1:resolved].min() > 0.98
    ratio = rotational_amplitude(mine)[4:resolved] / rotational_amplitude(his)[4:resolved]
    assert ratio.std() < 0.1 * ratio.mean()
