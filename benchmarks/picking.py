"""Picking on simulated micrographs with known truth, RELION's LoG picker beside: `python -m benchmarks.picking`.

Each set is one molecule on 2048 x 2048 px with the noise of low-dose micrographs: shot noise 1.8 and structural noise 0.3
times the deviation of a particle's projection, per pixel of the micrograph; envelope B 100 A^2, defocus 0.6 to 4 um,
astigmatism to 1500 A, gradients of ice, dark contaminations. A pick is right within a quarter of the diameter of a
particle's centre; each particle counts once.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.measure import child_seconds
from nephila.ctf import Optics
from nephila.fourier import filter_shells, lowpass
from nephila.io.micrographs import read_micrograph
from nephila.io.tables import read_blocks
from nephila.picking import (
    BlobSettings,
    Picks,
    TemplateSet,
    TemplateSettings,
    candidates_table,
    choose_picks,
    pick_blobs,
    pick_by_templates,
)
from nephila.simulate.density import Atoms, density
from nephila.simulate.micrographs import MicrographSettings, Molecule, simulate_micrograph
from nephila.simulate.phantom import build_phantom
from nephila.simulate.project import BOX_DIAMETERS, write_counts

Float32 = npt.NDArray[np.float32]
OPTICS = Optics(300.0, 2.7, 0.1)
SHOT, STRUCTURAL = 1.8, 0.3
TOLERANCE = 0.25
REFERENCES = ("sharp", "40 A", "other conformation")
ZERO_MEAN_CUT = 60.0
HINGE_DEG = 25.0


@dataclass(frozen=True)
class Kind:
    """A kind of molecule: phantom of about `diameter` A, micrographs of `pixel_size` with `particles` each."""

    diameter: float
    pixel_size: float
    particles: int
    zero_mean: bool = False


KINDS = {
    "ordinary": Kind(180.0, 2.8, 110),
    "ordinary-2A": Kind(180.0, 2.0, 80),
    "ordinary-3A": Kind(180.0, 3.0, 110),
    "large": Kind(260.0, 2.8, 90),
    "small": Kind(120.0, 2.8, 150),
    "zero-mean": Kind(200.0, 2.8, 110, zero_mean=True),
}


@dataclass
class PickingSet:
    """Micrographs of one molecule with their truth.

    volume, other : the molecule and another conformation of it, at `pixel_size`; diameter : A
    truth : by micrograph, exact centres [m, 2] (x, y), px; defocus : by micrograph, U, V (A), angle (deg)
    """

    folder: Path
    pixel_size: float
    diameter: float
    volume: Float32
    other: Float32
    truth: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    defocus: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    def read(self, name: str) -> Float32:
        """A micrograph, protein bright."""
        return read_micrograph(self.folder / name, self.pixel_size, "dark").image


def set_settings(kind: Kind, particles: int) -> MicrographSettings:
    """What the micrographs of a kind are like."""
    return MicrographSettings(
        shape=(2048, 2048),
        pixel_size=kind.pixel_size,
        particles=particles,
        defocus_range=(6000.0, 40000.0),
        max_astigmatism=1500.0,
        structural_noise=STRUCTURAL * kind.pixel_size / 3,
        noise=SHOT * kind.pixel_size / 3,
        ice_gradient=1.5,
        dirt=3.0,
    )


def make_set(kind: Kind, seed: int, micrographs: int, folder: Path, empty: int = 0) -> PickingSet:
    """Simulate a set into `folder`; what lies there already is used. `empty` more micrographs hold no particles."""
    from nephila.fast_sides import good_box

    folder.mkdir(parents=True, exist_ok=True)
    atoms = build_phantom(kind.diameter, seed)
    box = good_box(BOX_DIAMETERS * atoms.diameter / kind.pixel_size)
    volume, other = (_finish(density(a, box, kind.pixel_size), kind) for a in (atoms, bend(atoms)))
    out = PickingSet(folder, kind.pixel_size, atoms.diameter, volume, other)
    molecule = Molecule.from_volume(out.volume, kind.pixel_size, out.diameter)
    for number in range(1, micrographs + empty + 1):
        settings = set_settings(kind, kind.particles if number <= micrographs else 0)
        name, kept = f"mic_{number:03d}.mrc", folder / f"mic_{number:03d}.npz"
        if not kept.exists():
            made = simulate_micrograph(molecule, OPTICS, settings, seed, number)
            write_counts(folder / name, made.image, kind.pixel_size)
            p = made.particles
            centres = [(p[f"rlnCoordinate{a}"] - p[f"rlnOrigin{a}Angst"] / kind.pixel_size).to_numpy() for a in "XY"]
            defocus = (made.defocus_u, made.defocus_v, made.defocus_angle)
            np.savez(kept, centres=np.stack(centres, axis=1), defocus=np.array(defocus))
        with np.load(kept) as stored:
            out.truth[name] = stored["centres"]
            u, v, angle = (float(value) for value in stored["defocus"])
            out.defocus[name] = u, v, angle
    return out


def _finish(volume: Float32, kind: Kind) -> Float32:
    """Without its low frequencies (63 % are gone at 60 A) where the kind has none."""
    if not kind.zero_mean:
        return volume
    k = np.arange(len(volume)) / (len(volume) * kind.pixel_size)
    return filter_shells(volume, 1 - np.exp(-((k * ZERO_MEAN_CUT) ** 2)))


def bend(atoms: Atoms) -> Atoms:
    """Another conformation: what lies beyond a third of the radius towards the farthest atom turned about a hinge there."""
    from nephila.geometry import rotation_vector_to_matrix

    x = atoms.positions
    axis = x[np.argmax((x**2).sum(axis=1))]
    radius = float(np.linalg.norm(axis))
    axis = axis / radius
    hinge = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
    turn = rotation_vector_to_matrix(np.deg2rad(HINGE_DEG) * hinge / np.linalg.norm(hinge))
    pivot, moved = axis * radius / 3, x @ axis > radius / 3
    out = x.copy()
    out[moved] = (x[moved] - pivot) @ turn.T + pivot
    return Atoms(out - np.average(out, axis=0, weights=atoms.weights), atoms.weights)


@dataclass(frozen=True)
class Score:
    """How one method did on one set: shares of right picks and of found particles, the lowest of a micrograph's recalls,
    median and 90th percentile of the distance from the centre in diameters, CPU seconds per micrograph with reading, of
    making the templates; what the picks' model expected of precision; picks on micrographs without particles."""

    precision: float
    recall: float
    lowest: float
    centring: float
    centring_90: float
    seconds: float
    start: float = 0.0
    expected: float = float("nan")
    on_empty: float = float("nan")
    note: str = ""


