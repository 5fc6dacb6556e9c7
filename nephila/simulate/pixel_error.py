"""The FSC that a wrong pixel size leaves: particles of a known object, corrected with the CTF that was fitted at the wrong one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.backprojection import Backprojector
from nephila.ctf import Optics, ctf_2d
from nephila.finishing import finish
from nephila.fsc import fourier_shell_correlation
from nephila.geometry import euler_matrix
from nephila.pixel_size import absorbed, refit_defocus
from nephila.simulate.points import PointObject

Float64 = npt.NDArray[np.float64]

DEFOCUS_SPREAD = 0.35  # of the mean, so that no zero of the CTF shows
RADIUS = 0.3  # of the box
B_FACTOR = 3.0
SNR = 0.3  # of the transforms, over the particle's own spectrum


@dataclass(frozen=True)
class SimulatedFsc:
    """FSCs over the shells of the box, at the nominal pixel size.

    frequency : [n // 2 + 1], 1/A
    halves : FSC of the half maps, by how the CTF was fitted
    truth : FSC with the object, likewise
    """

    frequency: Float64
    halves: dict[str, Float64]
    truth: dict[str, Float64]


def simulate_fsc(
    defocus: float,
    optics: Optics,
    nominal: float,
    true: float,
    finest: float,
    *,
    box: int = 64,
    particles: int = 1200,
    seed: int = 0,
) -> SimulatedFsc:
    """Particles with defoci about `defocus`, poses known, reconstructed with defoci refitted to `finest` A while Cs is held, and
    with both refitted.

    A refitted defocus is off by the same amount whatever the defocus, so one fit serves all particles.
    """
    rng = np.random.default_rng([seed, 223])
    target = PointObject.random(RADIUS * box * true, b_factor=B_FACTOR, seed=seed)
    cosine = rng.uniform(-1, 1, particles)
    matrices = euler_matrix(
        rng.uniform(-180, 180, particles), np.degrees(np.arccos(cosine)), rng.uniform(-180, 180, particles)
    )
    defoci = defocus * (1 + DEFOCUS_SPREAD * rng.uniform(-1, 1, particles))
    seen = target.slices(matrices, box, true) * ctf_2d(box, true, defoci, defoci, 0.0, optics)
    noise = np.sqrt(np.mean(np.abs(seen) ** 2, axis=0) / SNR)
    seen += noise / np.sqrt(2) * (rng.standard_normal(seen.shape) + 1j * rng.standard_normal(seen.shape))
    seen = seen.astype(np.complex64)

    both = absorbed(defocus, optics.cs_mm, nominal, true)
    shift = refit_defocus(defocus, optics, nominal, true, finest) - both[0]
    both_optics = Optics(optics.voltage_kv, both[1], optics.amplitude_contrast, optics.phase_shift_deg)
    scaled = defoci * (nominal / true) ** 2
    used = {"defocus refitted": (scaled + shift, optics), "defocus and Cs refitted": (scaled, both_optics)}
    volume = target.volume(box, true)
    halves, truth = {}, {}
    for name, (defocus_used, optics_used) in used.items():
        ctf = ctf_2d(box, nominal, defocus_used, defocus_used, 0.0, optics_used)
        maps = []
        for half in (0, 1):
            rows = slice(half, None, 2)
            collector = Backprojector(box, data_scale=float(np.abs(seen).std()))
            collector.insert(seen[rows], matrices[rows], ctf[rows])
            maps.append(finish(collector.partial_sum()))
        halves[name] = fourier_shell_correlation(maps[0], maps[1])
        truth[name] = fourier_shell_correlation(0.5 * (maps[0] + maps[1]), volume)
    return SimulatedFsc(np.arange(box // 2 + 1) / (box * nominal), halves, truth)
