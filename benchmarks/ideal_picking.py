"""What picking could reach at best on simulated micrographs: `python -m benchmarks.ideal_picking --folder FOLDER`.

A matched filter that knows every particle's projection, the CTF and the noise's spectrum. "one": the observer knows which
orientation to look for, so that false maxima are those of a single template's map; "all": it knows the orientations that a
micrograph holds, and not which of them lies where, so that every place has the best of all of them. Both thresholds are those of
the best F1 against the truth, and places under dirt are known. A picker has to search through all orientations too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.picking import KINDS, OPTICS, TOLERANCE, PickingSet, by_templates, make_set, set_settings
from nephila.ctf import ctf_2d
from nephila.fourier import irfft2, rfft2
from nephila.geometry import euler_matrix
from nephila.picking.peaks import local_maxima
from nephila.picking.settings import PeakSettings, TemplateSettings
from nephila.simulate.micrographs import (
    _DIRT,
    FILE_MEAN,
    FILE_STD,
    NOISE_PIXEL_SIZE,
    MicrographSettings,
    Molecule,
    _dirt_thickness,
    _draw_dirt,
    simulate_micrograph,
)

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_THINNED = 5  # false maxima are counted in the maps of every fifth template


@dataclass
class Evidence:
    """Scores of particles, and of maxima elsewhere, of one observer; `templates`: maps that the latter come from."""

    true: Float64
    false: Float64
    templates: float

    def best(self) -> tuple[float, float]:
        """Precision and recall at the threshold of the best F1."""
        cuts = np.sort(self.true)
        found = len(cuts) - np.arange(len(cuts))
        wrong = (self.false[None, :] >= cuts[:, None]).sum(axis=1) / self.templates
        f1 = 2 * found / (len(cuts) + found + wrong)
        top = int(f1.argmax())
        return float(found[top] / (found[top] + wrong[top])), float(found[top] / len(cuts))


def observe(
    data: PickingSet, kind_settings: MicrographSettings, seed: int, number: int, finest: float
) -> tuple[Evidence, Evidence]:
    """What both observers see of a micrograph: "one" and "all". finest: A, of what the filters hold."""
    molecule = Molecule.from_volume(data.volume, data.pixel_size, data.diameter)
    made = simulate_micrograph(molecule, OPTICS, kind_settings, seed, number)
    table, p = made.particles, data.pixel_size
    # in units of a projection's deviation, as it is per pixel
    image = (FILE_MEAN - made.image.astype(np.float32)) / FILE_STD
    image *= np.float32(np.hypot(kind_settings.noise, kind_settings.structural_noise))
    shape = image.shape
    ky, kx = np.fft.fftfreq(shape[0], p)[:, None], np.fft.rfftfreq(shape[1], p)[None, :]
    k2 = kx**2 + ky**2
    ctf = ctf_2d(shape, p, made.defocus_u, made.defocus_v, made.defocus_angle, OPTICS, kind_settings.b_factor)
    noise = kind_settings.noise**2 + (kind_settings.structural_noise * ctf) ** 2  # of a pixel, in signals
    scale = NOISE_PIXEL_SIZE / p
    band = (np.exp(-((k2 * finest**2) ** 2)) * (1 - np.exp(-((k2 * (2 * data.diameter) ** 2) ** 2)))).astype(np.float32)
    whitened = rfft2(image - image.mean()) * (band * ctf / noise).astype(np.float32)
    centres = np.stack([table[f"rlnCoordinate{a}"] - table[f"rlnOrigin{a}Angst"] / p for a in "XY"], axis=1)
    near = TOLERANCE * data.diameter / p
    spacing = PeakSettings().min_distance * data.diameter / p
    edge = (PeakSettings().edge * data.diameter / p,) * 2
    at_most = int(1.5 * np.prod(shape) * p**2 / data.diameter**2)
    # nearer maxima give way to the particle
    allowed = _elsewhere(shape, centres, spacing) & _away(dirt_of(kind_settings, seed, number), data.diameter / (2 * p))
    best: Float32 = np.full(shape, -np.inf, dtype=np.float32)
    true, false = [], []
    projections = molecule.projector.project(
        euler_matrix(*(table[f"rlnAngle{a}"].to_numpy() for a in ("Rot", "Tilt", "Psi"))).reshape(-1, 3, 3)
    )
    for i, (place, projection) in enumerate(zip(centres, projections, strict=True)):
        template = rfft2(_corner(projection / (molecule.signal * scale), shape))
        energy = float((np.abs(template) ** 2 * band**2 * ctf**2 / noise)[:, 1:].sum() * 2) / np.prod(shape)
        product = whitened * np.conj(template)
        score = irfft2(product, shape[1]) / np.float32(np.sqrt(energy))
        if i % _THINNED == 0:
            false.append(_maxima(score, allowed, spacing, edge, at_most))
        true.append(_best_near(score, place, near))
        np.maximum(best, score, out=best)
    every = np.array([_best_near(best, place, near) for place in centres])
    one = Evidence(np.array(true), np.concatenate(false), len(false))
    return one, Evidence(every, _maxima(best, allowed, spacing, edge, at_most), 1)


def _maxima(
    score: Float32, allowed: npt.NDArray[np.bool_], spacing: float, edge: tuple[float, float], at_most: int
) -> Float64:
    """Values of the local maxima where they are allowed."""
    rows, columns = local_maxima(np.where(allowed, score, np.float32(-1e9)), spacing, edge, at_most)
    return score[rows, columns].astype(np.float64)


def _corner(image: Float32, shape: tuple[int, ...]) -> Float32:
    """An image with its centre at index 0 of an empty field."""
    n = image.shape[0]
    out = np.zeros(shape, dtype=np.float32)
    out[:n, :n] = image
    return np.roll(out, (-(n // 2), -(n // 2)), axis=(0, 1))


def _best_near(score: Float32, place: Float64, near: float) -> float:
    """The highest value within `near` px of (x, y)."""
    y, x = np.ogrid[: score.shape[0], : score.shape[1]]
    low = np.maximum((place - near - 1).astype(int), 0)
    box = slice(low[1], int(place[1] + near) + 2), slice(low[0], int(place[0] + near) + 2)
    inside = np.hypot(y[box[0]] - place[1], x[:, box[1]] - place[0]) <= near
    return float(score[box][inside].max())


def _elsewhere(shape: tuple[int, ...], centres: Float64, near: float) -> npt.NDArray[np.bool_]:
    """Pixels further than `near` px from all centres (x, y)."""
    marked = np.zeros(shape, dtype=bool)
    marked[tuple(np.clip(np.rint(centres[:, ::-1]).astype(int), 0, np.array(shape) - 1).T)] = True
    return _away(marked, near)


def _away(marked: npt.NDArray[np.bool_], near: float) -> npt.NDArray[np.bool_]:
    """Pixels further than `near` px from those marked."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~marked) > near) if marked.any() else ~marked


