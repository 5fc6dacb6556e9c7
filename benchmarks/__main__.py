"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks import fft, kernels, relion, report, scaling
from benchmarks.measure import Row, measure_peaks
from nephila.finishing import memory_bytes

ROOT = Path(__file__).parents[1]
BOXES = "64,128,256"
PARTS = ("projection", "alignment", "reconstruction", "images", "iteration", "weak", "volumes")


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--boxes", default=BOXES, help="sides of the boxes, px (RELION: even ones up to 256)")
    parser.add_argument("--quick", action="store_true", help="boxes 64 and 128, fewer particles, one round")
    parser.add_argument("--rounds", type=int, help="how often ours and the peer run in turn (2; quick: 1)")
    parser.add_argument("--no-relion", action="store_true", help="leave RELION out though it is installed")
    parser.add_argument("--no-scaling", action="store_true", help="leave out particles, threads and start-up")
    parser.add_argument("--particles", default="1000,4000", help="particles streamed at the largest box up to 256")
    parser.add_argument("--parts", default="", help=f"only some of {', '.join(PARTS)}; printed, not written")
    parser.add_argument("--tsv", type=Path, default=ROOT / "results" / "bench.tsv")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "benchmarks.md")
    given = parser.parse_args()
    given.parts = [name for name in given.parts.split(",") if name]
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"--parts {','.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    return given


def measure(setting: kernels.Setting, quick: bool, chosen: Sequence[str]) -> Iterator[Row]:
    """All rows of one box, or those of the chosen parts."""
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "projection": lambda: kernels.projection(setting),
        "alignment": lambda: kernels.alignment(setting),
        "reconstruction": lambda: kernels.reconstruction(setting),
        "images": lambda: fft.image_transforms(setting.n),
    }
    if setting.n <= 128:
        parts["iteration"] = lambda: kernels.iteration(setting)
    if setting.n == 64:
        parts["weak"] = lambda: kernels.weak_signal(setting)
    if setting.n <= (64 if quick else 128):
        parts["volumes"] = lambda: fft.volume_transforms(setting.n)
    needed, free = 1.1 * memory_bytes(setting.n)["finish"] / 1e9, psutil.virtual_memory().available / 1e9
    for name, part in parts.items():
        if chosen and name not in chosen:
            continue
        if name == "reconstruction" and needed > free:
            print(f"{name} at box {setting.n} is left out: it needs {needed:.1f} GB, {free:.1f} GB are free")
            continue
        for row in part():
            ratio = f"{report.number(row.ratio, 2)} x {row.peer}" if row.peer else ""
            print(
                f"{row.kernel:32} {row.box:4} {report.number(row.rate):>9} /s  {report.number(row.error):>9}  {ratio}",
                flush=True,
            )
            yield row


def main() -> None:
    """Measure, print, and write the table."""
    given = options()
    boxes = [64, 128] if given.quick and given.boxes == BOXES else [int(b) for b in given.boxes.split(",")]
    with_relion = relion.installed() and not given.no_relion
    rounds = given.rounds or (1 if given.quick else 2)
    load, start = os.getloadavg()[0], time.perf_counter()
    peaks = measure_peaks(given.quick)
    lines = [report.machine(peaks, load), ""]
    print(lines[0])
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="nephila_bench_") as name:
        for n in boxes:
            folder = Path(name) / str(n)
            folder.mkdir()
            share = 0.25 if given.quick else 1.0
            # RELION 3.1 takes even boxes; its gridding takes minutes beyond 256
            setting = kernels.Setting(n, folder, rounds, share, with_relion and n % 2 == 0 and n <= 256)
            rows += measure(setting, given.quick, given.parts)
        lines += report.table(rows, peaks)
        if not given.no_scaling and not given.parts:
            cpu, wall = scaling.start_up()
            lines += ["", f"A warm process is ready (all kernels loaded) after {wall:.2f} s, {cpu:.2f} CPU s.", ""]
            folder = Path(name) / "stream"
            folder.mkdir()
            counts = tuple(int(c) for c in given.particles.split(","))
            counts = counts[:1] if given.quick else counts
            lines += scaling.particles_and_threads(folder, max([b for b in boxes if b <= 256] or boxes), counts, (1, 2))
    minutes = (time.perf_counter() - start) / 60
    lines += ["", f"Measured in {minutes:.1f} min; RELION {'beside' if with_relion else 'left out'}."]
    print("\n".join(lines))
    if not given.parts:  # a table is of one run
        report.write_tsv(given.tsv, rows)
        report.update_document(given.document, lines)


if __name__ == "__main__":
    main()
