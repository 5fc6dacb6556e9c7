"""Pictures of a defocus by hand, drawn from the average spectrum alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nephila.ctf import Optics, ctf_2d
from nephila.defocus import failed_fit
from nephila.defocus.diagnostics import ctf_figure
from nephila.defocus.polar import draw_fit_of_power, profile_of_power
from nephila.defocus_by_hand import by_hand, edge_of_spectra
from nephila.report.pictures import SPECTRUM_PART
from nephila.spectra import tile_spectra
from nephila.spectrum_rings import halves_of_power

OPTICS = Optics(300.0, 2.7, 0.1)
FIT = (21000.0, 19000.0, 35.0)


def power(n=256, pixel_size=2.0, noise=0.3, seed=1):
    """CTF^2 on a falling background, with noise."""
    half = np.fft.fftshift(ctf_2d(n, pixel_size, *FIT, OPTICS), axes=0) ** 2
    full = np.concatenate([np.roll(half[::-1, ::-1], 1, axis=0)[:, : n // 2], half[:, : n // 2]], axis=1)
    y, x = np.mgrid[0:n, 0:n] - n // 2
    rng = np.random.default_rng(seed)
    return (1 + full) * np.exp(-np.hypot(y, x) / 60) * np.exp(noise * rng.standard_normal((n, n)))


def test_the_right_defocus_explains_the_rings_and_the_angle_counts():
    merits = {}
    for name, fit in {"right": FIT, "off": (23000.0, 21000.0, 35.0), "turned": (21000.0, 19000.0, -55.0)}.items():
        curves = profile_of_power(power(), 2.0, 5.0, fit, OPTICS)
        merits[name] = float(np.corrcoef(curves["measured"], curves["fitted"])[0, 1])
        assert len({len(curve) for curve in curves.values()}) == 1
        assert curves["frequency"][-1] == pytest.approx(0.2, abs=0.003)
    assert merits["right"] > 0.9 and merits["off"] < 0.5 and merits["turned"] < merits["right"] - 0.2


def test_both_halves_agree_only_with_the_right_defocus():
    def likeness(fit):
        picture = halves_of_power(power(noise=0.1), 2.0, 5.0, fit, OPTICS, 201)
        measured = halves_of_power(power(noise=0.1), 2.0, 5.0, None, OPTICS, 201)
        right = np.s_[:, 110:190]
        return float(np.corrcoef(picture[right].ravel(), measured[right].ravel())[0, 1])

    assert likeness(FIT) > 0.8 > 0.4 > likeness((24000.0, 22000.0, 35.0))


def test_the_picture_is_drawn_and_the_spectrum_can_be_cut_out_of_it(tmp_path):
    """`SPECTRUM_PART` of the report holds the spectrum and no text, in the workflow's pictures and in those by hand."""
    noise = np.random.default_rng(0).standard_normal((512, 512))
    ctf_figure(tile_spectra(noise, 2.0), failed_fit("no rings"), tmp_path / "failed.png", "x.mrc")
    draw_fit_of_power(power(), 2.0, 5.0, FIT, OPTICS, tmp_path / "hand.png", "x.mrc")
    draw_fit_of_power(power(), 2.0, 5.0, FIT, OPTICS, tmp_path / "again.png", "x.mrc")
    assert (tmp_path / "hand.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    for name in ("failed", "hand"):
        image = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"), dtype=int)
        height, width = image.shape
        left, top, right, bottom = (
            round(part * side) for part, side in zip(SPECTRUM_PART, (width, height) * 2, strict=True)
        )
        inside = image[top + 2 : bottom - 2, left + 2 : right - 2]
        assert (inside == 255).mean() < 0.3, name
        around = [image[:, : left - 2], image[top:bottom, right + 3 : right + 7], image[: max(top - 3, 1), left:right]]
        assert all((part == 255).all() for part in around), name


def test_the_micrographs_by_hand_are_found_in_their_stacks():
    table = pd.DataFrame(
        {"rlnMicrographName": ["a", "b", "c"], "nphBatch": [1, 1, 2], "rlnDefocusU": [1e4, 2e4, 3e4],
         "rlnDefocusV": 9e3, "rlnDefocusAngle": 5.0, "nphReason": ["none", "by hand", "by hand"]}
    )  # fmt: skip
    assert by_hand(table) == [("b", 1, 1, (2e4, 9e3, 5.0)), ("c", 2, 0, (3e4, 9e3, 5.0))]
    assert edge_of_spectra(1.0) == 5.0 and edge_of_spectra(3.0) == pytest.approx(6.6)
