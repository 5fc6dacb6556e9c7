"""A CTF that another program fitted, held against the rings of the micrograph itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nephila.ctf import Optics
from nephila.defocus.fit_2d import lead, refine_candidates, ring_data, worth_refining
from nephila.defocus.model import RingModel, taper_shift
from nephila.defocus.profile import directional_anisotropy, ring_profile, rings_explained
from nephila.defocus.search import search
from nephila.defocus.settings import DefocusFit, DefocusSettings
from nephila.spectra import MicrographSpectrum


def check_given(
    spectrum: MicrographSpectrum, given: DefocusFit, optics: Optics, settings: DefocusSettings | None = None
) -> DefocusFit:
    """The given defocus, astigmatism and phase shift with what the micrograph's rings say about them.

    Figure of merit, resolution, score, lead over the best other defocus (negative where another one explains the rings better),
    anisotropy and profile are measured; the standard errors stay unknown (NaN). Where there are no such rings, `reason` says so
    and the values stay.
    """
    settings = settings or DefocusSettings()
    if given.failed:
        return given
    optics = replace(optics, phase_shift_deg=given.phase_shift_deg)
    data = ring_data(spectrum, settings) if spectrum.problem is None else spectrum.problem
    if isinstance(data, str):
        return replace(given, reason=data)
    model = RingModel(data, optics)
    half, turn = 0.5 * given.astigmatism, 2 * np.deg2rad(given.angle_deg)
    place = (given.defocus, float(half * np.cos(turn)), float(half * np.sin(turn)), 0.0)
    held = model.fit(place, True, False, held=True)
    model.shift = taper_shift(data, held, optics)
    held = model.fit(place, True, False, held=True)
    score = model.null_deviance() - held.deviance
    plain = replace(settings, phase_shift=False)
    starts, elsewhere = search(data, optics, plain)
    worth, others = worth_refining(starts, elsewhere) if starts else ([], [])
    fits = refine_candidates(data, optics, plain, starts[:1] + worth) if starts else []
    gap, runner_up = lead(score, given.defocus, [(s, f.defocus) for s, _, f in fits] + others, settings)
    profile = ring_profile(data, held, optics)
    resolution, merit = rings_explained(profile)
    least = settings.min_score
    return replace(
        given,
        figure_of_merit=merit,
        resolution=resolution,
        score=score,
        gap=gap,
        runner_up=runner_up,
        anisotropy=directional_anisotropy(data, held),
        profile=profile,
        optics=optics,
        reason="none" if score >= least else f"no rings at the given defocus: score {score:.0f} below {least:.0f}",
    )
