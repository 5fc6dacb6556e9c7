"""Pictures for imports: the power of imported particles beside the CTF that their table states."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nephila.errors import InputError
from nephila.figures import style

PathLike = str | os.PathLike[str]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PowerProfile:
    """Rotational average of the power of particles of similar defocus, against that of all defoci.

    Attributes
    ----------
    defocus : mean over the particles, A
    particles : how many
    frequency : [k], 1/A
    power : [k]; logarithm, less its mean over the defoci, which takes the particle's own spectrum off
    ctf2 : [k]; CTF squared, averaged over the particles' defoci, less its mean over the defoci
    """

    defocus: float
    particles: int
    frequency: Float64
    power: Float64
    ctf2: Float64


def plot_power_profiles(profiles: Sequence[PowerProfile], path: PathLike, correlation: float) -> None:
    """One panel for each defocus: the power must rise and fall where the table's CTF does. correlation : over all panels."""
    if not profiles:
        raise InputError("no power profiles to draw")
    power, wanted = (np.concatenate([getattr(p, name) for p in profiles]) for name in ("power", "ctf2"))
    scale = float(np.std(power) / max(np.std(wanted), 1e-30))
    with style.drawing(path, style.WIDTH, 1.5 * len(profiles) + 0.8) as figure:
        panels = figure.subplots(len(profiles), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, profile in zip(panels, profiles, strict=True):
            k = profile.frequency
            axes.plot(k, profile.power, color=style.BLUE, lw=1.3, label="power of the particles")
            axes.plot(
                k, scale * profile.ctf2, color=style.VERMILION, lw=1.3, ls=style.DASHES[1], label="CTF² of the table"
            )
            axes.set_yticks([])
            axes.set_title(f"{1e-4 * profile.defocus:.2f} µm", fontsize=8.5)
            axes.set_title(style.counted(profile.particles, "particle"), loc="right", fontsize=8, fontweight="normal")
        panels[0].legend(loc="upper right", ncols=2)
        panels[len(panels) // 2].set_ylabel("against the mean over the defoci")
        panels[-1].set_xlabel(f"spatial frequency (1/Å); correlation {correlation:.2f}")