def dirt_of(settings: MicrographSettings, seed: int, number: int) -> npt.NDArray[np.bool_]:
    """Pixels under the contamination of a simulated micrograph."""
    rng = np.random.default_rng([seed, number, _DIRT])
    return np.asarray(_dirt_thickness(_draw_dirt(settings, rng), settings) > 0.05)


def rows(given: argparse.Namespace) -> Iterator[str]:
    """The table, a row per micrograph of less defocus than asked for."""
    kind = KINDS[given.set]
    data = make_set(kind, given.seed, given.micrographs, given.folder / f"{given.set}_{given.seed}", 0)
    yield "| micrograph | defocus, um | SNR, 10 %, median | one: precision, recall | all: precision, recall | CPU s |"
    yield "|---|---:|---|---|---|---:|"
    pooled: list[tuple[Evidence, Evidence]] = []
    chosen = []
    for number, (name, defocus) in enumerate(data.defocus.items(), 1):
        if 0.5 * (defocus[0] + defocus[1]) > 1e4 * given.below:
            continue
        chosen.append(name)
        start = time.process_time()
        found = observe(data, set_settings(kind, kind.particles), given.seed, number, given.finest)
        pooled.append(found)
        texts = ["{:.3f}, {:.3f}".format(*e.best()) for e in found]
        snr = np.percentile(found[0].true, [10, 50])
        yield (
            f"| {name} | {(defocus[0] + defocus[1]) / 2e4:.2f} | {snr[0]:.1f}, {snr[1]:.1f} | {texts[0]} | {texts[1]} "
            f"| {time.process_time() - start:.1f} |"
        )
    if not pooled:
        return
    for i, label in enumerate(("one", "all")):
        parts = [found[i] for found in pooled]
        whole = Evidence(
            np.concatenate([e.true for e in parts]), np.concatenate([e.false for e in parts]), parts[0].templates
        )
        yield "{}: precision {:.3f}, recall {:.3f} over {} micrographs".format(label, *whole.best(), len(parts))
    data.truth = {name: data.truth[name] for name in chosen}
    tried = {
        "ours": TemplateSettings(),
        "finer: in-plane 5 degrees": TemplateSettings(fine_in_plane_deg=5.0),
        "finer: 720 views": TemplateSettings(fine_views=720),
        "to 10 A": TemplateSettings(resolution_limit=10.0, fine_pixels_per_diameter=30.0),
    }
    for name in given.ours.split(",") if given.ours else []:
        score = by_templates(data, "sharp", tried[name])
        yield f"{name}: precision {score.precision:.3f}, recall {score.recall:.3f}, {score.seconds:.2f} CPU s"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ideal_picking", description=__doc__)
    parser.add_argument("--set", default="small", choices=list(KINDS))
    parser.add_argument("--seed", type=int, default=202602)
    parser.add_argument("--micrographs", type=int, default=5)
    parser.add_argument("--below", type=float, default=1.5, help="um of defocus")
    parser.add_argument("--finest", type=float, default=8.0, help="A, of what the filters hold")
    parser.add_argument(
        "--ours", default="", help="settings of the picker to run beside, joined by commas: ours, to 10 A, ..."
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the micrographs are kept")
    for row in rows(parser.parse_args()):
        print(row, flush=True)


if __name__ == "__main__":
    main()
