"""The benchmarks' own parts: exact projections, the table, the stream of particles."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import report
from benchmarks.kernels import Setting, relative_error, rotate_poses
from benchmarks.measure import Peaks, Row, in_turn
from benchmarks.phantom import ParticleSet, Phantom
from benchmarks.scaling import CyclicStack, prepare, stream
from nephila.geometry import angular_distance
from nephila.projection import FourierProjector


def test_projections_are_those_of_the_volume() -> None:
    phantom = Phantom.random(40)
    particles = ParticleSet.simulate(phantom, 5, None, ctf=False)
    projector = FourierProjector.from_volume(phantom.volume(), 2.0)
    assert relative_error(projector.project(particles.matrices, particles.shifts), particles.images) < 2e-3


def test_signal_to_noise_and_views() -> None:
    phantom = Phantom.random(32)
    clean, noisy = (ParticleSet.simulate(phantom, 200, snr, cone_share=0.75) for snr in (None, 0.5))
    ratio = clean.images.var(axis=(1, 2)).mean() / np.var(noisy.images - clean.images)
    assert ratio == pytest.approx(0.5, rel=0.05)
    assert np.mean(noisy.matrices[:, 2, 2] > 0.9) == pytest.approx(0.76, abs=0.04)
    moved = rotate_poses(clean, 2.0, 0.5)
    assert angular_distance(moved.matrices, clean.matrices) == pytest.approx(2.0, abs=1e-3)


def test_least_of_each_in_turn() -> None:
    times = iter([3.0, 10.0, 1.0, 20.0])
    assert in_turn([lambda: next(times), lambda: next(times)], 2) == [1.0, 10.0]


def test_table_and_document(tmp_path: Path) -> None:
    rows = [Row("projection", 64, 20000.0, "peer", 10000.0, 1e-3, flops=1e6), Row("alone", 128, 3.0)]
    report.write_tsv(tmp_path / "bench.tsv", rows)
    lines = (tmp_path / "bench.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["kernel", "box", "rate", "peer", "peer_rate", "ratio", "error"]
    assert lines[1].split("\t") == ["projection", "64", "20000", "peer", "10000", "2", "0.001"]
    assert lines[2].split("\t") == ["alone", "128", "3", "", "", "", ""]
    text = report.table(rows, Peaks(1e11, 3e10))
    assert "| 20,000 | 0.00100 | peer | 10,000 |" in text[2] and "20 %" in text[2]
    document = tmp_path / "benchmarks.md"
    document.write_text(f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n")
    report.update_document(document, ["new"])
    report.update_document(document, ["newer"])
    assert document.read_text() == f"# Title\n\n{report.BEGIN}\nnewer\n{report.END}\n\nafter\n"
    report.update_document(tmp_path / "none.md", ["first"])
    assert "first" in (tmp_path / "none.md").read_text()


@pytest.mark.parametrize(
    ("value", "text"), [(float("nan"), ""), (0.0, "0"), (23456.0, "23,500"), (0.00123456, "0.00123")]
)
def test_numbers(value: float, text: str) -> None:
    assert report.number(value) == text


def test_sizes_grow_with_the_box() -> None:
    assert [Setting(n, Path()).count("band") for n in (64, 128, 256)] == [20, 32, 48]
    assert Setting(64, Path()).count("align") > Setting(96, Path()).count("align") > Setting(128, Path()).count("align")


def test_stream_repeats_the_stack(tmp_path: Path) -> None:
    prepare(tmp_path, 24, 40)
    stack = CyclicStack(tmp_path / "particles.mrcs", 100)
    assert stack.shape == (100, 24, 24) and len(stack) == 100
    np.testing.assert_array_equal(stack[30:50], np.concatenate([stack[30:40], stack[0:10]]))
    for local in (False, True):
        spent = stream(tmp_path, 24, 50, threads=2, local=local)
        assert spent["align"] > 0 and spent["peak_gb"] < 4