def score_picks(picks: dict[str, npt.NDArray[np.float64]], data: PickingSet) -> Score:
    """Compare coordinates [m, 2] (x, y) by micrograph with the truth."""
    near = TOLERANCE * data.diameter / data.pixel_size
    hits, number, all_true, recalls = 0, 0, 0, []
    distances: list[float] = []
    empty = []
    for name, truth in data.truth.items():
        found = picks.get(name, np.zeros((0, 2)))
        if not len(truth):
            empty.append(len(found))
            continue
        mine = match(found, truth, near)
        hits, number, all_true = hits + len(mine), number + len(found), all_true + len(truth)
        recalls.append(len(mine) / len(truth))
        distances += mine
    sizes = np.array(distances or [np.nan]) / (data.diameter / data.pixel_size)
    return Score(
        hits / max(number, 1),
        hits / max(all_true, 1),
        min(recalls),
        float(np.median(sizes)),
        float(np.percentile(sizes, 90)),
        float("nan"),
        on_empty=float(np.mean(empty)) if empty else float("nan"),
    )


def match(found: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], near: float) -> list[float]:
    """Distances (px) of the pairs of a pick and a particle, nearest first, each used once."""
    from scipy.spatial import cKDTree

    if not len(found) or not len(truth):
        return []
    pairs = cKDTree(found).sparse_distance_matrix(cKDTree(truth), near, output_type="coo_matrix")
    used_found: set[int] = set()
    used_true: set[int] = set()
    out = []
    for k in np.lexsort((pairs.col, pairs.row, pairs.data)):
        f, t = int(pairs.row[k]), int(pairs.col[k])
        if f not in used_found and t not in used_true:
            used_found.add(f)
            used_true.add(t)
            out.append(float(pairs.data[k]))
    return out


def pick_all(data: PickingSet, pick: Callable[[str], Picks]) -> tuple[Score, pd.DataFrame]:
    """Candidates of all micrographs, chosen by the one threshold rule; the score and the table."""
    picks, times = {}, []
    for name in data.truth:
        start = time.process_time()
        picks[name] = pick(name)
        times.append(time.process_time() - start)
    start = time.process_time()
    table, model = choose_picks(candidates_table(picks), None, data.pixel_size, data.diameter)
    choice = (time.process_time() - start) / max(len(times), 1)
    score = score_picks(kept_coordinates(table), data)
    expected = [p for p in model.expected_precision.values() if np.isfinite(p)]
    seconds = float(np.median(times)) + choice
    note = "" if model.reason == "none" else model.reason
    kept = {"seconds": seconds, "expected": float(np.mean(expected)) if expected else float("nan"), "note": note}
    return Score(**{**score.__dict__, **kept}), table


def kept_coordinates(table: pd.DataFrame) -> dict[str, npt.NDArray[np.float64]]:
    """Coordinates [m, 2] of the picks by micrograph."""
    kept = table[table["nphKeep"] == 1]
    columns = ["rlnCoordinateX", "rlnCoordinateY"]
    return {str(n): part[columns].to_numpy(float) for n, part in kept.groupby("rlnMicrographName")}


def by_blob(data: PickingSet, settings: BlobSettings | None = None) -> Score:
    """The blob picker, with the micrographs' CTF."""

    def pick(name: str) -> Picks:
        return pick_blobs(data.read(name), data.pixel_size, data.diameter, settings, data.defocus[name], OPTICS)

    pick(next(iter(data.truth)))  # compiles
    return pick_all(data, pick)[0]


def by_templates(data: PickingSet, reference: str, settings: TemplateSettings | None = None) -> Score:
    """Local correlation with projections of one of REFERENCES."""
    volume = data.other if reference == "other conformation" else data.volume
    if reference == "40 A":
        volume = lowpass(volume, data.pixel_size, 40.0)
    start = time.process_time()
    templates = TemplateSet.from_volume(volume, data.pixel_size, data.diameter, settings)
    made = time.process_time() - start

    def pick(name: str) -> Picks:
        return pick_by_templates(data.read(name), data.pixel_size, templates, data.defocus[name], OPTICS)

    pick(next(iter(data.truth)))  # compiles
    score = pick_all(data, pick)[0]
    return Score(**{**score.__dict__, "start": made})


def by_relion(data: PickingSet) -> Score:
    """`relion_autopick --LoG` with diameters 0.8 to 1.1 of the particle's, its own threshold; and, in the note, what the
    cut at its figure of merit with the best F1 against the truth would give."""
    out = data.folder / "relion"
    shutil.rmtree(out, ignore_errors=True)
    low, high = 0.8 * data.diameter, 1.1 * data.diameter
    command = ["relion_autopick", "--i", "mic_*.mrc", "--odir", "relion/", "--pickname", "log", "--LoG"]
    command += ["--LoG_diam_min", f"{low:.1f}", "--LoG_diam_max", f"{high:.1f}", "--angpix", f"{data.pixel_size}"]
    seconds = child_seconds(command, data.folder) / len(data.truth)
    found, merit = {}, {}
    for name in data.truth:
        path = out / name.replace(".mrc", "_log.star")
        table = next(iter(read_blocks(path).values())) if path.exists() else pd.DataFrame()
        found[name] = table[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(float) if len(table) else np.zeros((0, 2))
        merit[name] = table["rlnAutopickFigureOfMerit"].to_numpy(float) if len(table) else np.zeros(0)
    score = score_picks(found, data)
    cuts = [
        score_picks({n: found[n][merit[n] >= cut] for n in found}, data)
        for cut in np.percentile(np.concatenate(list(merit.values())), np.arange(0, 90, 5))
    ]
    best = max(cuts, key=lambda s: 2 * s.precision * s.recall / max(s.precision + s.recall, 1e-9))
    note = f"at its best cut, chosen by the truth: {best.precision:.2f} and {best.recall:.2f}"
    return Score(**{**score.__dict__, "seconds": seconds, "note": note})


HEADER = [
    "| set | picker | precision | recall | lowest recall | off centre, median (90 %) | CPU s | on empty | note |",
    "|---|---|---:|---:|---:|---:|---:|---:|---|",
]


def line(name: str, picker: str, s: Score) -> str:
    """A row of the table."""
    start = f"templates {s.start:.1f} s; " if s.start else ""
    expected = f"expects precision {s.expected:.2f}; " if np.isfinite(s.expected) else ""
    empty = f"{s.on_empty:.1f}" if np.isfinite(s.on_empty) else ""
    note = f"{start}{expected}{s.note}".strip("; ")
    return (
        f"| {name} | {picker} | {s.precision:.3f} | {s.recall:.3f} | {s.lowest:.2f} | {s.centring:.3f} ({s.centring_90:.3f}) "
        f"| {s.seconds:.3f} | {empty} | {note} |"
    )


def measure(data: PickingSet, name: str, pickers: Sequence[str]) -> Iterator[str]:
    """Rows of one set."""
    for picker in pickers:
        if picker == "blob":
            yield line(name, "blob", by_blob(data))
        elif picker == "relion" and shutil.which("relion_autopick"):
            yield line(name, "RELION LoG", by_relion(data))
        elif picker == "templates":
            for reference in REFERENCES:
                yield line(name, f"reference, {reference}", by_templates(data, reference))
        elif picker in REFERENCES:
            yield line(name, f"reference, {picker}", by_templates(data, picker))


def main() -> None:
    """Simulate, pick, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picking", description=__doc__)
    parser.add_argument("--sets", default="ordinary,small,zero-mean", help=f"of: {', '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=202601, help="of molecules and micrographs")
    parser.add_argument("--micrographs", type=int, default=8)
    parser.add_argument("--empty", type=int, default=1, help="micrographs without particles besides")
    parser.add_argument("--pickers", default="blob,templates,relion", help="these, or single references")
    parser.add_argument("--folder", type=Path, required=True, help="where the micrographs are kept")
    given = parser.parse_args()
    print("\n".join(HEADER))
    for name in given.sets.split(","):
        folder = given.folder / f"{name}_{given.seed}"
        data = make_set(KINDS[name], given.seed, given.micrographs, folder, given.empty)
        for row in measure(data, name, given.pickers.split(",")):
            print(row, flush=True)


if __name__ == "__main__":
    main()
